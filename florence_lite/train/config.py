"""Training runs as TOML files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Self

from florence_lite.cards import task as task_card
from florence_lite.files import read_toml
from florence_lite.rules import rule_of, tasks_with_rules
from florence_lite.values import is_number, is_whole

PRECISIONS = ("bf16", "fp32")
CONFIGURATION = "training configuration"
FEATURES = ("computed", "memory", "disk")


@dataclass(frozen=True)
class RunConfig:
    """What every training run has.

    output: folder of the run: `state/` to go on from, `checkpoint/` with the latest weights, `best/` with those that
        an evaluation liked best, `log.jsonl`.
    steps, batch: optimiser steps, and images in each, over all processes.
    accumulate: parts in which a process works through its share of a batch: more parts need less memory, and give the
        same weights.
    precision: "bf16" computes in it where that is safe (autocast) and keeps the weights in float32; "fp32" never does.
    gradient_checkpointing: compute activations of every block, the vision tower's too, twice instead of keeping them.
    learning_rate: peak of a cosine schedule after `warmup` steps; weight_decay applies to matrices only.
    sigma_start, sigma_end: width in bins of the soft coordinate targets; it shrinks over `sigma_share` of the steps.
    evaluate_every: steps between evaluations; save_every: steps between states to go on from.
    workers: processes that prepare batches.

    Raises ValueError naming the field, its value and the rule.
    """

    output: str
    _: KW_ONLY
    steps: int = 2000
    batch: int = 32
    accumulate: int = 1
    precision: str = "bf16"
    gradient_checkpointing: bool = False
    learning_rate: float = 8e-4
    warmup: int = 100
    weight_decay: float = 0.05
    sigma_start: float = 25.0
    sigma_end: float = 2.0
    sigma_share: float = 0.4
    evaluate_every: int = 500
    save_every: int = 100
    workers: int = 1
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.output, str) or not self.output:
            raise ValueError(f"output = {self.output!r} must be the path of a folder")
        self._check_whole(1, "steps", "batch", "accumulate", "evaluate_every", "save_every", "workers")
        self._check_whole(0, "warmup", "seed")
        for name in ("learning_rate", "sigma_start", "sigma_end"):
            if not is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a number greater than 0")
        self._check_not_negative("weight_decay")
        self._check_share("sigma_share")
        self._check_choice("precision", PRECISIONS)
        self._check_switch("gradient_checkpointing")
        if self.batch % self.accumulate:
            raise ValueError(f"batch = {self.batch} cannot be divided into accumulate = {self.accumulate} equal parts")

    def _check_whole(self, least: int, *names: str) -> None:
        for name in names:
            if not is_whole(getattr(self, name), least):
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a whole number of at least {least}")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a number of at least 0")

    def _check_share(self, *names: str) -> None:
        for name in names:
            if not is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} must lie between 0 and 1")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"{name} = {getattr(self, name)!r} must be one of {', '.join(choices)}")

    def _check_switch(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} = {getattr(self, name)!r} must be true or false")

    @classmethod
    def from_toml(cls, path: str | os.PathLike) -> Self:
        """Read `path`; raises FileNotFoundError, or ValueError for TOML or fields that are wrong."""
        values = read_toml(Path(path), CONFIGURATION)
        try:
            return cls(**check_fields(cls, values))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


@dataclass(frozen=True)
class DataConfig:
    """A data set and what is asked about its images.

    path: folder or file for `florence_lite.data.read_dataset`, or the name of one of the `generators` of
        `finetune`; the command knows "scenes", generated scenes.
    tasks: rows per image of each task.
    format, split, columns: as in `read_dataset`.
    weight: how often a batch is drawn from this data set, compared with the others.
    shorten: an answer that is too long for the network loses its last objects, and teaches no end, instead of being an
        error; how many do is told.

    Raises ValueError naming the field, its value and the rule.
    """

    path: str
    tasks: Mapping[str, float]
    _: KW_ONLY
    format: str = "auto"
    split: str | None = None
    columns: Mapping[str, str] | None = None
    weight: float = 1.0
    shorten: bool = False

    def __post_init__(self):
        check_tasks(self.tasks)
        if not is_number(self.weight) or self.weight <= 0:
            raise ValueError(f"weight = {self.weight!r} must be a number greater than 0")
        if self.columns is not None and not isinstance(self.columns, Mapping):
            raise ValueError(f"columns = {self.columns!r} must be a table of meanings and column names")
        if not isinstance(self.shorten, bool):
            raise ValueError(f"shorten = {self.shorten!r} must be true or false")


@dataclass(frozen=True)
class ValidationConfig:
    """Annotated images that a run is measured on at intervals.

    path, format, split, columns: as in `read_dataset`. tasks: what is asked. count: images, from the first; all if
    absent. figure: what decides which checkpoint is the best, such as "<OD>/ap50"; the first one if absent.

    Raises ValueError naming the field, its value and the rule.
    """

    path: str
    tasks: tuple[str, ...]
    _: KW_ONLY
    format: str = "auto"
    split: str | None = None
    columns: Mapping[str, str] | None = None
    count: int | None = None
    figure: str | None = None

    def __post_init__(self):
        if isinstance(self.tasks, str) or not self.tasks:
            raise ValueError(f'validation: tasks = {self.tasks!r} must be a list of markers, such as ["<OD>"]')
        if self.count is not None and not is_whole(self.count, 1):
            raise ValueError(f"validation: count = {self.count!r} must be a whole number of at least 1")


@dataclass(frozen=True)
class FineTuneConfig(RunConfig):
    """Training a checkpoint further on data of one's own; the fields of `RunConfig`, and these.

    checkpoint: what `Florence.from_pretrained` takes: a card's name, a folder or a Hub id.
    data: where batches come from, one or several. Tasks that are not in any of them may be forgotten: add the data of
        the first training ("scenes" for scenes-nano) with a small weight to keep them.
    validation: what the run is measured on every `evaluate_every` steps; the best checkpoint is kept beside the last.
    freeze_vision: leave vision tower and projector as they are.
    features: what a tower that does not learn sees in each image: "computed" whenever it is drawn, or once, before
        training, and kept in "memory" or on "disk" (in `output`); mirrored images count as images of their own.
    lora_rank: train low-rank adapters of the text side and nothing else; 0 trains the weights themselves.
    lora_targets: names of the layers that get them, in every encoder and decoder layer; "lm_head": the output layer.
    flips: share of the images that are mirrored; images with text lines, and words with "left" or "right", never are.
    upright: false for images without a top, as microscopes and satellites take: they are turned in all eight ways.
    crops: share of the images of which a random part is taken, where nothing but objects is told about them.

    Raises ValueError naming the field, its value and the rule.
    """

    checkpoint: str
    data: tuple[DataConfig, ...]
    _: KW_ONLY
    validation: ValidationConfig | None = None
    batch: int = 8
    learning_rate: float = 1e-4
    warmup: int = 50
    sigma_start: float = 2.0
    freeze_vision: bool = False
    features: str = "computed"
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    flips: float = 0.5
    upright: bool = True
    crops: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.checkpoint, str) or not self.checkpoint:
            raise ValueError(f"checkpoint = {self.checkpoint!r} must be a name, a folder or a Hub id")
        if not isinstance(self.data, list | tuple) or not self.data:
            raise ValueError("data is missing: give at least one table [[data]] with path and tasks")
        data = tuple(_table(DataConfig, "data", each) for each in self.data)
        object.__setattr__(self, "data", data)
        if self.validation is not None:
            object.__setattr__(self, "validation", _table(ValidationConfig, "validation", self.validation))
        self._check_whole(0, "lora_rank")
        if isinstance(self.lora_targets, str) or not all(isinstance(name, str) for name in self.lora_targets):
            raise ValueError(f"lora_targets = {self.lora_targets!r} must be a list of layer names")
        object.__setattr__(self, "lora_targets", tuple(self.lora_targets))
        self._check_switch("freeze_vision", "upright")
        self._check_share("flips", "crops")
        self._check_choice("features", FEATURES)
        if self.features != "computed":
            if not self.freeze_vision and not self.lora_rank:
                raise ValueError(f'features = "{self.features}" needs freeze_vision = true, for what learns changes')
            if self.crops or not self.upright:
                raise ValueError(f'features = "{self.features}" allows no crops and needs upright = true')


def _table(cls: type, name: str, values: Any) -> Any:
    if isinstance(values, cls):
        return values
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: {values!r} must be a table with path and tasks")
    return cls(**check_fields(cls, values))


def check_tasks(tasks: Any) -> None:
    """ValueError unless `tasks` maps tasks that have a rule to rows per image."""
    if not isinstance(tasks, Mapping) or not tasks:
        raise ValueError(f"tasks = {tasks!r} must give at least one of {tasks_with_rules()} its rows per image")
    for task, rate in tasks.items():
        try:
            rule_of(task_card(task))
        except ValueError as error:
            raise ValueError(f"tasks: {error}") from None
        if not is_number(rate) or rate <= 0:
            raise ValueError(f"tasks: the rate of {task} is {rate!r}; it must be a number greater than 0")


def check_fields(cls: type, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` themselves; ValueError where they lack a field of the dataclass `cls` or have one that it has not."""
    known = {field.name: field for field in fields(cls)}
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown field {unknown}; known fields are {sorted(known)}")
    if missing := [f.name for f in known.values() if f.default is MISSING and f.name not in values]:
        raise ValueError(f"{missing} missing")
    return values
