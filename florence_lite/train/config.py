"""Training runs as TOML files."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Self

from florence_lite.data.scenes import STYLES
from florence_lite.data.targets import TARGETS
from florence_lite.model.config import PRESETS
from florence_lite.values import is_number, is_whole


@dataclass(frozen=True)
class RunConfig:
    """What every training run has.

    output: folder of the run: `state/` to go on from, `checkpoint/` with the latest weights, `log.jsonl`.
    steps, batch: optimiser steps, and images in each.
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
        self._check_whole(1, "steps", "batch", "evaluate_every", "save_every", "workers")
        self._check_whole(0, "warmup", "seed")
        for name in ("learning_rate", "sigma_start", "sigma_end"):
            if not is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a number greater than 0")
        self._check_not_negative("weight_decay")
        if not is_number(self.sigma_share) or not 0 <= self.sigma_share <= 1:
            raise ValueError(f"sigma_share = {self.sigma_share!r} must lie between 0 and 1")

    def _check_whole(self, least: int, *names: str) -> None:
        for name in names:
            if not is_whole(getattr(self, name), least):
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a whole number of at least {least}")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a number of at least 0")

    @classmethod
    def from_toml(cls, path: str | os.PathLike) -> Self:
        """Read `path`; raises FileNotFoundError, or ValueError for TOML or fields that are wrong."""
        values = read_toml(path)
        try:
            return cls(**check_fields(cls, values))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Training from scratch on generated scenes; the fields of `RunConfig`, and these.

    tasks: rows per image of each task.
    preset: sizes of the network, a name of `FlorenceConfig.preset`.
    styles: artwork of the scenes; () for all training styles.
    dense_weight: weight of the auxiliary loss on image tokens.
    vocabulary: ids of the byte-pair tokenizer that is trained on the scenes' sentences, added tokens included.
    evaluate_scenes: validation scenes of an evaluation.

    Raises ValueError naming the field, its value and the rule.
    """

    tasks: Mapping[str, float]
    _: KW_ONLY
    preset: str = "nano"
    styles: tuple[str, ...] = ()
    dense_weight: float = 1.0
    vocabulary: int = 2304
    evaluate_scenes: int = 64

    def __post_init__(self):
        super().__post_init__()
        if self.preset not in PRESETS:
            raise ValueError(f"preset = {self.preset!r} must be one of {sorted(PRESETS)}")
        self._check_whole(1, "evaluate_scenes", "vocabulary")
        self._check_not_negative("dense_weight")
        if isinstance(self.styles, list):
            object.__setattr__(self, "styles", tuple(self.styles))
        if isinstance(self.styles, str) or not set(self.styles) <= set(STYLES):
            raise ValueError(f"styles = {self.styles!r} must be a list; choose from {', '.join(STYLES)}")
        check_tasks(self.tasks)


@dataclass(frozen=True)
class DataConfig:
    """A data set and what is asked about its images.

    path: folder or file for `florence_lite.data.samples.read_dataset`, or "scenes" for generated scenes.
    tasks: rows per image of each task.
    format, split: as in `read_dataset`.
    weight: how often a batch is drawn from this data set, compared with the others.

    Raises ValueError naming the field, its value and the rule.
    """

    path: str
    tasks: Mapping[str, float]
    _: KW_ONLY
    format: str = "auto"
    split: str | None = None
    weight: float = 1.0

    def __post_init__(self):
        check_tasks(self.tasks)
        if not is_number(self.weight) or self.weight <= 0:
            raise ValueError(f"weight = {self.weight!r} must be a number greater than 0")


@dataclass(frozen=True)
class FineTuneConfig(RunConfig):
    """Training a checkpoint further on data of one's own; the fields of `RunConfig`, and these.

    checkpoint: what `Florence.from_pretrained` takes: a card's name, a folder or a Hub id.
    data: where batches come from, one or several. Tasks that are not in any of them may be forgotten: add the data of
        the first training ("scenes" for scenes-nano) with a small weight to keep them.
    freeze_vision: leave vision tower and projector as they are.
    lora_rank: train low-rank adapters of the text side's attention and nothing else; 0 trains the weights themselves.
    flips: share of the images that are mirrored; images with text lines, and words with "left" or "right", never are.

    Raises ValueError naming the field, its value and the rule.
    """

    checkpoint: str
    data: tuple[DataConfig, ...]
    _: KW_ONLY
    batch: int = 8
    learning_rate: float = 1e-4
    warmup: int = 50
    sigma_start: float = 2.0
    freeze_vision: bool = False
    lora_rank: int = 0
    flips: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.checkpoint, str) or not self.checkpoint:
            raise ValueError(f"checkpoint = {self.checkpoint!r} must be a name, a folder or a Hub id")
        if not isinstance(self.data, list | tuple) or not self.data:
            raise ValueError("data is missing: give at least one table [[data]] with path and tasks")
        data = tuple(each if isinstance(each, DataConfig) else _data(each) for each in self.data)
        object.__setattr__(self, "data", data)
        self._check_whole(0, "lora_rank")
        if not isinstance(self.freeze_vision, bool):
            raise ValueError(f"freeze_vision = {self.freeze_vision!r} must be true or false")
        if not is_number(self.flips) or not 0 <= self.flips <= 1:
            raise ValueError(f"flips = {self.flips!r} must lie between 0 and 1")


def _data(values: Any) -> DataConfig:
    if not isinstance(values, Mapping):
        raise ValueError(f"data: {values!r} must be a table with path and tasks")
    return DataConfig(**check_fields(DataConfig, values))


def check_tasks(tasks: Any) -> None:
    """ValueError unless `tasks` maps tasks that have training targets to rows per image."""
    if not isinstance(tasks, Mapping) or not tasks:
        raise ValueError(f"tasks = {tasks!r} must give at least one of {sorted(TARGETS)} its rows per image")
    for task, rate in tasks.items():
        if task not in TARGETS:
            raise ValueError(f"tasks: {task!r} has no training targets; choose from {sorted(TARGETS)}")
        if not is_number(rate) or rate <= 0:
            raise ValueError(f"tasks: the rate of {task} is {rate!r}; it must be a number greater than 0")


def read_toml(path: str | os.PathLike) -> dict[str, Any]:
    """The table in `path`; FileNotFoundError, or ValueError where it is no TOML."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no training configuration at {str(path)!r}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid TOML: {error}") from None


def check_fields(cls: type, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` themselves; ValueError where they lack a field of the dataclass `cls` or have one that it has not."""
    known = {field.name: field for field in fields(cls)}
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown field {unknown}; known fields are {sorted(known)}")
    if missing := [f.name for f in known.values() if f.default is MISSING and f.name not in values]:
        raise ValueError(f"{missing} missing")
    return values
