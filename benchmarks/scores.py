"""Do scores fall where the network guesses? The embedded checkpoint on the scenes it knows and on foreign pictures.

    python benchmarks/scores.py PHOTOGRAPHS --count 200 --json

Every picture of a folder is asked what a scene of the validation split is asked. For each task: the best score of an
answer on scenes and on the foreign pictures, how well it tells the two apart (AUROC: 1 always, 0.5 never), and how well
the scores of right answers about scenes stand out from those of wrong ones. The peer is the usual confidence of a
language model, the geometric mean of the probabilities of all ids: of an answer, or of an instance of a list.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from peer import environment
from pictures import pictures_in

from florence_lite import Florence, Instance, Prompt, Result, tasks
from florence_lite.cards import task as task_card
from florence_lite.data import Annotation
from florence_lite.evaluate.metrics import Case, metric
from florence_lite.geometry import box_iou
from florence_lite.rules import Pair, pairs
from florence_lite.scenes import Scenes
from florence_lite.scenes.catalogue import DEFAULT_STYLES

SCORING = {card.name: card.scoring for card in tasks()}
TASKS = [task for task in SCORING if not task.endswith("SEGMENTATION>")]  # outlines are right by another measure
PAIRS = 3  # prompts of a task that are asked about a scene
HALF = 0.5


class Answered(NamedTuple):
    """An answer about a scene with its truth, or about a foreign picture without."""

    result: Result
    pair: Pair | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures that the checkpoint knows nothing about")
    parser.add_argument("--count", type=int, default=200, help="scenes, and at most as many pictures")
    parser.add_argument("--style", nargs="+", default=DEFAULT_STYLES, help="artwork of the scenes, else the training's")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    files = pictures_in(arguments.folder)
    florence = Florence.from_pretrained("scenes-nano", device=arguments.device)
    scenes: dict[str, list[Answered]] = {task: [] for task in TASKS}
    foreign: dict[str, list[Answered]] = {task: [] for task in TASKS}
    for sample, file in zip_longest(
        Scenes("validation", tuple(arguments.style), length=arguments.count), files[: arguments.count]
    ):
        asked = [(task, pair) for task in TASKS for pair in prompts_of(task, sample.annotation)]
        for (task, pair), result in zip(asked, ask(florence, sample.load(), asked), strict=True):
            scenes[task].append(Answered(result, pair))
        if file is not None:
            for (task, _), result in zip(asked, ask(florence, file, asked), strict=True):
                foreign[task].append(Answered(result, None))
    rows = [row(task, scenes[task], foreign[task]) for task in TASKS]
    if arguments.json:
        print(json.dumps({**environment(), "rows": rows}, indent=2))
        return
    for each in rows:
        print(each["task"])
        for way in ("florence-lite", "geometric mean"):
            print(f"    {way:15}", "  ".join(f"{name} {value}" for name, value in each[way].items()))


def prompts_of(task: str, annotation: Annotation) -> list[Pair]:
    return [pair for pair in pairs(task, annotation) if pair.asked][:PAIRS]


def ask(florence: Florence, picture, asked: list[tuple[str, Pair]]) -> list[Result]:
    """The answers about a picture, guesses included; regions of the scene are asked about in the same part of it."""
    encoded = florence.encode(picture, keep_image=False)
    scale = np.array([*encoded.size_wh] * 2) / np.array([*florence.model.config.image_size_wh] * 2)
    prompts = []
    for task, pair in asked:
        region = pair.inputs.get("region")
        inputs = pair.inputs if region is None else {"region": tuple((np.array(region) * scale).tolist())}
        prompts.append(Prompt(task, **inputs))
    lists = [prompt for prompt in prompts if task_card(prompt.task).input == "none"]
    others = [prompt for prompt in prompts if prompt not in lists]
    found = iter(florence.run(encoded, lists, keep_image=False, threshold=0))
    more = iter(florence.run(encoded, others, keep_image=False))
    return [next(found if prompt in lists else more) for prompt in prompts]


def row(task: str, scenes: list[Answered], foreign: list[Answered]) -> dict:
    found = {"task": task, "scenes": len(scenes), "foreign": len(foreign)}
    found["foreign_silent"] = share([best(each.result) is None for each in foreign])
    for way, rescored in (("florence-lite", lambda result: result), ("geometric mean", by_geometric_mean)):
        known = [Answered(rescored(each.result), each.pair) for each in scenes]
        strange = [Answered(rescored(each.result), None) for each in foreign]
        of_scenes, of_foreign = ([best(each.result) for each in some] for some in (known, strange))
        judged = [verdict for each in known for verdict in verdicts(each)]
        right, wrong = ([score for score, is_right in judged if is_right is truth] for truth in (True, False))
        found[way] = {
            "mean_scenes": mean(of_scenes),
            "mean_foreign": mean(of_foreign),
            "above_half_scenes": share([(score or 0) > HALF for score in of_scenes]),
            "above_half_foreign": share([(score or 0) > HALF for score in of_foreign]),
            "auroc_scenes_foreign": auroc(of_scenes, of_foreign),
            "threshold": threshold(of_scenes, of_foreign),
            "right": len(right),
            "wrong": len(wrong),
            "mean_right": mean(right),
            "mean_wrong": mean(wrong),
            "auroc_right_wrong": auroc(right, wrong),
        }
        if task == "<OD>":
            measured = metric("ap").measure([Case(each.pair, each.result) for each in known]).metrics
            found[way] |= {name: round(value, 4) for name, value in measured.items()}
    return found


def by_geometric_mean(result: Result) -> Result:
    """The result with the peer's scores."""
    logprobs = np.array(result.token_logprobs)

    def score(ids: slice) -> float:
        return float(np.exp(logprobs[ids].mean()))

    if SCORING[result.task] == "text":
        return replace(result, score=score(slice(1, None)))  # the first id is forced
    return replace(result, instances=[replace(item, score=score(slice(*item.tokens))) for item in result.instances])


def best(result: Result) -> float | None:
    return result.score if SCORING[result.task] == "text" else max(result.scores, default=None)


def verdicts(answered: Answered) -> Iterator[tuple[float, bool]]:
    """The scores of an answer, or of each instance of a list, and whether it is right: the words that are true, a box
    with the true label and IoU 0.5, each true one once."""
    result, pair = answered
    if SCORING[result.task] == "text":
        if result.score is not None:
            yield result.score, plain(result.text) in map(plain, pair.texts)
        return
    free = list(pair.instances)
    for item in sorted(result.instances, key=lambda item: -(item.score or 0)):
        of_label = [true for true in free if not item.label or plain(true.label) == plain(item.label)]
        fits = [true for true in of_label if overlap(item, true) >= HALF]
        if fits:
            free.remove(max(fits, key=lambda true: overlap(item, true)))
        yield item.score, bool(fits)


def overlap(one: Instance, other: Instance) -> float:
    if other.bounds is None:  # words without a place
        return 1.0
    return float(box_iou([one.bounds], [other.bounds])[0, 0])


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


def auroc(high: list, low: list) -> float | None:
    """How often a score of the first kind lies above one of the second; ties count half, None counts as 0."""
    if not high or not low:
        return None
    difference = np.array([each or 0 for each in high])[:, None] - np.array([each or 0 for each in low])
    return round(float((difference > 0).mean() + (difference == 0).mean() / 2), 3)


def threshold(high: list, low: list) -> float | None:
    """The score that parts the two kinds best: most of the first above it and of the second below."""
    candidates = sorted({round(each or 0, 2) for each in high})

    def parted(limit: float) -> float:
        return np.mean([(each or 0) >= limit for each in high]) - np.mean([(each or 0) >= limit for each in low])

    return max(candidates, key=parted) if high and low else None


def mean(scores: list) -> float | None:
    said = [score for score in scores if score is not None]
    return round(float(np.mean(said)), 3) if said else None


def share(truths: list[bool]) -> float | None:
    return round(float(np.mean(truths)), 3) if truths else None


if __name__ == "__main__":
    main()
