"""Phrases that are not true of an image, drawn from the other images of its data set."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from florence_lite.checkpoint import load_pretrained
from florence_lite.data import Dataset, Sample, to_jsonl
from florence_lite.data.annotation import Annotation, ObjectAnnotation, ReferringExpression
from florence_lite.data.augment import Augmentation
from florence_lite.rules import pairs
from florence_lite.train.collate import IGNORED
from florence_lite.train.config import DataConfig
from florence_lite.train.finetuning import read_sources
from florence_lite.train.negatives import DRAWN, Negatives
from florence_lite.train.sources import MixedBatches, Source, epoch_order
from tests.train.squares import settings, write_base

SIZE = (64, 48)
PETS = Negatives(("cat", "cow", "dog", "fish", "horse", "pig"), ("a cat", "a cow", "a dog"))


def image(*labels: str, **more) -> Annotation:
    objects = tuple(ObjectAnnotation(label, (0.0, 0.0, 9.0, 9.0 + n)) for n, label in enumerate(labels))
    return Annotation(SIZE, objects, **more)


def seeds():
    return (np.random.default_rng(seed) for seed in range(20))


def test_labels_that_are_not_there_are_absent_phrases():
    for rng in seeds():
        found = pairs("<OPEN_VOCABULARY_DETECTION>", PETS(image("dog", "dog", "pig"), rng))
        assert [len(pair.instances) for pair in found] == [2, 1] + [0] * DRAWN
        absent = [pair.inputs["phrases"][0] for pair in found[2:]]
        assert len(set(absent)) == DRAWN and not {"dog", "pig"} & set(absent)
        assert {pair.kind for pair in found[2:]} == {"random"}


def test_what_is_said_of_an_image_in_other_letters_is_not_absent():
    """Nor what a phrase of it says of an object of another label."""
    known = image("Dog ", "man", expressions=(ReferringExpression("a pig", (0,)), ReferringExpression("cow", (1,))))
    mixed = Negatives(("A  Pig", "DOG", "cat", "cow", "dog"), ("A CAT", "a dog"))
    for rng in seeds():
        found = mixed(replace(known, captions=("a cat",)), rng)
        assert [each.phrase for each in found.expressions[2:]] == ["cat"]
        assert found.wrong_captions == ("a dog",)


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


def test_of_an_empty_image_every_label_is_absent():
    found = pairs("<OPEN_VOCABULARY_DETECTION>", PETS(image(), np.random.default_rng(0)))
    assert len(found) == DRAWN and all(pair.absent for pair in found)


def test_expressions_stay_what_they_are():
    known = image("dog", expressions=(ReferringExpression("the dog", (0,)),))
    assert PETS(known, np.random.default_rng(0)).expressions[:1] == known.expressions


@pytest.mark.parametrize("unknown", [{"exhaustive": frozenset()}, {"ignored": image("cat").objects}])
def test_nothing_is_absent_where_not_all_objects_are_known(unknown):
    assert not PETS(image("dog", **unknown), np.random.default_rng(0)).expressions


def test_captions_of_other_images_are_wrong():
    for rng in seeds():
        found = PETS(image(captions=("a cat",), more_captions=("a cow",)), rng)
        assert found.wrong_captions == ("a dog",)
    assert not PETS(image("cat"), np.random.default_rng(0)).wrong_captions


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
    answers = [group.labels.flatten(0, 1) for [batch] in map(batches.__getitem__, range(8)) for group in batch.groups]
    empty = np.concatenate([((labels != IGNORED).sum(1) == 1).numpy() for labels in answers])
    assert np.mean(empty) == pytest.approx(share, abs=0.15 if 0 < share < 1 else 0)


def test_the_share_is_checked():
    with pytest.raises(ValueError, match="negatives = 1.5"):
        DataConfig("p", {"<OD>": 1}, negatives=1.5)
