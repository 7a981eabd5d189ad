"""The measures that task cards name: thin adapters over public libraries, one function each.

A metric takes the answered prompts of one task and returns values by name; `metric("ap")` finds one, `METRICS` lists
all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from florence_lite.cards import TaskCard
from florence_lite.checks import hint
from florence_lite.evaluate.metrics import detection, places, presence, words
from florence_lite.evaluate.metrics.measurement import Case, Measurement, needed
from florence_lite.rules import rule_of

__all__ = ["LOWER_IS_BETTER", "METRICS", "Case", "Measurement", "Metric", "metric", "metrics_of"]


@dataclass(frozen=True)
class Metric:
    """measure: from the cases of one task to metrics. needs: modules of the extra `eval` that it works with."""

    measure: Callable[[Sequence[Case]], Measurement]
    needs: tuple[str, ...] = ()

    def require_packages(self) -> None:
        """Raises ModuleNotFoundError with the remedy where a package is missing."""
        for module in self.needs:
            needed(module)


METRICS: dict[str, Metric] = {
    "ap": Metric(detection.box_ap, (detection.PACKAGE,)),
    "ap_one_class": Metric(detection.box_ap_one_class, (detection.PACKAGE,)),
    "ar": Metric(detection.box_ar, (detection.PACKAGE,)),
    "mask_ap": Metric(detection.mask_ap, (detection.PACKAGE,)),
    "box_f1": Metric(places.box_f1),
    "acc@0.5": Metric(places.accuracy_at_half),
    "recall@1": Metric(places.recall_at_one),
    "absent_rejected": Metric(places.absent_rejected),
    "presence_auroc": Metric(presence.presence_auroc, (presence.PACKAGE,)),
    "ece": Metric(presence.expected_calibration_error, (presence.PACKAGE,)),
    "rejection": Metric(presence.rejection),
    "described_ap": Metric(presence.described_ap, (detection.PACKAGE,)),
    "miou": Metric(places.mask_iou),
    "quad_f1": Metric(places.quad_f1, ("shapely",)),
    "cider": Metric(words.cider, ("pycocoevalcap.cider.cider",)),
    "bleu": Metric(words.bleu, ("sacrebleu.metrics",)),
    "cer": Metric(words.character_errors, ("jiwer",)),
    "wer": Metric(words.word_errors, ("jiwer",)),
    "word_f1": Metric(words.word_f1),
    "object_f1": Metric(words.object_f1),
    "anls": Metric(words.anls, ("rapidfuzz",)),
    "vqa_accuracy": Metric(words.vqa_accuracy),
    "accuracy": Metric(words.accuracy),
    "infilling": Metric(words.infilling),
    "label_f1": Metric(words.label_f1),
}
"""Names that may stand in the `metrics` of a task card. Add an entry to register a metric of your own."""

LOWER_IS_BETTER = (
    "cer",
    "wer",
    "ece",
    "presence_fpr95",
    "presence_fpr95_random",
    "presence_fpr95_changed",
)  # metrics; of all others more is better


def metric(name: str) -> Metric:
    """The metric called `name`. Raises ValueError with the valid names."""
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; {hint(name, METRICS)}metrics: {', '.join(METRICS)}")
    return METRICS[name]


def metrics_of(card: TaskCard) -> dict[str, Metric]:
    """The metrics that a task card names.

    Raises ValueError, naming the task, where there are none, one is unknown, or the task has no rule that tells the
    truth; ModuleNotFoundError with the remedy where a package is missing.
    """
    if not card.metrics:
        raise ValueError(f"task {card.name} cannot be measured: its card names no metrics")
    try:
        found = {name: metric(name) for name in card.metrics}
    except ValueError as error:
        raise ValueError(f"the card of task {card.name}: {error}") from None
    rule_of(card)
    for each in found.values():
        each.require_packages()
    return found
