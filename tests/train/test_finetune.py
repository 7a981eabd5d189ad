"""Fine-tuning on data of one's own: what is drawn, what is learned, what is saved."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lite.checkpoint import load_checkpoint
from florence_lite.data.samples import read_dataset
from florence_lite.florence import Florence
from florence_lite.train.config import DataConfig, FineTuneConfig
from florence_lite.train.finetune import LORA_TARGETS, MixedBatches, Source, finetune
from tests.tiny import tiny_florence

TASKS = {"<OD>": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six pictures with one bright square each, in COCO's format."""
    folder = tmp_path_factory.mktemp("squares")
    images, annotations = [], []
    for number in range(6):
        x, y = 10 + 8 * number, 40 - 5 * number
        picture = np.full((70, 90, 3), 40, np.uint8)
        picture[y : y + 20, x : x + 24] = (250, 230, 10)
        Image.fromarray(picture).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 90, "height": 70})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [x, y, 24, 20]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def base(request, toy_tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    tiny_florence(toy_tokenizer, request.param, eos_gain=None).save_pretrained(folder)
    return folder


def settings(base, data, output, **changes) -> FineTuneConfig:
    values = {"steps": 3, "batch": 3, "warmup": 1, "save_every": 10, "evaluate_every": 10, "learning_rate": 3e-3}
    return FineTuneConfig(str(output), str(base), (DataConfig(str(data), TASKS),), **values | changes)


def losses(output: Path) -> list[float]:
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [entry["losses"]["loss"] for entry in log if "losses" in entry]


def test_the_loss_falls_and_the_checkpoint_answers(base, data, tmp_path):
    folder = finetune(settings(base, data, tmp_path, steps=30, save_every=5))
    curve = losses(tmp_path)
    assert curve[-1] < 0.8 * curve[0]
    florence = Florence.from_pretrained(folder)
    assert florence.tokenizer.to_json() == Florence.from_pretrained(base).tokenizer.to_json()
    assert florence.run(data / "0.png", "<OD>", max_new_tokens=8).token_ids


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
    assert not (folder / "model.safetensors").exists()
    before, after = load_checkpoint(base).state_dict(), Florence.from_pretrained(folder).model.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    assert LORA_TARGETS


def test_resumed_the_weights_are_the_same(base, data, tmp_path):
    whole = finetune(settings(base, data, tmp_path / "whole", steps=4, save_every=2))
    part = settings(base, data, tmp_path / "part", steps=4, save_every=2)

    class Stopped(Exception):
        pass

    def stop(folder):
        raise Stopped

    with pytest.raises(Stopped):
        finetune(dataclasses.replace(part, evaluate_every=3), stop)
    resumed = finetune(part)
    ours, theirs = load_checkpoint(whole).state_dict(), load_checkpoint(resumed).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_answer_that_does_not_fit_is_told_before_training(base, data, tmp_path):
    content = json.loads((data / "instances.json").read_text())
    box = content["annotations"][0]
    content["annotations"] = [{**box, "id": number, "bbox": [number % 60, 5, 9, 9]} for number in range(60)]
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes((data / f"{number}.png").read_bytes())
    (folder / "instances.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"image 0.png: a row of task <OD> has \d+ tokens; the network takes 160"):
        finetune(settings(base, folder, tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoint").exists()


# ---- what is drawn


class Collate:
    """Stands in for the collator: a batch is its pairs."""

    rates = TASKS

    def __call__(self, pairs, rng):
        return pairs


def sources(data, *weights):
    return [Source(read_dataset(data), Collate(), weight) for weight in weights]


def test_every_epoch_has_every_sample_once(data):
    source = sources(data, 1.0)[0]
    rng = np.random.default_rng(0)
    boxes = [source.draw(number, rng, seed=3, flips=0.0)[1].objects[0].box for number in range(12)]
    assert len(set(boxes[:6])) == len(set(boxes[6:])) == 6
    assert boxes[:6] != boxes[6:]


def test_batches_do_not_depend_on_where_a_run_began(data):
    config = settings("base", data, "out", steps=5)
    whole, rest = (MixedBatches(config, sources(data, 1.0, 1.0), first) for first in (0, 2))
    assert (len(whole), len(rest)) == (5, 3)
    for early, late in zip([whole[i] for i in (2, 3, 4)], [rest[i] for i in range(3)], strict=True):
        assert [annotation for _, annotation in early] == [annotation for _, annotation in late]


def test_weights_of_data_sets(data):
    config = settings("base", data, "out", steps=400)
    plan = MixedBatches(config, sources(data, 3.0, 1.0), 0).plan
    assert np.mean([number == 0 for number, _ in plan]) == pytest.approx(0.75, abs=0.06)
    for number in (0, 1):
        assert [before for source, before in plan if source == number] == list(
            range(sum(source == number for source, _ in plan))
        )


def test_flips(data):
    source = sources(data, 1.0)[0]
    plain = source.draw(0, np.random.default_rng(0), 0, 0.0)
    mirrored = source.draw(0, np.random.default_rng(0), 0, 1.0)
    x0, y0, x1, y1 = plain[1].objects[0].box
    assert mirrored[1].objects[0].box == (90 - x1, y0, 90 - x0, y1)
    assert np.array_equal(np.asarray(mirrored[0]), np.asarray(plain[0])[:, ::-1])
