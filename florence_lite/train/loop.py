"""The training loop: batches in, a checkpoint folder out; stopped at any time, it goes on where it was."""

from __future__ import annotations

import ctypes
import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.data import DataLoader, Dataset

from florence_lite.train.config import RunConfig

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h

Evaluate = Callable[[Path], dict[str, float]]  # checkpoint folder → figures


def fit(
    config: RunConfig,
    accelerator: Accelerator,
    trainer: nn.Module,
    batches: Callable[[int], Dataset],
    save: Callable[[nn.Module, Path], None],
    evaluate: Evaluate | None = None,
) -> Path:
    """Train, or go on training, the run in `config.output`; returns the folder of the finished checkpoint.

    trainer: maps (batch, width of the coordinate targets) to the loss and figures to log.
    batches: gives the batches from a step on; number i must always be the same.
    save: writes the trainer's network into a checkpoint folder.
    evaluate: called at intervals and at the end with the checkpoint folder; its figures are logged.

    Raises ValueError if the run is longer already, FloatingPointError if the loss is no number.
    """
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    optimizer = torch.optim.AdamW(parameter_groups(trainer, config.weight_decay), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_with_warmup(step, config))
    trainer, optimizer = accelerator.prepare(trainer, optimizer)

    state = output / "state"
    step = saved_step(state)
    if step > config.steps:
        raise ValueError(f"the run in {config.output!r} has made {step} steps already; steps = {config.steps} is less")
    # Starting the iterator draws a random number, once per run: before the saved random state comes back.
    loader = iter(DataLoader(batches(step), batch_size=None, num_workers=config.workers, prefetch_factor=4))
    if step:
        accelerator.load_state(str(state))
        schedule.last_epoch = step  # the optimiser's state holds the learning rate

    log, means, started = output / "log.jsonl", RunningMeans(), time.monotonic()
    with Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    ) as progress:
        bar = progress.add_task("", total=config.steps, completed=step)
        for batch in loader:
            loss, figures = trainer(batch.to(accelerator.device), coordinate_sigma(step, config))
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}; lower learning_rate")
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trainer.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            means.add({"loss": loss.detach(), **figures})
            progress.update(bar, completed=step, description=f"loss {means.latest('loss'):.3f}")
            # The state comes last: making the checkpoint draws random numbers, which a resumed run must not miss.
            if step % config.evaluate_every == 0 or step == config.steps:
                folder = output / "checkpoint"
                save(accelerator.unwrap_model(trainer), folder)
                if evaluate:
                    write_log(log, {"step": step, "evaluation": evaluate(folder)})
            if step % config.save_every == 0 or step == config.steps:
                save_state(accelerator, state, step)
                seconds = time.monotonic() - started
                write_log(log, {"step": step, "seconds": round(seconds, 1), "losses": means.take()})
    return output / "checkpoint"


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed, for this process; elsewhere nothing happens.

    It would hand each back to the system, and every training step on the CPU would wait for the same pages again.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            mallopt(option, value)


def parameter_groups(module: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and other vectors do not."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def cosine_with_warmup(step: int, config: RunConfig) -> float:
    """Factor of the learning rate at `step`: linear up over the warm-up, then half a cosine down to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def coordinate_sigma(step: int, config: RunConfig) -> float:
    """Width in bins of the coordinate targets at `step`: shrinks geometrically, then stays at `sigma_end`."""
    share = min(1.0, step / max(1.0, config.sigma_share * config.steps))
    return config.sigma_start * (config.sigma_end / config.sigma_start) ** share


def save_state(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write weights, optimiser and random state beside the former state, then put the new one in its place.

    Stopped at any point, it leaves a whole state for `saved_step` to find.
    """
    partial, former = _beside(folder, ".partial"), _beside(folder, ".former")
    shutil.rmtree(partial, ignore_errors=True)
    accelerator.save_state(str(partial))
    (partial / "step.json").write_text(json.dumps({"step": step}))
    shutil.rmtree(former, ignore_errors=True)
    if folder.exists():
        folder.replace(former)
    partial.replace(folder)
    shutil.rmtree(former, ignore_errors=True)


def saved_step(folder: Path) -> int:
    """The step of the state in `folder`, 0 if there is none; brings back the state that `save_state` moved away."""
    if not folder.exists() and _beside(folder, ".former").exists():
        _beside(folder, ".former").replace(folder)
    path = folder / "step.json"
    return json.loads(path.read_text())["step"] if path.is_file() else 0


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(folder.name + ending)


def write_log(path: Path, entry: dict) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


class RunningMeans:
    """Means of figures since they were last taken."""

    def __init__(self):
        self.values: dict[str, list[float]] = {}

    def add(self, figures: dict[str, torch.Tensor]) -> None:
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value.item())

    def latest(self, name: str) -> float:
        return self.values[name][-1]

    def take(self) -> dict[str, float]:
        means = {name: round(sum(values) / len(values), 4) for name, values in self.values.items()}
        self.values = {}
        return means
