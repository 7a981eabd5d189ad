"""Whether what a phrase, a region or a line of text means was found where it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from florence_lite.answers import Instance, same_label
from florence_lite.evaluate.metrics.ignored import in_ignored, outline_areas
from florence_lite.evaluate.metrics.measurement import Case, Measurement, f1_metrics, share
from florence_lite.evaluate.metrics.words import short_form
from florence_lite.geometry import box_iou, rasterize

IOU = 0.5  # overlap from which a place counts as found


def accuracy_at_half(cases: Sequence[Case]) -> Measurement:
    """acc@0.5: share of the phrases that mean exactly one object whose best-scored box overlaps it by IoU ≥ 0.5.

    Source: Yu et al. 2016, arXiv:1608.00272 (RefCOCO).
    """
    single = [case for case in cases if len(case.truth.instances) == 1]
    hits = sum(_hits(_best(case.result.instances), case.truth.instances) for case in single)
    return Measurement({"acc@0.5": share(hits, len(single))})


def recall_at_one(cases: Sequence[Case]) -> Measurement:
    """recall@1: share of the true phrases whose best-scored box overlaps one of theirs by IoU ≥ 0.5.

    Phrases are the same if they are without capitals, articles and punctuation. Source: Plummer et al. 2015,
    arXiv:1505.04870 (Flickr30k Entities), where any box of the phrase counts.
    """
    hits = phrases = 0
    for case in cases:
        for phrase in {short_form(item.label) for item in case.truth.instances}:
            true = [item for item in case.truth.instances if short_form(item.label) == phrase]
            found = [item for item in case.result.instances if short_form(item.label) == phrase]
            hits += _hits(_best(found), true)
            phrases += 1
    return Measurement({"recall@1": share(hits, phrases)})


def absent_rejected(cases: Sequence[Case]) -> Measurement:
    """absent_rejected: share of the phrases that mean nothing in their image whose answer finds nothing.

    Source: the no-target accuracy of Liu et al. 2023, arXiv:2306.00968 (gRefCOCO).
    """
    absent = [case for case in cases if not case.truth.instances]
    return Measurement({"absent_rejected": share(sum(not case.result.instances for case in absent), len(absent))})


def mask_iou(cases: Sequence[Case]) -> Measurement:
    """miou: mean over the prompts of the IoU of all that is outlined with all that should be; ciou: the sum of the
    intersections over the sum of the unions.

    Prompts that mean nothing are not part of them. Source: Wu et al. 2020, arXiv:2008.01187.
    """
    shared, united = [], []
    for case in cases:
        if case.truth.instances:
            answer, truth = (_mask(side.instances, case.result.size_wh) for side in (case.result, case.truth))
            shared.append(int(np.count_nonzero(answer & truth)))
            united.append(int(np.count_nonzero(answer | truth)))
    each = [part / whole if whole else 0.0 for part, whole in zip(shared, united, strict=True)]
    return Measurement({"miou": share(sum(each), len(each)), "ciou": share(sum(shared), sum(united))})


def box_f1(cases: Sequence[Case]) -> Measurement:
    """box_precision, box_recall, box_f1: boxes that overlap a true one of their label by IoU ≥ 0.5, each true box found
    once, pairs of the largest overlap first. Scores take no part. Labels are equal save for capitals and space.
    """
    right = given = true = 0
    for case in cases:
        answered = [item for item in case.result.instances if item.bounds is not None]
        wanted = case.truth.instances
        given, true = given + len(answered), true + len(wanted)
        overlaps = box_iou([item.bounds for item in answered], [item.bounds for item in wanted])
        alike = [same_label(one.label) == same_label(other.label) for one in answered for other in wanted]
        pairs = _pairs(overlaps * np.reshape(alike, overlaps.shape))
        right, given = right + len(pairs), given - _lost(case, answered, pairs)
    return Measurement(f1_metrics("box", right, given, true))


def quad_f1(cases: Sequence[Case]) -> Measurement:
    """quad_precision, quad_recall, quad_f1: lines of text whose quad overlaps a true one by IoU ≥ 0.5, each true line
    found once, pairs of the largest overlap first; spotting_…: the same pairs if the words are equal too, save for
    capitals and space. A quad without a partner that lies by half in text that cannot be read counts for nothing.

    Source: Karatzas et al. 2015, doi:10.1109/ICDAR.2015.7333942; the areas come from `shapely`.
    """
    placed = words = given = true = 0
    for case in cases:
        answered = [item for item in case.result.instances if item.bounds is not None]
        lines = case.truth.instances
        given, true = given + len(answered), true + len(lines)
        pairs = _pairs(_outline_iou(answered, lines))
        placed, given = placed + len(pairs), given - _lost(case, answered, pairs)
        words += sum(same_label(answered[i].label) == same_label(lines[j].label) for i, j in pairs)
    return Measurement(f1_metrics("quad", placed, given, true) | f1_metrics("spotting", words, given, true))


def _best(instances: Sequence[Instance]) -> Instance | None:
    """The one with the best score; one without a score counts as 0, and the first of equals is taken."""
    return max(instances, key=lambda item: item.score or 0.0, default=None)


def _hits(item: Instance | None, true: Sequence[Instance]) -> bool:
    if item is None or item.bounds is None:
        return False
    return bool((box_iou([item.bounds], [other.bounds for other in true]) >= IOU).any())


def _mask(instances: Sequence[Instance], size_wh: tuple[int, int]) -> np.ndarray:
    """bool[H, W]: the pixels of any of the instances."""
    mask = np.zeros(size_wh[::-1], dtype=bool)
    for item in instances:
        mask |= rasterize(item.outlines, size_wh)
    return mask


def _outline_iou(a: Sequence[Instance], b: Sequence[Instance]) -> np.ndarray:
    """float64[N, M] of the first outlines; a quad that crosses itself counts with the parts that it encloses."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    shared, left, right = outline_areas(a, b)
    united = left[:, None] + right[None, :] - shared
    return np.divide(shared, united, out=np.zeros_like(shared), where=united > 0)


def _lost(case: Case, answered: Sequence[Instance], pairs: Sequence[tuple[int, int]]) -> int:
    """How many answers without a partner lie in something that is ignored."""
    partnered = {i for i, _ in pairs}
    return sum(in_ignored([item for i, item in enumerate(answered) if i not in partnered], case.truth.ignored))


def _pairs(overlaps: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows and columns with an overlap of at least `IOU`, each used once, the largest first."""
    pairs, rows, columns = [], set(), set()
    for place in np.argsort(-overlaps, axis=None, kind="stable"):
        i, j = (int(n) for n in np.unravel_index(place, overlaps.shape))
        if overlaps[i, j] >= IOU and i not in rows and j not in columns:
            pairs.append((i, j))
            rows.add(i)
            columns.add(j)
    return pairs
