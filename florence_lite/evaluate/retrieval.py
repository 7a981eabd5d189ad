"""How well a checkpoint tells which texts and images, and which phrases and places, belong together.

Measured on whole sets of annotated images, where `evaluate` looks at one prompt at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from florence_lite.data.samples import Problem, Sample
from florence_lite.evaluate.closed import closed_questions, infilling, lists_of
from florence_lite.evaluate.metrics.measurement import Measurement, needed
from florence_lite.evaluate.negatives import DRAWN, PHRASES, Negatives
from florence_lite.evaluate.report import Report, problem_of
from florence_lite.florence import Florence
from florence_lite.florence.words import CAPTIONS
from florence_lite.geometry import box_iou
from florence_lite.inference import Prompt
from florence_lite.inference.infilling import INFILLING
from florence_lite.inference.retrieval import MATCHING
from florence_lite.results import Result
from florence_lite.rules import Pair, pairs

TOPS = (1, 5, 10)  # of R@k
HALF = 0.5  # IoU


def evaluate_retrieval(
    florence: Florence,
    samples: Sequence[Sample],
    count: int | None = None,
    lists: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """Which texts and images, phrases and places belong together, and answers and words that a choice or a gap asks
    for, each beside what needs no picture.

    samples: annotated images; only the first `count` of them if it is given. Every text is held against every image:
        time grows with the square of their number. Images that cannot be read are left out and reported.
    lists: of closed questions, as in `closed_questions`; None: those that `lists_of` finds.

    Sentences that are not true of an image come, where a data set has none, from captions of its other images.

    Returns a report with "captions", "detailed captions", "regions", "questions", "matching" and "infilling" in the
    place of tasks. What the data cannot tell, and what the checkpoint was not trained on, has the value None and a note
    with the reason. Raises ValueError for no samples and a count below 1; ModuleNotFoundError, with the remedy, where a
    package is missing.
    """
    if count is not None and count < 1:
        raise ValueError(f"count is {count}; at least one image is needed")
    number = len(samples) if count is None else min(count, len(samples))
    if not number:
        raise ValueError("there are no samples to measure on")
    needed("torchmetrics")
    readable, problems = _readable([samples[place] for place in range(number)])
    drawn = Negatives.where_lacking(MATCHING, samples, number)
    sentences = [replace(each, annotation=drawn.beside(each)) for each in readable] if drawn else readable
    lists = lists_of(readable) if lists is None else lists
    measures: dict[str, tuple[Callable[..., Measurement], list[Sample], str | None]] = {
        "captions": (text_retrieval, readable, None),
        "detailed captions": (partial(text_retrieval, detail="detailed"), readable, None),
        "regions": (region_retrieval, readable, None),
        "questions": (partial(closed_questions, lists=lists), readable, None),
        "matching": (matching, sentences, MATCHING),
        "infilling": (infilling, readable, INFILLING),
    }
    trained = florence.card.tasks if florence.card else ()
    found: dict[str, Measurement] = {}
    for name, (measure, known, needed_task) in measures.items():
        try:
            if needed_task and trained and needed_task not in trained:
                raise ValueError(f"the checkpoint was not trained on {needed_task}")
            found[name] = measure(florence, known)
        except ValueError as error:
            found[name] = Measurement(measure(florence, []).metrics, (f"not measured: {error}",))
    notes = [f"{name}: {note}" for name, each in found.items() for note in each.notes]
    if drawn and found["matching"].metrics["matching_auroc"] is not None:
        notes.append(f"matching: the data have no wrong sentences; up to {DRAWN} an image are captions of other images")
    return Report(
        {name: each.metrics for name, each in found.items()},
        answers={name: each.answers for name, each in found.items()},
        parse_errors={name: each.parse_errors for name, each in found.items()},
        truncated={name: each.truncated for name, each in found.items()},
        images=len(readable),
        notes=tuple(notes),
        problems=tuple(problems),
    )


def _readable(samples: Sequence[Sample]) -> tuple[list[Sample], list[Problem]]:
    """The samples whose images can be read, and what is wrong with the others."""
    readable, problems = [], []
    for sample in samples:
        try:
            sample.load()
            readable.append(sample)
        except (ValueError, OSError) as error:
            problems.append(problem_of(sample, "image left out", error))
    return readable, problems


def text_retrieval(florence: Florence, samples: Sequence[Sample], detail: str = "short") -> Measurement:
    """text_r@1, @5, @10: share of the images that have one of their own captions among their k best of all captions;
    image_r@1, @5, @10: share of the captions that have one of their images among their k best of all images.

    detail: which captions, as in `Florence.rank`; those that count as right are what its task's rule tells. Equal ones
    are one, which belongs to all of their images. By `torchmetrics.retrieval.RetrievalHitRate`. None for fewer than two
    images with captions.
    """
    samples, captions = _with_captions(samples, detail)
    if len(samples) < 2:
        names = [f"{way}_r@{top}" for way in ("text", "image") for top in TOPS]
        return Measurement(dict.fromkeys(names), (f"{len(samples)} images have such captions: two are needed",))
    texts = list(dict.fromkeys(text for each in captions for text in each))
    ranking = florence.rank((sample.load() for sample in samples), texts, detail)
    right = np.array([[text in each for text in texts] for each in captions])
    notes = (f"{len(samples)} images, {len(texts)} captions",)
    metrics = {f"text_r@{top}": _hit_rate(ranking.scores, right, top) for top in TOPS}
    metrics |= {f"image_r@{top}": _hit_rate(ranking.scores.T, right.T, top) for top in TOPS}
    return Measurement(metrics, notes, answers=len(texts))


def matching(florence: Florence, samples: Sequence[Sample]) -> Measurement:
    """matching_auroc: how often `Florence.match` gives a true sentence more than a wrong one, over all pairs that the
    task's rule tells (1 always, .5 by chance), by `torchmetrics`; matching_accuracy: share of them on the right side of
    one half. None where the samples have no wrong sentences, or no true ones.
    """
    given, true = [], []
    for sample in samples:
        asked = [pair for pair in pairs(MATCHING, sample.annotation) if pair.asked]
        if asked:
            given += florence.match(sample.load(), [pair.inputs["text"] for pair in asked])[0].tolist()
            true += ["yes" in pair.texts for pair in asked]
    notes = (f"{sum(true)} true and {len(true) - sum(true)} wrong sentences",)
    if len(set(true)) < 2:
        return Measurement({"matching_auroc": None, "matching_accuracy": None}, notes, answers=len(true))
    binary_auroc = needed("torchmetrics.functional.classification").binary_auroc
    # In float32 pairs that are sure would be equal.
    auroc = binary_auroc(torch.tensor(given, dtype=torch.float64), torch.tensor(true).int())
    right = np.mean((np.array(given) > 0.5) == np.array(true))
    return Measurement({"matching_auroc": float(auroc), "matching_accuracy": float(right)}, notes, answers=len(true))


def region_retrieval(florence: Florence, samples: Sequence[Sample]) -> Measurement:
    """region_r@1, @5, @10: share of the phrases for which one of the k images of the highest presence is right, and its
    surest box too, at an IoU of .5; presence_r@1, @5, @10: the same whatever the box.

    One phrase is looked for per image, the longest that means something there. An image is right where its annotation
    says that the phrase means something in it; others may show it without saying so, hence the figures are the least
    that is true. All of the images are encoded and kept. None for fewer than two images with phrases.
    """
    named = [(sample, _phrases(sample)) for sample in samples]
    named = [(sample, known) for sample, known in named if known]
    if len(named) < 2:
        names = [f"{what}_r@{top}" for what in ("region", "presence") for top in TOPS]
        return Measurement(dict.fromkeys(names), (f"{len(named)} images have phrases with boxes: two are needed",))
    wanted = list(dict.fromkeys(max(sorted(known), key=len) for _, known in named))
    encoded = [florence.encode(sample.load(), keep_image=False) for sample, _ in named]
    presences = np.array([_presences(florence, image, wanted) for image in encoded])  # [I, P]
    right = np.array([[phrase in known for phrase in wanted] for _, known in named])
    with_box = np.zeros_like(right)
    results: list[Result] = []
    best = np.argsort(-presences, 0, kind="stable")[: max(TOPS)]  # [k, P]
    for column, phrase in enumerate(wanted):
        chosen = [int(image) for image in best[:, column] if right[image, column]]
        prompt = Prompt(PHRASES, phrases=[phrase])
        answers = florence.run([encoded[image] for image in chosen], prompt, keep_image=False, threshold=0)
        results += answers
        for image, answer in zip(chosen, answers, strict=True):
            with_box[image, column] = _surest_is_right(answer, named[image][1][phrase])
    metrics = {f"region_r@{top}": _hit_rate(presences.T, with_box.T, top) for top in TOPS}
    metrics |= {f"presence_r@{top}": _hit_rate(presences.T, right.T, top) for top in TOPS}
    notes = (f"{len(encoded)} images, {len(wanted)} phrases",)
    return Measurement.of_results(metrics, notes, len(wanted), results)


def _hit_rate(scores: NDArray[np.float64], right: NDArray[np.bool_], top: int) -> float:
    """Share of the rows of which a right column is among the `top` best."""
    rate = needed("torchmetrics.retrieval").RetrievalHitRate(top_k=top)
    rows = torch.arange(len(scores))[:, None].expand(scores.shape)
    ranks = (-scores).argsort(1, kind="stable").argsort(1, kind="stable")  # float32 would merge scores that differ
    return float(rate(torch.tensor(-ranks).float(), torch.tensor(right), indexes=rows))


def _with_captions(samples: Sequence[Sample], detail: str) -> tuple[list[Sample], list[list[str]]]:
    if detail not in CAPTIONS:
        raise ValueError(f"detail is {detail!r}; choose one of {', '.join(CAPTIONS)}")
    found = []
    for sample in samples:
        if texts := [text.strip() for pair in pairs(CAPTIONS[detail], sample.annotation) for text in pair.texts]:
            found.append((sample, texts))
    return [sample for sample, _ in found], [texts for _, texts in found]


def _phrases(sample: Sample) -> dict[str, Pair]:
    """The phrases that mean something in an image."""
    asked = (pair for pair in pairs(PHRASES, sample.annotation) if pair.asked and pair.instances)
    return {pair.inputs["phrases"][0].strip(): pair for pair in asked}


def _presences(florence: Florence, image: object, phrases: list[str]) -> list[float]:
    answer = florence.run(image, Prompt(PHRASES, phrases=phrases), keep_image=False, threshold=1.0)
    return [answer.presence[phrase] for phrase in phrases]


def _surest_is_right(answer: Result, pair: Pair) -> bool:
    placed = [item for item in answer.instances if item.bounds is not None]
    if not placed:
        return False
    surest = max(placed, key=lambda item: item.score or 0.0)
    return bool((box_iou([surest.bounds], [item.bounds for item in pair.instances]) >= HALF).any())
