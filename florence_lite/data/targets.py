"""What each task asks of an annotated image: the input of its prompt and the answer a perfect model gives.

The answer goes through the codec's `serialize`, so that a training target is the exact inverse of what is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from florence_lite.answers import Answer, Instance, Rings
from florence_lite.cards import task as task_card
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.geometry import simplify_ring

MOST_OUTLINED = 2  # objects that one segmentation answer outlines: every point costs two tokens
ABSENT_SHARE = 1 / 3  # of the phrases asked for; drawn evenly, half would mean nothing, and that is learned first
OUTLINE_TOLERANCE = 0.015  # how far a thinned outline may leave the true one, as a share of the image's shorter side


@dataclass(frozen=True)
class Target:
    """One prompt about an image and its true answer. At most one of the inputs is set, as the task's card demands."""

    answer: Answer
    text: str | None = None
    phrases: tuple[str, ...] | None = None
    region_px: tuple[float, float, float, float] | None = None

    def inputs(self) -> dict:
        """The inputs that are set, as keyword arguments of `TaskCard.prompt`."""
        values = {"text": self.text, "phrases": self.phrases, "region_px": self.region_px}
        return {name: value for name, value in values.items() if value is not None}


def target(task: str, annotation: Annotation, rng: np.random.Generator) -> Target | None:
    """A target of `task` (its marker) for an image, drawn with `rng` where there are several; None where the annotation
    does not tell. The card says the order of its instances. Raises ValueError for a task that has no rule here."""
    if task not in TARGETS:
        raise ValueError(f"no training targets are known for task {task!r}; choose from {sorted(TARGETS)}")
    drawn = TARGETS[task](annotation, rng)
    if drawn is None or task_card(task).order == "given":
        return drawn
    instances = sorted(drawn.answer.instances, key=lambda item: item.bounds[:2])
    return replace(drawn, answer=replace(drawn.answer, instances=tuple(instances)))


def _caption(index: int) -> Callable:
    def make(annotation: Annotation, rng: np.random.Generator) -> Target | None:
        text = annotation.captions[index] if index < len(annotation.captions) else ""
        if not text:
            return None
        if index == 0 and annotation.more_captions:
            text = _draw((text, *annotation.more_captions), rng)
        return Target(Answer(text=text))

    return make


def _boxes(label: Callable[[ObjectAnnotation], str]) -> Callable:
    """All objects with their words; None where one has none."""

    def make(annotation: Annotation, rng: np.random.Generator) -> Target | None:
        if "objects" not in annotation.listed or not all(label(item) for item in annotation.objects):
            return None
        return Target(Answer(instances=tuple(Instance(label(item), box=item.box) for item in annotation.objects)))

    return make


def _proposals(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    if "objects" not in annotation.listed:
        return None
    return Target(Answer(instances=tuple(Instance(box=item.box) for item in annotation.objects)))


def _grounding(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    """The labels that the short caption mentions, in its order, with their boxes."""
    caption = annotation.captions[0] if annotation.captions else ""
    if not caption or "objects" not in annotation.listed:
        return None
    places = [(_mentioned_at(caption, item.label), item) for item in annotation.objects]
    mentioned = sorted(((place, item) for place, item in places if place is not None), key=lambda pair: pair[0])
    answer = Answer(instances=tuple(Instance(item.label, box=item.box) for _, item in mentioned))
    return Target(answer, text=caption)


def _mentioned_at(caption: str, label: str) -> int | None:
    """Where a caption has a label as words of their own, in the singular or with a regular plural's ending."""
    found = re.search(rf"(?<!\w){re.escape(label)}(?:e?s)?(?!\w)", caption, re.IGNORECASE) if label else None
    return found.start() if found else None


def _open_vocabulary(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    """One phrase; the boxes come without a label, for the phrase is known."""
    referral = _draw_referral(annotation.referrals, rng)
    if referral is None:
        return None
    boxes = tuple(Instance(box=annotation.objects[i].box) for i in referral.objects)
    return Target(Answer(instances=boxes), phrases=(referral.phrase,))


def _referring_segmentation(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    outlined = [
        r
        for r in annotation.referrals
        if len(r.objects) <= MOST_OUTLINED and all(annotation.objects[i].rings for i in r.objects)
    ]
    referral = _draw_referral(outlined, rng)
    if referral is None:
        return None
    rings = tuple(ring for i in referral.objects for ring in annotation.objects[i].rings)
    return Target(_shape(rings, annotation.size_wh), text=referral.phrase)


def _region_segmentation(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    item = _draw([item for item in annotation.objects if item.rings], rng)
    return None if item is None else Target(_shape(item.rings, annotation.size_wh), region_px=item.box)


def _region_category(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    item = _draw([item for item in annotation.objects if item.label], rng)
    return None if item is None else Target(Answer(instances=(Instance(item.label, box=item.box),)), region_px=item.box)


def _region_description(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    described = [(item.phrase, item.box) for item in annotation.objects if item.phrase]
    described += [(region.text, region.box) for region in annotation.regions]
    words, box = _draw(described, rng) or ("", None)
    return Target(Answer(instances=(Instance(words, box=box),)), region_px=box) if words else None


def _region_ocr(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    line = _draw(annotation.lines, rng)
    if line is None:
        return None
    width, height = annotation.size_wh
    xs, ys = np.clip(line.quad[::2], 0, width), np.clip(line.quad[1::2], 0, height)
    box = tuple(float(v) for v in (xs.min(), ys.min(), xs.max(), ys.max()))
    return Target(Answer(instances=(Instance(line.text, box=box),)), region_px=box)


def _ocr(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    if "lines" not in annotation.listed:
        return None
    return Target(Answer(text=" ".join(line.text for line in annotation.lines)))


def _ocr_with_region(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    if "lines" not in annotation.listed:
        return None
    return Target(Answer(instances=tuple(Instance(line.text, quad=line.quad) for line in annotation.lines)))


def _question(annotation: Annotation, rng: np.random.Generator) -> Target | None:
    question = _draw(annotation.questions, rng)
    return None if question is None else Target(Answer(text=question.answer), text=question.question)


def _shape(rings: Rings, size_wh: tuple[int, int]) -> Answer:
    """The outline, thinned until a small model can be asked to write it."""
    tolerance = OUTLINE_TOLERANCE * min(size_wh)
    thinned = tuple(thin for ring in rings if len(thin := simplify_ring(np.array(ring), tolerance)) >= 3)
    return Answer(instances=(Instance(rings=thinned),) if thinned else ())


def _draw_referral(referrals, rng: np.random.Generator):
    """One that means nothing in `ABSENT_SHARE` of the cases, if there are both kinds."""
    absent = [referral for referral in referrals if not referral.objects]
    present = [referral for referral in referrals if referral.objects]
    return _draw((absent if rng.random() < ABSENT_SHARE else present) or referrals, rng)


def _draw(items, rng: np.random.Generator):
    return items[int(rng.integers(len(items)))] if len(items) else None


TARGETS: dict[str, Callable[[Annotation, np.random.Generator], Target | None]] = {
    "<CAPTION>": _caption(0),
    "<DETAILED_CAPTION>": _caption(1),
    "<MORE_DETAILED_CAPTION>": _caption(2),
    "<OD>": _boxes(lambda item: item.label),
    "<DENSE_REGION_CAPTION>": _boxes(lambda item: item.phrase or item.label),
    "<REGION_PROPOSAL>": _proposals,
    "<CAPTION_TO_PHRASE_GROUNDING>": _grounding,
    "<OPEN_VOCABULARY_DETECTION>": _open_vocabulary,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _referring_segmentation,
    "<REGION_TO_SEGMENTATION>": _region_segmentation,
    "<REGION_TO_CATEGORY>": _region_category,
    "<REGION_TO_DESCRIPTION>": _region_description,
    "<REGION_TO_OCR>": _region_ocr,
    "<OCR>": _ocr,
    "<OCR_WITH_REGION>": _ocr_with_region,
    "<VQA>": _question,
}
