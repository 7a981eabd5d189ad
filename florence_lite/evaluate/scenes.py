"""How well a checkpoint sees generated scenes: detection, referring, captions, words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from florence_lite.answering import Prompt
from florence_lite.data.annotation import Annotation
from florence_lite.data.scenes import CLASSES, TRAINING_STYLES, Scenes
from florence_lite.data.scenes.language import plural
from florence_lite.florence import Florence
from florence_lite.geometry import box_iou
from florence_lite.results import Result

IOU = 0.5  # overlap from which a box counts as found
TASKS = ("<OD>", "<CAPTION>", "<OCR>")
PHRASES = "<OPEN_VOCABULARY_DETECTION>"


def evaluate_scenes(
    florence: Florence, split: str = "test", count: int = 200, styles: Sequence[str] = TRAINING_STYLES
) -> dict[str, float]:
    """Figures over the first `count` scenes of a split, drawn at the checkpoint's own image size and answered greedily.

    detection_f1, _precision, _recall: boxes of `<OD>`; a box is right if its label is and its IoU with a box of that
        label not yet found is at least 0.5; boxes are tried in the order of their scores.
    detection_ap50: area under the interpolated precision-recall curve of the same matches over all labels together, by
        score; detection_ap50_constant: the same with the scores taken away, mean over the tie. What scores are worth.
    referring_acc50: share of the phrases that mean exactly one object whose best-scored box has an IoU of at least 0.5.
    absent_rejected: share of the phrases that mean nothing here whose answer is empty.
    caption_f1: object names in the short caption against those of the scene, counted once per scene.
    word_accuracy: share of the true words that `<OCR>` writes; malformed: faults in all answers; truncated: answers.

    A scene's phrases are all of its referrals. Raises ValueError if `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; at least one scene is needed")
    detection, caption = _Counts(), _Counts()
    matches: list[tuple[float, bool]] = []
    referring: list[bool] = []
    rejected: list[bool] = []
    words_found = words = malformed = truncated = 0
    for item in Scenes(split, tuple(styles), florence.model.config.image_size_wh, count):
        truth: Annotation = item["annotation"]
        phrases = [Prompt(PHRASES, phrases=[referral.phrase]) for referral in truth.referrals]
        results = florence.run(florence.encode(item["image"]), [*TASKS, *phrases])
        objects, short, text = results[: len(TASKS)]
        right = match_boxes(objects, truth)
        matches += right
        detection.add(sum(ok for _, ok in right), len(right), len(truth.objects))
        named, true_names = object_names(short.text), {thing.label for thing in truth.objects}
        caption.add(len(named & true_names), len(named), len(true_names))
        for referral, result in zip(truth.referrals, results[len(TASKS) :], strict=True):
            if len(referral.objects) == 1:
                referring.append(_best_iou(result, truth.objects[referral.objects[0]].box) >= IOU)
            elif not referral.objects:
                rejected.append(not result.instances)
        found = Counter(text.text.split()) & Counter(word for line in truth.lines for word in line.text.split())
        words_found += found.total()
        words += sum(len(line.text.split()) for line in truth.lines)
        malformed += sum(result.malformed for result in results)
        truncated += sum(result.truncated for result in results)
    return {
        "detection_f1": detection.f1,
        "detection_precision": detection.precision,
        "detection_recall": detection.recall,
        "detection_ap50": average_precision(matches, detection.true),
        "detection_ap50_constant": detection.precision * detection.recall,
        "referring_acc50": _share(referring),
        "absent_rejected": _share(rejected),
        "caption_f1": caption.f1,
        "word_accuracy": words_found / max(1, words),
        "malformed": malformed,
        "truncated": truncated,
        "scenes": count,
    }


def match_boxes(result: Result, truth: Annotation) -> list[tuple[float, bool]]:
    """(score, whether it is right) of every detected box, best score first."""
    order = sorted(result.instances, key=lambda instance: -(instance.score or 0.0))
    free = list(truth.objects)
    matches = []
    for instance in order:
        candidates = [thing for thing in free if thing.label == instance.label]
        overlaps = [_iou(instance.bounds, thing.box) for thing in candidates]
        hit = bool(overlaps) and max(overlaps) >= IOU
        if hit:
            free.remove(candidates[int(np.argmax(overlaps))])
        matches.append((instance.score or 0.0, hit))
    return matches


def average_precision(matches: Iterable[tuple[float, bool]], true: int) -> float:
    """Area under the interpolated precision-recall curve of (score, right) pairs.

    true: number of true boxes.
    """
    right = np.array([ok for _, ok in sorted(matches, key=lambda match: -match[0])], dtype=float)
    if not len(right) or not true:
        return 0.0
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * right).sum() / true)


def object_names(caption: str) -> set[str]:
    """Labels of the scenes' classes that a caption names, in the singular or the plural."""
    return {label for label in CLASSES if any(re.search(rf"\b{form}\b", caption) for form in (label, plural(label)))}


class _Counts:
    """Right, given and true things, summed over scenes."""

    def __init__(self):
        self.right = self.given = self.true = 0

    def add(self, right: int, given: int, true: int) -> None:
        self.right, self.given, self.true = self.right + right, self.given + given, self.true + true

    @property
    def precision(self) -> float:
        return self.right / max(1, self.given)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.true)

    @property
    def f1(self) -> float:
        return 2 * self.right / max(1, self.given + self.true)


def _best_iou(result: Result, box) -> float:
    best = max(result.instances, key=lambda instance: instance.score or 0.0, default=None)
    return _iou(best.bounds, box) if best else 0.0


def _iou(a, b) -> float:
    return float(box_iou([a], [b])[0, 0]) if a is not None else 0.0


def _share(values: list[bool]) -> float:
    return sum(values) / max(1, len(values))
