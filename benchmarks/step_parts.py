"""What a step of training from scratch spends its time on, and what preparing its batch does.

    python benchmarks/step_parts.py examples/train-scenes-nano.toml --batch 128 --device cuda

Each part is waited for, so that their sum is longer than the whole step, whose time stands beside it: on a GPU the next
part is sent while the last one computes. "kernels, ms" is how long the GPU computes in a step, "kernels" how many it
runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peer import environment
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from florence_lite.cards import checkpoint as checkpoint_card
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.trainer import ScratchTrainer
from florence_lite.scenes.training import APART, SceneBatches, scene_collator, scene_trainer
from florence_lite.tokens.tokenizer import Tokenizer
from florence_lite.train.kernels import faster_kernels, keep_freed_memory
from florence_lite.train.loop import parameter_groups

WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="TOML file of the recipe")
    parser.add_argument("--batch", type=int, help="scenes in a step, instead of the recipe's")
    parser.add_argument("--steps", type=int, default=20, help="that are timed")
    parser.add_argument("--workers", type=int, default=2, help="that prepare the batches beforehand")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--kernels", type=int, default=0, help="list so many of the longest kernels of a GPU")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    config, step, scenes = training(arguments.config, arguments.batch, arguments.device)
    device = step.device
    found: dict[str, Any] = {**environment(device.type), "batch": config.batch}
    found["preparing a scene, ms"] = preparing(config, scenes)
    loader = DataLoader(scenes, batch_size=None, num_workers=arguments.workers, pin_memory=device.type == "cuda")
    batches = [parts[0] for parts, _ in zip(loader, range(WARM_UP + arguments.steps), strict=False)]
    found["step, ms"] = step_ms(step.run, batches, device)
    with timed_parts(step, device) as spent:
        for batch in batches:
            step.run(batch)
    found["parts, ms"] = {name: round(statistics.median(times[WARM_UP:]), 2) for name, times in spent.items()}
    if device.type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for batch in batches[:3]:
                step.run(batch)
            torch.cuda.synchronize()
        events = profiled.key_averages()
        found["kernels, ms"] = round(sum(event.self_device_time_total for event in events) / 3000, 2)
        if arguments.kernels:
            print(events.table("self_device_time_total", row_limit=arguments.kernels, max_name_column_width=90))
        found["kernels"] = sum(event.count for event in events if event.self_device_time_total) // 3
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def training(file: str, batch: int | None, device: str) -> tuple[TrainConfig, Step, SceneBatches]:
    """A recipe with so many scenes in a step, its step from random weights, and its batches."""
    config = TrainConfig.from_toml(file)
    config = replace(config, batch=batch or config.batch)
    # What a tokenizer learns from the recipe's scenes is in the package.
    tokenizer = Tokenizer.from_file(checkpoint_card("scenes-nano").find_files() / "tokenizer.json")
    where = torch.device(device)
    if where.type == "cpu":
        keep_freed_memory()
    trainer = scene_trainer(config, tokenizer).to(where).train()
    collate, size_wh = scene_collator(config, tokenizer), trainer.model.config.image_size_wh
    return config, Step(trainer, config, where), SceneBatches(config, collate, size_wh, 0, [range(config.batch)])


class Step:
    """One step of training in bfloat16, as the training loop makes it."""

    def __init__(self, trainer: ScratchTrainer, config: TrainConfig, device: torch.device):
        self.trainer, self.device, self.sigma = trainer, device, config.sigma_start
        groups = parameter_groups(trainer, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=1e-5, fused=True)

    def run(self, batch: Any) -> None:
        self.backward(self.loss(self.copy(batch)))
        self.update()

    def copy(self, batch: Any) -> Any:
        return batch.to(self.device)

    def loss(self, batch: Any) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16), faster_kernels(self.device, "bf16"):
            return self.trainer(batch, self.sigma)[0]

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.trainer.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def preparing(config: TrainConfig, scenes: SceneBatches) -> list[float]:
    """Milliseconds of one core for a scene, when it is shown first, again, and so on."""
    few = replace(config, batch=16)
    others, small = (
        SceneBatches(each, scenes.collate, scenes.size_wh, 0, [range(16)]) for each in (replace(few, seed=1), few)
    )
    others[0]  # reads the artwork
    times = []
    for show in range(config.shows):
        began = time.perf_counter()
        small[show * APART]
        times.append(round((time.perf_counter() - began) * 1000 / 16, 2))
    return times


def step_ms(run: Callable[[Any], None], batches: list, device: torch.device) -> float:
    """Milliseconds of a step: the median, on a GPU the mean of steps that follow each other without waiting."""
    for batch in batches[:WARM_UP]:
        run(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
        began = time.perf_counter()
        for batch in batches[WARM_UP:]:
            run(batch)
        torch.cuda.synchronize()
        return round((time.perf_counter() - began) * 1000 / len(batches[WARM_UP:]), 2)
    times = []
    for batch in batches[WARM_UP:]:
        began = time.perf_counter()
        run(batch)
        times.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(times), 2)


@contextmanager
def timed_parts(step: Step, device: torch.device):
    """Name of a part → its milliseconds in every step; "of" those that are parts of another."""
    spent: dict[str, list[float]] = defaultdict(list)
    model, trainer = step.trainer.model, step.trainer
    parts = {
        "copying the batch": (step, "copy"),
        "forward": (step, "loss"),
        "of forward: vision tower": (model, "encode_image"),
        "of forward: encoder": (model, "encode"),
        "of forward: decoder": (model, "decode"),
        "of forward: losses of answers": (trainer, "token_losses"),
        "of forward: losses of image tokens": (trainer.dense, "forward"),
        "backward": (step, "backward"),
        "clipping and AdamW": (step, "update"),
    }

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    current: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable) -> Callable:
        def run(*args: Any, **options: Any) -> Any:
            began = wait()
            found = function(*args, **options)
            current[name] += (wait() - began) * 1000
            if name == "clipping and AdamW":
                for part, ms in current.items():
                    spent[part].append(ms)
                current.clear()
            return found

        return run

    for name, (owner, method) in parts.items():
        setattr(owner, method, timed(name, getattr(owner, method)))
    try:
        yield spent
    finally:
        for owner, method in parts.values():
            delattr(owner, method)


if __name__ == "__main__":
    main()
