"""Memory and loading of a side, in a process of its own: `inference.py` starts this file as a program.

Loading begins when everything is imported, and ends where the side can be asked. Peak memory is that of the process
once it has answered a prompt about an image with three beams; `imported_mb` is what it had when all was imported, and
`grown_mb` the difference. The peak is compared with transformers', the difference with that of onnxruntime and
OpenVINO, whose processes have torch in memory only because this one compares tensors. On a GPU the memory is what torch
has reserved there. The embedded checkpoint is loaded
and asked as its users do.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import torch
from loading import peak_mb

MOST_MEMORY = 1.1  # of transformers'; and not more than the other peers
CALLS_ON_GPU = 3  # until the graphs that are made of repeated work are there
PROMPT = [0, *range(100, 108), 2]
PICTURE = Path(__file__).parents[1] / "examples" / "donuts.png"
LONGEST_LOAD = 0.5  # seconds, of the embedded checkpoint


def measure(
    sides: list[str],
    folder: str,
    graphs: Path | None,
    tokens: int,
    rounds: int,
    device: str = "cpu",
    dtype: str = "float32",
) -> dict:
    """Medians for each side; folder: a checkpoint; graphs: of `exported.export`. Answers must have the same ids, in
    float32."""
    taken: dict[str, list[dict]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            taken[side].append(_in_new_process(side, folder, str(graphs), str(tokens), device, dtype))
    answers = {json.dumps(each["ids"]) for of_side in taken.values() for each in of_side}
    if len(answers) > 1 and dtype == "float32":
        raise SystemExit(f"memory: the sides give different ids: {', '.join(sorted(answers))}")
    keys = ("load_s", "imported_mb", "peak_mb")
    found = {side: {key: statistics.median(e[key] for e in each) for key in keys} for side, each in taken.items()}
    for each in found.values():
        each["grown_mb"] = each["peak_mb"] - each["imported_mb"]
    for side, each in found.items():
        if side != "florence-lite":
            key = "peak_mb" if side == "transformers" else "grown_mb"
            each["ours_over_theirs"] = found["florence-lite"][key] / each[key]
            each["met"] = each["ours_over_theirs"] <= (MOST_MEMORY if side == "transformers" else 1)
    return found


def show(found: dict) -> None:
    for side, each in found.items():
        line = f"memory, {side}: loaded in {each['load_s']:.2f} s, peak {each['peak_mb']:.0f} MB"
        line += f" ({each['imported_mb']:.0f} MB once imported)"
        if "met" in each:
            line += f"; {each['ours_over_theirs']:.2f} of it here, {'met' if each['met'] else 'MISSED'}"
        print(line, flush=True)


def embedded(rounds: int) -> dict:
    """`scenes-nano`: seconds of import and load after `import torch`, and of one <OD>, by the kernels and without."""
    each = [_in_new_process("embedded") for _ in range(rounds)]
    found = {key: statistics.median(one[key] for one in each) for key in each[0]}
    return found | {"load_met": found["import_s"] + found["load_s"] <= LONGEST_LOAD}


def line_of_embedded(found: dict) -> str:
    met = "met" if found["load_met"] else "MISSED"
    return (
        f"scenes-nano after import torch: import {found['import_s']:.2f} s + load {found['load_s']:.2f} s (≤ "
        f"{LONGEST_LOAD} {met}); one <OD>, {found['ids']:.0f} ids: first {found['first_s'] * 1000:.0f} ms, then "
        f"{found['answer_s'] * 1000:.0f} ms, encoding {found['encode_s'] * 1000:.0f} of them; by the plain network "
        f"{found['plain_s'] * 1000:.0f} ms ({found['plain_s'] / found['answer_s']:.2f}x)"
    )


def _in_new_process(*arguments: str) -> dict:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@torch.inference_mode()
def _answer(side: str, folder: str, graphs: str, tokens: str, device: str, dtype: str) -> dict:
    """What one process tells of itself."""
    load, pixels = _loader(side, folder, graphs, device, dtype)
    peak = peak_mb if device == "cpu" else lambda: torch.cuda.max_memory_reserved() / 2**20
    imported, begin = peak(), time.perf_counter()
    loaded = load()
    seconds = time.perf_counter() - begin
    for _ in range(1 if device == "cpu" else CALLS_ON_GPU):
        ids = loaded.answer(pixels, [PROMPT], int(tokens), 3)
    return {"load_s": seconds, "imported_mb": imported, "peak_mb": peak(), "ids": ids}


def _loader(side: str, folder: str, graphs: str, device: str, dtype: str):
    """What loads a side, with everything imported; and pixels."""
    from florence_lite.checkpoint import load_checkpoint, read_config

    config = read_config(folder)
    width, height = config.image_size_wh
    pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(device, getattr(torch, dtype))
    if side == "florence-lite":
        from ours import Ours

        return lambda: Ours(load_checkpoint(folder, dtype, device)), pixels
    if side != "transformers":
        import importlib

        import exported

        importlib.import_module(side)
        length = config.image_tokens + len(PROMPT)
        return lambda: exported.Exported(side, Path(graphs), length, (1,)), pixels
    from native import Transformers
    from transformers import Florence2ForConditionalGeneration

    def load():
        native = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        return Transformers(native.to(device).eval(), config)

    return load, pixels


def _embedded() -> dict:
    begin = time.perf_counter()
    from florence_lite import Florence

    imported = time.perf_counter()
    florence = Florence.from_pretrained()
    loaded = time.perf_counter()
    from PIL import Image

    picture = Image.open(PICTURE).convert("RGB")

    def seconds(run):
        began = time.perf_counter()
        got = run()
        return time.perf_counter() - began, got

    first, result = seconds(lambda: florence.run(picture, "<OD>"))
    from florence_lite.engine.fast import kernel

    fast, plain, encode = [], [], []
    for _ in range(10):
        fast.append(seconds(lambda: florence.run(picture, "<OD>"))[0])
        encode.append(seconds(lambda: florence.encode(picture))[0])
        with patch.object(kernel, "library", lambda: None):
            taken, other = seconds(lambda: florence.run(picture, "<OD>"))
            plain.append(taken)
        if other.token_ids != result.token_ids:
            raise SystemExit(f"ids differ by the plain network: {other.token_ids} instead of {result.token_ids}")
    medians = {"answer_s": fast, "encode_s": encode, "plain_s": plain}
    return {
        "import_s": imported - begin,
        "load_s": loaded - imported,
        "first_s": first,
        **{name: statistics.median(each) for name, each in medians.items()},
        "ids": len(result.token_ids),
    }


if __name__ == "__main__":
    told = _embedded() if sys.argv[1] == "embedded" else _answer(*sys.argv[1:])
    print(json.dumps(told))
