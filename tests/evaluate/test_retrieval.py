"""Texts against images and phrases against places, held against values worked out by hand."""

import dataclasses

import numpy as np
import pytest

from florence_lite.answers import Instance
from florence_lite.cards import checkpoint
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression
from florence_lite.data.samples import Dataset, Sample
from florence_lite.evaluate.retrieval import evaluate_retrieval, matching, region_retrieval, text_retrieval
from florence_lite.results import Ranking, Result
from tests.data.annotated import ANNOTATED
from tests.evaluate.given import SIZE, samples
from tests.tiny import SIDES, noise_image, tiny_florence

pytest.importorskip("torchmetrics", reason="the package torchmetrics is not installed (extra eval)")


class Tables:
    """Stands in for `Florence`: its figures are those of a table."""

    def __init__(self, scores=None, truth=None, presence=None, boxes=None):
        self.scores, self.truth, self.presence, self.boxes = scores, truth, presence, boxes or {}
        self.calls = []

    def rank(self, images, texts, detail):
        self.calls.append(([image.info["name"] for image in images], texts, detail))
        return Ranking(tuple(texts), np.array(self.scores), np.array(self.scores))

    def match(self, image, texts):
        return np.array([[self.truth[text] for text in texts]])

    def encode(self, image, keep_image):
        return image.info["name"]

    def run(self, images, prompt, keep_image, threshold):
        if isinstance(images, list):
            self.calls.append((images, prompt.phrases))
            return [self.run(image, prompt, keep_image, threshold) for image in images]
        presence = {phrase: self.presence[phrase][images] for phrase in prompt.phrases}
        found = self.boxes.get(images, ()) if threshold == 0 else ()
        instances = [Instance(prompt.phrases[0], box=box, score=score) for box, score in found]
        return Result(prompt.task, SIZE, instances=tuple(instances), presence=presence)


def captioned(*captions, **more):
    return Annotation(SIZE, captions=captions, **more)


# ---- texts and images


def test_hits_both_ways_by_hand():
    """Equal captions are one with two images, and further captions of an image are right too."""
    data = samples(captioned("a dog", more_captions=("a puppy ",)), captioned("a cat"), Annotation(SIZE))
    data += samples(captioned("a dog"))
    #          a dog, a puppy, a cat
    scores = [[0.1, 0.9, 0.5], [0.7, 0.2, 0.5], [0.8, 0.1, 0.9]]
    florence = Tables(scores)
    found = text_retrieval(florence, data)
    assert florence.calls == [(["image 0", "image 1", "image 0"], ["a dog", "a puppy", "a cat"], "short")]
    assert found.metrics == {
        "text_r@1": pytest.approx(1 / 3),  # the first image alone
        "text_r@5": 1,
        "text_r@10": 1,
        "image_r@1": pytest.approx(2 / 3),  # the dog and the puppy
        "image_r@5": 1,
        "image_r@10": 1,
    }
    assert found.notes == ("3 images, 3 captions",)


def test_hits_among_one_five_and_ten():
    """Behind the caption of image i stand all texts but i."""
    count = 12
    scores = np.zeros((count, count))
    for image in range(count):
        scores[image, [text for text in range(count) if text != image]] = [1] * image + [-1] * (count - 1 - image)
    data = samples(*(captioned(f"caption {number}") for number in range(count)))
    metrics = text_retrieval(Tables(scores), data).metrics
    assert [metrics[f"text_r@{top}"] for top in (1, 5, 10)] == pytest.approx([1 / 12, 5 / 12, 10 / 12])
    metrics = text_retrieval(Tables(scores.T), data).metrics
    assert [metrics[f"image_r@{top}"] for top in (1, 5, 10)] == pytest.approx([1 / 12, 5 / 12, 10 / 12])


def test_scores_that_hardly_differ_do():
    data = samples(captioned("a dog"), captioned("a cat"))
    best = np.full((2, 2), -1000.0) + 1e-9 * np.eye(2)
    assert text_retrieval(Tables(best), data).metrics["text_r@1"] == 1
    assert text_retrieval(Tables(best[::-1]), data).metrics["text_r@1"] == 0


def test_other_kinds_of_captions():
    data = samples(captioned("a dog", "a dog on grass"), captioned("a cat", "a cat on sand"), captioned("a yak"))
    florence = Tables(np.eye(2))
    assert text_retrieval(florence, data, "detailed").metrics["text_r@1"] == 1
    assert florence.calls == [(["image 0", "image 1"], ["a dog on grass", "a cat on sand"], "detailed")]
    found = text_retrieval(florence, data, "paragraph")
    assert len(found.metrics) == 6 and set(found.metrics.values()) == {None}
    assert found.notes == ("0 images have such captions: two are needed",)
    with pytest.raises(ValueError, match="detail is 'long'; choose one of short, detailed, paragraph"):
        text_retrieval(florence, data, "long")


# ---- true and wrong sentences


def test_matching_by_hand():
    data = samples(captioned("a dog", wrong_captions=("a cat", "a yak")), Annotation(SIZE), captioned("a door"))
    found = matching(Tables(truth={"a dog": 0.9, "a cat": 0.3, "a yak": 0.6, "a door": 0.4}), data)
    # .9 is more than .3 and .6, .4 more than .3 alone; the dog and the cat are on their sides of one half.
    assert found.metrics == {"matching_auroc": pytest.approx(3 / 4), "matching_accuracy": 0.5}
    assert found.notes == ("2 true and 2 wrong sentences",)


def test_sure_matches_are_told_apart():
    data = samples(captioned("a dog", wrong_captions=("a cat",)))
    assert matching(Tables(truth={"a dog": 1 - 1e-12, "a cat": 1 - 1e-10}), data).metrics["matching_auroc"] == 1


@pytest.mark.parametrize("annotation", [captioned("a dog"), Annotation(SIZE, wrong_captions=("a cat",))])
def test_matching_needs_true_and_wrong_sentences(annotation):
    found = matching(Tables(truth={"a dog": 0.9, "a cat": 0.1}), samples(annotation))
    assert set(found.metrics.values()) == {None}


# ---- phrases and places

DOG, DOOR = (10, 10, 40, 40), (50, 10, 90, 70)


def shows(phrases, box):
    expressions = [ReferringExpression(phrase, (0,)) for phrase in phrases]
    return Annotation(
        SIZE, (ObjectAnnotation("", box),), expressions=(*expressions, ReferringExpression("a large yak"))
    )


def test_regions_by_hand():
    """The longest phrase of each image is looked for: the brown dog, which two of them show, and the red door."""
    data = samples(shows(["the brown dog", "dog"], DOG), shows(["the red door"], DOOR), shows(["the brown dog"], DOG))
    presence = {
        "the brown dog": {"image 0": 0.5, "image 1": 0.7, "image 2": 0.6},
        "the red door": {"image 0": 0.1, "image 1": 0.9, "image 2": 0.2},
    }
    boxes = {
        "image 0": [(DOG, 0.3), (DOOR, 0.8)],  # the surest is wrong
        "image 1": [],
        "image 2": [((12, 10, 40, 40), 0.3)],
    }
    florence = Tables(presence=presence, boxes=boxes)
    found = region_retrieval(florence, data)
    assert found.metrics == {
        "region_r@1": 0,
        "region_r@5": 0.5,  # the dog, by image 2
        "region_r@10": 0.5,
        "presence_r@1": 0.5,  # the door
        "presence_r@5": 1,
        "presence_r@10": 1,
    }
    assert found.notes == ("3 images, 2 phrases",)
    boxes["image 1"] = [(DOOR, 0.2)]
    assert region_retrieval(florence, data).metrics["region_r@1"] == 0.5


def test_places_are_asked_of_the_best_ten():
    phrases = [f"the dog {number:02}" for number in range(11)]
    data = samples(*(shows([phrase], DOG) for phrase in phrases))
    presence = {phrase: {f"image {n}": 1 - n / 20 for n in range(11)} for phrase in phrases}
    florence = Tables(presence=presence, boxes={f"image {n}": [(DOG, 0.5)] for n in range(11)})
    metrics = region_retrieval(florence, data).metrics
    assert [images for images, _ in florence.calls] == [[f"image {n}"] for n in range(10)] + [[]]
    assert [metrics[f"region_r@{top}"] for top in (1, 5, 10)] == pytest.approx([1 / 11, 5 / 11, 10 / 11])


def test_regions_need_two_images():
    found = region_retrieval(Tables(), samples(shows(["the dog"], DOG), Annotation(SIZE)))
    assert len(found.metrics) == 6 and set(found.metrics.values()) == {None}
    assert found.notes == ("1 images have phrases with boxes: two are needed",)


# ---- a real network


@pytest.mark.parametrize("side", SIDES)
def test_a_real_network_is_measured(toy_tokenizer, side):
    florence = tiny_florence(toy_tokenizer, side)
    other = captioned("a yellow building", "a stop sign", wrong_captions=("a dog",), objects=ANNOTATED.objects[:1])
    data = [Sample(noise_image(n, SIZE), each, f"image {n}") for n, each in enumerate((ANNOTATED, other))]
    metrics = text_retrieval(florence, data, "detailed").metrics
    assert metrics["text_r@1"] in (0, 0.5, 1) and metrics["text_r@5"] == metrics["image_r@5"] == 1
    assert 0 <= matching(florence, data).metrics["matching_auroc"] <= 1
    metrics = region_retrieval(florence, data).metrics
    assert metrics["presence_r@5"] == 1 and metrics["region_r@1"] <= metrics["region_r@10"] <= 1


def own_data(*annotations):
    return Dataset.of([Sample(noise_image(n, SIZE), each, f"image {n}") for n, each in enumerate(annotations)])


def test_a_report_on_data_of_ones_own(toy_tokenizer):
    """Wrong sentences are captions of other images; questions with other answers have a list of these."""
    other = captioned("a stop sign", objects=ANNOTATED.objects[:1], questions=(Question("what?", "Dog"),))
    third = captioned("a yellow building", questions=(Question("what?", "cat"), Question("which?", "dog ")))
    unreadable = dataclasses.replace(other, size_wh=(5, 5), objects=())
    florence = tiny_florence(toy_tokenizer, "decoder")
    report = evaluate_retrieval(florence, own_data(ANNOTATED, other, third, unreadable, third), count=4)
    assert report.images == 3 and [problem.record for problem in report.problems] == ["image 3"]
    assert {name for name in report.metrics if None in report.metrics[name].values()} == {"detailed captions"}
    assert report.answers == {
        "captions": 3,
        "detailed captions": 0,
        "regions": 2,
        "questions": 5,
        "matching": 10,
        "infilling": report.answers["infilling"],
    }
    assert report.answers["infilling"] > 0 and report.metrics["questions"]["others_out_of_list"] == 0
    for note in (
        "detailed captions: 1 images have such captions: two are needed",
        "questions: 1 of yes_no, 1 of numbers, 3 of others",
        "matching: 4 true and 6 wrong sentences",
        "matching: the data have no wrong sentences; up to 4 an image are captions of other images",
    ):
        assert note in report.notes
    assert report.to_dict() == evaluate_retrieval(florence, own_data(ANNOTATED, other, third, unreadable)).to_dict()
    assert "matching_auroc" in str(report)


def test_data_that_tell_nothing_of_it(toy_tokenizer):
    report = evaluate_retrieval(tiny_florence(toy_tokenizer, "decoder"), own_data(Annotation(SIZE)))
    assert {value for values in report.metrics.values() for value in values.values()} == {None}
    assert {note.split(":")[0] for note in report.notes} == set(report.metrics)
    for count, data in ((0, own_data(Annotation(SIZE))), (None, [])):
        with pytest.raises(ValueError, match="count is 0" if data else "no samples"):
            evaluate_retrieval(None, data, count)


def test_captions_that_are_all_alike_are_wrong_of_no_image(toy_tokenizer):
    data = own_data(captioned("a dog"), captioned("a dog"))
    report = evaluate_retrieval(tiny_florence(toy_tokenizer, "decoder"), data)
    assert [note for note in report.notes if note.startswith("matching")] == ["matching: 2 true and 0 wrong sentences"]


def test_what_a_checkpoint_cannot_do_is_told(toy_tokenizer):
    """A task that it was not trained on, and a text that is too long for it, which loses no other measure."""
    florence = tiny_florence(toy_tokenizer, "decoder")
    florence.card = dataclasses.replace(checkpoint("scenes-nano"), tasks=("<CAPTION>",))
    long = captioned("a stop sign " * 400, "a stop sign", objects=ANNOTATED.objects)
    report = evaluate_retrieval(florence, own_data(ANNOTATED, long))
    assert set(report.metrics["infilling"].values()) == {None} == set(report.metrics["captions"].values())
    assert "infilling: not measured: the checkpoint was not trained on <INFILLING>" in report.notes
    assert "matching: not measured: the checkpoint was not trained on <IMAGE_TEXT_MATCHING>" in report.notes
    assert any(note.startswith("captions: not measured: the text") for note in report.notes)
    assert report.metrics["detailed captions"]["text_r@5"] == report.metrics["regions"]["presence_r@5"] == 1
