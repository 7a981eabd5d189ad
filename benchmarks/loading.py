"""How long it takes to load a checkpoint, against transformers' native Florence-2 and the same files.

    python benchmarks/loading.py --size base

Every load runs in a process of its own, after `import torch`; the two sides take turns. "load" ends when the call
returns: here all weights are checked by then, transformers leaves reading them to the first use. So "read" ends when
every weight has been read once, on both sides. Peak memory is that of the process, with everything imported (Linux
only). The embedded checkpoint is loaded too. Shown are medians; ratios are medians of the rounds' ratios. Needs
transformers.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

PRESETS = {"tiny": "nano", "base": "base"}
FILES = ("native safetensors", "native bin", "original safetensors")
SIDES = ("florence-lite", "transformers")


def write(size: str, folder: Path) -> None:
    """Random weights in each kind of file."""
    from florence_lite.checkpoint import save_checkpoint
    from florence_lite.model import FlorenceConfig, FlorenceModel

    torch.manual_seed(0)
    model = FlorenceModel(FlorenceConfig.preset(PRESETS[size]))
    native = folder / FILES[0]
    save_checkpoint(model, native, image_token_id=model.config.text.vocab_size)
    save_checkpoint(model, folder / FILES[2], layout="original")
    from safetensors.torch import load_file

    pickled = folder / FILES[1]
    pickled.mkdir()
    (pickled / "config.json").write_text((native / "config.json").read_text())
    torch.save(load_file(native / "model.safetensors"), pickled / "pytorch_model.bin")


def load(side: str, folder: str) -> dict:
    """Seconds and memory of one load, in this process."""
    begin = time.perf_counter()
    if side == "transformers":
        from transformers import Florence2ForConditionalGeneration
    else:
        from florence_lite.florence import Florence
    imported = time.perf_counter()
    if side == "transformers":
        model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype="auto")
    elif folder == "scenes-nano":
        model = Florence.from_pretrained(folder).model
    else:
        from florence_lite.checkpoint import load_checkpoint

        model = load_checkpoint(folder, "auto")
    loaded = time.perf_counter()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sum()
    read = time.perf_counter()
    return {
        "import_s": imported - begin,
        "load_s": loaded - imported,
        "read_s": read - imported,
        "peak_mb": peak_mb(),
        "weights_mb": sum(parameter.nbytes for parameter in model.parameters()) / 2**20,
    }


def peak_mb() -> float | None:
    """Of this process alone; what `getrusage` says includes the parent's, from before the program was started."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def in_new_process(side: str, folder: str) -> dict:
    command = [sys.executable, __file__, "--child", side, folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} cannot load {folder}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: str, rounds: int) -> list[dict]:
    """A row for each kind of file, and one for the embedded checkpoint."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        write(size, Path(scratch))
        for name in (*FILES, "scenes-nano"):
            sides = SIDES if name.startswith("native") else SIDES[:1]
            folder = name if name == "scenes-nano" else str(Path(scratch, name))
            taken: dict[str, list[dict]] = {side: [] for side in sides}
            for file in Path(scratch).rglob("*"):
                if file.is_file():
                    file.read_bytes()  # into the system's cache
            for _ in range(rounds):
                for side in sides:
                    taken[side].append(in_new_process(side, folder))
            row = {"files": name}
            for side, each in taken.items():
                row[side] = {key: statistics.median(metrics[key] for metrics in each) for key in each[0]}
            if len(sides) == 2:
                pairs = list(zip(*taken.values(), strict=True))
                for key in ("load_s", "read_s"):
                    row[f"{key[:-2]}_ratio"] = statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=PRESETS, default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(load(*arguments.child)))
        return
    from peer import environment

    rows = measure(arguments.size, arguments.rounds)
    if arguments.json:
        print(json.dumps({**environment(), "rows": rows}, indent=2))
        return
    print(f"{arguments.size}, median of {arguments.rounds} rounds; ratios are florence-lite's time to transformers'")
    print(f"{'':22}{'side':15}{'import':>8}{'load':>8}{'read':>8}{'peak':>9}{'weights':>9}")
    for row in rows:
        for side in SIDES:
            if side in row:
                each = row[side]
                print(
                    f"{row['files']:22}{side:15}{each['import_s']:7.2f}s{each['load_s']:7.2f}s{each['read_s']:7.2f}s"
                    f"{each['peak_mb'] or 0:6.0f} MB{each['weights_mb']:6.0f} MB"
                )
        if "load_ratio" in row:
            print(f"{'':22}{'ratio':15}{'':8}{row['load_ratio']:7.2f}x{row['read_ratio']:7.2f}x")


if __name__ == "__main__":
    main()
