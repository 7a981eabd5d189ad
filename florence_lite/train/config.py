"""A training run as a TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from florence_lite.data.targets import TARGETS


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
        for name in ("steps", "batch", "evaluate_every", "evaluate_scenes", "save_every", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "sigma_start", "sigma_end"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be greater than 0")
        if not 0 <= self.sigma_share <= 1:
            raise ValueError(f"sigma_share = {self.sigma_share} must lie between 0 and 1")
        if not self.tasks:
            raise ValueError(f"tasks is empty; name at least one of {sorted(TARGETS)}")
        for task, rate in self.tasks.items():
            if task not in TARGETS:
                raise ValueError(f"tasks: {task!r} has no training targets; choose from {sorted(TARGETS)}")
            if rate <= 0:
                raise ValueError(f"tasks: the rate of {task} is {rate}; it must be greater than 0")

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
        if "styles" in values:
            values["styles"] = tuple(values["styles"])
        return cls(**values)
