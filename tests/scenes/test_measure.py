"""The measurement of scenes on answers whose worth is known."""

from types import SimpleNamespace

import pytest

from florence_lite.answers import Instance
from florence_lite.evaluate.metrics import LOWER_IS_BETTER
from florence_lite.results import Result
from florence_lite.scenes import Scenes
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.measure import TASKS, evaluate_scenes, scene_validation

pytest.importorskip("faster_coco_eval", reason="the extra eval is not installed")
COUNT = 8


class Oracle:
    """Stands in for `Florence` and answers from the truth of the test scenes, or with nothing."""

    model = SimpleNamespace(config=SimpleNamespace(image_size_wh=(96, 96)))

    def __init__(self, silent=False):
        drawn = Scenes("test", ("openmoji",), (96, 96), COUNT)
        self.truths = {sample.image.tobytes(): sample.annotation for sample in drawn}
        self.silent = silent

    def encode(self, pictures, keep_image):
        return [self.truths[picture.tobytes()] for picture in pictures]

    def run(self, scenes, prompts, keep_image, tile=None):
        return [self.answer(truth, prompt) for truth, prompt in zip(scenes, prompts, strict=True)]

    def answer(self, truth, prompt):
        text, instances = "", ()
        if self.silent:
            return Result("silent", truth.size_wh)
        if prompt.task == "<OD>":
            instances = tuple(Instance(item.label, box=item.box, score=0.9) for item in truth.objects)
        elif prompt.task == "<CAPTION>":
            text = truth.captions[0]
        elif prompt.task == "<OCR>":
            text = " ".join(line.text for line in truth.lines)
        else:
            [phrase] = prompt.phrases
            [meant] = {each.objects for each in truth.expressions if each.phrase == phrase} or {()}
            boxes = [truth.objects[i].box for i in meant]
            boxes += [Instance(polygons=item.polygons).bounds for item in truth.stuff if item.phrase == phrase]
            instances = tuple(Instance(box=box, score=0.5) for box in boxes)
        presence = {phrase: float(bool(instances)) for phrase in prompt.phrases or ()}
        return Result(prompt.task, truth.size_wh, text, instances, presence=presence)


@pytest.mark.parametrize("silent", [False, True])
def test_truth_gets_full_marks_and_silence_none(silent):
    oracle = Oracle(silent)
    report = evaluate_scenes(oracle, count=COUNT, styles=("openmoji",))
    metrics = report.named_metrics()
    assert {name.split("/")[0] for name in metrics} == set(TASKS) and report.images == COUNT and not report.problems
    assert metrics.pop("<OPEN_VOCABULARY_DETECTION>/absent_rejected") == 1
    assert report.answers["<OPEN_VOCABULARY_DETECTION>"] > 5 * COUNT
    full = {name: float(name.split("/")[1] not in LOWER_IS_BETTER) for name in metrics}
    if silent:  # rejects all, which is right of some, and has no presences
        known = [name for name in full if not name.split("/")[1].startswith(("presence", "n_acc", "ece"))]
        metrics, full = ({name: each[name] for name in known} for each in (metrics, full))
        none = {name: 1 - value for name, value in full.items()}
        assert {name: value or 0 for name, value in metrics.items()} == pytest.approx(none)
        return
    words = [len(truth.captions[0].replace(",", "").split()) for truth in oracle.truths.values()]
    full["<CAPTION>/cider"] = 10 * sum(min(4, count) / 4 for count in words) / COUNT  # of up to four words in a row
    assert full.pop("<OD>/ar1") > metrics.pop("<OD>/ar1") > 0.5  # one box where there may be several of a label
    assert metrics == pytest.approx(full)


def test_a_run_is_measured_on_its_own_validation_scenes():
    config = TrainConfig("unused", {"<OD>": 1}, styles=("openmoji",), evaluate_scenes=5)
    validation = scene_validation(config)
    assert (validation.tasks, validation.count, validation.decisive) == (TASKS, 5, "<OD>/ap")
    own = Scenes("validation", ("openmoji",), (224, 224))
    assert (validation.samples.seeds, validation.samples.styles) == (own.seeds, own.styles)
    assert validation.samples.size_wh == own.size_wh


def test_count_must_be_positive():
    with pytest.raises(ValueError, match="count is 0"):
        evaluate_scenes(Oracle(), count=0, styles=("openmoji",))
