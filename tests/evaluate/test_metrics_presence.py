"""Metrics of presence, from tables made by hand."""

import pytest

from florence_lite.evaluate.metrics import METRICS, Case, metric
from florence_lite.results import Result
from florence_lite.rules import Pair
from tests.evaluate.given import SIZE, found

pytest.importorskip("torchmetrics", reason="the extra eval is not installed")
BOX, FAR = (10, 10, 30, 30), (50, 50, 70, 70)


def asked(presence, true=(), answer=(), kind=""):
    """A phrase that was asked for."""
    truth = Pair({"phrases": ("dog",)}, tuple(true), kind=kind)
    return Case(truth, Result("<ANY>", SIZE, instances=tuple(answer), presence={"dog": presence}))


def present(presence, score=None):
    answer = () if score is None else (found("dog", BOX, score),)
    return asked(presence, (found("dog", BOX),), answer)


def absent(presence, score=None, kind=""):
    return asked(presence, (), () if score is None else (found("dog", FAR, score),), kind)


def values(name, cases):
    return metric(name).measure(cases).metrics


def test_auroc_and_false_positives_in_all_and_by_kind():
    pytest.importorskip("torchmetrics")
    cases = [present(0.9), present(0.6), absent(0.7, kind="changed"), absent(0.1, kind="random"), absent(0.2)]
    got = values("presence_auroc", cases)
    assert got["presence_auroc"] == pytest.approx(5 / 6)
    assert got["presence_auroc_changed"] == 0.5 and got["presence_auroc_random"] == 1.0
    assert got["presence_fpr95"] == pytest.approx(1 / 3)  # all present ones pass from 0.6, and one of three others
    assert got["presence_fpr95_changed"] == 1.0 and got["presence_fpr95_random"] == 0.0
    assert all(value is None for value in values("presence_auroc", cases[:2]).values())
    assert all(value is None for value in values("presence_auroc", []).values())


def test_calibration_error():
    cases = [present(0.8)] * 3 + [absent(0.8)] * 2 + [absent(0.1)] * 5
    assert values("ece", cases)["ece"] == pytest.approx(0.5 * abs(0.8 - 0.6) + 0.5 * 0.1, abs=1e-6)
    assert values("ece", []) == {"ece": None}
    silent = Case(Pair(), Result("<ANY>", SIZE))
    measured = metric("ece").measure([*cases, silent])
    assert measured.notes == ("1 answers have no presence and are left out of its metrics",)


def test_rejection():
    cases = [
        present(0.9, 0.9),
        present(0.4),
        *(absent(0.1, kind="random") for _ in range(2)),
        absent(0.1, kind="changed"),
        absent(0.8, 0.5, kind="changed"),
        absent(0.9, 0.5),
    ]
    assert values("rejection", cases) == {"n_acc": 3 / 5, "n_acc_random": 1.0, "n_acc_changed": 0.5, "t_acc": 0.5}
    assert all(value is None for value in values("rejection", []).values())


def test_phrases_that_mean_nothing_cost_precision():
    """What is found for them above what is right; more of it costs more."""
    pytest.importorskip("faster_coco_eval")
    right = [present(0.9, 0.6) for _ in range(4)]
    wrong = [absent(0.9, 0.7, kind="changed"), absent(0.9, 0.7, kind="random"), absent(0.9, 0.7)]
    got = values("described_ap", [*right, *wrong])
    assert got["pres_ap"] == pytest.approx(1.0)
    assert got["abs_ap"] == pytest.approx(4 / 5, abs=0.01) and got["full_ap"] == pytest.approx(4 / 7, abs=0.01)
    low = values("described_ap", [*right, *(absent(0.4, 0.2, kind="changed") for _ in range(3))])
    assert low["full_ap"] == low["abs_ap"] == pytest.approx(1.0)  # scores rank across phrases
    assert values("described_ap", right)["abs_ap"] is None
    assert set(values("described_ap", []).values()) == {None}


def test_names_of_what_is_better_lower_exist():
    from florence_lite.evaluate.metrics import LOWER_IS_BETTER

    names = {name for each in METRICS.values() for name in each.measure(()).metrics}
    assert set(LOWER_IS_BETTER) <= names
