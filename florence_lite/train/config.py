"""A training run as a TOML file."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from florence_lite.data.scenes import STYLES
from florence_lite.data.targets import TARGETS
from florence_lite.model.config import PRESETS


@dataclass(frozen=True)
class TrainConfig:
    """Training from scratch on generated scenes.

    output: folder of the run: `state/` to go on from, `checkpoint/` with the latest weights, `log.jsonl`.
    preset: sizes of the network, a name of `FlorenceConfig.preset`.
    tasks: rows per image of each task.
    styles: artwork of the scenes; () for all training styles.
    steps, batch: optimiser steps, and scenes in each.
    learning_rate: peak of a cosine schedule after `warmup` steps; weight_decay applies to matrices only.
    sigma_start, sigma_end: width in bins of the soft coordinate targets; it shrinks over `sigma_share` of the steps.
    dense_weight: weight of the auxiliary loss on image tokens.
    vocabulary: ids of the byte-pair tokenizer that is trained on the scenes' sentences, added tokens included.
    evaluate_every, evaluate_scenes: an evaluation on that many validation scenes after that many steps.
    save_every: steps between states to go on from; workers: processes that draw scenes.

    Raises ValueError naming the field, its value and the rule.
    """

    output: str
    tasks: Mapping[str, float]
    preset: str = "nano"
    styles: tuple[str, ...] = ()
    steps: int = 2000
    batch: int = 32
    learning_rate: float = 8e-4
    warmup: int = 100
    weight_decay: float = 0.05
    sigma_start: float = 25.0
    sigma_end: float = 2.0
    sigma_share: float = 0.4
    dense_weight: float = 1.0
    vocabulary: int = 2304
    evaluate_every: int = 500
    evaluate_scenes: int = 64
    save_every: int = 100
    workers: int = 1
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.output, str) or not self.output:
            raise ValueError(f"output = {self.output!r} must be the path of a folder")
        if self.preset not in PRESETS:
            raise ValueError(f"preset = {self.preset!r} must be one of {sorted(PRESETS)}")
        least = dict.fromkeys(("steps", "batch", "evaluate_every", "evaluate_scenes", "save_every", "workers"), 1)
        for name, value in {**least, "warmup": 0, "seed": 0, "vocabulary": 1}.items():
            if not isinstance(getattr(self, name), int) or getattr(self, name) < value:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a whole number of at least {value}")
        for name in ("learning_rate", "sigma_start", "sigma_end"):
            if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a number greater than 0")
        for name in ("weight_decay", "dense_weight"):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be a number of at least 0")
        if not _is_number(self.sigma_share) or not 0 <= self.sigma_share <= 1:
            raise ValueError(f"sigma_share = {self.sigma_share!r} must lie between 0 and 1")
        if isinstance(self.styles, str) or not set(self.styles) <= set(STYLES):
            raise ValueError(f"styles = {self.styles!r} must be a list; choose from {', '.join(STYLES)}")
        if not isinstance(self.tasks, Mapping) or not self.tasks:
            raise ValueError(f"tasks = {self.tasks!r} must give at least one of {sorted(TARGETS)} its rows per image")
        for task, rate in self.tasks.items():
            if task not in TARGETS:
                raise ValueError(f"tasks: {task!r} has no training targets; choose from {sorted(TARGETS)}")
            if not _is_number(rate) or rate <= 0:
                raise ValueError(f"tasks: the rate of {task} is {rate!r}; it must be a number greater than 0")

    @classmethod
    def from_toml(cls, path: str | os.PathLike) -> TrainConfig:
        """Read `path`; raises FileNotFoundError, or ValueError for TOML or fields that are wrong."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no training configuration at {str(path)!r}")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is no valid TOML: {error}") from None
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"{path}: unknown field {unknown}; known fields are {sorted(known)}")
        if missing := [f.name for f in known.values() if f.default is MISSING and f.name not in values]:
            raise ValueError(f"{path}: {missing} missing")
        if isinstance(values.get("styles"), list):
            values["styles"] = tuple(values["styles"])
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
