"""Task cards and checkpoint cards: prompts and weights described as data.

A card is one TOML file of `tasks/` or `checkpoints/`, or one object made at run time. A task card says how a prompt is
built and how its answer is read; a checkpoint card says where weights come from, how images are prepared for them and
what they measure. The folders are read when a card is first asked for, never on import.

    task("<CAPTION>").prompt()                                        "What does the image describe?"
    task("<OPEN_VOCABULARY_DETECTION>").prompt(phrases=["a", "b"])    "Locate a<and>b in the image."
    task("What colour is the car?").prompt()                          a free prompt: the sentence itself
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from florence_lite.geometry import quantize
from florence_lite.tokens.grammars import GRAMMARS
from florence_lite.values import is_number

INPUTS = {  # what a template's {input} stands for: the arguments of a call that may fill it
    "none": (),
    "text": ("text",),
    "phrase": ("phrases", "text"),
    "phrases": ("phrases", "text"),
    "region": ("region",),
}
SCORINGS = ("instance", "text", "none")
ORDERS = ("given", "left to right")  # of the instances of an answer
PROMPT_SIDES = ("encoder", "decoder")
DECODING = ("max_new_tokens", "num_beams", "no_repeat_ngram_size", "length_penalty")

_MARKER = re.compile(r"<[^<>\s]+>")
_HOW_TO_GIVE = {
    "text": 'text="…"',
    "phrases": 'phrases=["…"]',
    "region": "region=(x0, y0, x1, y1) in pixels",
}


@dataclass(frozen=True)
class TaskCard:
    """One prompt: the sentence that is sent and the way its answer is read, decoded and scored.

    name: the marker users type, such as "<OD>". It is not sent to the model. A free prompt's name is its sentence.
    summary: what the answer holds, in a few words.
    template: the sentence, byte for byte, with one `{input}` where `input` is not "none".
    input: what `{input}` stands for, a key of `INPUTS`: "none", "text" (a caption, a question), "phrase" (one),
        "phrases" (one or more, joined with `<and>`) or "region" (a box, sent as four `<loc_…>`).
    grammar: form of the answer, a name of `florence_lite.tokens.grammars.GRAMMARS`.
    max_new_tokens, num_beams, no_repeat_ngram_size: decoding defaults. Beams are 1, which is fastest and measures the
        same probabilities it decodes by; Florence-2's own default is 3. Only prose bans repeated n-grams (0 = no ban):
        in a list the ban would forbid the second instance of any longer label.
    order: of the instances in a training target: "given" (as the annotation has them) or "left to right" (by left edge,
        then top edge), which leaves a small network less to guess.
    scoring: "instance" (each instance from its own tokens), "text" (the answer as a whole) or "none".
    method: the method of `Florence` that runs this task ("run" runs all of them).
    metrics: names of the measures that suit the answer.
    general_phrases: labels that point at nothing in particular, such as "it" and "the image"; a call may have them left
        out of the answer.

    Raises ValueError naming the field, its value and the valid choices.
    """

    name: str
    summary: str
    template: str
    grammar: str
    input: str = "none"
    max_new_tokens: int = 1024
    num_beams: int = 1
    no_repeat_ngram_size: int = 0
    order: str = "given"
    scoring: str = "none"
    method: str = "run"
    metrics: tuple[str, ...] = ()
    general_phrases: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("name", "summary", "template", "method"):
            _check_text(self, name)
        if not _MARKER.fullmatch(self.name) and self.name != self.template:
            raise ValueError(f'TaskCard.name is {self.name!r}; it must be a marker in angle brackets, such as "<OD>"')
        _check_choice(self, "input", INPUTS)
        _check_choice(self, "grammar", GRAMMARS)
        _check_choice(self, "order", ORDERS)
        _check_choice(self, "scoring", SCORINGS)
        slots = self.template.count("{input}")
        if slots != (self.input != "none"):
            raise ValueError(
                f"TaskCard.template is {self.template!r} with {slots} {{input}}; "
                f"it must hold exactly one, or none where input is 'none' (here input is {self.input!r})"
            )
        _check_integer(self, "max_new_tokens", 1)
        _check_integer(self, "num_beams", 1)
        _check_integer(self, "no_repeat_ngram_size", 0)
        _check_texts(self, "metrics")
        _check_texts(self, "general_phrases")

    def prompt(
        self,
        text: str | None = None,
        phrases: Sequence[str] | None = None,
        region_px: Sequence[float] | None = None,
        size_wh: tuple[int, int] | None = None,
        bins: int = 1000,
    ) -> str:
        """The sentence to send.

        text: caption or question, or the phrase of a task that takes phrases. Surrounding space is removed.
        phrases: a list of phrases; exactly one where the card's input is "phrase".
        region_px: x0, y0, x1, y1 in pixels of the image, inside it, x0 < x1 and y0 < y1; needs `size_wh`.
        size_wh: (width, height) of the image; bins: number of coordinate bins of the checkpoint.

        Raises ValueError for input that is missing, superfluous, empty or outside the image.
        """
        candidates = {"text": text, "phrases": phrases, "region": region_px}
        given = [name for name, value in candidates.items() if value is not None]
        accepted = INPUTS[self.input]
        for name in given:
            if name not in accepted:
                wanted = f"takes {_HOW_TO_GIVE[accepted[0]]}" if accepted else "takes no input"
                others = ", ".join(card.name for card in tasks() if name in INPUTS[card.input])
                raise ValueError(f"task {self.name} {wanted}, but {name} was given; tasks that take {name}: {others}")
        if not accepted:
            return self.template
        if len(given) != 1:
            fault = f"both {' and '.join(given)} were given" if given else "nothing was given"
            raise ValueError(f"task {self.name} needs {_HOW_TO_GIVE[accepted[0]]}, but {fault}")

        if region_px is not None:
            filling = _region_markup(self.name, region_px, size_wh, bins)
        elif phrases is not None:
            filling = self._joined(phrases)
        else:
            filling = _stripped(f"task {self.name}: text", text)
        return self.template.replace("{input}", filling)

    def _joined(self, phrases: Sequence[str]) -> str:
        if isinstance(phrases, str) or not isinstance(phrases, Sequence):
            raise ValueError(f"task {self.name}: phrases is {phrases!r}; it must be a list of strings")
        if not phrases:
            raise ValueError(f"task {self.name}: phrases is empty; give at least one phrase")
        if self.input == "phrase" and len(phrases) > 1:
            raise ValueError(f"task {self.name} takes one phrase at a time, but {len(phrases)} were given")
        stripped = [_stripped(f"task {self.name}: phrases[{i}]", phrase) for i, phrase in enumerate(phrases)]
        for i, phrase in enumerate(stripped):
            if "<and>" in phrase:
                raise ValueError(f"task {self.name}: phrases[{i}] is {phrase!r}; list what <and> joins separately")
        return "<and>".join(stripped)


@dataclass(frozen=True)
class CheckpointCard:
    """One set of weights: where it is, how images are prepared for it and what it measures.

    name: what users type, such as "scenes-nano".
    source: "embedded" (the files lie in the folder of this name beside the card) or a Hub id such as "org/name".
    licence: of the weights, as an SPDX name.
    image_size_wh: (width, height) in pixels that images are resized to; mean, std: of RGB, for values in 0–1.
    prompt_side: "encoder" or "decoder", the side of the network that reads the prompt.
    tasks: markers of the tasks it was trained for.
    files: names of its files; sha256: their hexadecimal digests, where known.
    decoding: values of `DECODING` that replace those of the task cards.
    calibration: fitted numbers that turn raw scores into probabilities.
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
    prompt_side: str = "encoder"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    files: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    decoding: Mapping[str, float] = field(default_factory=dict, hash=False)
    calibration: Mapping[str, float] = field(default_factory=dict, hash=False)
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    protocol: str = ""
    command: str = ""
    seed: int | None = None
    hardware: str = ""
    notes: str = ""

    def __post_init__(self):
        for name in ("name", "summary", "licence"):
            _check_text(self, name)
        if self.source != "embedded" and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(self.source)):
            raise ValueError(f"CheckpointCard.source is {self.source!r}; it must be 'embedded' or a Hub id, 'org/name'")
        _check_choice(self, "prompt_side", PROMPT_SIDES)
        _check_texts(self, "tasks")
        _check_texts(self, "files")
        _check_numbers(self, "image_size_wh", 2, int)
        _check_numbers(self, "mean", 3, int | float)
        _check_numbers(self, "std", 3, int | float)
        if min(self.image_size_wh) < 1 or min(self.std) <= 0:
            raise ValueError(f"CheckpointCard: image_size_wh {self.image_size_wh} and std {self.std} must be positive")
        if self.source == "embedded" and not self.files:
            raise ValueError("CheckpointCard.files is empty; an embedded checkpoint must name its files")
        for file, digest in self.sha256.items():
            if file not in self.files or not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
                raise ValueError(
                    f"CheckpointCard.sha256 has {file!r} = {digest!r}; it must map names of files {self.files} "
                    "to 64 lower-case hexadecimal digits"
                )
        for key in self.decoding:
            if key not in DECODING:
                raise ValueError(f"CheckpointCard.decoding has {key!r}; it may hold {', '.join(DECODING)}")
        for name in ("decoding", "calibration", "metrics"):
            for key, value in getattr(self, name).items():
                if not is_number(value):
                    raise ValueError(f"CheckpointCard.{name} has {key!r} = {value!r}; it must be a number")

    @property
    def folder(self) -> Path:
        """The folder of an embedded checkpoint's files.

        Raises ValueError where the source is the Hub, FileNotFoundError where the installation lacks the files.
        """
        if self.source != "embedded":
            raise ValueError(f"checkpoint {self.name} is not embedded; its files come from {self.source}")
        folder = Path(str(resources.files("florence_lite._cards.checkpoints"))) / self.name
        for file in self.files:
            if not (folder / file).is_file():
                raise FileNotFoundError(f"checkpoint {self.name}: {folder / file} is missing; reinstall florence-lite")
        return folder


def task(name: str) -> TaskCard:
    """The task card called `name`, or the card of a free prompt where `name` is a plain sentence.

    A sentence may begin with a marker that is no task here ("<DocVQA>What is the total?"), as some fine-tunes expect.
    Raises ValueError for an unknown marker, for a known task's name written otherwise ("od") and for a marker with its
    input behind it ("<OD>car").
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a task is a marker or a sentence, not {name!r}; {_TASKS.choices()}")
    if name in _TASKS.by_name:
        return _TASKS.by_name[name]
    bare_names = {known.strip("<>").casefold() for known in _TASKS.by_name}
    if _MARKER.fullmatch(name.strip()) or name.strip(" \t\r\n<>").casefold() in bare_names:
        raise _TASKS.unknown(name)
    marker = _MARKER.match(name.strip())
    if marker and marker[0] in _TASKS.by_name:
        card = _TASKS.by_name[marker[0]]
        how = _HOW_TO_GIVE[INPUTS[card.input][0]] if card.input != "none" else "no input"
        raise ValueError(f"prompt {name!r}: {card.name} goes alone, with {how} beside it")
    return TaskCard(name, "the answer to a free prompt", template=name, grammar="text", scoring="text")


def tasks() -> tuple[TaskCard, ...]:
    """All task cards: those of `tasks/`, then those registered at run time."""
    return tuple(_TASKS.by_name.values())


def register_task(card: TaskCard | str | Path) -> TaskCard:
    """Add a task, given as a card or as the path of its TOML file, and return its card.

    Raises ValueError where the name is taken or is no marker or the file does not describe a task, FileNotFoundError
    where there is no such file.
    """
    if not isinstance(card, TaskCard):
        path = Path(card)
        if not path.is_file():
            raise FileNotFoundError(f"task card {path} is not a file")
        card = _read(TaskCard, path)
    if not _MARKER.fullmatch(card.name):
        raise ValueError(f'task {card.name!r} must be called by a marker in angle brackets, such as "<OD>"')
    _TASKS.add(card)
    return card


def checkpoint(name: str) -> CheckpointCard:
    """The checkpoint card called `name`; ValueError lists the valid names."""
    if name not in _CHECKPOINTS.by_name:
        raise _CHECKPOINTS.unknown(name)
    return _CHECKPOINTS.by_name[name]


def checkpoints() -> tuple[CheckpointCard, ...]:
    """All checkpoint cards."""
    return tuple(_CHECKPOINTS.by_name.values())


Card = TypeVar("Card", TaskCard, CheckpointCard)


class _Registry(Generic[Card]):
    """The cards of one packaged folder by name, read when first asked for."""

    def __init__(self, kind: str, card_type: type[Card]):
        self.kind = kind
        self.card_type = card_type
        self._by_name: dict[str, Card] | None = None

    @property
    def by_name(self) -> dict[str, Card]:
        if self._by_name is None:
            folder = resources.files(f"florence_lite._cards.{self.kind}s")
            found: dict[str, Card] = {}
            for file in sorted(folder.iterdir(), key=lambda file: file.name):
                if file.name.endswith(".toml"):
                    self._insert(found, _read(self.card_type, file))
            self._by_name = found
        return self._by_name

    def add(self, card: Card) -> None:
        self._insert(self.by_name, card)

    def _insert(self, cards: dict[str, Card], card: Card) -> None:
        if card.name in cards:
            raise ValueError(f"{self.kind} {card.name} is registered already; give the new card another name")
        cards[card.name] = card

    def choices(self) -> str:
        return f"{self.kind}s: {', '.join(self.by_name) or 'none'}"

    def unknown(self, name: str) -> ValueError:
        by_folded = {known.casefold(): known for known in self.by_name}
        close = difflib.get_close_matches(str(name).strip().casefold(), by_folded, n=1, cutoff=0.5)
        hint = f"did you mean {by_folded[close[0]]!r}? " if close else ""
        return ValueError(f"unknown {self.kind} {name!r}; {hint}{self.choices()}")


_TASKS = _Registry("task", TaskCard)
_CHECKPOINTS = _Registry("checkpoint", CheckpointCard)


def _read(card_type: type[Card], file: Any) -> Card:
    """The card in a TOML file; each ValueError begins with the file's name."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(card_type)}
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(f"unknown key {key!r}; {hint}keys: {', '.join(known)}")
        missing = [key for key, required in known.items() if required and key not in table]
        if missing:
            raise ValueError(f"missing {', '.join(missing)}")
        return card_type(**table)
    except ValueError as error:  # includes TOML syntax and bytes that are not UTF-8
        raise ValueError(f"{file.name}: {error}") from error


def _region_markup(task_name: str, region_px: Sequence[float], size_wh: tuple[int, int] | None, bins: int) -> str:
    if size_wh is None:
        raise ValueError(f"task {task_name}: a region needs size_wh, the (width, height) of its image")
    try:
        x0, y0, x1, y1 = (float(value) for value in region_px)
    except (TypeError, ValueError):
        raise ValueError(f"task {task_name}: region is {region_px!r}; it must be (x0, y0, x1, y1) in pixels") from None
    width, height = size_wh
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(
            f"task {task_name}: region ({x0:g}, {y0:g}, {x1:g}, {y1:g}) must lie in the image of {width}×{height} "
            "pixels, with x0 < x1 and y0 < y1"
        )
    corners = quantize(np.array([[x0, y0], [x1, y1]]), size_wh, bins)
    return "".join(f"<loc_{bin_index}>" for bin_index in corners.ravel())


def _stripped(what: str, text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{what} is {text!r}; it must be a string with something in it")
    return text.strip()


def _check_text(card: Any, name: str) -> None:
    value = getattr(card, name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be a string with something in it")


def _check_texts(card: Any, name: str) -> None:
    """A tuple of strings; the lists of a TOML file become tuples."""
    value = getattr(card, name)
    if isinstance(value, str) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be a list of strings")
    object.__setattr__(card, name, tuple(value))


def _check_choice(card: Any, name: str, choices: Any) -> None:
    value = getattr(card, name)
    if value not in tuple(choices):
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be one of: {', '.join(choices)}")


def _check_integer(card: Any, name: str, least: int) -> None:
    value = getattr(card, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be an integer of at least {least}")


def _check_numbers(card: Any, name: str, count: int, kind: Any) -> None:
    """A tuple of `count` numbers; the lists of a TOML file become tuples."""
    value = getattr(card, name)
    if (
        not isinstance(value, Sequence)
        or len(value) != count
        or not all(isinstance(item, kind) and is_number(item) for item in value)
    ):
        raise ValueError(f"{type(card).__name__}.{name} is {value!r}; it must be {count} numbers")
    object.__setattr__(card, name, tuple(value))
