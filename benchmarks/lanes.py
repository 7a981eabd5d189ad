"""How much faster is a step of training whose rows stand behind each other in lanes?

    python benchmarks/lanes.py examples/train-scenes-nano.toml --batch 32 --json benchmarks/results/lanes.json

Peer: the same rows in groups of similar length, a lane for each, as they are for networks with prompts in the encoder.
The same batches for both sides, in turn; losses must agree. A round is a step.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from peer import environment
from step_parts import Step, training

from florence_lite.scenes.cells import SceneBatch
from florence_lite.train import collate
from florence_lite.train.lanes import RowGroup, rows_by_length

WARM_UP = 2  # rounds
AGREE = 1e-3  # relative, for the losses: bfloat16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="TOML file of the recipe")
    parser.add_argument("--batch", type=int, help="scenes in a step, instead of the recipe's")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    config, step, scenes = training(arguments.config, arguments.batch, arguments.device)
    device = step.device
    times: dict[str, list[float]] = {"lanes": [], "groups": []}
    tokens: dict[str, list[int]] = {"lanes": [], "groups": []}
    for number in range(WARM_UP + arguments.rounds):
        [packed] = scenes[number]
        with patch.object(collate, "packed_rows", in_groups):
            [grouped] = scenes[number]
        sides = {"lanes": packed, "groups": grouped}
        with torch.no_grad():
            losses = [step.loss(batch.to(device)).item() for batch in sides.values()]
        if abs(losses[0] - losses[1]) > AGREE * losses[1]:
            raise SystemExit(f"the losses of batch {number} differ: {losses}")
        for side in sorted(sides, reverse=number % 2 == 0):
            ms = timed(step, sides[side], device)
            if number >= WARM_UP:
                times[side].append(ms)
                tokens[side].append(sum(group.labels.numel() for group in sides[side].groups) // config.batch)
    ratios = [grouped / packed for grouped, packed in zip(times["groups"], times["lanes"], strict=True)]
    found = {
        **environment(device.type),
        "batch": config.batch,
        "tokens of an image": {side: round(statistics.mean(each)) for side, each in tokens.items()},
        "step, ms": {side: round(statistics.median(each), 1) for side, each in times.items()},
        "times as fast": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def in_groups(*arguments) -> tuple[RowGroup, ...]:
    """`packed_rows` as it would be without packing."""
    return tuple(replace(group, prompt_ids=None) for group in rows_by_length(*arguments))


def timed(step: Step, batch: SceneBatch, device: torch.device) -> float:
    """Milliseconds of a step."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step.run(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
