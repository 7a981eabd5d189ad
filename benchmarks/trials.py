"""Short runs of the recipe of the embedded checkpoint with one thing changed in each: what decides it.

    python benchmarks/trials.py examples/train-scenes-nano.toml --output runs/trials --photographs PHOTOGRAPHS \
        --json benchmarks/results/trials.json

A run begins with random weights or, with `--start`, with those of a checkpoint: from random weights a network learns
little before it has seen some ten thousand scenes, where one that knows its tasks shows after two thousand what a
change does to it; there the recipe has no loss on image tokens and narrow coordinate targets from the start. Every run
sees the same number of scenes. The recipe itself is run with several seeds, which says how much a difference is worth.
Each is measured on the same validation scenes, drawn as large as the largest images of any run and scaled as any image
is, by the loss of whole answers in nats, with the same rows for all, and by what it answers. Runs that are finished are
not made again; of two commands with the same folder each makes runs that the other does not work on. A process of many
runs on a CPU keeps much memory: with `--minutes 0.01`, called again and again, each has a process of its own.
"""

import argparse
import json
import math
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from filelock import FileLock, Timeout
from peer import environment
from trial_scenes import (
    Draw,
    drawn_with_photographs,
    empty_photographs_among,
    words_alone_first,
)
from unfamiliar import OTHER_THINGS, OTHER_WORDS

from florence_lite import Florence
from florence_lite.cards import checkpoint as checkpoint_card
from florence_lite.data.annotation import Annotation, Question, ReferringExpression
from florence_lite.data.samples import Sample
from florence_lite.evaluate import evaluate
from florence_lite.images import load_image
from florence_lite.model.config import PRESETS
from florence_lite.scenes import DEFAULT_STYLES, HELD_OUT_STYLES, Scenes, lettering, training
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.language import a
from florence_lite.scenes.trainer import ScratchTrainer
from florence_lite.tokens.codec import Codec
from florence_lite.tokens.tokenizer import Tokenizer
from florence_lite.train.collate import TaskCollator
from florence_lite.train.trainer import AnswerTrainer

READING = ("<OCR>", "<OCR_WITH_REGION>", "<REGION_TO_OCR>")
RECIPE = "the recipe"
PART = 32  # images that are measured at once
LOSS_SCENES = 128
HARD = 0.1  # width in bins of targets that are all but hard
FACTORS = ("batch", "steps", "learning_rate", "negatives")  # of the changes, those that multiply
SURE = 3  # standard deviations of a difference that is marked


@dataclass(frozen=True)
class Trial:
    """What is changed.

    fields: of the configuration; of `FACTORS` the factor. pixels: side of the images. first_stride: of the tower, whose
    others are 2 and 2. reading: how many times as many rows the tasks that read get; equal_rates: all tasks get as
    many. scenes: makes of the configuration and the photographs what draws a scene, instead of `render_scene`;
    photographs: it needs some. apart: share of the run after which a scene is shown again. spelled: the tokenizer has
    not learned the words that stand in pictures, so that each character is a token.
    """

    fields: dict[str, Any]
    pixels: int = 224
    first_stride: int = 4
    reading: float = 1
    equal_rates: bool = False
    scenes: Callable[[TrainConfig, Sequence[Path]], Draw] | None = None
    photographs: bool = False
    apart: float | None = None
    spelled: bool = True

    @property
    def keeps_network(self) -> bool:
        """Whether its network and order are the recipe's, so that it may begin with trained weights."""
        other = self.pixels != 224 or self.first_stride != 4 or self.apart or not self.spelled
        return not other and "preset" not in self.fields


TRIALS = {  # the dearest last
    RECIPE: Trial({}),
    "twice the learning rate": Trial({"learning_rate": 2.0}),
    "no loss on image tokens": Trial({"dense_weight": 0.0}),
    "hard coordinate targets": Trial({"sigma_start": HARD, "sigma_end": HARD}),
    "coordinate targets narrow from the start": Trial({"sigma_start": 2.0}),
    "coordinate targets wide at first": Trial({"sigma_start": 25.0}),
    "words alone in the first 30 %": Trial({}, scenes=words_alone_first, apart=0.1),
    "words as pieces instead of characters": Trial({}, spelled=False),
    "three times the rows that read": Trial({}, reading=3),
    "photographs behind half of the scenes": Trial({}, scenes=drawn_with_photographs, photographs=True),
    "a tenth of the images empty photographs": Trial({}, scenes=empty_photographs_among, photographs=True),
    "any letters in half of the words": Trial({"any_letters": 0.5}),
    "strange things in half of what is absent": Trial({"strange_things": 0.5}),
    "two styles instead of nine": Trial({"styles": DEFAULT_STYLES}),
    "half the learning rate": Trial({"learning_rate": 0.5}),
    "twice the batch, half the steps": Trial({"batch": 2.0, "steps": 0.5}),
    "a token for 12 pixels instead of 16": Trial({}, first_stride=3),
    "images of 336 pixels instead of 224": Trial({}, pixels=336),
    "as many rows of each task": Trial({}, equal_rates=True),
    "every scene shown once": Trial({"shows": 1}),
    "half as many absent phrases": Trial({"negatives": 0.5}),
    "a loss on image tokens of weight 1": Trial({"dense_weight": 1.0}),
    "four times the learning rate": Trial({"learning_rate": 4.0}),
    "the preset tiny": Trial({"preset": "tiny"}),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # as in training
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
ELSEWHERE = {  # name → of the losses, and task
    "boxes, unseen style": ("losses, unseen style", "<OD>"),
    "other words": ("losses, other words", "<OCR>"),
    "no box for other things": ("losses, other things", "<OPEN_VOCABULARY_DETECTION>"),
    "no to other things": ("losses, other things", "<VQA>"),
    "no box in a photograph": ("losses, photographs", "<OD>"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="TOML file of the recipe")
    parser.add_argument("--output", required=True, type=Path, help="folder for the runs")
    parser.add_argument(
        "--photographs", type=Path, help="folder of .jpg files; without it the runs that need them are left out"
    )
    parser.add_argument("--start", help="checkpoint with whose weights all runs begin, instead of random ones")
    parser.add_argument("--steps", type=int, default=500, help="of each run")
    parser.add_argument("--batch", type=int, default=64, help="scenes in a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the recipe with this batch")
    parser.add_argument("--rows", type=float, default=1, help="so many times the recipe's rows for every task")
    parser.add_argument("--seeds", type=int, default=3, help="of the recipe itself")
    parser.add_argument("--others", type=int, default=1, help="seeds of the other runs")
    parser.add_argument("--only", nargs="+", choices=tuple(TRIALS), help="of the changes, these", metavar="NAME")
    parser.add_argument("--count", type=int, default=100, help="validation scenes that are answered; 0: none")
    parser.add_argument("--workers", type=int, default=1, help="that prepare the batches")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no run is begun")
    parser.add_argument("--json", type=Path, help="write the figures there as well, after every run")
    arguments = parser.parse_args()
    photographs = sorted(arguments.photographs.glob("*.jpg")) if arguments.photographs else []
    names = arguments.only or [name for name in TRIALS if can_run(arguments, name)]
    if idle := [name for name in names if not can_run(arguments, name)]:
        parser.error(f"--only {idle[0]!r}: it needs --photographs, has another network than --start, or is the recipe")
    runs = [(RECIPE, seed) for seed in range(arguments.seeds)]
    runs += [(name, seed) for seed in range(arguments.others) for name in names]
    began, found, before = time.monotonic(), [], []
    if arguments.start:
        before = [{"name": f"{arguments.start} as it is", **measured_start(arguments, photographs)}]
    for name, seed in runs:
        if result_of(arguments, name, seed) is None and time.monotonic() - began < 60 * arguments.minutes:
            try:
                make(arguments, name, seed, photographs)
            except Timeout:
                print(f"{name}, seed {seed}: another command works on it", file=sys.stderr)
        found = before + [result for run in runs if (result := result_of(arguments, *run))]
        if arguments.json:
            arguments.json.write_text(json.dumps({**environment(DEVICE), "runs": found}, indent=1) + "\n")
    print("\n".join(table(found)))


def folder(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    return arguments.output / f"{re.sub(r'[^a-z0-9]+', '-', name).strip('-')}-{seed}"


def settings(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """What a result depends on, but for the code."""
    config = asdict(changed(arguments, TRIALS[name]))
    for key in ("output", "workers", "seed"):
        del config[key]
    told = {"name": name, "seed": seed, "start": arguments.start, "answered": arguments.count, "config": config}
    return json.loads(json.dumps(told))


def result_of(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Any] | None:
    """What a finished run has found. Raises ValueError for one of other settings."""
    file = folder(arguments, name, seed) / "result.json"
    if not file.exists():
        return None
    result = json.loads(file.read_text())
    if any(result[key] != value for key, value in settings(arguments, name, seed).items()):
        raise ValueError(f"{file} is of a run with other settings: choose another --output")
    return result


def make(arguments: argparse.Namespace, name: str, seed: int, photographs: list[Path]) -> None:
    """Trains and measures one run, and writes `result.json` into its folder, also where training fails."""
    trial, output = TRIALS[name], folder(arguments, name, seed)
    config = replace(changed(arguments, trial), output=str(output), seed=seed)
    output.mkdir(parents=True, exist_ok=True)
    with FileLock(output / "trial.lock", timeout=0):
        result, began = settings(arguments, name, seed), time.monotonic()
        try:
            checkpoint = trained(trial, config, photographs[: learned(photographs)], arguments.start)
        except (RuntimeError, ArithmeticError) as error:  # memory, a loss that is no number
            result["failed"] = str(error)
        else:
            minutes = output / "minutes.json"  # of the training, also where it is only measured again
            if not minutes.exists():
                minutes.write_text(f"{(time.monotonic() - began) / 60:.2f}\n")
            result["minutes"] = float(minutes.read_text())
            result |= measured_of(checkpoint, arguments, photographs)
        (output / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        shutil.rmtree(output / "state", ignore_errors=True)


def measured_start(arguments: argparse.Namespace, photographs: list[Path]) -> dict[str, Any]:
    """What the weights are worth with which the runs begin."""
    file = arguments.output / "start.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(measured_of(arguments.start, arguments, photographs), indent=1) + "\n")
    return json.loads(file.read_text())


def learned(photographs: list[Path]) -> int:
    """How many of them are trained on; the others measure."""
    return 2 * len(photographs) // 3


def measured_of(checkpoint: str | Path, arguments: argparse.Namespace, photographs: list[Path]) -> dict[str, Any]:
    """What weights are worth."""
    photographs = photographs[learned(photographs) :]
    florence = Florence.from_pretrained(checkpoint, device=DEVICE, dtype="float32")  # on a GPU it would be halved
    recipe = TrainConfig.from_toml(arguments.config)
    side = max(trial.pixels for trial in TRIALS.values() if trial.keeps_network or not arguments.start)
    usual = scenes(LOSS_SCENES, DEFAULT_STYLES, side)
    elsewhere = {
        "losses, unseen style": scenes(LOSS_SCENES, HELD_OUT_STYLES, side),
        "losses, other words": scenes(LOSS_SCENES, DEFAULT_STYLES, side, OTHER_WORDS),
        "losses, other things": [without(sample, OTHER_THINGS) for sample in usual],
        "losses, photographs": nothing_in(photographs),
    }
    found: dict[str, Any] = {"losses": validation_losses(florence, recipe.tasks, recipe.negatives, usual)}
    for name, samples in elsewhere.items():
        asked = {task: recipe.tasks[task] for where, task in ELSEWHERE.values() if where == name}
        found[name] = validation_losses(florence, asked, recipe.negatives, samples)
    found["parameters"] = sum(parameter.numel() for parameter in florence.model.parameters())
    found["figures"] = answers(florence, arguments.count, side, photographs) if arguments.count else {}
    return found


def trained(trial: Trial, config: TrainConfig, photographs: Sequence[Path], start: str | None) -> Path:
    """The checkpoint of a run, which is made where it is not there yet."""
    checkpoint = Path(config.output) / "checkpoint"  # of the last step: no other is saved
    if (checkpoint / "model.safetensors").exists():
        return checkpoint
    preset = PRESETS[config.preset]
    vision = replace(preset["vision"], strides=(trial.first_stride, 2, 2))
    changes = {"image_size_wh": (trial.pixels, trial.pixels), "vision": vision}
    with ExitStack() as stack:
        stack.enter_context(patch.dict(PRESETS, {config.preset: preset | changes}))
        if start:
            stack.enter_context(patch.object(training, "scene_trainer", partial(trainer_of, start)))
        if trial.apart:
            stack.enter_context(patch.object(training, "APART", round(trial.apart * config.steps)))
        if trial.scenes:
            stack.enter_context(patch.object(training, "render_scene", trial.scenes(config, photographs)))
        tokenizer = Path(config.output) / "tokenizer.json"
        if not trial.spelled:
            stack.enter_context(patch.object(training, "_QUOTED", re.compile("(?!)")))  # which matches nothing
        elif not tokenizer.exists():  # the package's knows the words of the recipe's scenes, and spells others
            shutil.copy(checkpoint_card("scenes-nano").find_files() / "tokenizer.json", tokenizer)
        return training.train(config)


def answers(florence: Florence, count: int, side: int, photographs: list[Path]) -> dict[str, float]:
    """What it answers about scenes, about scenes in artwork that no training saw, and about photographs."""
    report = evaluate(florence, scenes(count, DEFAULT_STYLES, side), GREEDY)
    unseen = evaluate(florence, scenes(count, HELD_OUT_STYLES, side), ["<OD>"])
    figures = {figure: report.metrics[task][metric] for figure, (task, metric) in FIGURES.items()}
    figures["unseen style, AP50"] = unseen.metrics["<OD>"]["ap50"]
    if photographs:
        found = florence.run([load_image(file) for file in photographs], "<OD>", threshold=0)
        figures["boxes in a photograph"] = sum(len(each.instances) for each in found) / len(found)
    return {name: round(value, 4) for name, value in figures.items() if value is not None}


def trainer_of(start: str, config: TrainConfig, tokenizer: Tokenizer) -> ScratchTrainer:
    """In the place of `scene_trainer`: the network with the weights of a checkpoint, which has the same tokenizer."""
    model = Florence.from_pretrained(start, dtype="float32").model
    trainer = ScratchTrainer(model, len(training.CELL_CLASSES), tokenizer.vocabulary.loc_first, config.dense_weight)
    trainer.requires_grad_()
    basis = trainer.get_parameter("model.embed_tokens.parametrizations.weight.0.shared.weight")
    with torch.no_grad():  # what it adds is in the weights already
        basis.requires_grad_(False).zero_()
    return trainer


@cache
def scenes(count: int, styles: tuple[str, ...], side: int, words: tuple[str, ...] = lettering.WORDS) -> list[Sample]:
    """The first ones of the validation split, drawn once for all runs. side: in pixels. words: that stand in them."""
    with patch.object(lettering, "WORDS", words):
        return list(Scenes("validation", styles, (side, side), count))


def without(sample: Sample, things: Sequence[str]) -> Sample:
    """The scene with nothing asked about it but things that are not there."""
    phrases = tuple(ReferringExpression(f"the {thing}", kind="random") for thing in things)
    questions = tuple(Question(f"is there {a(thing)}?", "no") for thing in things)
    nothing: dict[str, Any] = dict.fromkeys(("captions", "wrong_captions", "stuff"), ())
    return replace(sample, annotation=replace(sample.annotation, **nothing, expressions=phrases, questions=questions))


def nothing_in(photographs: list[Path]) -> list[Sample]:
    """Photographs in which there is nothing of what the network knows."""
    images = {file.name: load_image(file) for file in photographs}
    return [Sample(image, Annotation(image.size), name) for name, image in images.items()]


def can_run(arguments: argparse.Namespace, name: str) -> bool:
    """Whether a change can be made with what is given, and changes anything."""
    trial = TRIALS[name]
    if (trial.photographs and not arguments.photographs) or (arguments.start and not trial.keeps_network):
        return False
    return is_another(arguments, trial)


def is_another(arguments: argparse.Namespace, trial: Trial) -> bool:
    """Whether a run differs from the recipe's: some changes are in the recipe of trained weights already."""
    as_usual = replace(trial, fields={}, reading=1, equal_rates=False) == Trial({})
    return not as_usual or changed(arguments, trial) != changed(arguments, TRIALS[RECIPE])


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
    if arguments.start:  # which knows places, and has no head for image tokens any more
        fields |= {"dense_weight": 0.0, "sigma_start": recipe.sigma_end}
    for field, value in trial.fields.items():
        base = fields.get(field, getattr(recipe, field))
        fields[field] = type(base)(base * value) if field in FACTORS else value
    steps, rows = fields["steps"], sum(recipe.tasks.values()) / len(recipe.tasks)
    rates = {task: rows if trial.equal_rates else rate for task, rate in recipe.tasks.items()}
    rates = {task: rate * arguments.rows * (trial.reading if task in READING else 1) for task, rate in rates.items()}
    return replace(recipe, **fields, tasks=rates, warmup=steps // 10, evaluate_every=steps, save_every=steps)


def validation_losses(
    florence: Florence, tasks: Mapping[str, float], negatives: float, samples: Sequence[Sample]
) -> dict[str, float]:
    """Task → mean loss of a true answer in nats: of all its tokens, with hard targets for coordinates. The rows are the
    same for every network, whatever it was trained with."""
    config, vocabulary = florence.model.config, florence.tokenizer.vocabulary
    collate = TaskCollator(
        Codec(florence.tokenizer),
        florence.preprocessor,
        tasks,
        config.grid_wh,
        config.bins,
        config.text.positions,
        negatives=negatives,
    )
    trainer = AnswerTrainer(florence.model, vocabulary.loc_first, vocabulary.pad).eval()
    sums, answers = dict.fromkeys(tasks, 0.0), dict.fromkeys(tasks, 0)
    for start in range(0, len(samples), PART):
        examples = [(sample.load(), sample.annotation) for sample in samples[start : start + PART]]
        batch = collate(examples, np.random.default_rng(start)).to(florence.model.embed_tokens.weight.device)
        with torch.inference_mode():
            _, losses = trainer(batch, HARD)
        for task, of_tokens in losses.items():
            sums[task] += of_tokens.sum().item()
        for group in batch.groups:
            of_tasks = group.labels.flatten()[group.places].split(group.sizes)
            for task, labels in zip(group.tasks, of_tasks, strict=True):
                answers[task] += int((labels == vocabulary.eos).sum())
    return {task: round(sums[task] / answers[task], 4) for task in sums if answers[task]}


def table(found: list[dict]) -> list[str]:
    """Lines of Markdown: of the recipe the means, of the other runs by how many per cent they are higher or lower.

    In bold what is better, in italics what is worse by `SURE` standard deviations of such a difference, which the runs
    with several seeds tell.
    """
    runs: dict[str, list[dict]] = {}
    for run in found:
        runs.setdefault(run["name"], []).append(run)
    measured = {name: [values(run) for run in each if "losses" in run] for name, each in runs.items()}
    if not measured.get(RECIPE):
        return ["no run of the recipe is finished, to compare with"]
    usual = mean_values(measured[RECIPE])
    deviations = {column: relative_deviation(list(measured.values()), column) for column in usual}
    lines = [f"| run | {' | '.join(usual)} |", "|" + "---|" * (1 + len(usual))]
    for name, each in measured.items():
        seeds = f", {len(each)} seeds" if len(each) > 1 else ""
        if name == RECIPE:
            cells = [f"{value:.3g}" for value in usual.values()]
        elif each:
            sure, mean = SURE * math.sqrt(1 / len(each) + 1 / len(measured[RECIPE])), mean_values(each)
            cells = [cell(mean[name] / value - 1, sure * deviations[name], name) for name, value in usual.items()]
        else:
            cells = ["failed"] * len(usual)
        lines.append(f"| {name}{seeds} | {' | '.join(cells)} |")
    if all(math.isnan(each) for each in deviations.values()):
        return lines
    cells = [f"{each:.1%}" for each in deviations.values()]
    return [*lines, f"| standard deviation of seeds | {' | '.join(cells)} |"]


def values(run: Mapping[str, Any]) -> dict[str, float]:
    """Column → value."""
    losses = {column: run["losses"][task] for column, task in LOSSES.items()}
    for column, (where, task) in ELSEWHERE.items():
        if run[where]:  # photographs may not have been given
            losses[column] = run[where][task]
    return losses | run["figures"]


def mean_values(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {column: statistics.fmean(run[column] for run in runs) for column in runs[0]}


def relative_deviation(runs: Sequence[Sequence[Mapping[str, float]]], column: str) -> float:
    """Of seeds from the mean of their run."""
    squares, freedom = 0.0, 0
    for seeds in (each for each in runs if len(each) > 1):
        values = [seed[column] for seed in seeds]
        squares += statistics.variance(values) / statistics.fmean(values) ** 2 * (len(seeds) - 1)
        freedom += len(seeds) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


def cell(change: float, sure: float, column: str) -> str:
    """A relative change, with its mark."""
    better = change if column in FIGURES or "AP50" in column else -change
    mark = "**" if better > sure else "*" if better < -sure else ""
    return f"{mark}{change:+.1%}{mark}"


if __name__ == "__main__":
    main()
