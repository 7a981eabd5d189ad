"""What is asked about which images, by whom, and where the answers go: from a TOML file or from Python."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from florence_lite.answers import Box
from florence_lite.cards import task as task_card
from florence_lite.cards.task_card import region_corners
from florence_lite.checks import (
    check,
    check_choice,
    check_fields,
    check_share,
    check_whole,
    is_text,
)
from florence_lite.files import read_toml
from florence_lite.florence import DEFAULT_CHECKPOINT
from florence_lite.tokens import grammar

CONFIGURATION = "annotation configuration"
PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class TaskConfig:
    """What is asked about every image.

    task: marker of a task card, or a free sentence.
    text, phrases, region: its input, as `Florence.run` takes it; the same for every image.
    of: another task of the run, whose answer is the input: its words for a task that takes text, its labels for one
        that takes phrases (for one that takes a phrase, each of them), each of its boxes for one that takes a region.
    threshold: as in `Florence.run`; else that of the checkpoint.
    decoding: options of `Florence.run` that replace the defaults of checkpoint and card.

    Raises ValueError naming the field, its value and the rule, for an unknown task and for input that is missing.
    """

    task: str
    _: KW_ONLY
    text: str | None = None
    phrases: tuple[str, ...] | None = None
    region: Box | None = None
    of: str | None = None
    threshold: float | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        card = task_card(self.task)
        for name in ("phrases", "region"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
            elif value is not None and not isinstance(value, tuple):
                raise ValueError(f"{name} = {value!r} must be a list")
        if self.of is not None:
            if card.input == "none":
                raise ValueError(
                    f"task {card.name} takes no input, so it cannot be asked of = {self.of!r}; leave it out"
                )
            if self.text is not None or self.phrases is not None or self.region is not None:
                raise ValueError(f"task {card.name} gets its input of = {self.of!r}; leave out its own")
        elif card.input == "region" and self.region is None:
            raise ValueError(
                f'task {card.name} needs a region: in a configuration file, of = "<OD>" asks about each box of another '
                "task, region = [x0, y0, x1, y1] about one place, in pixels"
            )
        elif card.input == "region":
            region_corners(card.name, self.region)
        else:
            card.prompt(self.text, self.phrases, self.region)
        _check_decoding(self)
        if self.threshold is not None and not takes_threshold(self.task):
            raise ValueError(f"threshold = {self.threshold} has no part in task {card.name}: it answers with no places")


@dataclass(frozen=True)
class CheckpointConfig:
    """Who is asked.

    checkpoint: what `Florence.from_pretrained` takes: a card's name, a folder or a Hub id; adapter, revision, device,
        precision: as there.
    tag: tells its answers from those of the same checkpoint asked a second time.
    threshold: of the tasks that answer with places. decoding: as in `TaskConfig`, for all tasks.

    Raises ValueError naming the field, its value and the rule.
    """

    checkpoint: str = DEFAULT_CHECKPOINT
    _: KW_ONLY
    tag: str = ""
    adapter: str | None = None
    revision: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    threshold: float | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check(self, "checkpoint", is_text, "a name, a folder or a Hub id")
        check(self, "tag", lambda value: isinstance(value, str), "a word")
        check_choice(self, "precision", PRECISIONS)
        _check_decoding(self)

    def options(self, task: TaskConfig) -> dict[str, Any]:
        """The options of a call that asks this checkpoint a task."""
        threshold = self.threshold if task.threshold is None and takes_threshold(task.task) else task.threshold
        options = {**self.decoding, **task.decoding}
        return options if threshold is None else options | {"threshold": threshold}


@dataclass(frozen=True)
class AnnotateConfig:
    """A run of the data engine.

    source: what `florence_lite.data.sources.list_images` lists, one or several. column: of parquet files and data sets
        of Hugging Face, which holds the images.
    output: folder of the answers. A run that was interrupted goes on in it, and other questions add their rows.
    tasks: what is asked about every image, markers or `TaskConfig`s; checkpoints: who is asked, all of them everything.
    images_per_part: images whose rows make a file at most; fewer where they take long.

    Raises ValueError naming the field, its value and the rule, and for what is asked twice.
    """

    source: tuple[str, ...]
    output: str
    tasks: tuple[TaskConfig, ...]
    _: KW_ONLY
    checkpoints: tuple[CheckpointConfig, ...] = field(default_factory=lambda: (CheckpointConfig(),))
    column: str | None = None
    images_per_part: int = 256

    def __post_init__(self):
        several = [self.source] if isinstance(self.source, str | os.PathLike) else self.source
        are_paths = isinstance(several, Sequence) and all(isinstance(each, str | os.PathLike) for each in several)
        if not are_paths or not several:
            raise ValueError(
                f"source = {self.source!r} must name images: a folder, a pattern, a list, tars, parquet files"
            )
        object.__setattr__(self, "source", tuple(os.fspath(each) for each in several))
        object.__setattr__(self, "output", os.fspath(self.output))
        check(self, "output", is_text, "the path of a folder")
        check(self, "column", lambda value: value is None or is_text(value), "the name of a column")
        check_whole(self, 1, "images_per_part")
        _set_tables(self, "tasks", TaskConfig, "task")
        _set_tables(self, "checkpoints", CheckpointConfig, "checkpoint")
        self._check_tasks()
        self._check_checkpoints()

    @classmethod
    def from_toml(cls, path: str | os.PathLike, **changes: Any) -> Self:
        """Read `path`; `changes` replace its fields. Raises FileNotFoundError, or ValueError for TOML or fields that
        are wrong."""
        values = read_toml(Path(path), CONFIGURATION) | changes
        try:
            return cls(**check_fields(cls, values))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def asked(self) -> dict[str, Any]:
        """What is asked, as JSON has it, for the record of the output folder."""
        return json.loads(json.dumps(asdict(self)))

    def _check_tasks(self) -> None:
        before: list[TaskConfig] = []
        for each in self.tasks:
            if each in before:
                raise ValueError(f"task {each.task} is asked twice with the same input; leave one out")
            if each.of is not None:
                named = [other for other in before if other.task == each.of]
                if len(named) != 1:
                    problem = "several tasks are called so" if named else "no task before it is called so"
                    raise ValueError(
                        f"task {each.task}: of = {each.of!r}, but {problem}; name one that stands before it"
                    )
                _check_leads_on(each, named[0])
            before.append(each)

    def _check_checkpoints(self) -> None:
        seen = []
        for each in self.checkpoints:
            if each.threshold is not None and not any(takes_threshold(task.task) for task in self.tasks):
                names = ", ".join(task.task for task in self.tasks)
                raise ValueError(f"threshold = {each.threshold} has no part in {names}: none answers with places")
            asked = {name: value for name, value in asdict(each).items() if name != "device"}
            if asked in seen:
                raise ValueError(
                    f"checkpoint {each.checkpoint!r} is asked the very same twice; for a second opinion give one of "
                    'them another decoding, or a tag (tag = "second")'
                )
            seen.append(asked)


def takes_threshold(task: str) -> bool:
    """Whether a task answers with boxes or outlines, of which a threshold may leave some out."""
    return grammar(task_card(task).grammar).places


def _check_leads_on(task: TaskConfig, parent: TaskConfig) -> None:
    """ValueError where the answers of `parent` hold nothing that `task` takes."""
    takes, answers = task_card(task.task).input, grammar(task_card(parent.task).grammar)
    if takes == "region" and not answers.places:
        raise ValueError(f"task {task.task} takes boxes, but of = {parent.task!r} answers with none")
    if takes == "text" and answers.places:
        raise ValueError(f"task {task.task} takes text, but of = {parent.task!r} answers with places; take a caption")


def _check_decoding(of: Any) -> None:
    if of.threshold is not None:
        check_share(of, "threshold")
    try:
        json.dumps(dict(of.decoding))
    except (TypeError, ValueError):
        raise ValueError(f"decoding = {of.decoding!r} must be a table of options, numbers, words and lists") from None
    if misplaced := sorted({"threshold", "precision", "tile", "keep_image"} & set(of.decoding)):
        where = "is no option of decoding here" if misplaced[0] in ("tile", "keep_image") else "stands beside decoding"
        raise ValueError(f"decoding has {misplaced[0]!r}, which {where}; take it out")


def _set_tables(of: AnnotateConfig, name: str, cls: type, first: str) -> None:
    """Make the field a tuple of `cls`; what is a string is its first field."""
    values = getattr(of, name)
    values = [values] if isinstance(values, str | cls) else values
    if not isinstance(values, Iterable) or isinstance(values, Mapping) or not (values := list(values)):
        raise ValueError(f"{name} = {values!r} must be a list with at least one {first}")
    made = []
    for number, each in enumerate(values, 1):
        if not isinstance(each, str | Mapping | cls):
            raise ValueError(f"{name}: {each!r} must be the name of a {first} or a table")
        try:
            table: Any = {first: each} if isinstance(each, str) else each
            made.append(each if isinstance(each, cls) else cls(**check_fields(cls, table)))
        except ValueError as error:
            raise ValueError(f"[[{name}]] number {number}: {error}") from None
    object.__setattr__(of, name, tuple(made))
