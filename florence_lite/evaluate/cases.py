"""What a data set lets us ask, and the truth that an answer is held against.

Every task has one rule here: from the annotation of an image to all prompts that it can check, each with its truth.
Training draws one target of an image (`florence_lite.data.targets`); measuring asks everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from florence_lite.answers import Box, Instance
from florence_lite.data.annotation import Annotation
from florence_lite.data.targets import target
from florence_lite.inference import Prompt
from florence_lite.results import Result


@dataclass(frozen=True)
class Truth:
    """What a right answer says.

    instances: what it should find, in pixels; () where there is nothing to find.
    texts: the sentences or short answers that count as right; () where the task asks for places.
    """

    instances: tuple[Instance, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One answered prompt: what was true and what the checkpoint said, both in pixels of the same image."""

    truth: Truth
    result: Result


def questions(task: str, annotation: Annotation) -> list[tuple[Prompt, Truth]]:
    """Every prompt of `task` (its marker) that the annotation can check, with its truth; [] where it tells nothing.

    Raises ValueError for a task without a rule.
    """
    if task not in QUESTIONS:
        raise ValueError(f"nothing is known about the truth of task {task!r}; choose from {sorted(QUESTIONS)}")
    return [(Prompt(task, **inputs), truth) for inputs, truth in QUESTIONS[task](annotation)]


Rule = Callable[[Annotation], Iterator[tuple[dict, Truth]]]
"""From an annotation to the inputs of each prompt, as keyword arguments of `Prompt`, and its truth."""


def _caption(level: int) -> Rule:
    """The caption of a level of detail; further short ones are further references of the first."""

    def ask(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
        captions = annotation.captions[level : level + 1] + (annotation.more_captions if level == 0 else ())
        if texts := tuple(caption for caption in captions if caption.strip()):
            yield {}, Truth(texts=texts)

    return ask


def _places(task: str) -> Rule:
    """All that the image shows of its kind, as training would have it told."""

    def ask(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
        if (asked := target(task, annotation, np.random.default_rng(0))) is not None:
            yield {}, Truth(asked.answer.instances)

    return ask


def _grounding(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    asked = target("<CAPTION_TO_PHRASE_GROUNDING>", annotation, np.random.default_rng(0))
    if asked is not None and asked.answer.instances:
        yield {"text": asked.text}, Truth(asked.answer.instances)


def _phrases(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    for referral in annotation.referrals:
        boxes = (Instance(referral.phrase, box=annotation.objects[i].box) for i in referral.objects)
        yield {"phrases": (referral.phrase,)}, Truth(tuple(boxes))


def _phrase_outlines(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    """The phrases whose objects all have outlines, and those that mean nothing."""
    for referral in annotation.referrals:
        outlines = [annotation.objects[i].rings for i in referral.objects]
        if all(outlines):
            yield {"text": referral.phrase}, Truth(tuple(Instance(rings=rings) for rings in outlines))


def _region_outlines(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    for item in annotation.objects:
        if item.rings:
            yield {"region": _inside(item.box, annotation.size_wh)}, Truth((Instance(rings=item.rings),))


def _region_labels(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    for item in annotation.objects:
        if item.label.strip():
            yield {"region": _inside(item.box, annotation.size_wh)}, Truth(texts=(item.label,))


def _region_descriptions(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    described = [(item.box, item.phrase) for item in annotation.objects if item.phrase.strip()]
    for box, words in described + [(region.box, region.text) for region in annotation.regions]:
        yield {"region": _inside(box, annotation.size_wh)}, Truth(texts=(words,))


def _region_words(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    for line in annotation.lines:
        bounds = Instance(quad=line.quad).bounds
        yield {"region": _inside(bounds, annotation.size_wh)}, Truth(texts=(line.text,))


def _words(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    if "lines" in annotation.listed:
        yield {}, Truth(texts=(" ".join(line.text for line in annotation.lines),))


def _questions(annotation: Annotation) -> Iterator[tuple[dict, Truth]]:
    """A question that stands there several times, as VQA's ten annotators answer it, is asked once."""
    answers: dict[str, tuple[str, ...]] = {}
    for item in annotation.questions:
        answers[item.question] = (*answers.get(item.question, ()), item.answer)
    for question, texts in answers.items():
        yield {"text": question}, Truth(texts=texts)


def _inside(box: Box, size_wh: tuple[int, int]) -> Box:
    """The part of a box that lies in the image; a box wholly outside stays, for the prompt to refuse it by name."""
    low, high = np.clip(box[:2], 0, size_wh), np.clip(box[2:], 0, size_wh)
    return (*low.tolist(), *high.tolist()) if (low < high).all() else box


QUESTIONS: dict[str, Rule] = {
    "<CAPTION>": _caption(0),
    "<DETAILED_CAPTION>": _caption(1),
    "<MORE_DETAILED_CAPTION>": _caption(2),
    "<OD>": _places("<OD>"),
    "<DENSE_REGION_CAPTION>": _places("<DENSE_REGION_CAPTION>"),
    "<REGION_PROPOSAL>": _places("<REGION_PROPOSAL>"),
    "<CAPTION_TO_PHRASE_GROUNDING>": _grounding,
    "<OPEN_VOCABULARY_DETECTION>": _phrases,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _phrase_outlines,
    "<REGION_TO_SEGMENTATION>": _region_outlines,
    "<REGION_TO_CATEGORY>": _region_labels,
    "<REGION_TO_DESCRIPTION>": _region_descriptions,
    "<REGION_TO_OCR>": _region_words,
    "<OCR>": _words,
    "<OCR_WITH_REGION>": _places("<OCR_WITH_REGION>"),
    "<VQA>": _questions,
}
"""The rule of each task. A task of your own gets one by an entry here."""
