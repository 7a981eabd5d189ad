"""Training runs as TOML files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Self

from florence_lite.cards import task as task_card
from florence_lite.checks import (
    check,
    check_choice,
    check_fields,
    check_list,
    check_not_negative,
    check_positive,
    check_share,
    check_switch,
    check_whole,
    is_positive,
    is_text,
    is_whole,
)
from florence_lite.data.augment import LANGUAGES
from florence_lite.files import read_toml
from florence_lite.rules import rule_of, tasks_with_rules

PRECISIONS = ("auto", "bf16", "fp32")
CONFIGURATION = "training configuration"
FEATURES = ("computed", "memory", "disk")


@dataclass(frozen=True)
class RunConfig:
    """What every training run has.

    output: folder of the run: `state/` to go on from, `checkpoint/` with the latest weights, `best/` with those that
        an evaluation liked best, `log.jsonl`, and `run.json`, which tells what the run was started with.
    steps, batch: optimiser steps, and images in each, over all processes.
    minutes: of training, start-up aside, after which the run ends if it has not made its `steps` before, as on a rented
        machine; the schedules of learning rate and coordinate targets then end with the time. Two such runs make
        different numbers of steps. Absent: as long as the steps take.
    accumulate: parts in which a process works through its share of a batch: more parts need less memory, and give the
        same weights.
    precision: "bf16" computes in it where that is safe (autocast) and keeps the weights in float32; "fp32" never does;
        "auto" is "bf16" where the processor has instructions for it and "fp32" elsewhere, where bfloat16 would take
        several times as long, and stays what it was when the run was begun.
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
    minutes: float | None = None
    batch: int = 32
    accumulate: int = 1
    precision: str = "auto"
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
        check(self, "output", is_text, "the path of a folder")
        check_whole(self, 1, "steps", "batch", "accumulate", "evaluate_every", "save_every", "workers")
        check_whole(self, 0, "warmup", "seed")
        check_positive(self, "learning_rate", "sigma_start", "sigma_end")
        if self.minutes is not None:
            check_positive(self, "minutes")
        check_not_negative(self, "weight_decay")
        check_share(self, "sigma_share")
        check_choice(self, "precision", PRECISIONS)
        check_switch(self, "gradient_checkpointing")
        if self.batch % self.accumulate:
            raise ValueError(f"batch = {self.batch} cannot be divided into accumulate = {self.accumulate} equal parts")

    @classmethod
    def from_toml(cls, path: str | os.PathLike) -> Self:
        """Read `path`; raises FileNotFoundError, or ValueError for TOML or fields that are wrong."""
        values = read_toml(Path(path), CONFIGURATION)
        try:
            if of_data := sorted(values.keys() & DataConfig.__dataclass_fields__ - cls.__dataclass_fields__.keys()):
                raise ValueError(f"{of_data[0]} stands in [[data]], below its path, not at the top")
            return cls(**check_fields(cls, values))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


@dataclass(frozen=True)
class DataConfig:
    """A data set and what is asked about its images.

    path: folder or file for `florence_lite.data.read_dataset`, or the name of one of the `generators` of
        `finetune`; the command knows "scenes", generated scenes, and
        "scenes-in-all-styles", with the artwork of all styles but those that are held out.
    tasks: rows per image of each task.
    format, split, columns, outside: as in `read_dataset`.
    weight: how often a batch is drawn from this data set, compared with the others.
    negatives: share, from 0 to 1, of the phrases and sentences asked about an image that are not true of it. Those that
        the data set has of it are drawn so often, and beside them the labels of other images, of an image all of whose
        objects are known, and other images' captions. None: only those that it has, a third of what is asked.
    language: of the texts about the images. "en": English, in which words that tell left from right are known; images
        about which there are others are mirrored. None: another or unknown; an image is not mirrored, turned or
        cropped if its tasks ask or answer with a caption, phrase, question or text of a region.
    shorten: an answer that is too long for the network loses its last objects, and teaches no end, instead of being an
        error; how many do is reported.

    Raises ValueError naming the field, its value and the rule.
    """

    path: str
    tasks: Mapping[str, float]
    _: KW_ONLY
    format: str = "auto"
    split: str | None = None
    columns: Mapping[str, str] | None = None
    outside: bool = False
    weight: float = 1.0
    negatives: float | None = None
    language: str | None = None
    shorten: bool = False

    def __post_init__(self):
        check_tasks(self.tasks)
        check_positive(self, "weight")
        if self.language not in (None, *LANGUAGES):
            known = ", ".join(f'"{each}"' for each in LANGUAGES)
            raise ValueError(f"language = {self.language!r} must be {known}, or absent for any other")
        check(self, "columns", lambda value: isinstance(value, Mapping | None), "a table of meanings and column names")
        if self.negatives is not None:
            check_share(self, "negatives")
        check_switch(self, "shorten")
        check_switch(self, "outside")


@dataclass(frozen=True)
class ValidationConfig:
    """Annotated images that a run is measured on at intervals.

    path, format, split, columns, outside: as in `read_dataset`. tasks: what is asked. count: images, from the first;
    all if absent. metric: what decides which checkpoint is the best, such as "<OD>/ap50"; the first one if absent.

    Raises ValueError naming the field, its value and the rule.
    """

    path: str
    tasks: tuple[str, ...]
    _: KW_ONLY
    format: str = "auto"
    split: str | None = None
    columns: Mapping[str, str] | None = None
    outside: bool = False
    count: int | None = None
    metric: str | None = None

    def __post_init__(self):
        if isinstance(self.tasks, str) or not self.tasks:
            raise ValueError(f'tasks = {self.tasks!r} must be a list of markers, such as ["<OD>"]')
        if self.count is not None and not is_whole(self.count, 1):
            raise ValueError(f"count = {self.count!r} must be a whole number of at least 1")
        check_switch(self, "outside")


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
    flips: share of the images that are mirrored; never those with text lines, or with words that may tell left from
        right: names of classes that do, in any of many languages, and texts unless the data set says that its
        `language` is English and they do not.
    upright: false for images without a top, as microscopes and satellites take: they are turned in all eight ways.
    crops: share of the images that are cropped at random; only images annotated with objects alone are cropped.

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
        check(self, "checkpoint", is_text, "a name, a folder or a Hub id")
        if not isinstance(self.data, list | tuple) or not self.data:
            raise ValueError("data is missing: give at least one table [[data]] with path and tasks")
        data = tuple(_table(DataConfig, f"[[data]] number {n}", each) for n, each in enumerate(self.data, 1))
        object.__setattr__(self, "data", data)
        if self.validation is not None:
            object.__setattr__(self, "validation", _table(ValidationConfig, "[validation]", self.validation))
        check_whole(self, 0, "lora_rank")
        check_list(self, "lora_targets", is_text, "a list of layer names")
        check_switch(self, "freeze_vision", "upright")
        check_share(self, "flips", "crops")
        check_choice(self, "features", FEATURES)
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
    try:
        return cls(**check_fields(cls, values))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def check_tasks(tasks: Any) -> None:
    """ValueError unless `tasks` maps tasks that have a rule to rows per image."""
    if not isinstance(tasks, Mapping) or not tasks:
        raise ValueError(f"tasks = {tasks!r} must give at least one of {tasks_with_rules()} its rows per image")
    for task, rate in tasks.items():
        try:
            rule_of(task_card(task))
        except ValueError as error:
            raise ValueError(f"tasks: {error}") from None
        if not is_positive(rate):
            raise ValueError(f"tasks: the rate of {task} is {rate!r}; it must be a number greater than 0")
