"""Checkpoint cards: where weights come from, how images are prepared for them and what they measure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from florence_lite.cards.calibration import Calibration
from florence_lite.cards.prompt_words import SMALL_WORDS, words_of
from florence_lite.cards.registry import Registry, card_folder
from florence_lite.cards.task_card import TASKS
from florence_lite.checks import check, check_fields, check_list, check_text, is_number, is_positive, is_text, is_whole

DECODING = ("max_new_tokens", "num_beams", "no_repeat_ngram_size", "length_penalty")
QUESTION = "<VQA>"  # the task of a free sentence
READ = (".json", ".txt", ".safetensors", ".bin")  # endings of the files that a checkpoint is read from


@dataclass(frozen=True)
class CheckpointCard:
    """One set of weights: where it is, how images are prepared for it and what it measures.

    name: what users type, such as "scenes-nano".
    source: "embedded" (the files lie in the folder of this name beside the card) or a Hub id such as "org/name".
    licence: of the weights, as an SPDX name.
    image_size_wh: (width, height) in pixels that images are resized to; mean, std: of RGB, for values in 0–1.
    tasks: markers of the tasks it was trained for and does; of one that is embedded no other task is asked.
    trained_on: what pictures it was trained on, in words that follow "trained on".
    for_photographs: name or Hub id of a checkpoint for photographs, where this one knows none; "" where it does.
    words: task marker → the words of its prompts in training, separated by spaces, where it learned to talk of few
        things; a task that is not named takes any.
    sha256: the files of the checkpoint with their hexadecimal digests; all of them, or none of one on the Hub.
    decoding: values of `DECODING` that replace those of the task cards.
    calibration: how the log-odds of a phrase become its presence, a `Calibration` or a table of its fields; None where
        it was not calibrated.
    metrics: measured metrics, each explained by `protocol`; margins: of some, half the width of the 95 % interval;
        baselines: name of a baseline, such as "constant answer" → what it reaches in some of them.
    protocol, command, seed, hardware, notes: how it was trained and measured, in words a reader can repeat.

    Raises ValueError naming the field, its value and the rule.
    """

    name: str
    summary: str
    source: str
    licence: str
    image_size_wh: tuple[int, int]
    tasks: tuple[str, ...]
    trained_on: str = ""
    for_photographs: str = ""
    words: Mapping[str, str] = field(default_factory=dict, hash=False)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    decoding: Mapping[str, float] = field(default_factory=dict, hash=False)
    calibration: Calibration | None = None
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    margins: Mapping[str, float] = field(default_factory=dict, hash=False)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    protocol: str = ""
    command: str = ""
    seed: int | None = None
    hardware: str = ""
    notes: str = ""

    def __post_init__(self):
        check_text(self, "name", "summary", "licence")
        if isinstance(self.calibration, Mapping):
            try:
                object.__setattr__(self, "calibration", Calibration(**check_fields(Calibration, self.calibration)))
            except ValueError as error:
                raise ValueError(f"calibration: {error}") from None
        check(self, "calibration", lambda it: it is None or isinstance(it, Calibration), "a table of numbers")
        check(self, "source", _is_source, "'embedded' or a Hub id, 'org/name'")
        check_list(self, "tasks", is_text)
        check_list(self, "image_size_wh", lambda side: is_whole(side, 1), "a width and a height in whole pixels", 2)
        check_list(self, "mean", is_number, "three numbers: of red, green and blue", 3)
        check_list(self, "std", is_positive, "three numbers above 0: of red, green and blue", 3)
        if self.source == "embedded" and not self.sha256:
            raise ValueError("sha256 is empty; an embedded checkpoint must name its files with digests")
        for file, digest in self.sha256.items():
            if not re.fullmatch(r"\w[\w.-]*", file):
                raise ValueError(f"sha256 has {file!r}; it must be the name of a file in the checkpoint's folder")
            if not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
                raise ValueError(f"sha256 has {file!r} = {digest!r}; it must be 64 lower-case hexadecimal digits")
        if self.for_photographs:
            check_text(self, "for_photographs", "trained_on")
        for task, words in self.words.items():
            if not is_text(words):
                raise ValueError(f"words has {task!r} = {words!r}; it must be a text of words with spaces between them")
        for key in self.decoding:
            if key not in DECODING:
                raise ValueError(f"decoding has {key!r}; it may hold {', '.join(DECODING)}")
        tables = {name: getattr(self, name) for name in ("decoding", "metrics", "margins")} | dict(self.baselines)
        for name, table in tables.items():
            for key, value in table.items():
                if not is_number(value):
                    raise ValueError(f"{name} has {key!r} = {value!r}; it must be a number")
        for name, table in tables.items():
            if name != "decoding" and (unknown := sorted(table.keys() - self.metrics.keys())):
                raise ValueError(f"{name} has {unknown[0]!r}, which metrics does not have")

    def unknown_words(self, task: str, *texts: str | None) -> tuple[str, ...]:
        """Those words of a prompt that the checkpoint was not trained to be asked with, as they are written, each once:
        a network tells "Dog" from "dog".

        task: the marker; one that is no task is a question. Small words (`SMALL_WORDS`), quoted words and marks such as
            "<mask>" do not count.
        """
        listed = self.words.get(task if task.startswith("<") else QUESTION)
        if listed is None:
            return ()
        known, asked = set(listed.split()), dict.fromkeys(word for text in texts for word in words_of(text or ""))
        return tuple(word for word in asked if word not in known and word.lower() not in SMALL_WORDS)

    def note(self, unknown: Sequence[str]) -> str:
        """What to know about answers to a prompt with such words."""
        capitals = ", and knows words in lower case alone" if any(word != word.lower() for word in unknown) else ""
        return (
            f"{self.name} was not trained on {', '.join(unknown)}{capitals}, so that what it answers there is a guess: "
            "a phrase with such a word gets no box without a threshold"
        )

    def check_task(self, name: str) -> None:
        """Raise ValueError for a task of the library that this embedded checkpoint does not do."""
        if self.source == "embedded" and TASKS.is_packaged(name) and name not in self.tasks:
            raise ValueError(
                f"checkpoint {self.name} does not do {name}: use another, or train that task; it does "
                f"{', '.join(self.tasks)}"
            )

    def find_files(self) -> Path:
        """The folder of an embedded checkpoint; every file in it is compared with its digest.

        Raises ValueError where the source is the Hub or a file is damaged, FileNotFoundError where one is missing.
        """
        if self.source != "embedded":
            raise ValueError(f"checkpoint {self.name} is not embedded; its files come from {self.source}")
        folder = card_folder("checkpoint") / self.name
        self.check_files(folder)
        return folder

    def check_files(self, folder: Path) -> None:
        """Compare the files of the checkpoint in `folder` with their digests, if the card has any.

        Raises FileNotFoundError where a file is missing; ValueError where one has another digest, or none while others
        have: what the card does not vouch for is not read.
        """
        remedy = "reinstall florence-lite" if self.source == "embedded" else "fetch it again, or mend the card"
        for file, digest in self.sha256.items():
            if not (folder / file).is_file():
                raise FileNotFoundError(f"checkpoint {self.name}: {folder / file} is missing; {remedy}")
            with open(folder / file, "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != digest:
                raise ValueError(
                    f"checkpoint {self.name}: {folder / file} is damaged, its sha256 is {found} and not {digest}; "
                    f"{remedy}"
                )
        present = sorted(file.name for file in folder.iterdir() if file.suffix in READ) if self.sha256 else ()
        if unknown := [name for name in present if name not in self.sha256]:
            raise ValueError(
                f"checkpoint {self.name}: the card has no sha256 of {', '.join(unknown)} in {folder}, but of other "
                "files; list all of them"
            )


def _is_source(value: object) -> bool:
    return value == "embedded" or bool(re.fullmatch(r"[\w.-]+/[\w.-]+", str(value)))


CHECKPOINTS = Registry("checkpoint", CheckpointCard)


def checkpoint(name: str) -> CheckpointCard:
    """The checkpoint card called `name`; ValueError lists the valid names."""
    if name not in CHECKPOINTS.by_name:
        raise CHECKPOINTS.unknown(name)
    return CHECKPOINTS.by_name[name]


def checkpoints() -> tuple[CheckpointCard, ...]:
    """All checkpoint cards."""
    return tuple(CHECKPOINTS.by_name.values())
