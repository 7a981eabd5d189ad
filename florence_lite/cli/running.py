"""`florence-lite run`: one prompt about image files, as text, JSON or pictures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence_lite.cli.common import AsJson, Checkpoint, Device, check_picture, load, say

if TYPE_CHECKING:
    from florence_lite.answers import Instance
    from florence_lite.results import Result

FEW = 3  # images that are answered without a progress bar


class RunCommand(typer.core.TyperCommand):
    """Shows images and prompt as two things in its usage line, though they are one list to the parser."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["IMAGE [IMAGE …]", '"<TASK>"', "[OPTIONS]"]


def run(
    images_and_prompt: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES PROMPT",
            help="Image files and, last, the prompt: a marker of `florence-lite tasks`, in quotes, or a free sentence.",
            show_default=False,
        ),
    ],
    text: Annotated[str | None, typer.Option(metavar="T", help="Caption, question or phrase of the prompt.")] = None,
    region: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="X0 Y0 X1 Y1", help="Region of the prompt, in pixels of the image."),
    ] = None,
    phrase: Annotated[
        list[str] | None, typer.Option(metavar="P", help="Phrase of the prompt; repeat --phrase for several.")
    ] = None,
    checkpoint: Checkpoint = None,
    device: Device = "cpu",
    as_json: AsJson = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png", help="Draw the answer into this file; of several images into OUT-1.png, OUT-2.png …"
        ),
    ] = None,
) -> None:
    """Answer one prompt about each of the images.

    With --json every answered image gives one line on standard output, a JSON object with its path as "image".
    """
    from florence_lite.cards import task

    paths, prompt = _split(images_and_prompt)
    card = task(prompt)
    phrases = phrase or None
    if region is None or card.input != "region":
        card.prompt(text, phrases, region)  # what is wrong for every image is reported before the network loads
    jobs = list(zip(paths, _picture_files(picture, paths), strict=True))
    florence = load(checkpoint, device)

    from florence_lite.inference import ImageError
    from florence_lite.progress import progress_bar

    answered = 0
    answers = florence.run_each(
        paths, prompt, text=text, phrases=phrases, region=region, keep_image=picture is not None
    )
    with progress_bar(len(paths) > FEW) as progress:
        bar = progress.add_task("images", total=len(paths))
        for (path, file), answer in zip(jobs, answers, strict=True):
            if isinstance(answer, ImageError):
                say(f"error: {answer}")
            else:
                _answer(path, answer, file, as_json)
                answered += 1
            progress.advance(bar)
    if answered < len(paths):
        raise typer.Exit(1 if answered else 2)


def _split(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Image paths and prompt; ValueError where the prompt is forgotten or stands elsewhere."""
    from florence_lite.cards import tasks

    *paths, prompt = arguments
    markers = {card.name for card in tasks()}
    for path in paths:
        if path in markers:
            raise ValueError(
                f"{path} must be the last argument, behind all images, but {prompt!r} is; several phrases are given as "
                "--phrase … --phrase …"
            )
    if _looks_like_a_file(prompt):
        raise ValueError(f'the prompt is missing; write it behind the images:  florence-lite run {prompt} "<OD>"')
    if not paths:
        raise ValueError(f'the image is missing; write it before the prompt:  florence-lite run photo.jpg "{prompt}"')
    return paths, prompt


def _looks_like_a_file(argument: str) -> bool:
    from PIL import Image

    return os.path.exists(argument) or Path(argument).suffix.lower() in Image.registered_extensions()


def _picture_files(picture: Path | None, paths: Sequence[str]) -> list[Path | None]:
    """The file for the drawn answer of each image; ValueError where it could not be written."""
    if picture is None:
        return [None] * len(paths)
    check_picture("--picture", picture)
    files = [picture]
    if len(paths) > 1:
        digits = len(str(len(paths)))  # so that the files sort like the images
        files = [picture.with_stem(f"{picture.stem}-{n:0{digits}d}") for n in range(1, len(paths) + 1)]
    originals = {Path(path).resolve() for path in paths}
    for file in files:
        if file.resolve() in originals:
            raise ValueError(f"--picture {picture} would overwrite the image {file}; choose another name")
    return files


def _answer(path: str, result: Result, picture: Path | None, as_json: bool) -> None:
    if picture is not None:
        result.draw().save(picture)
    if as_json:
        drawn = {} if picture is None else {"picture": str(picture)}
        print(json.dumps({"image": path, **result.to_dict(), **drawn}), flush=True)
        return
    width, height = result.size_wh
    print(f"{path}  {_plain(result.task)}  {width}×{height}")
    for line in listing(result):
        print(f"  {line}")
    if picture is not None:
        print(f"  drawn in {picture}")
    sys.stdout.flush()


def listing(result: Result) -> list[str]:
    """What a result says, as lines for people: its words, then a row of label, score and box for each instance."""
    lines = [_plain(line) for line in result.text.splitlines() if line.strip()]
    if lines and result.score is not None:
        lines[-1] += f"  ({result.score:.2f})"
    rows = [item for item in result.instances if item.bounds is not None or item.label != result.text]
    width = max((len(_plain(item.label)) for item in rows), default=0)
    lines += [_row(item, width) for item in rows]
    if not lines:
        lines.append("nothing found")
    if result.parse_errors:
        lines.append(f"parse errors in the answer, dropped or repaired: {result.parse_errors}")
    if result.truncated:
        lines.append("the answer was cut short: it reached the most tokens of its task")
    return lines


def _row(item: Instance, width: int) -> str:
    cells = [f"{_plain(item.label):{width}}", "    " if item.score is None else f"{item.score:.2f}"]
    if item.bounds is not None:
        cells.append(" ".join(f"{number:7.1f}" for number in item.bounds))
    return "  ".join(cells).rstrip()


def _plain(words: str) -> str:
    """Words of a model on one line, without characters that would steer the terminal."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(words.split()))
