"""Checkpoint cards: where weights come from, how images are prepared for them and what they measure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from florence_lite.cards.fields import check_numbers, check_text, check_texts
from florence_lite.cards.registry import Registry, card_folder
from florence_lite.values import is_number

DECODING = ("max_new_tokens", "num_beams", "no_repeat_ngram_size", "length_penalty")


@dataclass(frozen=True)
class CheckpointCard:
    """One set of weights: where it is, how images are prepared for it and what it measures.

    name: what users type, such as "scenes-nano".
    source: "embedded" (the files lie in the folder of this name beside the card) or a Hub id such as "org/name".
    licence: of the weights, as an SPDX name.
    image_size_wh: (width, height) in pixels that images are resized to; mean, std: of RGB, for values in 0–1.
    tasks: markers of the tasks it was trained for.
    sha256: the files of an embedded checkpoint with their hexadecimal digests.
    decoding: values of `DECODING` that replace those of the task cards.
    metrics: measured figures, each explained by `protocol`.
    protocol, command, seed, hardware, notes: how it was trained and measured, in words a reader can repeat.

    Raises ValueError naming the field, its value and the rule.
    """

    name: str
    summary: str
    source: str
    licence: str
    image_size_wh: tuple[int, int]
    tasks: tuple[str, ...]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    decoding: Mapping[str, float] = field(default_factory=dict, hash=False)
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    protocol: str = ""
    command: str = ""
    seed: int | None = None
    hardware: str = ""
    notes: str = ""

    def __post_init__(self):
        for name in ("name", "summary", "licence"):
            check_text(self, name)
        if self.source != "embedded" and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(self.source)):
            raise ValueError(f"CheckpointCard.source is {self.source!r}; it must be 'embedded' or a Hub id, 'org/name'")
        check_texts(self, "tasks")
        check_numbers(self, "image_size_wh", 2, int)
        check_numbers(self, "mean", 3, int | float)
        check_numbers(self, "std", 3, int | float)
        if min(self.image_size_wh) < 1 or min(self.std) <= 0:
            raise ValueError(f"CheckpointCard: image_size_wh {self.image_size_wh} and std {self.std} must be positive")
        if self.source == "embedded" and not self.sha256:
            raise ValueError("CheckpointCard.sha256 is empty; an embedded checkpoint must name its files with digests")
        for file, digest in self.sha256.items():
            if not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
                raise ValueError(
                    f"CheckpointCard.sha256 has {file!r} = {digest!r}; it must be 64 lower-case hexadecimal digits"
                )
        for key in self.decoding:
            if key not in DECODING:
                raise ValueError(f"CheckpointCard.decoding has {key!r}; it may hold {', '.join(DECODING)}")
        for name in ("decoding", "metrics"):
            for key, value in getattr(self, name).items():
                if not is_number(value):
                    raise ValueError(f"CheckpointCard.{name} has {key!r} = {value!r}; it must be a number")

    def find_files(self) -> Path:
        """The folder of an embedded checkpoint; every file in it is compared with its digest.

        Raises ValueError where the source is the Hub or a file is damaged, FileNotFoundError where one is missing.
        """
        if self.source != "embedded":
            raise ValueError(f"checkpoint {self.name} is not embedded; its files come from {self.source}")
        folder = card_folder("checkpoint") / self.name
        for file, digest in self.sha256.items():
            if not (folder / file).is_file():
                raise FileNotFoundError(f"checkpoint {self.name}: {folder / file} is missing; reinstall florence-lite")
            with open(folder / file, "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != digest:
                raise ValueError(
                    f"checkpoint {self.name}: {folder / file} is damaged, its sha256 is {found} and not {digest}; "
                    "reinstall florence-lite"
                )
        return folder


CHECKPOINTS = Registry("checkpoint", CheckpointCard)


def checkpoint(name: str) -> CheckpointCard:
    """The checkpoint card called `name`; ValueError lists the valid names."""
    if name not in CHECKPOINTS.by_name:
        raise CHECKPOINTS.unknown(name)
    return CHECKPOINTS.by_name[name]


def checkpoints() -> tuple[CheckpointCard, ...]:
    """All checkpoint cards."""
    return tuple(CHECKPOINTS.by_name.values())
