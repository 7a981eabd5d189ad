"""From a recipe to the embedded checkpoint and its card: train, fit, calibrate, measure, write.

    python benchmarks/make_checkpoint.py examples/train-scenes-nano.toml PHOTOGRAPHS

Run in a clone that is installed with `pip install -e ".[train,eval,scenes]"` and has the artwork of the recipe. What is
done already in the recipe's output folder is not done again, so that the command goes on where it was stopped; the
training may also have been made elsewhere by `florence-lite train`, on a GPU, and its folder brought here.

    checkpoint/   the weights and the tokenizer, which go to checkpoints/scenes-nano
    figures/      for each digest of weights, what the commands below printed; the card's figures are taken from there

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from florence_lite.cards import checkpoint
from florence_lite.image_files import is_image_name
from florence_lite.scenes import HELD_OUT_STYLES
from florence_lite.scenes.catalogue import DEFAULT_STYLES
from florence_lite.scenes.config import TrainConfig

HERE = Path(__file__).parent
NAME = "scenes-nano"
FOLDER, CARD = HERE.parent / "checkpoints" / NAME, HERE.parent / "checkpoints" / f"{NAME}.toml"
COMMAND = [sys.executable, "-m", "florence_lite"]
COUNT = 1000  # test scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="TOML file of `florence-lite train`")
    parser.add_argument("photographs", help="folder of pictures that the checkpoint knows nothing about")
    arguments = parser.parse_args()
    photographs = Path(arguments.photographs)
    if not photographs.is_dir() or not any(is_image_name(file.name) for file in photographs.iterdir()):
        raise SystemExit(f"{arguments.photographs} holds no pictures; name the folder in which they lie")
    config = TrainConfig.from_toml(arguments.recipe)
    output = Path(config.output)
    trained = output / "checkpoint"
    if not trained.is_dir() or (output / "state").is_dir():  # one without a state was trained elsewhere
        subprocess.run([*COMMAND, "train", arguments.recipe], check=True)
    install(trained)
    figures = output / "figures" / digests()["model.safetensors"][:12]
    figures.mkdir(parents=True, exist_ok=True)
    styles = tuple(dict.fromkeys(config.styles))
    fit = [sys.executable, str(HERE / "domain.py"), arguments.photographs, "--style", *styles, "--fit", str(figures)]
    printed([*fit, "--json"], figures / "domain.json")
    shutil.copyfile(figures / "domain.safetensors", FOLDER / "domain.safetensors")
    write_card(sha256=digests())
    calibrate = [*COMMAND, "calibrate", "--split", "validation", "--count", str(COUNT), "--json"]
    write_card(calibration=printed(calibrate, figures / "calibration.json")["calibration"])
    metrics, margins = {}, {}
    photographs = printed([*COMMAND, "run", arguments.photographs, "<OD>", "--json"], figures / "photographs.jsonl")
    metrics["photographs/named"] = round(sum(bool(each["instances"]) for each in photographs) / len(photographs), 4)
    absent = [sys.executable, str(HERE / "absent.py"), arguments.photographs, "--count", str(COUNT), "--json"]
    metrics |= flat("", of_phrases(printed(absent, figures / "absent.json")))
    for name, (prefix, options) in measurements(styles).items():
        found = printed([*COMMAND, "eval", "--split", "test", "--json", *options], figures / f"{name}.json")
        metrics |= flat(prefix, found["metrics"])
        margins |= flat(prefix, found.get("margins", {}))
    known = checkpoint(NAME).metrics
    if missing := sorted(known.keys() - metrics.keys()):
        raise SystemExit(f"{CARD} has figures that are not measured here: {', '.join(missing)}; take them out")
    metrics = {name: metrics[name] for name in known}
    write_card(metrics=metrics, margins={name: margins[name] for name in metrics if name in margins})


def install(trained: Path) -> None:
    """Put the files of a training in the place of the embedded ones."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(trained / name, FOLDER / name)
    write_card(sha256=digests())


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
    if not file.is_file():
        print(f"{file.stem} …", file=sys.stderr)
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        written = file.with_suffix(".partial")
        written.write_text(text)
        written.replace(file)
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
        table = re.compile(rf"^\[{name}\]\n(?:[^\[\n].*\n)*", re.MULTILINE)
        if not table.search(text):
            raise SystemExit(f"{CARD} has no table [{name}]")
        new = "".join([f"[{name}]\n", *lines])
        text = table.sub(new.replace("\\", "\\\\"), text)
    CARD.write_text(text, encoding="utf-8")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name)


if __name__ == "__main__":
    main()
