"""The truth of every task: from what is known about an image to all prompts that it can check, each with its answer.

There is one rule for each task. Training draws from its pairs, evaluation asks them all, and the checks of lengths
count them all. A task card names its rule; a task of your own may bring a function instead.

    pairs("<VQA>", annotation)[0].inputs     {"text": "how many dogs?"}
    pairs("<VQA>", annotation)[0].texts      ("2", "two")
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from florence_lite.cards import TaskCard, own_rule, tasks
from florence_lite.cards import task as task_card
from florence_lite.checks import hint
from florence_lite.data.annotation import Annotation
from florence_lite.rules import (
    captions,
    detection,
    grounding,
    infilling,
    matching,
    questions,
    regions,
    segmentation,
    words,
)
from florence_lite.rules.pair import NEGATIVES, Pair, Rule, completed, draw, thinned

__all__ = ["NEGATIVES", "RULES", "Pair", "Rule", "draw", "needed", "pairs", "rule_of", "tasks_with_rules", "thinned"]

RULES: dict[str, Rule] = {
    "captions.short": captions.short,
    "captions.detailed": captions.detailed,
    "captions.paragraph": captions.paragraph,
    "detection.labels": detection.labels,
    "detection.descriptions": detection.descriptions,
    "detection.proposals": detection.proposals,
    "grounding.caption": grounding.caption,
    "grounding.phrases": grounding.phrases,
    "segmentation.phrases": segmentation.phrases,
    "segmentation.regions": segmentation.regions,
    "regions.labels": regions.labels,
    "regions.descriptions": regions.descriptions,
    "words.text": words.text,
    "words.lines": words.lines,
    "words.regions": words.regions,
    "questions.answers": questions.answers,
    "matching.captions": matching.captions,
    "infilling.captions": infilling.captions,
}
"""What may stand as `rule` in a task card: family and function."""

WORDS = (
    "captions",
    "more_captions",
    "wrong_captions",
    "expressions",
    "questions",
    "regions",
    "stuff",
)  # fields of an annotation


def pairs(task: str, annotation: Annotation) -> list[Pair]:
    """Every prompt of `task` (its marker) that the annotation can check; [] where it tells nothing.

    Each has its targets. One that cannot be asked, such as a phrase that holds `<and>` or a region outside the image,
    has none and a `fault`. A function that is registered with its task may write other marks, such as locations.
    Raises ValueError for an unknown task and what `rule_of` raises.
    """
    card = task_card(task)
    found = list(rule_of(card)(annotation) or ())
    if strange := [item for item in found if not isinstance(item, Pair)]:
        raise ValueError(f"the rule of task {task} gave {strange[0]!r}; it must give florence_lite.rules.Pair objects")
    return [completed(pair, card, annotation.size_wh, own_rule(card.name) is not None) for pair in found]


def needed(annotation: Annotation, tasks: Iterable[str]) -> Annotation:
    """The annotation without the words that none of the tasks' pairs depends on: captions, for instance, where boxes
    alone are asked for. Every one of the pairs is what it was."""
    tasks = tuple(tasks)
    wanted = [pairs(task, annotation) for task in tasks]

    def enough(fewer: Annotation) -> bool:
        try:
            return [pairs(task, fewer) for task in tasks] == wanted
        except Exception:  # a function of one's own relies on what is gone
            return False

    for name in (name for name in WORDS if getattr(annotation, name)):
        nothing: dict[str, Any] = {name: ()}
        fewer = replace(annotation, **nothing)
        annotation = fewer if enough(fewer) else annotation
    if any(item.phrase for item in annotation.objects):
        fewer = replace(annotation, objects=tuple(replace(item, phrase="") for item in annotation.objects))
        annotation = fewer if enough(fewer) else annotation
    return annotation


def tasks_with_rules() -> tuple[str, ...]:
    """The markers of all tasks that can be trained and measured, those registered at run time included."""
    return tuple(card.name for card in tasks() if card.rule or own_rule(card.name))


def rule_of(card: TaskCard) -> Rule:
    """The rule that tells the truth of a task. Raises ValueError with the remedy where there is none of that name, or
    none at all."""
    if own := own_rule(card.name):
        return own
    if not card.rule:
        raise ValueError(
            f"task {card.name} has no rule, so it can neither be trained nor measured: name one in its card, such as "
            f'rule = "captions.short", or give a function, register_task(card, rule=function); rules: '
            f"{', '.join(RULES)}"
        )
    if card.rule not in RULES:
        close = hint(card.rule, RULES)
        raise ValueError(f"task {card.name}: unknown rule {card.rule!r}; {close}rules: {', '.join(RULES)}")
    return RULES[card.rule]
