"""The training loop: batches in, a checkpoint folder out; stopped at any time, it goes on where it was."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from florence_lite.files import read_json_object
from florence_lite.model.davit import DualBlock
from florence_lite.model.transformer import DecoderLayer, EncoderLayer
from florence_lite.progress import ProgressLines, is_logged, progress_bar
from florence_lite.train.collate import Batch
from florence_lite.train.config import RunConfig
from florence_lite.train.folders import (
    BEST,
    BEST_RECORD,
    CHECKPOINT,
    LOG,
    STATE,
    checkpoint_problem,
    keep_if_best,
    load_state,
    replace_folder,
    save_state,
    saved_precision,
    saved_seconds,
)
from florence_lite.train.kernels import faster_kernels, keep_freed_memory
from florence_lite.train.log import RunningMeans, TrainingLog, others_aside, tell
from florence_lite.train.precision import choose_precision
from florence_lite.train.record import on_main
from florence_lite.train.unreadable import UnreadableImages

TRACKERS = ("tensorboard", "trackio")  # that get the metrics if they are installed
LONGEST_WAIT = timedelta(hours=6)  # of the other processes while one evaluates; ten minutes would be usual

Evaluate = Callable[[Path, torch.device], Mapping[str, float | None]]  # checkpoint folder, where to run → metrics


def start(config: RunConfig) -> Accelerator:
    """Random seed, devices, processes, precision and trackers of a run."""
    trackers = [name for name in TRACKERS if find_spec(name)]

    def accelerator_of(mixed_precision: str) -> Accelerator:
        AcceleratorState._reset_state()  # the one before may have another precision
        return Accelerator(
            mixed_precision=mixed_precision,
            log_with=trackers or None,
            project_dir=config.output,
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            ],
        )

    accelerator = accelerator_of("no")  # which knows the devices
    begun = saved_precision(Path(config.output) / "state")
    tell = partial(accelerator.print, file=sys.stderr, flush=True)
    if choose_precision(config.precision, accelerator, begun, tell) == "bf16":
        accelerator = accelerator_of("bf16")
    set_seed(config.seed, device_specific=True)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def shares(config: RunConfig, accelerator: Accelerator) -> list[range]:
    """Numbers of the images of every batch that this process works on, part by part.

    Raises ValueError where the processes cannot share a batch evenly.
    """
    pieces = accelerator.num_processes * config.accumulate
    if config.batch % pieces:
        raise ValueError(
            f"batch = {config.batch} cannot be shared evenly by {accelerator.num_processes} processes in "
            f"accumulate = {config.accumulate} parts each; make it a multiple of {pieces}"
        )
    size = config.batch // pieces
    first = accelerator.process_index * config.accumulate
    return [range(size * piece, size * (piece + 1)) for piece in range(first, first + config.accumulate)]


def fit(
    config: RunConfig,
    accelerator: Accelerator,
    resumed: int | None,
    trainer: nn.Module,
    batches: Callable[[int], Dataset],
    save: Callable[[nn.Module, Path], None],
    evaluate: Evaluate | None = None,
    merit: Callable[[Mapping[str, float | None]], float | None] = lambda metrics: next(iter(metrics.values()), None),
    decisive: str | None = None,
) -> Path:
    """Train, or go on training, the run in `config.output`; returns the folder to go on with: `best` if one of the
    evaluations found a checkpoint to be the best, else `checkpoint`, the last.

    The caller holds the folder (`record.run_folder`). A state is saved before the first step, so that a folder in which
    a checkpoint stands always has one.

    resumed: the step of the state to go on from, as `run_folder` tells; None to begin.
    trainer: maps (part of a batch, width of the coordinate targets, counts of the whole batch) to the part's share of
        the loss, and name → losses.
    batches: gives the batches from a step on, each in the parts that fall to this process (`shares`); number i must
        always be the same.
    save: writes the trainer's network into an empty folder.
    evaluate: called at intervals and at the end with the checkpoint folder and the run's device; its metrics are
        logged. The checkpoint of the greatest `merit` of them, None counting for nothing, is kept in `best`.
    decisive: name of the metric that the merit comes from; the first without it.

    The loss of a step is made of means over the whole batch, however many processes and parts share it.

    Raises ValueError if the state does not fit the trainer, FloatingPointError if the loss is no number, OSError if a
    folder cannot be written, for instance because the disk is full: the former one is left whole.
    """
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    if config.gradient_checkpointing:
        kernels = partial(faster_kernels, accelerator.device, accelerator.mixed_precision)
        recompute_activations(trainer, kernels)
    groups = parameter_groups(trainer, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=accelerator.device.type in ("cpu", "cuda"))
    clock = Clock(config, saved_seconds(output / STATE) if resumed is not None else 0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine_with_warmup(step, config, clock.place(step))
    )
    trainer, optimizer = accelerator.prepare(trainer.train(), optimizer)

    state, log = output / STATE, TrainingLog(output / LOG, accelerator)
    step = resumed or 0
    # Starting the iterator draws a random number, once per run: before the saved random state comes back.
    on_gpu = accelerator.device.type == "cuda"
    loader = iter(
        DataLoader(batches(step), batch_size=None, num_workers=config.workers, prefetch_factor=4, pin_memory=on_gpu)
    )
    if resumed is not None:
        load_state(accelerator, state)
        schedule.last_epoch = step  # the optimiser's state holds the learning rate
        log.go_on_at(step)
    else:
        save_state(accelerator, state, step)
    is_over = clock.is_over(step)

    with others_aside():
        accelerator.init_trackers("florence-lite")

    def deliver() -> None:
        """Save the checkpoint, and measure it."""
        if accelerator.is_main_process:
            replace_folder(output / CHECKPOINT, partial(save, accelerator.unwrap_model(trainer)))
            if evaluate:
                with others_aside():
                    found = evaluate(output / CHECKPOINT, accelerator.device)
                log.write(step, "evaluation", dict(found))
                is_best = keep_if_best(output, step, merit(found), found)
                tell(f"step {step} measured: {listed(found)}{', the best so far' if is_best else ''}")
        accelerator.wait_for_everyone()

    def is_delivered() -> bool:
        if problem := checkpoint_problem(output / CHECKPOINT):
            tell(f"{problem}: it is written anew from the state")
        return not problem and (evaluate is None or (output / BEST_RECORD).exists())

    if is_over:
        if accelerator.is_main_process:
            more = "more `steps` go" if step == config.steps else "its time is over; more `minutes` go"
            tell(f"the run in {output} has made its {step} steps: nothing is left to train; {more} on with it")
        if not on_main(accelerator, is_delivered):
            deliver()
    means = RunningMeans()
    unreadable = UnreadableImages(accelerator.is_main_process)
    lines = ProgressLines(
        config.steps, step, tell if accelerator.is_main_process and is_logged() else lambda line: None
    )
    columns = ("training", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.description}")
    with progress_bar(accelerator.is_main_process, *columns, transient=False) as progress:
        bar = progress.add_task("", total=config.steps, completed=step)

        def read(loss: Tensor, before: int) -> None:
            """Wait for the loss of a step, so many steps before which were made; check and show it."""
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value} at step {before}; lower learning_rate")
            made, note = before + 1, f"loss {value:.3f}"
            at = f"step {made}, " if config.minutes else ""  # the bar shows the time where that is farther
            progress.update(bar, completed=int(clock.place(made)), description=at + note)
            lines.update(made, note, clock.left())

        unread: list[tuple[Tensor, int]] = []  # the loss of the last step: a GPU gets its next step before it is read
        for parts in () if is_over else loader:
            unreadable.meet(parts)
            loss, metrics = gradients(accelerator, trainer, parts, coordinate_sigma(clock.place(step), config))
            accelerator.clip_grad_norm_(trainer.parameters(), 1.0)
            optimizer.step()
            clock.read(accelerator)
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            is_over = clock.is_over(step)
            means.add({"loss": loss[None]} if accelerator.is_main_process else {})
            for each in metrics:
                means.add(each)
            unread.append((loss, step - 1))
            is_kept = any(step % every == 0 for every in (config.evaluate_every, config.save_every))
            while len(unread) > (0 if is_kept or is_over else 1):
                read(*unread.pop(0))
            # The state comes last: making the checkpoint draws random numbers, which a resumed run must not miss, and
            # what a run logs behind its state it makes and logs again.
            if step % config.evaluate_every == 0 or is_over:
                deliver()
            if step % config.save_every == 0 or is_over:
                unreadable.write(log, step)
                losses = means.take(accelerator)
                log.write(step, "losses", losses, seconds=round(clock.since_start(), 1))
                save_state(accelerator, state, step, clock.seconds)
            if is_over:
                break
    folder = on_main(accelerator, lambda: delivered(output, step, evaluate is not None, decisive))
    with others_aside():
        accelerator.end_training()
    return folder


def delivered(output: Path, steps: int, measured: bool, decisive: str | None) -> Path:
    """The folder to go on with, which is told: the best checkpoint if the run was measured, else the last."""
    record = output / BEST_RECORD
    if not measured or not record.is_file():
        tell(f"trained {steps} steps: {output / CHECKPOINT}")
        return output / CHECKPOINT
    best = read_json_object(record)
    metrics = best.get("metrics") or {}
    figures = "".join(
        f", {listed({name: metrics[name]})}" for name in metrics if name == (decisive or next(iter(metrics)))
    )
    tell(f"trained {steps} steps; the best is that of step {best['step']}{figures}: {output / BEST}")
    return output / BEST


def listed(metrics: Mapping[str, float | None]) -> str:
    """Metrics for people."""
    return ", ".join(f"{name} {'–' if value is None else format(value, '.3f')}" for name, value in metrics.items())


def gradients(
    accelerator: Accelerator, trainer: nn.Module, parts: Sequence[Batch], sigma: float
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Add the gradients of a batch, of which this process has some parts; returns the loss of the whole batch, a
    scalar that has still to be waited for, and the trainer's metrics of each part."""
    counts = {name: sum(part.counts[name] for part in parts) for name in parts[0].counts}
    if accelerator.num_processes > 1:
        everywhere = torch.tensor(list(counts.values()), device=accelerator.device)
        counts = dict(zip(counts, accelerator.reduce(everywhere, "sum").tolist(), strict=True))
    whole, metrics = torch.zeros((), device=accelerator.device), []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        kernels = faster_kernels(accelerator.device, accelerator.mixed_precision)
        with nullcontext() if last else accelerator.no_sync(trainer), kernels:
            share, found = trainer(part.to(accelerator.device), sigma, counts)
            # Processes take the mean of their gradients.
            accelerator.backward(share * accelerator.num_processes)
        whole += share.detach()
        metrics.append(found)
    return accelerator.reduce(whole, "sum"), metrics


def recompute_activations(module: nn.Module, kernels: Callable[[], AbstractContextManager] = nullcontext) -> None:
    """Keep no activations within the blocks of the vision tower, encoder and decoder; backward computes them anew.

    kernels: the context of the forward pass, which is not active when backward computes it again.
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), kernels()

    for block in module.modules():
        if isinstance(block, DualBlock | EncoderLayer | DecoderLayer):
            recomputed = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)
            block.forward = recomputed  # type: ignore[method-assign]  # of this one block


def parameter_groups(module: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and other vectors do not."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


class Clock:
    """How far a run is: by its steps or, where it may take so many minutes, by its time if that is farther."""

    def __init__(self, config: RunConfig, seconds: float):
        """seconds: of training that lie behind the run."""
        self.config, self.before, self.seconds = config, seconds, seconds
        self.started = time.monotonic()

    def since_start(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self.started

    def read(self, accelerator: Accelerator) -> None:
        """Note the seconds of training, the same in all processes, which must end together."""
        self.seconds = self.before + self.since_start()
        if self.config.minutes and accelerator.num_processes > 1:
            seconds = torch.tensor(self.seconds, device=accelerator.device)
            self.seconds = accelerator.reduce(seconds, "mean").item()

    def place(self, step: int) -> float:
        """Where between 0 and `steps` the schedules are at `step`: there or, if time is short, farther on."""
        if self.config.minutes is None:
            return step
        return max(step, self.config.steps * min(1.0, self.seconds / (60 * self.config.minutes)))

    def left(self) -> float:
        """Seconds that are left at most."""
        return math.inf if self.config.minutes is None else max(0.0, 60 * self.config.minutes - self.seconds)

    def is_over(self, step: int) -> bool:
        """Whether all steps are made, or the time is over."""
        return self.place(step) >= self.config.steps


def cosine_with_warmup(step: int, config: RunConfig, place: float | None = None) -> float:
    """Factor of the learning rate at `step`: linear up over the warm-up, then half a cosine down to 0.

    place: on the cosine, as `Clock` tells it; the step without it.
    """
    rise = (step + 1) / config.warmup if step < config.warmup else 1.0
    share = ((step if place is None else place) - config.warmup) / max(1, config.steps - config.warmup)
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share))))


def coordinate_sigma(step: float, config: RunConfig) -> float:
    """Width in bins of the coordinate targets at `step`: shrinks geometrically, then stays at `sigma_end`."""
    share = min(1.0, step / max(1.0, config.sigma_share * config.steps))
    return config.sigma_start * (config.sigma_end / config.sigma_start) ** share
