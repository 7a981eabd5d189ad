"""Panoptic quality on maps drawn by hand, and a report on annotated images."""

import numpy as np
import pytest

from florence_lite import Instance
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Stuff
from florence_lite.data.samples import Sample
from florence_lite.evaluate.panoptic import evaluate_panoptic, true_panoptic
from florence_lite.inference.panoptic import assemble
from tests.tiny import noise_image, tiny_florence

pytest.importorskip("torchmetrics", reason="the package torchmetrics is not installed (extra eval)")

from florence_lite.evaluate.metrics.panoptic import PanopticMeter  # noqa: E402

SIZE = (20, 10)


def block(label: str, x0: int, x1: int) -> Instance:
    return Instance(label, box=(x0, 0, x1, 10))


def measured(truth: tuple, *answers: tuple) -> dict:
    meter = PanopticMeter(["cat", "dog"], ["the sea", "the sky"])
    for answer in answers:
        meter.add(assemble(SIZE, *truth), assemble(SIZE, *answer))
    return meter.measure().metrics


TRUTH = [block("dog", 0, 4), block("cat", 4, 8)], [block("the sky", 8, 20)]


def test_the_truth_is_perfect():
    assert measured(TRUTH, TRUTH) == {
        name: 1.0 for name in ("pq", "sq", "rq", "pq_things", "pq_stuff", "semantic_miou")
    }


def test_qualities_by_hand():
    """The dog by 3 of 4 pixels, the cat missed, the sky whole, and on the sky a cat that is not there."""
    answer = [block("dog", 1, 4), block("cat", 18, 20)], [block("the sky", 8, 20)]
    found = measured(TRUTH, answer)
    dog, sky = 3 / 4, 10 / 12
    assert found["pq_things"] == pytest.approx((dog + 0) / 2)
    assert found["pq_stuff"] == pytest.approx(sky)
    assert found["pq"] == pytest.approx((dog + 0 + sky) / 3)
    assert found["sq"] == pytest.approx((dog + 0 + sky) / 3) and found["rq"] == pytest.approx(2 / 3)
    assert found["semantic_miou"] == pytest.approx((dog + 0 + sky) / 3)


def test_nothing_found_is_all_missed():
    found = measured(TRUTH, ([], []))
    assert set(found.values()) == {0.0}
    twice = measured(TRUTH, TRUTH, ([], []))
    assert twice["pq"] == pytest.approx(2 / 3) and twice["semantic_miou"] == pytest.approx(1 / 2)


def test_what_the_truth_does_not_tell_counts_for_nothing():
    truth = [block("dog", 0, 4)], []
    found = measured(truth, ([block("dog", 0, 4), block("cat", 10, 14)], [block("the sky", 4, 20)]))
    assert (found["pq"], found["pq_things"], found["pq_stuff"], found["semantic_miou"]) == (1.0, 1.0, None, 1.0)
    assert set(measured(([], []), TRUTH).values()) == {None}


def test_other_labels_are_wrong():
    assert measured(TRUTH, ([block("wolf", 0, 4), block("cat", 4, 8)], TRUTH[1]))["pq"] == pytest.approx(2 / 3)


SQUARE = ((10.0, 10.0), (40.0, 10.0), (40.0, 40.0), (10.0, 40.0))
GROUND = ((0.0, 0.0), (90.0, 0.0), (90.0, 70.0), (0.0, 70.0))


def sample(**more) -> Sample:
    known = {"objects": (ObjectAnnotation("Dog", (10, 10, 40, 40), (SQUARE,)),), "stuff": (Stuff("sky", (GROUND,)),)}
    return Sample(noise_image(0), Annotation((90, 70), **known | more), "photo")


def test_the_truth_of_an_annotation():
    crowd = ObjectAnnotation("dog", (0, 60, 90, 70))
    truth = true_panoptic(sample(ignored=(crowd,)).annotation)
    assert [(s.label, s.is_thing) for s in truth.segments] == [("dog", True), ("the sky", False)]
    assert truth.id_map[20, 20] == 1 and truth.id_map[50, 50] == 2 and not truth.id_map[60:].any()


def test_a_small_object_within_a_larger_one_is_part_of_the_truth():
    """Whatever their order; painted below, the collar would be hidden and left out."""
    collar = ObjectAnnotation("collar", (20, 20, 30, 24), (((20.0, 20.0), (30.0, 20.0), (30.0, 24.0), (20.0, 24.0)),))
    dog = ObjectAnnotation("dog", (10, 10, 40, 40), (SQUARE,))
    for objects in ((dog, collar), (collar, dog)):
        truth = true_panoptic(sample(objects=objects).annotation)
        assert {s.label: s.area for s in truth.segments if s.is_thing} == {"collar": 40, "dog": 860}
        assert not truth.dropped


def test_a_report_with_a_baseline(toy_tokenizer):
    florence = tiny_florence(toy_tokenizer, "decoder")
    boxed = sample(objects=(ObjectAnnotation("dog", (10, 10, 40, 40)),))
    report = evaluate_panoptic(florence, [sample(), boxed, sample(exhaustive=frozenset())])
    assert report.images == 1 and report.notes == ("stuff that was asked for: the sky",)
    assert [problem.kind for problem in report.problems] == ["image left out"] * 2
    baseline = report.metrics["panoptic baseline"]
    assert 0.5 < baseline["pq_stuff"] <= 1 and baseline["semantic_miou"] > 0.3
    assert report.metrics["panoptic"].keys() == baseline.keys()
    assert np.isfinite(list(report.metrics["panoptic"].values())).all() and "panoptic baseline" in str(report)
    for samples, message in (([], "no sample has objects or stuff"), ([sample()], "count is 0")):
        with pytest.raises(ValueError, match=message):
            evaluate_panoptic(florence, samples, count=0 if samples else None)
