"""From a recipe to the embedded checkpoint and its card: train, fit, calibrate, measure, write.

    python benchmarks/make_checkpoint.py examples/train-scenes-nano.toml PHOTOGRAPHS

Run in a clone that is installed with `pip install -e ".[train,eval,scenes]"` and has the artwork of the recipe. What is
done already in the recipe's output folder is not done again, so that the command goes on where it was stopped; the
training may also have been made elsewhere by `florence-lite train`, on a GPU, and its folder brought here.

    checkpoint/   the weights and the tokenizer, which go to checkpoints/scenes-nano
    figures/      what the commands below printed about these weights; the card's figures are taken from there. Another
                  command, other photographs or another commit measure again.

Which figures the card has, the card says: a new one is written into it by hand, with any value, before.

PHOTOGRAPHS: a folder of pictures that generated scenes teach nothing about, to measure that they are recognised as
such. The card keeps its words: what changed in `hardware`, `protocol` and `notes` is for a person to say.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pictures import pictures_in

from florence_lite.cards import checkpoint, task
from florence_lite.cards.prompt_words import words_of
from florence_lite.rules import rule_of
from florence_lite.scenes import HELD_OUT_STYLES, Scenes
from florence_lite.scenes.catalogue import DEFAULT_STYLES
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.scene import TRAIN, render_scene

HERE = Path(__file__).parent
NAME = "scenes-nano"
FOLDER, CARD = HERE.parent / "checkpoints" / NAME, HERE.parent / "checkpoints" / f"{NAME}.toml"
COMMAND = [sys.executable, "-m", "florence_lite"]
COUNT = 1000  # test scenes
UNFAMILIAR = ("words", "numbers right", "captions right as a whole", "yes to things unheard of")
WORDED = ("text", "phrase", "phrases")  # inputs of tasks that are asked with words
TEXTS = 4000  # scenes of the training whose prompts are read for their words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="TOML file of `florence-lite train`")
    parser.add_argument("photographs", help="folder of pictures that the checkpoint knows nothing about")
    arguments = parser.parse_args()
    photographs = Path(arguments.photographs)
    pictures = pictures_in(photographs, "*")
    config = TrainConfig.from_toml(arguments.recipe)
    output = Path(config.output)
    trained = output / "checkpoint"
    if not trained.is_dir() or (output / "state").is_dir():  # one without a state was trained elsewhere
        subprocess.run([*COMMAND, "train", arguments.recipe], check=True)
    install(trained)
    figures = output / "figures" / "-".join((digests()["model.safetensors"][:12], commit()[:12], digest_of(pictures)))
    figures.mkdir(parents=True, exist_ok=True)
    styles = tuple(dict.fromkeys(config.styles))
    fit = [sys.executable, str(HERE / "domain.py"), arguments.photographs, "--style", *styles, "--fit", str(figures)]
    printed([*fit, "--json"], figures / "domain.json")
    shutil.copyfile(figures / "domain.safetensors", FOLDER / "domain.safetensors")
    write_card(sha256=digests(), words=words_asked(config))
    calibrate = [*COMMAND, "calibrate", "--split", "validation", "--count", str(COUNT), "--json"]
    write_card(calibration=printed(calibrate, figures / "calibration.json")["calibration"])
    metrics, margins = {}, {}
    answers = printed([*COMMAND, "run", arguments.photographs, "<OD>", "--json"], figures / "photographs.jsonl")
    named = sum(bool(each["instances"]) for each in answers) / len(answers)
    metrics["photographs/named"], margins["photographs/named"] = round(named, 4), margin(named, len(answers))
    absent = [sys.executable, str(HERE / "absent.py"), arguments.photographs, "--count", str(COUNT), "--json"]
    found = printed(absent, figures / "absent.json")
    metrics |= flat("", of_phrases(found))
    margins |= {
        f"phrases accepted/{kind}": margin(share, found["phrases"][kind]) for kind, share in found["accepted"].items()
    }
    found = printed([sys.executable, str(HERE / "unfamiliar.py")], figures / "unfamiliar.json")
    metrics |= flat("", {name: found[name] for name in UNFAMILIAR})
    for name, (prefix, options) in measurements(styles).items():
        found = printed([*COMMAND, "eval", "--split", "test", "--json", *options], figures / f"{name}.json")
        metrics |= flat(prefix, found["metrics"])
        margins |= flat(prefix, found.get("margins", {}))
    known = checkpoint(NAME).metrics
    if missing := sorted(known.keys() - metrics.keys()):
        raise SystemExit(f"{CARD} has figures that are not measured here: {', '.join(missing)}; take them out")
    metrics = {name: metrics[name] for name in known}
    write_card(metrics=metrics, margins={name: margins[name] for name in metrics if name in margins})
    write_card(**{'baselines."constant answer"': constants()})


def commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], check=True, stdout=subprocess.PIPE, text=True, cwd=HERE).stdout


def digest_of(pictures: Sequence[Path]) -> str:
    """A few digits that tell one folder of pictures from another."""
    names = [f"{file.name} {file.stat().st_size}" for file in pictures]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def margin(share: float, number: int) -> float:
    """Half of the 95 % interval of a share of so many (normal approximation)."""
    return round(1.96 * (share * (1 - share) / number) ** 0.5, 4)


def constants() -> dict[str, float]:
    """What the answer that is always the same, the commonest, reaches on the test scenes."""
    found = {}
    for name, metric in (("<REGION_TO_CATEGORY>", "accuracy"), ("<VQA>", "vqa_accuracy")):
        truths = [
            pair.texts[0] for sample in Scenes("test", length=COUNT) for pair in rule_of(task(name))(sample.annotation)
        ]
        [(_, most)] = Counter(truths).most_common(1)
        found[f"{name}/{metric}"] = round(most / len(truths), 4)
    presence = "<OPEN_VOCABULARY_DETECTION>/presence_auroc"
    return found | {
        f"{presence}_random": 0.5,
        f"{presence}_changed": 0.5,
        "<OCR>/word_f1": 0.0,
        "captions/text_r@1": 0.01,
    }


def install(trained: Path) -> None:
    """Put the files of a training in the place of the embedded ones."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(trained / name, FOLDER / name)
    write_card(sha256=digests())


def words_asked(config: TrainConfig) -> dict[str, str]:
    """Task → the words of its prompts about scenes of the training."""
    asked: dict[str, set[str]] = {name: set() for name in checkpoint(NAME).tasks if task(name).input in WORDED}
    for seed in TRAIN[:TEXTS]:
        _, truth = render_scene(seed, DEFAULT_STYLES, variety=config.variety)
        for name, words in asked.items():
            for pair in rule_of(task(name))(truth):
                for text in (pair.inputs.get("text", ""), *pair.inputs.get("phrases", ())):
                    words.update(words_of(text))
    return {name: " ".join(sorted(words)) for name, words in asked.items()}


def measurements(styles: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Name → what the card writes before the figures, and options of `florence-lite eval`."""
    usual = ["<OD>", "<CAPTION>", "<OPEN_VOCABULARY_DETECTION>", "<OCR>"]  # what eval asks of scenes by itself
    others = [task for task in checkpoint(NAME).tasks if task not in usual]
    more = [style for style in styles if style not in DEFAULT_STYLES]

    def in_styles(names: Sequence[str]) -> list[str]:
        return [word for name in names for word in ("--style", name)]

    return {
        "usual": ("", ["--count", str(COUNT), "--margins"]),
        "others": ("", ["--count", str(COUNT), "--margins", "--tasks", *others]),
        "held out": ("held_out ", ["--count", "500", "--margins", *in_styles(HELD_OUT_STYLES)]),
        "other styles": ("other_styles ", ["--count", "300", "--margins", "--tasks", "<OD>", *in_styles(more)]),
        "retrieval": ("", ["--retrieval", "--count", "100"]),
        "panoptic": ("", ["--panoptic", "--count", "100"]),
    }


def of_phrases(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What `absent.py` tells, as tables of figures."""
    return {"phrases accepted": found["accepted"], "photographs": found["photographs"]}


def printed(command: Sequence[str], file: Path) -> Any:
    """The JSON that a command prints, or that it printed into the file before; of lines of JSON (`.jsonl`) a list."""
    asked = file.with_suffix(".command")
    if not file.is_file() or not asked.is_file() or asked.read_text() != " ".join(command):
        print(f"{file.stem} …", file=sys.stderr)
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        written = file.with_suffix(".partial")
        written.write_text(text)
        written.replace(file)
        asked.write_text(" ".join(command))
    text = file.read_text()
    return [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else json.loads(text)


def flat(prefix: str, tables: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """Tables of figures as one, by the card's names, in four digits behind the point."""
    return {
        f"{prefix}{table}/{name}": round(value, 4)
        for table, values in tables.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def digests() -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(FOLDER.iterdir())}


def write_card(**tables: Mapping[str, object]) -> None:
    """Replace tables of the card; its other lines stay as they are."""
    text = CARD.read_text(encoding="utf-8")
    for name, values in tables.items():
        lines = [f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()]
        table = re.compile(rf"^\[{re.escape(name)}\]\n(?:[^\[\n].*\n)*", re.MULTILINE)
        if not table.search(text):
            raise SystemExit(f"{CARD} has no table [{name}]")
        new = "".join([f"[{name}]\n", *lines])
        text = table.sub(new.replace("\\", "\\\\"), text)
    CARD.write_text(text, encoding="utf-8")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name)


if __name__ == "__main__":
    main()
