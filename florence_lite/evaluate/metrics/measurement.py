"""What a metric takes and returns, and how it gets at the library that does the work."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Self

from florence_lite.results import Result
from florence_lite.rules import Pair


@dataclass(frozen=True)
class Case:
    """One answered prompt: what was true and what the checkpoint said, both in pixels of the same image."""

    truth: Pair
    result: Result


@dataclass(frozen=True)
class Measurement:
    """Values by name, None where there was nothing to measure; notes: what a reader has to know.

    Of a measure that asks by itself: answers: what it was measured on; parse_errors and truncated, as in `Report`.
    """

    metrics: Mapping[str, float | None]
    notes: tuple[str, ...] = ()
    answers: int = 0
    parse_errors: int = 0
    truncated: int = 0

    @classmethod
    def of_results(
        cls, metrics: Mapping[str, float | None], notes: tuple[str, ...], answers: int, results: Iterable[Result]
    ) -> Self:
        """With the faults of all results that it comes from."""
        faults = [(result.parse_errors, result.truncated) for result in results]
        return cls(metrics, notes, answers, sum(each for each, _ in faults), sum(each for _, each in faults))


def share(part: float, whole: float) -> float | None:
    """part / whole, None where there is no whole."""
    return float(part / whole) if whole else None


def f1_metrics(name: str, right: int, given: int, true: int) -> dict[str, float | None]:
    """`{name}_precision`, `{name}_recall` and `{name}_f1` of counts of right, given and true things."""
    return {
        f"{name}_precision": share(right, given),
        f"{name}_recall": share(right, true),
        f"{name}_f1": share(2 * right, given + true),
    }


def needed(module: str) -> ModuleType:
    """A module of the extra `eval`. Raises ModuleNotFoundError with the remedy where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'this metric needs the package {error.name}: pip install "florence-lite[eval]"', name=error.name
        ) from error
