"""What the data engine keeps in memory, open and in scratch space while it annotates many images: nothing may grow.

    python benchmarks/soak.py --images 5000 --json benchmarks/results/soak.json --plot benchmarks/results/soak.png

A process runs `florence-lite annotate` with a network small enough to be quick, on generated pictures of a few
kilobytes; this one watches it: resident memory, open files, the bytes in `staging/`, and how far it is. Then the same
command goes on with everything done, as after an interruption: it reads and digests all files and answers none. Told
are the curves, and the growth from a fifth of the way to its end, per 100,000 images. Needs psutil.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from ours import save_for_users
from peer import environment
from PIL import Image

from florence_lite.annotate.parts import STAGING, part_files
from florence_lite.model import FlorenceConfig, FlorenceModel, TextConfig, VisionConfig
from florence_lite.tokens import Tokenizer

TASKS = ("<OD>", "<CAPTION>")
PART = 64  # images
SECONDS = 0.5  # between looks
KEPT = 200  # looks that are written, of the whole way
BEGUN = 0.2  # share of the way after which nothing may grow


def write_pictures(folder: Path, count: int) -> None:
    """Noise of 64 × 48 pixels, each another."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        place = folder / f"{number // 1000:03}"
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST).save(place / f"{number:06}.png")


def save_small_checkpoint(folder: Path) -> None:
    """A network of two small layers, random weights, with a tokenizer of its own."""
    tokenizer = Tokenizer.train(["a red apple and a green door handle next to two wheels"], vocab_size=1400)
    vision = VisionConfig(
        dims=(16, 32),
        depths=(1, 1),
        heads=(2, 4),
        groups=(2, 4),
        patch_sizes=(7, 3),
        strides=(4, 2),
        paddings=(3, 1),
        prenorm=(False, True),
        window=4,
    )
    text = TextConfig(tokenizer.vocabulary.size, 32, 1, 1, heads=4, ffn_dim=48, positions=160)
    torch.manual_seed(0)
    model = FlorenceModel(FlorenceConfig(vision=vision, text=text, image_size_wh=(64, 48), prompt_side="encoder"))
    save_for_users(model, tokenizer, str(folder))


def watch(command: list[str], output: Path) -> list[dict[str, float]]:
    """What a process has, look by look, until it ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched, looks, begun = psutil.Process(process.pid), [], time.monotonic()
    while process.poll() is None:
        try:
            look = {
                "seconds": round(time.monotonic() - begun, 2),
                "memory_mb": round(watched.memory_info().rss / 2**20, 1),
                "open_files": watched.num_fds(),
                "threads": watched.num_threads(),
                "scratch_kb": round(sum(map(size_of, (output / STAGING).glob("*"))) / 2**10, 1),
                "images": len(part_files(output)) * PART,
            }
        except psutil.NoSuchProcess:
            break
        looks.append(look)
        time.sleep(SECONDS)
    if process.returncode:
        sys.exit(f"the command ended with {process.returncode}")
    return looks


def size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # it was committed meanwhile
        return 0


def growth(looks: list[dict[str, float]], images: int) -> dict[str, float]:
    """Slopes of memory and open files behind the first fifth of the images, for each 100,000 of them."""
    steady = [look for look in looks if BEGUN * images <= look["images"]]
    done = [look["images"] for look in steady]
    if len(set(done)) < 2:
        return {}
    slopes = {name: np.polyfit(done, [look[name] for look in steady], 1)[0] for name in ("memory_mb", "open_files")}
    return {f"{name}_per_100000_images": round(float(slope) * 100_000, 1) for name, slope in slopes.items()}


def plot(looks: list[dict[str, float]], file: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = {"memory_mb": "memory, MB", "open_files": "open files", "scratch_kb": "scratch space, kB"}
    figure, axes = plt.subplots(len(names), 1, figsize=(6, 5), sharex=True, layout="constrained")
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        axis.plot([look["images"] for look in looks], [look[name] for look in looks], linewidth=1)
        axis.set_ylim(bottom=0)
        axis.set_title(title, loc="left", fontsize=9)
    axes[-1].set_xlabel("images")
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--json", metavar="OUT", help="file to write")
    parser.add_argument("--plot", metavar="OUT.png", help="picture of the curves")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        write_pictures(folder / "pictures", arguments.images)
        save_small_checkpoint(folder / "checkpoint")
        toml, output = folder / "run.toml", folder / "answers"
        toml.write_text(
            f"source = {str(folder / 'pictures')!r}\noutput = {str(output)!r}\nimages_per_part = {PART}\n"
            f"tasks = {list(TASKS)}\n[[checkpoints]]\ncheckpoint = {str(folder / 'checkpoint')!r}\n"
            "decoding = { max_new_tokens = 8 }\n"
        )
        command = [sys.executable, "-m", "florence_lite", "annotate", "--config", str(toml)]
        found: dict[str, Any] = {"images": arguments.images, "tasks": TASKS, "images_per_part": PART}
        for run in ("annotated", "all done before"):
            looks = watch(command, output)
            found[run] = {"looks": looks, **(growth(looks, arguments.images) if run == "annotated" else {})}
            highest = {each: max(look[each] for look in looks) for each in ("memory_mb", "open_files", "scratch_kb")}
            found[run] |= {"most": highest, "looks": looks[:: -(-len(looks) // KEPT)]}
            print(run, json.dumps({**highest, "seconds": looks[-1]["seconds"]}), flush=True)
        print({key: value for key, value in found["annotated"].items() if key != "looks"})
    if arguments.plot:
        plot(found["annotated"]["looks"], arguments.plot)
    if arguments.json:
        told = {**environment(), **found}
        Path(arguments.json).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
