"""Figures of the scene evaluation on answers whose worth is known."""

import pytest

from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.scenes import CLASSES, Scenes, available_styles
from florence_lite.data.targets import target
from florence_lite.evaluate.scenes import average_precision, evaluate_scenes, match_boxes, object_names
from florence_lite.results import Instance, Result

TRUTH = Annotation((100, 100), (ObjectAnnotation("dog", (0, 0, 40, 40)), ObjectAnnotation("dog", (50, 50, 90, 90))))


def result(*instances):
    return Result("<OD>", (100, 100), instances=instances)


@pytest.mark.parametrize(
    "boxes, expected",
    [
        ([("dog", (0, 0, 40, 40), 0.9), ("dog", (50, 50, 90, 90), 0.8)], [True, True]),
        ([("cat", (0, 0, 40, 40), 0.9)], [False]),
        ([("dog", (0, 0, 40, 40), 0.5), ("dog", (1, 1, 40, 40), 0.9)], [True, False]),  # one box, found twice
        ([("dog", (0, 0, 10, 10), 0.9)], [False]),
        ([], []),
    ],
)
def test_boxes_match_once_and_by_label(boxes, expected):
    instances = [Instance(label, box=box, score=score) for label, box, score in boxes]
    assert [ok for _, ok in match_boxes(result(*instances), TRUTH)] == expected


@pytest.mark.parametrize(
    "matches, true, expected",
    [
        ([(0.9, True), (0.8, True)], 2, 1.0),
        ([(0.9, True), (0.8, False)], 2, 0.5),
        ([(0.9, False), (0.8, True)], 1, 0.5),
        ([(0.9, True), (0.5, False), (0.4, True)], 2, 0.5 * 1 + 0.5 * 2 / 3),
        ([], 3, 0.0),
    ],
)
def test_average_precision(matches, true, expected):
    assert average_precision(matches, true) == pytest.approx(expected)


def test_object_names_are_whole_words():
    assert object_names("two dogs and a strawberry") == {"dog", "strawberry"}
    assert object_names("a carrot and three buses") == {"carrot", "bus"}
    assert object_names("") == set()


class Oracle:
    """Stands in for `Florence` and answers from the truth, or with nothing."""

    class model:  # noqa: N801
        class config:  # noqa: N801
            image_size_wh = (224, 224)

    def __init__(self, truths, silent=False):
        self.truths, self.silent = iter(truths), silent

    def encode(self, image):
        return image

    def run(self, scene, prompts):
        truth = next(self.truths)
        return [self.answer(truth, prompt) for prompt in prompts]

    def answer(self, truth, prompt):
        if self.silent:
            return Result("silent", truth.size_wh)
        if isinstance(prompt, str):
            return Result.from_answer(prompt, truth.size_wh, target(prompt, truth, None).answer)
        referral = next(r for r in truth.referrals if r.phrase == prompt.phrases[0])
        boxes = tuple(Instance(box=truth.objects[i].box, score=0.5) for i in referral.objects)
        return Result(prompt.task, truth.size_wh, instances=boxes)


@pytest.mark.skipif("openmoji" not in available_styles(), reason="the openmoji artwork is not installed")
def test_truth_gets_full_marks_and_silence_none():
    truths = [item["annotation"] for item in Scenes("test", ("openmoji",), length=8)]
    best = evaluate_scenes(Oracle(truths), count=8, styles=("openmoji",))
    shares = ("detection_f1", "detection_ap50", "referring_acc50", "absent_rejected", "caption_f1", "word_accuracy")
    assert [best[name] for name in shares] == [1.0] * len(shares)
    worst = evaluate_scenes(Oracle(truths, silent=True), count=8, styles=("openmoji",))
    assert [worst[name] for name in shares] == [0, 0, 0, 1, 0, 0]


def test_every_class_is_found_in_its_own_caption():
    assert all(label in object_names(f"a {label}") for label in CLASSES)


def test_count_must_be_positive():
    with pytest.raises(ValueError, match="count is 0"):
        evaluate_scenes(None, count=0)
