"""What the commands share: options, messages, and the checkpoint that answers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence_lite.printable import printable

if TYPE_CHECKING:
    from florence_lite.cards import CheckpointCard
    from florence_lite.data.samples import Dataset
    from florence_lite.florence import Florence


STOPPED = 130  # the exit code after Ctrl-C


def within(least: int, most: int | None = None) -> Callable[..., Any]:
    """A callback of options whose numbers are limited. It raises ValueError, naming the option, the value and what is
    allowed."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None and not (value >= least and (most is None or value <= most)):
            rule = f"a whole number of at least {least}" if most is None else f"a number from {least} to {most}"
            raise ValueError(f"{param.opts[0]} {value:g} must be {rule}")
        return value

    return check


def read_number(word: str) -> float:
    """Reads an option. Raises `typer.BadParameter`, naming what is no number, and how it is written with a point."""
    try:
        return float(word)
    except ValueError:
        with_point = word.replace(",", ".", 1)
        remedy = f"; write {with_point}" if re.fullmatch(r"-?\d*\.\d+", with_point) else ""
        raise typer.BadParameter(f"{word} is no number{remedy}") from None


SHARE: dict[str, Any] = {"parser": read_number, "callback": within(0, 1)}  # of options that are a number from 0 to 1


def card_names(incomplete: str) -> list[str]:
    """The checkpoint cards whose names begin so, for the completion of shells."""
    from florence_lite.cards import checkpoints

    return [card.name for card in checkpoints() if card.name.startswith(incomplete)]


Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="C",
        autocompletion=card_names,
        help="Name of a card, folder or Hub id; else the embedded checkpoint.",
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option("--adapter", metavar="A", help="Folder or Hub id of a LoRA adapter to merge into the checkpoint."),
]
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE",
        help="Image files, folders of them, patterns in quotes, - for standard input or sample.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="D", help="Where the network runs: cpu, cuda or cuda:1.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="P",
        help="fp32, or on a processor bf16 or int8: less to read for each word or coordinate, and answers may differ.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="S",
        **SHARE,
        help="Leave out boxes and outlines that score less, and phrases less likely in the image; from 0 to 1.",
    ),
]
Tile = Annotated[
    tuple[int, int] | None,
    typer.Option(
        "--tile", metavar="SIZE OVERLAP", help="Ask larger images in tiles of so many pixels, which overlap by so many."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else there.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="F",
        help="coco, voc, yolo, jsonl, refcoco, icdar, paddleocr, labelstudio, webdataset, captions, annotated (answers "
        "of a checkpoint) or huggingface; else recognised.",
    ),
]
Outside = Annotated[
    bool, typer.Option("--outside", help="Also take images outside of the folder, where its files name some.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="MEANING=COLUMN", help="For huggingface: which column holds what; repeat --column."
    ),
]


def read_data(
    path: str | Path, format: str, split: str | None, column: list[str] | None, outside: bool = False
) -> Dataset:
    """What `read_dataset` reads. Raises ValueError where a column is no MEANING=COLUMN or a package is missing."""
    from florence_lite.data import read_dataset

    for each in column or []:
        if "=" not in each:
            raise ValueError(f"--column {each} must be MEANING=COLUMN, such as image=photo")
    columns = dict(each.split("=", 1) for each in column) if column else None
    try:
        return read_dataset(path, format, split, columns, outside)
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from None


def check_picture(option: str, file: Path) -> None:
    """Raises ValueError, naming the option, where no picture can be written into a file of this name."""
    from PIL import Image

    from florence_lite.files import refuse_long_name

    refuse_long_name(file, option, spare=0)
    if Image.registered_extensions().get(file.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{option} {file}: the name must end in an image format that can be written, such as .png")
    if not file.parent.is_dir():
        raise ValueError(f"{option} {file}: there is no folder {file.parent}")


def load(checkpoint: str | None, device: str, adapter: str | None = None, precision: str = "fp32") -> Florence:
    """The checkpoint by its name, or the embedded one, with an adapter merged in. Raises as `from_pretrained`."""
    from florence_lite.florence import DEFAULT_CHECKPOINT, Florence

    return Florence.from_pretrained(
        checkpoint or DEFAULT_CHECKPOINT, device=device, adapter=adapter, precision=precision
    )


def tell_unknown(card: CheckpointCard | None, task: str, *texts: str | None) -> None:
    """Say which words of a prompt the checkpoint was not trained with, if there are any."""
    if card is not None and (unknown := card.unknown_words(task, *texts)):
        say(f"note: {card.note(unknown)}")


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Names the remedy for a package that is missing because the `extra` was not installed.

    pip and uv take the florence-lite that is installed, from a clone too, and add what the extra lists.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if has_remedy(error):
            raise
        say_error(f"the package {error.name} is missing; pip install 'florence-lite[{extra}]'")
        raise typer.Exit(2) from error


def has_remedy(error: ModuleNotFoundError) -> bool:
    """Whether the library raised it, which says what to install."""
    return "pip install" in str(error)


@contextmanager
def stoppable(how: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C says `how` to go on, and ends the command; what was finished stays as it is."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"stopped: {how()}")
        raise typer.Exit(STOPPED) from None


class OutputError(Exception):
    """Standard output cannot be written, for instance because a full disk is behind it."""


INDENT = "\n  "  # no name can begin a line of its own with it


def show(line: str = "", end: str = "\n") -> None:
    """A line of an answer or a report, on standard output. What it says of files and labels steers no terminal."""
    _print(printable(line), end)


def show_json(record: Any) -> None:
    """A line of JSON on standard output, in ASCII, so that no terminal's encoding changes it."""
    _print(json.dumps(record))


def _print(line: str, end: str = "\n") -> None:
    try:
        print(line, end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from None


def say(message: str) -> None:
    """A line for people, on standard error; what a message says on further lines stands indented below it."""
    print(INDENT.join(map(printable, message.split(INDENT))), file=sys.stderr)


def say_error(error: Exception | str) -> None:
    """What went wrong, in the words of the command."""
    say(f"error: {in_options(str(error))}")


_OPTIONS = {  # arguments of Python whose options have another name
    "phrases": "phrase",
    "texts": "text",
    "choices": "choice",
    "labels": "label",
    "columns": "column",
}
_ARGUMENT = re.compile(  # name="value" as messages write it; no part of a path
    r"""(?<![\w/\\.-])(texts?|phrases|choices|labels|threshold|region|tile|format|split|columns|device|precision|to)(?:\[\d+\])?=("[^"]*"|'[^']*'|[(\[{][^)\]}]*[)\]}]|…)"""
)


def in_options(message: str) -> str:
    """A message of the library with the command's options in the place of Python's arguments.

    >>> in_options('task <VQA> needs text="…", but nothing was given')
    'task <VQA> needs --text "…", but nothing was given'
    """

    def option(match: re.Match) -> str:
        name, value = match.groups()
        if value[0] in "([{":
            value = value[1:-1]
        if name in ("region", "tile"):
            value = value.replace(",", "").upper()
        if name in ("format", "precision", "to"):
            value = value.strip("\"'")  # a word, which needs no quotes
        if name == "columns":
            value = value.replace('"', "").replace(": ", "=")
        return f"--{_OPTIONS.get(name, name)} {value}".rstrip()

    message = re.sub(r"from_pretrained\(BASE, adapter=…\)", "--checkpoint BASE --adapter …", message)
    message = re.sub(r"from_pretrained\(('.*?'), adapter=('.*?')\)", r"--checkpoint \1 --adapter \2", message)
    return _ARGUMENT.sub(option, message.replace("call --checkpoint", "give --checkpoint"))
