"""Short runs of the recipe of the embedded checkpoint with one thing changed in each: what decides it.

    python benchmarks/trials.py examples/train-scenes-nano.toml --output runs/trials --photographs PHOTOGRAPHS \
        --json benchmarks/results/trials.json

Every run sees the same number of scenes. The recipe itself is run with several seeds, which says how much a difference
is worth. Each is measured on the same validation scenes: by the loss of whole answers in nats, with the same rows for
all, and by what it answers. Runs follow each other (on one GPU that is faster than side by side) and those that are
finished are not made again; of two commands with the same folder each makes runs that the other does not work on.
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from peer import environment
from trial_scenes import drawn_with_photographs, empty_photographs_among, words_alone_first

from florence_lite import Florence
from florence_lite.cards import checkpoint as checkpoint_card
from florence_lite.data.samples import Sample
from florence_lite.evaluate import evaluate
from florence_lite.images import load_image
from florence_lite.model.config import PRESETS
from florence_lite.scenes import DEFAULT_STYLES, HELD_OUT_STYLES, Scenes, training
from florence_lite.scenes.config import TrainConfig
from florence_lite.tokens.codec import Codec
from florence_lite.train.collate import TaskCollator
from florence_lite.train.trainer import AnswerTrainer

READING = ("<OCR>", "<OCR_WITH_REGION>", "<REGION_TO_OCR>")
RECIPE = "the recipe"
FACTORS = ("batch", "steps", "learning_rate")  # of the changes, those that multiply


@dataclass(frozen=True)
class Trial:
    """What is changed.

    fields: of the configuration; of `FACTORS` the factor. pixels: side of the images. first_stride: of the tower, whose
    others are 2 and 2. reading: how many times as many rows the tasks that read get; equal_rates: all tasks get as
    many. scenes: makes of the configuration and the photographs what draws a scene, instead of `render_scene`.
    spelled: the tokenizer has not learned the words that stand in pictures, so that each character is a token.
    """

    fields: dict[str, Any]
    pixels: int = 224
    first_stride: int = 4
    reading: float = 1
    equal_rates: bool = False
    scenes: Any = None
    spelled: bool = True


TRIALS = {  # the dearest last
    RECIPE: Trial({}),
    "twice the learning rate": Trial({"learning_rate": 2.0}),
    "no loss on image tokens": Trial({"dense_weight": 0.0}),
    "hard coordinate targets": Trial({"sigma_start": 0.1, "sigma_end": 0.1}),
    "coordinate targets narrow from the start": Trial({"sigma_start": 2.0}),
    "words alone first": Trial({}, scenes=words_alone_first),
    "words as pieces instead of characters": Trial({}, spelled=False),
    "three times the rows that read": Trial({}, reading=3),
    "photographs behind half of the scenes": Trial({}, scenes=drawn_with_photographs),
    "a tenth of the images empty photographs": Trial({}, scenes=empty_photographs_among),
    "two styles instead of nine": Trial({"styles": DEFAULT_STYLES}),
    "half the learning rate": Trial({"learning_rate": 0.5}),
    "twice the batch, half the steps": Trial({"batch": 2.0, "steps": 0.5}),
    "a token for 12 pixels instead of 16": Trial({}, first_stride=3),
    "images of 336 pixels instead of 224": Trial({}, pixels=336),
    "as many rows of each task": Trial({}, equal_rates=True),
    "every scene shown once instead of three times": Trial({"shows": 1}),
    "a quarter of the phrases absent instead of half": Trial({"negatives": 0.25}),
    "half the weight of the loss on image tokens": Trial({"dense_weight": 1.0}),
    "four times the learning rate": Trial({"learning_rate": 4.0}),
    "the preset tiny": Trial({"preset": "tiny"}),
}
GREEDY = ("<OD>", "<OPEN_VOCABULARY_DETECTION>", "<OCR>")
FIGURES = {  # name → of the answers: task and metric
    "AP50": ("<OD>", "ap50"),
    "phrases, acc@0.5": ("<OPEN_VOCABULARY_DETECTION>", "acc@0.5"),
    "words, F1": ("<OCR>", "word_f1"),
}
LOSSES = {  # name → task
    "boxes": "<OD>",
    "phrase": "<OPEN_VOCABULARY_DETECTION>",
    "outline": "<REFERRING_EXPRESSION_SEGMENTATION>",
    "category": "<REGION_TO_CATEGORY>",
    "words": "<OCR>",
    "caption": "<CAPTION>",
    "question": "<VQA>",
    "matching": "<IMAGE_TEXT_MATCHING>",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="TOML file of the recipe")
    parser.add_argument("--output", required=True, type=Path, help="folder for the runs")
    parser.add_argument(
        "--photographs", type=Path, help="folder of .jpg files; without it the runs that need them are left out"
    )
    parser.add_argument("--steps", type=int, default=500, help="of each run")
    parser.add_argument("--batch", type=int, default=64, help="scenes in a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the recipe with this batch")
    parser.add_argument("--rows", type=float, default=1, help="so many times the recipe's rows for every task")
    parser.add_argument("--seeds", type=int, default=3, help="of the recipe itself")
    parser.add_argument("--others", type=int, default=1, help="seeds of the other runs")
    parser.add_argument("--count", type=int, default=100, help="validation scenes that are answered; 0: none")
    parser.add_argument("--workers", type=int, default=1, help="that prepare the batches")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no run is begun")
    parser.add_argument("--device", default="cpu", help="that measures: cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures there as well, after every run")
    arguments = parser.parse_args()
    names = [
        name for name, trial in TRIALS.items() if arguments.photographs or trial.scenes in (None, words_alone_first)
    ]
    runs = [(RECIPE, seed) for seed in range(arguments.seeds)]
    runs += [(name, seed) for seed in range(arguments.others) for name in names if name != RECIPE]
    began, found = time.monotonic(), []
    for name, seed in runs:
        file = folder(arguments, name, seed) / "result.json"
        if not file.exists() and time.monotonic() - began < 60 * arguments.minutes:
            try:
                make(arguments, name, seed)
            except (ValueError, RuntimeError, ArithmeticError) as error:  # another command works on it, memory, NaN
                print(f"{name}, seed {seed}: {error}", file=sys.stderr)
        found = [
            json.loads(file.read_text()) for run in runs if (file := folder(arguments, *run) / "result.json").exists()
        ]
        if arguments.json:
            result = {**environment(), "command": " ".join(sys.argv), "runs": found}
            if arguments.device != "cpu":
                result["machine"] = f"{torch.cuda.get_device_name()}, {os.cpu_count()} CPU cores"
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(table(found)))


def folder(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    return arguments.output / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{seed}"


def make(arguments: argparse.Namespace, name: str, seed: int) -> None:
    """Trains and measures one run, and writes `result.json` into its folder."""
    trial, output = TRIALS[name], folder(arguments, name, seed)
    config = replace(changed(arguments, trial), output=str(output), seed=seed)
    photographs = sorted(arguments.photographs.glob("*.jpg")) if arguments.photographs else []
    learned, measured = photographs[: 2 * len(photographs) // 3], photographs[2 * len(photographs) // 3 :]
    output.mkdir(parents=True, exist_ok=True)
    preset = PRESETS[config.preset]
    vision = replace(preset["vision"], strides=(trial.first_stride, 2, 2))
    changes = {"image_size_wh": (trial.pixels, trial.pixels), "vision": vision}
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(PRESETS, {config.preset: preset | changes}))
        if trial.scenes:
            stack.enter_context(patch.object(training, "render_scene", trial.scenes(config, learned)))
        if not trial.spelled:
            stack.enter_context(patch.object(training, "_QUOTED", re.compile("(?!)")))  # which matches nothing
        elif not (output / "tokenizer.json").exists():  # what it learns from the recipe's scenes is in the package
            shutil.copy(checkpoint_card("scenes-nano").find_files() / "tokenizer.json", output / "tokenizer.json")
        checkpoint = training.train(config)
    minutes = (time.monotonic() - began) / 60
    florence = Florence.from_pretrained(checkpoint, device=arguments.device, dtype="float32")
    result = {
        "name": name,
        "seed": seed,
        "steps": config.steps,
        "batch": config.batch,
        "learning_rate": config.learning_rate,
        "parameters": sum(parameter.numel() for parameter in florence.model.parameters()),
        "minutes": round(minutes, 2),
        "losses": validation_losses(florence, TrainConfig.from_toml(arguments.config)),
        "figures": answers(florence, arguments.count, measured) if arguments.count else {},
    }
    (output / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    shutil.rmtree(output / "state")


def answers(florence: Florence, count: int, photographs: list[Path]) -> dict[str, float]:
    """What it answers about scenes, about scenes in artwork that no training saw, and about photographs."""
    size_wh = florence.model.config.image_size_wh
    report = evaluate(florence, validation_scenes(count, DEFAULT_STYLES, size_wh), GREEDY)
    unseen = evaluate(florence, validation_scenes(count, HELD_OUT_STYLES, size_wh), ["<OD>"])
    figures = {figure: report.metrics[task][metric] for figure, (task, metric) in FIGURES.items()}
    figures["unseen style, AP50"] = unseen.metrics["<OD>"]["ap50"]
    if photographs:
        found = florence.run([load_image(file) for file in photographs], "<OD>", threshold=0)
        figures["boxes in a photograph"] = sum(len(each.instances) for each in found) / len(found)
    return {name: round(value, 4) for name, value in figures.items() if value is not None}


@cache
def validation_scenes(count: int, styles: tuple[str, ...], size_wh: tuple[int, int]) -> list[Sample]:
    """The first ones, drawn once for all runs."""
    return list(Scenes("validation", styles, size_wh, count))


def changed(arguments: argparse.Namespace, trial: Trial) -> TrainConfig:
    """The configuration of a run."""
    recipe = TrainConfig.from_toml(arguments.config)
    fields: dict[str, Any] = {
        "minutes": None,
        "steps": arguments.steps,
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "workers": arguments.workers,
    }
    for field, value in trial.fields.items():
        fields[field] = type(fields[field])(fields[field] * value) if field in FACTORS else value
    steps, rows = fields["steps"], sum(recipe.tasks.values()) / len(recipe.tasks)
    rates = {task: rows if trial.equal_rates else rate for task, rate in recipe.tasks.items()}
    rates = {task: rate * arguments.rows * (trial.reading if task in READING else 1) for task, rate in rates.items()}
    return replace(recipe, **fields, tasks=rates, warmup=steps // 10, evaluate_every=steps, save_every=steps)


def validation_losses(florence: Florence, recipe: TrainConfig, scenes: int = 256) -> dict[str, float]:
    """Task → mean loss of an answer in nats, coordinates with the targets that the recipe ends with; the rows are the
    same for every network, whatever it was trained with."""
    config, vocabulary = florence.model.config, florence.tokenizer.vocabulary
    collate = TaskCollator(
        Codec(florence.tokenizer),
        florence.preprocessor,
        recipe.tasks,
        config.grid_wh,
        config.bins,
        config.text.positions,
        negatives=recipe.negatives,
    )
    trainer = AnswerTrainer(florence.model, vocabulary.loc_first, vocabulary.pad).eval()
    sums, answers = dict.fromkeys(recipe.tasks, 0.0), dict.fromkeys(recipe.tasks, 0)
    part = 32
    samples = validation_scenes(scenes, DEFAULT_STYLES, config.image_size_wh)
    for start in range(0, scenes, part):
        examples = [(sample.load(), sample.annotation) for sample in samples[start : start + part]]
        batch = collate(examples, np.random.default_rng(start)).to(florence.model.embed_tokens.weight.device)
        with torch.inference_mode():
            _, losses = trainer(batch, recipe.sigma_end)
        for task, of_tokens in losses.items():
            sums[task] += of_tokens.sum().item()
        for group in batch.groups:
            of_tasks = group.labels.flatten()[group.places].split(group.sizes)
            for task, labels in zip(group.tasks, of_tasks, strict=True):
                answers[task] += int((labels == vocabulary.eos).sum())
    return {task: round(sums[task] / answers[task], 4) for task in sums if answers[task]}


def table(found: list[dict]) -> list[str]:
    """Lines of Markdown: losses, then figures; several seeds of a run as their mean. In bold what is better than every
    seed of the recipe, in italics what is worse than every one."""
    losses = {name: ("losses", task, -1) for name, task in LOSSES.items()}
    figures = {name: ("figures", name, 1) for name in dict.fromkeys(name for run in found for name in run["figures"])}
    if "boxes in a photograph" in figures:
        figures["boxes in a photograph"] = ("figures", "boxes in a photograph", -1)
    columns = losses | figures
    lines = [f"| run | {' | '.join(columns)} |", "|" + "---|" * (1 + len(columns))]
    own = [run for run in found if run["name"] == RECIPE]
    for name in dict.fromkeys(run["name"] for run in found):
        cells = []
        for part, key, sign in columns.values():
            values = [run[part][key] for run in found if run["name"] == name and key in run[part]]
            if not values:
                cells.append("–")
                continue
            mean, digits = sum(values) / len(values), 2 if part == "losses" else 3
            if name == RECIPE:
                cells.append(f"{mean:.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})")
                continue
            usual = [sign * run[part][key] for run in own if key in run[part]]
            mark = "**" if usual and sign * mean > max(usual) else "*" if usual and sign * mean < min(usual) else ""
            cells.append(f"{mark}{mean:.{digits}f}{mark}")
        seeds = sum(run["name"] == name for run in found)
        lines.append(f"| {name}{f', {seeds} seeds' if seeds > 1 else ''} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
