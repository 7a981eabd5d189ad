"""Fine-tuning on data of one's own: what is drawn, what is learned, what is saved."""

import dataclasses
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from florence_lite.answers import Instance
from florence_lite.checkpoint import load_checkpoint
from florence_lite.data import read_dataset
from florence_lite.data.augment import Augmentation
from florence_lite.data.rows import AnswerRow, ImageSource, Query, int64_of, schema, to_record
from florence_lite.florence import Florence
from florence_lite.results import Result
from florence_lite.train.config import DataConfig
from florence_lite.train.finetuning import finetune, read_sources
from florence_lite.train.folders import saved_step
from florence_lite.train.sources import MixedBatches, Source
from tests.tiny import noise_image
from tests.train.squares import TASKS, settings, write_base, write_squares
from tests.train.stopped import Stopped, losses


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def base(request, toy_tokenizer, tmp_path_factory) -> Path:
    return write_base(toy_tokenizer, request.param, tmp_path_factory.mktemp(request.param), dropout=0.1)


def test_the_loss_falls_and_the_checkpoint_answers(base, data, tmp_path):
    folder = finetune(settings(base, data, tmp_path, steps=30, save_every=5))
    curve = losses(tmp_path)
    assert curve[-1] < 0.8 * curve[0]
    florence = Florence.from_pretrained(folder)
    assert florence.tokenizer.to_json() == Florence.from_pretrained(base).tokenizer.to_json()
    assert florence.run(data / "0.png", "<OD>", max_new_tokens=8).token_ids


def test_on_the_answers_of_a_checkpoint(base, data, tmp_path):
    """A folder of `annotate`, whose images lie in a tar."""
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    rows = []
    with tarfile.open(tmp_path / "squares.tar", "w") as tar:
        for sample in read_dataset(data):
            tar.add(sample.image, sample.name)
            content = sample.image.read_bytes()
            source = f"{tmp_path}/squares.tar!{sample.name}"
            image = ImageSource(int64_of(content), source, sample.annotation.size_wh, len(content))
            instances = [Instance(item.label, box=item.box, score=0.5) for item in sample.annotation.objects]
            rows.append(AnswerRow(image, Query("<OD>", "c", "r"), Result("<OD>", image.size_wh, "", instances)))
    (tmp_path / "answers" / "parts").mkdir(parents=True)
    table = pa.Table.from_pylist([to_record(row) for row in rows], schema())
    pq.write_table(table, tmp_path / "answers" / "parts" / "0.parquet")
    finetune(settings(base, tmp_path / "answers", tmp_path / "answered"))
    finetune(settings(base, data, tmp_path / "plain"))
    assert losses(tmp_path / "answered") == losses(tmp_path / "plain")


def test_a_frozen_tower_stays_as_it_is(base, data, tmp_path):
    before = load_checkpoint(base).state_dict()
    after = load_checkpoint(finetune(settings(base, data, tmp_path, freeze_vision=True))).state_dict()
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"embed_tokens", "encoder", "decoder"}


def test_adapters(base, data, tmp_path):
    """The folder holds the adapter alone; merged into its base, it changes what it was trained on and nothing else."""
    pytest.importorskip("peft")
    folder = finetune(settings(base, data, tmp_path, lora_rank=4))
    assert {path.name for path in folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # none of them is private
    assert not (folder / "model.safetensors").exists()
    before, after = load_checkpoint(base).state_dict(), Florence.from_pretrained(folder).model.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)


def test_adapters_on_the_output_layer(base, data, tmp_path):
    pytest.importorskip("peft")
    folder = finetune(settings(base, data, tmp_path, lora_rank=2, lora_targets=("v_proj", "lm_head")))
    before, after = load_checkpoint(base), Florence.from_pretrained(folder).model
    assert not torch.equal(after.lm_head.weight, before.embed_tokens.weight)
    assert torch.equal(after.embed_tokens.weight, before.embed_tokens.weight)


def test_adapters_on_layers_that_are_not_there(base, data, tmp_path):
    pytest.importorskip("peft")
    with pytest.raises(
        ValueError, match=r"no layers called \['linear', 'o_proj'\]; choose from \['fc1', 'fc2', 'k_proj'"
    ):
        finetune(settings(base, data, tmp_path, lora_rank=4, lora_targets=("q_proj", "o_proj", "linear")))
    with pytest.raises(ValueError, match="lora_targets is empty"):
        finetune(settings(base, data, tmp_path, lora_rank=4, lora_targets=()))


def test_resumed_the_weights_are_the_same(base, data, tmp_path, monkeypatch):
    whole = finetune(settings(base, data, tmp_path / "whole", steps=4, save_every=2))
    part = settings(base, data, tmp_path / "part", steps=4, save_every=2)

    def stop(*arguments, **options):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("florence_lite.train.finetuning.save_checkpoint", stop)
        with pytest.raises(Stopped):
            finetune(dataclasses.replace(part, evaluate_every=3))
    assert saved_step(tmp_path / "part" / "state") == 2
    assert_same_weights(whole, finetune(part))


def assert_same_weights(one: Path, other: Path):
    ours, theirs = load_checkpoint(one).state_dict(), load_checkpoint(other).state_dict()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_a_data_set_that_is_generated(base, data, tmp_path):
    asked = []

    def draw(split, size_wh):
        asked.append((split, size_wh))
        return list(read_dataset(data))

    run = dataclasses.replace(settings(base, data, tmp_path, steps=2), data=(DataConfig("dreams", TASKS),))
    assert load_checkpoint(finetune(run, {"dreams": draw}))
    assert asked == [("train", (64, 48))] and len(losses(tmp_path)) == 1
    with pytest.raises(FileNotFoundError, match="dreams"):
        finetune(run)


# ---- too long answers


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> Path:
    return write_squares(tmp_path_factory.mktemp("crowded"), per_image=60)


def test_an_answer_that_does_not_fit_is_told_before_training(base, crowded, tmp_path):
    with pytest.raises(ValueError, match=r"image 0.png: a row of task <OD> has \d+ tokens; the network takes 160"):
        finetune(settings(base, crowded, tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_shortened_answers(base, crowded, tmp_path, capsys):
    """They lose whole objects and teach no end."""
    short = DataConfig(str(crowded), TASKS, shorten=True)
    run = dataclasses.replace(settings(base, crowded, tmp_path, steps=1), data=(short,))
    folder = finetune(run)
    assert "6 answers of <OD> are too long: they lose their last objects" in " ".join(capsys.readouterr().out.split())
    florence = Florence.from_pretrained(folder)
    source = read_sources(run, florence.model, florence.tokenizer, florence.preprocessor)[0]
    row = source.collate.row("<OD>", source.samples[0].annotation, np.random.default_rng(0))
    vocabulary, width = florence.tokenizer.vocabulary, len(florence.tokenizer.encode_plain("dog"))
    assert row.shortened and vocabulary.eos not in row.answer
    assert (len(row.answer) - width) % 4 == 0 and 160 - 5 < len(row.start) + len(row.answer) < 160


# ---- prompts that cannot be asked


def write_phrases(folder: Path, *phrases: str) -> DataConfig:
    """One picture with one object, which all phrases mean."""
    folder.mkdir()
    noise_image(0).save(folder / "0.png")
    objects = [{"label": "dog", "box": [10, 10, 40, 30]}]
    line = {"image": "0.png", "objects": objects, "expressions": [{"phrase": each, "objects": [0]} for each in phrases]}
    (folder / "annotations.jsonl").write_text(json.dumps(line) + "\n")
    return DataConfig(str(folder), {"<OPEN_VOCABULARY_DETECTION>": 1})


def test_prompts_that_cannot_be_asked_are_left_out_and_told_before_training(base, tmp_path, capsys):
    data = write_phrases(tmp_path / "data", "salt<and>pepper", "the dog", "a <poly>", *["x<sep>"] * 11)
    finetune(dataclasses.replace(settings(base, tmp_path / "data", tmp_path / "run", steps=2), data=(data,)))
    told = " ".join(capsys.readouterr().out.split())
    assert "13 prompts are left out, for they cannot be asked:" in told and "… and 3 more" in told
    assert "image 0.png: task <OPEN_VOCABULARY_DETECTION>: phrases[0]='salt<and>pepper'" in told
    assert "'a <poly>' holds <poly>" in told
    assert len(losses(tmp_path / "run")) == 1


def test_a_data_set_that_teaches_nothing(base, tmp_path):
    data = write_phrases(tmp_path / "data", "salt<and>pepper")
    run = dataclasses.replace(settings(base, tmp_path / "data", tmp_path / "run"), data=(data,))
    with pytest.raises(ValueError, match=r"teaches nothing about <OPEN_.*1 prompts cannot be asked.*salt<and>pepper"):
        finetune(run)
    assert not (tmp_path / "run" / "checkpoint").exists()


# ---- what is drawn


class Collate:
    """Stands in for the collator: a batch is its pairs."""

    rates = TASKS

    def __call__(self, pairs, rng, first):
        return pairs


def sources(data, *weights):
    return [Source(read_dataset(data), Collate(), weight) for weight in weights]


def boxes_of(source, numbers, seed=3):
    return [source.draw(n, np.random.default_rng(0), seed, Augmentation())[1].objects[0].box for n in numbers]


def test_every_epoch_has_every_sample_once(data):
    boxes = boxes_of(sources(data, 1.0)[0], range(12))
    assert len(set(boxes[:6])) == len(set(boxes[6:])) == 6
    assert boxes[:6] != boxes[6:]


def test_batches_do_not_depend_on_where_a_run_began_nor_on_who_shares_it(data):
    config = settings("base", data, "out", steps=5, batch=4, crops=0.5)

    def batches(first, *parts):
        return MixedBatches(config, sources(data, 1.0, 1.0), first, parts)

    whole, rest, halves = batches(0, range(4)), batches(2, range(4)), batches(0, range(2), range(2, 4))
    assert (len(whole), len(rest)) == (5, 3)

    def told(parts):
        return [annotation for part in parts for _, annotation in part]

    assert [told(whole[i]) for i in (2, 3, 4)] == [told(rest[i]) for i in range(3)]
    assert [told(whole[i]) for i in range(5)] == [told(halves[i]) for i in range(5)]


def test_weights_of_data_sets(data):
    config = settings("base", data, "out", steps=400)
    plan = MixedBatches(config, sources(data, 3.0, 1.0), 0, [range(3)]).plan
    assert np.mean([number == 0 for number, _ in plan]) == pytest.approx(0.75, abs=0.06)
    for number in (0, 1):
        assert [before for source, before in plan if source == number] == list(
            range(sum(source == number for source, _ in plan))
        )


def test_flips(data):
    source = sources(data, 1.0)[0]
    plain = source.draw(0, np.random.default_rng(0), 0, Augmentation())
    mirrored = source.draw(0, np.random.default_rng(0), 0, Augmentation(flips=1.0))
    x0, y0, x1, y1 = plain[1].objects[0].box
    assert mirrored[1].objects[0].box == (90 - x1, y0, 90 - x0, y1)
    assert np.array_equal(np.asarray(mirrored[0]), np.asarray(plain[0])[:, ::-1])


def write_captions(folder: Path, *captions: str) -> Path:
    """Squares with captions in COCO's format beside their boxes."""
    write_squares(folder)
    images = [{"id": n, "file_name": f"{n}.png", "width": 90, "height": 70} for n in range(len(captions))]
    annotations = [{"id": n, "image_id": n, "caption": caption} for n, caption in enumerate(captions)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


@pytest.mark.parametrize(
    "tasks, language, mirrored",
    [
        (TASKS, None, 6),  # captions are not asked for
        ({"<CAPTION>": 1}, None, 3),
        ({"<OD>": 1, "<CAPTION>": 1}, None, 3),
        ({"<CAPTION>": 1}, "en", 5),
    ],
)
def test_words_that_may_tell_sides_keep_their_images_as_they_are(base, tmp_path, tasks, language, mirrored, capsys):
    """So the run says; features of a frozen tower are mirrored alike."""
    folder = write_captions(tmp_path / "data", "ein Hund", "a dog", "a dog on the left")
    data = DataConfig(str(folder), tasks, language=language)
    run = dataclasses.replace(settings(base, folder, tmp_path / "run", steps=1, flips=1.0), data=(data,))
    florence = Florence.from_pretrained(base)
    (source,) = read_sources(run, florence.model, florence.tokenizer, florence.preprocessor)
    told = " ".join(source.checked(run.flips))
    assert (f"{6 - mirrored} of 6 images are never mirrored" in told) == (mirrored < 6)
    assert "never mirrored" not in " ".join(source.checked())
    augment = source.augmentation(run)
    turned = 0
    for number in range(6):
        drawn = source.draw(number, np.random.default_rng(0), 0, augment)
        plain = source.draw(number, np.random.default_rng(0), 0, Augmentation())
        turned += drawn.annotation != plain.annotation
    assert turned == mirrored == source.mirrored().count(True)


def test_every_caption_that_may_be_drawn_is_measured(base, tmp_path):
    """One of five is too long: the run says so before it begins, whichever it would have drawn first."""
    write_squares(tmp_path / "data", images=1)
    (tmp_path / "data" / "instances.json").unlink()
    captions = [{"id": n, "image_id": 0, "caption": "a dog " * (200 if n == 3 else 2)} for n in range(5)]
    image = {"id": 0, "file_name": "0.png", "width": 90, "height": 70}
    (tmp_path / "data" / "captions.json").write_text(json.dumps({"images": [image], "annotations": captions}))
    run = settings(base, tmp_path / "data", tmp_path / "run", steps=1)
    run = dataclasses.replace(run, data=(DataConfig(str(tmp_path / "data"), {"<CAPTION>": 1}),))
    with pytest.raises(ValueError, match=r"image 0.png: a row of task <CAPTION> has \d+ tokens; the network takes 160"):
        finetune(run)
    assert not (tmp_path / "run" / "checkpoint").exists()
