"""`florence-lite annotate`: checkpoints answer questions about any number of images."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence_lite.cli.common import STOPPED, AsJson, Threshold, needing, say, show, show_json
from florence_lite.cli.running import read_phrases

if TYPE_CHECKING:
    from florence_lite.annotate import AnnotateConfig

_MARKER = re.compile(r"<\S+>")


def annotate(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folders, patterns in quotes, lists of paths, tars, parquet files, datasets:NAME.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option(metavar='"<TASK>" …', help="What to ask: one or several markers.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the answers; a run goes on in it.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="The run, see examples/; options replace what it says.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="T", help="Input of the tasks that take text.")] = None,
    phrase: Annotated[
        list[str] | None, typer.Option(metavar="P", help="Input of the tasks that take phrases; repeat --phrase.")
    ] = None,
    phrases_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text file of phrases, one a line, for hundreds of them.")
    ] = None,
    threshold: Threshold = None,
    decoding: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of decoding, such as num_beams=3; repeat --decoding."),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="C",
            help="Name of a card, folder or Hub id; else the embedded one. Repeat --checkpoint for several.",
        ),
    ] = None,
    adapter: Annotated[str | None, typer.Option(metavar="A", help="LoRA adapter to merge into the checkpoint.")] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="WORD", help="Tells these answers from the checkpoint's others in DIR.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="Where the network runs: cpu, cuda or cuda:1.")
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="P", help="fp32, or on a processor bf16 or int8.")] = None,
    column: Annotated[
        str | None, typer.Option(metavar="C", help="Of parquet files and data sets, which holds the images.")
    ] = None,
    engine: Annotated[str, typer.Option(metavar="E", help="embedded, or ray for several processes.")] = "embedded",
    workers: Annotated[int, typer.Option(metavar="N", help="Processes of --engine ray.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Ask tasks about every image of a source and write the answers as parquet files, each exactly once.

    Whatever ends the command, the same command goes on. The exit code is 1 where some images could not be answered, now
    or before, 2 where none could.
    """
    sources = [each for each in source or [] if not _MARKER.fullmatch(each)]
    markers = [*(tasks or []), *(each for each in source or [] if _MARKER.fullmatch(each))]
    phrases = [*(phrase or []), *read_phrases(phrases_file)]
    changes: dict[str, Any] = {"source": sources, "output": output, "column": column, "checkpoints": checkpoint}
    changes["tasks"] = _with_inputs(markers, text, phrases)
    of_checkpoints = {"adapter": adapter, "tag": tag, "device": device, "precision": precision, "threshold": threshold}
    with needing("annotate"):
        import filelock  # noqa: F401
        import pyarrow  # noqa: F401

        from florence_lite.annotate.engine import annotate as run

    chosen = _configured(config, {name: value for name, value in changes.items() if value})
    chosen = _with_options(chosen, {k: v for k, v in of_checkpoints.items() if v is not None}, _options(decoding or []))
    try:
        report = run(chosen, engine, workers, say)
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None
    if as_json:
        show_json(report.to_dict())
    else:
        for line in report.lines():
            show(line)
    if report.failed or report.failed_before:
        raise typer.Exit(2 if report.failed == report.answered and not report.done else 1)


def _configured(file: Path | None, changes: dict[str, Any]) -> AnnotateConfig:
    """The configuration of a file, where there is one, with fields replaced by options."""
    from florence_lite.annotate import AnnotateConfig

    if file is not None:
        return AnnotateConfig.from_toml(file, **changes)
    for name, how in (
        ("source", "the images: florence-lite annotate photos …"),
        ("tasks", 'what to ask: --tasks "<OD>" "<CAPTION>"'),
        ("output", "the folder of the answers: --output answers"),
    ):
        if name not in changes:
            raise ValueError(f"the run has no {name}; give {how}")
    return AnnotateConfig(**changes)


def _with_inputs(markers: Sequence[str], text: str | None, phrases: Sequence[str]) -> list[dict[str, Any]]:
    """Tables of tasks, each with the input it takes. Raises ValueError for input that none takes."""
    from florence_lite.cards import task
    from florence_lite.cards.task_card import INPUTS

    tables, used = [], set()
    given = {"text": text, "phrases": list(phrases) or None}
    for marker in markers:
        accepted = INPUTS[task(marker).input]
        name = next((name for name in accepted if given.get(name) is not None), None)
        tables.append({"task": marker} | ({name: given[name]} if name else {}))
        used.add(name)
    for name, option in (("text", "--text"), ("phrases", "--phrase")):
        if given[name] is not None and name not in used:
            raise ValueError(f"{option} is given, but none of the --tasks takes it: {', '.join(markers) or 'none'}")
    return tables


def _with_options(config: AnnotateConfig, fields: dict[str, Any], decoding: dict[str, Any]) -> AnnotateConfig:
    """The configuration with options of all of its checkpoints replaced."""
    checkpoints = (replace(each, **fields, decoding={**each.decoding, **decoding}) for each in config.checkpoints)
    return replace(config, checkpoints=tuple(checkpoints))


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as a table; values are JSON, or words."""
    options = {}
    for pair in pairs:
        name, is_pair, value = pair.partition("=")
        if not is_pair or not name:
            raise ValueError(f"--decoding {pair} must be NAME=VALUE, such as num_beams=3")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
