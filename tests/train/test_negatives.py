"""How training asks for phrases that are not true of an image."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from florence_lite.checkpoint import load_pretrained
from florence_lite.data import Dataset, Sample, to_jsonl
from florence_lite.data.annotation import ReferringExpression
from florence_lite.data.augment import Augmentation
from florence_lite.train.config import DataConfig
from florence_lite.train.finetuning import read_sources, told
from florence_lite.train.lanes import IGNORED
from florence_lite.train.sources import MixedBatches, Source, epoch_order
from tests.evaluate.test_negatives import PETS, SIZE, image, seeds
from tests.train.squares import settings, write_base
from tests.train.unpacked import unpacked


def test_what_a_crop_cuts_off_is_not_absent():
    """A part of it that is too small to be asked for may still show."""
    samples = [Sample(Image.new("RGB", SIZE), image(label), label) for label in PETS.labels]
    collate = SimpleNamespace(rates={"<OPEN_VOCABULARY_DETECTION>": 1})
    source = Source(Dataset.of(samples), collate, 1.0, negatives=PETS)
    cropped = 0
    for number, rng in enumerate(seeds()):
        drawn = source.draw(number, rng, 0, Augmentation(crops=1.0))
        own = PETS.labels[int(epoch_order(6, 0, number // 6)[number % 6])]
        cropped += not drawn.annotation.objects
        assert own not in {each.phrase for each in drawn.annotation.expressions if not each.objects}
    assert cropped


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_run_asks_its_share_of_them(share, toy_tokenizer, tmp_path):
    """An answer that says nothing is the end token alone."""
    base = write_base(toy_tokenizer, "decoder", tmp_path / "base")
    samples = [Sample(Image.new("RGB", SIZE), image(label), label) for label in PETS.labels]
    data = to_jsonl(samples, tmp_path / "pets.jsonl")
    run = settings(base, data, tmp_path, steps=8)
    run = replace(run, data=(DataConfig(str(data), {"<OPEN_VOCABULARY_DETECTION>": 4}, negatives=share),))
    loaded = load_pretrained(base)
    sources = read_sources(run, loaded.model, loaded.tokenizer, loaded.preprocessor)
    batches = MixedBatches(run, sources, 0, [range(run.batch)])
    rows = [row for [batch] in map(batches.__getitem__, range(8)) for row in unpacked(batch)]
    empty = [sum(label != IGNORED for label in row.labels) == 1 for row in rows]
    assert np.mean(empty) == pytest.approx(share, abs=0.15 if 0 < share < 1 else 0)


def test_the_share_is_checked():
    with pytest.raises(ValueError, match="negatives = 1.5"):
        DataConfig("p", {"<OD>": 1}, negatives=1.5)


def told_of(folder, toy_tokenizer, tasks, negatives, *annotations):
    """The lines about negatives at the start of a run."""
    base = write_base(toy_tokenizer, "decoder", folder / "base")
    samples = [Sample(Image.new("RGB", SIZE), each, f"image {n}") for n, each in enumerate(annotations)]
    data = to_jsonl(samples, folder / "pets.jsonl")
    rates = dict.fromkeys(tasks, 1)
    run = replace(settings(base, data, folder), data=(DataConfig(str(data), rates, negatives=negatives),))
    loaded = load_pretrained(base)
    lines = told(run, read_sources(run, loaded.model, loaded.tokenizer, loaded.preprocessor))
    return [line.removeprefix(f"data set {data}: ") for line in lines if "warning: negatives" in line]


def test_negatives_that_do_nothing_are_told(toy_tokenizer, tmp_path):
    phrases, sentences = "<OPEN_VOCABULARY_DETECTION>", "<IMAGE_TEXT_MATCHING>"
    tasks, dog = ["<OD>", phrases, sentences], ReferringExpression("the dog", (0,))
    partly = image("dog", exhaustive=frozenset(), expressions=(dog,), captions=("a dog",))
    why = "warning: negatives = 0.5 does nothing for "
    assert told_of(tmp_path, toy_tokenizer, tasks, 0.5, partly) == [
        f"{why}{phrases}: of no image are all objects known, so that nothing is known to be absent",
        f"{why}{sentences}: no image has a caption that another lacks",
    ]
    assert told_of(tmp_path, toy_tokenizer, ["<OD>"], 0.5, image("dog")) == [
        "warning: negatives = 0.5 does nothing: none of <OD> asks for phrases or sentences"
    ]
    alone = replace(partly, captions=())  # that a task is not taught at all is told by itself
    assert len(told_of(tmp_path, toy_tokenizer, tasks, 0.5, alone)) == 1
    for share in (None, 0.0):
        assert not told_of(tmp_path, toy_tokenizer, tasks, share, partly)
    full = image("dog", captions=("a dog",)), image("cat", captions=("a cat",))
    assert not told_of(tmp_path, toy_tokenizer, tasks, 0.5, *full)
