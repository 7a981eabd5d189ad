"""Short runs of the recipe of the embedded checkpoint with one thing changed in each: what decides it.

    python benchmarks/trials.py examples/train-scenes-nano.toml --output runs/trials --json results/trials.json

Every run sees the same number of scenes and is measured on the same validation scenes. The recipe itself is run with
several seeds, which says how much a difference is worth. Runs go side by side, a process each; those that are finished
are not run again.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from peer import environment

from florence_lite import Florence
from florence_lite.cards import checkpoint as checkpoint_card
from florence_lite.model.config import PRESETS
from florence_lite.scenes import DEFAULT_STYLES
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.measure import evaluate_scenes
from florence_lite.scenes.training import train

READING = ("<OCR>", "<OCR_WITH_REGION>", "<REGION_TO_OCR>")
RECIPE = "the recipe"
# Name → fields of the configuration that differ, of learning_rate and batch the factor; "pixels": side of the images;
# "reading": how many times as many rows the tasks that read get.
TRIALS = {
    RECIPE: {},
    "twice the learning rate": {"learning_rate": 2.0},
    "half the learning rate": {"learning_rate": 0.5},
    "half of the batch, twice the steps": {"batch": 0.5},
    "no loss on image tokens": {"dense_weight": 0.0},
    "hard coordinate targets": {"sigma_start": 0.1, "sigma_end": 0.1},
    "images of 336 pixels instead of 224": {"pixels": 336},
    "three times the rows that read": {"reading": 3},
    "every scene shown once instead of three times": {"shows": 1},
    "a quarter of the phrases absent instead of half": {"negatives": 0.25},
    "the preset tiny": {"preset": "tiny"},
}
FACTORS = ("learning_rate", "batch")
TASKS = (
    "<OD>", "<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_CATEGORY>", "<OCR>",
    "<CAPTION>", "<VQA>",
)  # fmt: skip
FIGURES = {
    "detection AP50": ("<OD>", "ap50"),
    "phrases, acc@0.5": ("<OPEN_VOCABULARY_DETECTION>", "acc@0.5"),
    "outlines, mIoU": ("<REFERRING_EXPRESSION_SEGMENTATION>", "miou"),
    "category": ("<REGION_TO_CATEGORY>", "accuracy"),
    "words, F1": ("<OCR>", "word_f1"),
    "captions, F1": ("<CAPTION>", "object_f1"),
    "questions": ("<VQA>", "vqa_accuracy"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="TOML file of the recipe")
    parser.add_argument("--output", required=True, type=Path, help="folder for the runs")
    parser.add_argument("--steps", type=int, default=700, help="of each run")
    parser.add_argument("--batch", type=int, default=64, help="scenes in a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the recipe with this batch")
    parser.add_argument("--seeds", type=int, default=3, help="of the recipe itself; all else is run with the first")
    parser.add_argument("--count", type=int, default=200, help="validation scenes")
    parser.add_argument("--workers", type=int, default=1, help="that prepare the batches of a run")
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side")
    parser.add_argument("--device", default="cpu", help="that measures: cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help="make this run and no other")
    arguments = parser.parse_args()
    if arguments.one:
        make(arguments, arguments.one[0], int(arguments.one[1]))
        return
    runs = [(name, 0) for name in TRIALS] + [(RECIPE, seed) for seed in range(1, arguments.seeds)]
    own = [sys.executable, *sys.argv]
    with ThreadPoolExecutor(arguments.at_once) as pool:
        codes = pool.map(lambda run: subprocess.run([*own, "--one", run[0], str(run[1])]).returncode, runs)
        failed = [run for run, code in zip(runs, codes, strict=True) if code]
    found = [json.loads(file.read_text()) for run in runs if (file := folder(arguments, *run) / "result.json").exists()]
    print("\n".join(table(found)))
    if arguments.json:
        result = {**environment(), "command": " ".join(sys.argv), "runs": found}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if failed:
        sys.exit(f"failed: {failed}")


def folder(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    return arguments.output / f"{name.replace(' ', '-').replace(',', '')}-{seed}"


def make(arguments: argparse.Namespace, name: str, seed: int) -> None:
    """Trains and measures one run, and writes `result.json` into its folder."""
    output = folder(arguments, name, seed)
    if (output / "result.json").exists():
        return
    config, pixels = changed(arguments, TRIALS[name])
    PRESETS[config.preset] = PRESETS[config.preset] | {"image_size_wh": (pixels, pixels)}
    output.mkdir(parents=True, exist_ok=True)
    # What a tokenizer learns from the recipe's scenes is in the package.
    shutil.copy(checkpoint_card("scenes-nano").find_files() / "tokenizer.json", output / "tokenizer.json")
    began = time.monotonic()
    checkpoint = train(replace(config, output=str(output), seed=seed))
    minutes = (time.monotonic() - began) / 60
    florence = Florence.from_pretrained(checkpoint, device=arguments.device)
    report = evaluate_scenes(florence, "validation", arguments.count, DEFAULT_STYLES, TASKS)
    result = {
        "name": name,
        "seed": seed,
        "steps": config.steps,
        "batch": config.batch,
        "minutes": round(minutes, 2),
        "figures": {figure: report.metrics[task][metric] for figure, (task, metric) in FIGURES.items()},
    }
    (output / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def changed(arguments: argparse.Namespace, change: dict) -> tuple[TrainConfig, int]:
    """The configuration of a run, and the side of its images."""
    recipe = TrainConfig.from_toml(arguments.config)
    fields = {
        "minutes": None,
        "steps": arguments.steps,
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "warmup": arguments.steps // 10,
        "save_every": arguments.steps,
        "workers": arguments.workers,
    }
    change = dict(change)
    pixels, times = change.pop("pixels", 224), change.pop("reading", 1)
    fields["tasks"] = {task: rate * (times if task in READING else 1) for task, rate in recipe.tasks.items()}
    if "batch" in change:
        fields["steps"] = round(arguments.steps / change["batch"])
    for field, value in change.items():
        fields[field] = type(fields[field])(fields[field] * value) if field in FACTORS else value
    return replace(recipe, **fields), pixels


def table(found: list[dict]) -> list[str]:
    """Lines of Markdown; seeds of the same run as mean and range."""
    lines = [f"| run | {' | '.join(FIGURES)} |", "|" + "---|" * (1 + len(FIGURES))]
    for name in dict.fromkeys(run["name"] for run in found):
        columns = []
        for figure in FIGURES:
            values = [run["figures"][figure] for run in found if run["name"] == name]
            spread = f" ({min(values):.3f}–{max(values):.3f})" if len(values) > 1 else ""
            columns.append(f"{sum(values) / len(values):.3f}{spread}")
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


if __name__ == "__main__":
    main()
