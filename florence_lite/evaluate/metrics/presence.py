"""Whether phrases that mean nothing are told from those that mean something, by the presence in the results, and what
that is worth for detection. Through `torchmetrics`, and COCO's average precision.

Absent phrases are counted in all and by their kind: "random", of which nothing is in the image, and "changed", which
are wrong in one attribute.
"""

from __future__ import annotations

from collections.abc import Sequence

from florence_lite.evaluate.metrics.detection import box_ap_one_class
from florence_lite.evaluate.metrics.measurement import Case, Measurement, needed, share

PACKAGE = "torchmetrics"
KINDS = ("random", "changed")
RECALL = 0.95
BINS = 15


def presence_auroc(cases: Sequence[Case]) -> Measurement:
    """presence_auroc: how often a present phrase has a higher presence than an absent one; presence_fpr95: share of the
    absent phrases that pass where 95 % of the present ones do. Each also against absent phrases of one kind."""
    values: dict[str, float | None] = {}
    for kind in ("", *KINDS):
        ending = f"_{kind}" if kind else ""
        asked = _asked(cases, kind)
        presence, present = [each for each, _ in asked], [truth for _, truth in asked]
        known = any(present) and not all(present)
        values[f"presence_auroc{ending}"] = _auroc(presence, present) if known else None
        values[f"presence_fpr95{ending}"] = _false_positives(presence, present) if known else None
    return Measurement(values, _notes(cases))


def expected_calibration_error(cases: Sequence[Case]) -> Measurement:
    """ece: how far presences lie from the share of phrases that are present, mean over 15 bins by their phrases.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    asked = _asked(cases)
    return Measurement({"ece": calibration_error(*zip(*asked, strict=True)) if asked else None}, _notes(cases))


def rejection(cases: Sequence[Case]) -> Measurement:
    """n_acc: share of the absent phrases that are answered by nothing, also of one kind; t_acc: share of the present
    ones that are answered by something.

    Source: Liu et al. 2023, arXiv:2306.00968 (gRefCOCO).
    """
    absent = [case for case in cases if not case.truth.instances]
    present = [case for case in cases if case.truth.instances]
    values = {"n_acc": _share_empty(absent)}
    values |= {f"n_acc_{kind}": _share_empty([case for case in absent if case.truth.kind == kind]) for kind in KINDS}
    empty = _share_empty(present)
    return Measurement(values | {"t_acc": None if empty is None else 1 - empty})


def described_ap(cases: Sequence[Case]) -> Measurement:
    """full_ap: average precision of boxes over all phrases of all images, as one class: what is found for a phrase that
    means nothing is wrong; pres_ap: the same over the phrases that mean something alone. abs_ap: over the phrases that
    mean nothing of kind "changed", each with the phrases that mean something in its image.

    FULL, PRES and ABS of Xie et al. 2023, arXiv:2307.12813 (D³), where ABS is over descriptions of what is absent
    from an object ("without a hat"), which no data here have: abs_ap is over the nearest thing, descriptions of which
    one attribute is wrong, and tells how much of pres_ap they cost. D³'s mean over descriptions is one over all here,
    because scores must rank across phrases.
    """
    present = [case for case in cases if case.truth.instances]
    changed = [case for case in cases if not case.truth.instances and case.truth.kind == "changed"]
    values: dict[str, float | None] = {}
    for name, chosen in (("full_ap", cases), ("pres_ap", present), ("abs_ap", [*present, *changed] if changed else [])):
        values[name] = box_ap_one_class(chosen).metrics["ap_one_class"] if chosen else None
    return Measurement(values)


def calibration_error(presence: Sequence[float], present: Sequence[bool]) -> float:
    """The expected calibration error of presences, by `torchmetrics`."""
    metric = needed("torchmetrics.functional.classification").binary_calibration_error
    return float(metric(*_tensors(presence, present), n_bins=BINS, norm="l1"))


def _auroc(presence: Sequence[float], present: Sequence[bool]) -> float:
    metric = needed("torchmetrics.functional.classification").binary_auroc
    return float(metric(*_tensors(presence, present)))


def _false_positives(presence: Sequence[float], present: Sequence[bool]) -> float:
    curve = needed("torchmetrics.functional.classification").binary_roc
    false, true, _ = curve(*_tensors(presence, present))
    return float(false[true >= RECALL].min())


def _tensors(presence: Sequence[float], present: Sequence[bool]) -> tuple:
    import torch

    return torch.tensor(presence, dtype=torch.float64), torch.tensor(present, dtype=torch.int64)


def _asked(cases: Sequence[Case], kind: str = "") -> list[tuple[float, bool]]:
    """Presence and truth of every phrase; of the absent ones only those of a kind, if it is given."""
    return [
        (presence, bool(case.truth.instances))
        for case in cases
        for presence in case.result.presence.values()
        if case.truth.instances or kind in ("", case.truth.kind)
    ]


def _share_empty(cases: Sequence[Case]) -> float | None:
    return share(sum(not case.result.instances for case in cases), len(cases))


def _notes(cases: Sequence[Case]) -> tuple[str, ...]:
    silent = sum(not case.result.presence for case in cases)
    return (f"{silent} answers have no presence and are left out of its metrics",) if silent else ()
