"""The command `florence-lite`: prompts about image files, the cards, training and evaluation.

Answers go to standard output, everything else to standard error. Exit codes: 0 all went well; 1 some of the images
could not be answered; 2 none could, or the command has a mistake. Each fault is told in a line that begins `error:`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence_lite.cli_data import data_app

if TYPE_CHECKING:
    from PIL import Image

    from florence_lite.cards import TaskCard
    from florence_lite.evaluate.report import Report
    from florence_lite.florence import Florence
    from florence_lite.results import Instance, Result

FEW = 3  # images that are answered without a progress bar
MISTAKES = (ValueError, OSError, FloatingPointError)  # of a user: input, files, a learning rate that is too high


class _Commands(typer.core.TyperGroup):
    """Tells a user's mistake in one line instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except MISTAKES as error:
            _say(f"error: {error}")
            raise typer.Exit(2) from None


class _RunCommand(typer.core.TyperCommand):
    """Shows images and prompt as two things in its usage line, though they are one list to the parser."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["IMAGE [IMAGE …]", '"<TASK>"', "[OPTIONS]"]


# Plain help: its brackets and markers are no markup, and it appears without loading rich.
app = typer.Typer(
    cls=_Commands, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)

app.add_typer(data_app, name="data")

Checkpoint = Annotated[
    str | None,
    typer.Option("--checkpoint", metavar="C", help="Name of a card, folder or Hub id; else the embedded checkpoint."),
]
Device = Annotated[str, typer.Option("--device", metavar="D", help="Where the network runs: cpu, cuda or cuda:1.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else there.")]


def main() -> None:
    """The entry point. A reader that stops early, such as `head`, ends the command quietly."""
    sys.stdout.reconfigure(errors="replace")  # letters that the terminal cannot show are no failure
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        from florence_lite import __version__

        print(f"florence-lite {__version__}")
        raise typer.Exit


@app.callback()
def florence_lite(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Prompts about images in; boxes, polygons, words and captions with scores out."""


# ---- run -------------------------------------------------------------------------------------------------------------


@app.command(cls=_RunCommand)
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
        card.prompt(text, phrases, region)  # what is wrong for every image is told before the network loads
    jobs = list(zip(paths, _picture_files(picture, paths), strict=True))
    florence = _load(checkpoint, device)

    from florence_lite.florence import IMAGES_AT_ONCE
    from florence_lite.progress import progress_bar

    answered = 0
    with progress_bar(len(paths) > FEW) as progress:
        bar = progress.add_task("images", total=len(paths))
        for first in range(0, len(paths), IMAGES_AT_ONCE):
            batch = jobs[first : first + IMAGES_AT_ONCE]
            readable = [(image, *job) for job in batch if (image := _readable(job[0], card, region)) is not None]
            results = florence.run([image for image, *_ in readable], prompt, text=text, phrases=phrases, region=region)
            for (_, path, file), result in zip(readable, results, strict=True):
                _answer(path, result, file, as_json)
            answered += len(results)
            progress.advance(bar, len(batch))
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
    from PIL import Image

    if picture is None:
        return [None] * len(paths)
    if Image.registered_extensions().get(picture.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"--picture {picture}: the name must end in an image format that can be written, such as .png")
    if not picture.parent.is_dir():
        raise ValueError(f"--picture {picture}: there is no folder {picture.parent}")
    files = [picture]
    if len(paths) > 1:
        digits = len(str(len(paths)))  # so that the files sort like the images
        files = [picture.with_stem(f"{picture.stem}-{n:0{digits}d}") for n in range(1, len(paths) + 1)]
    originals = {Path(path).resolve() for path in paths}
    for file in files:
        if file.resolve() in originals:
            raise ValueError(f"--picture {picture} would overwrite the image {file}; choose another name")
    return files


def _readable(path: str, card: TaskCard, region: tuple[float, float, float, float] | None) -> Image.Image | None:
    """The image; None, with a message, where it cannot be read or does not hold the region."""
    from florence_lite.images import load_image

    try:
        image = load_image(path)
        if region is not None:
            card.prompt(region_px=region, size_wh=image.size)
        return image
    except (ValueError, OSError) as error:
        _say(f"error: {error}" if path in str(error) else f"error: image {path}: {error}")
        return None


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
    if result.malformed:
        lines.append(f"malformed parts of the answer, dropped or repaired: {result.malformed}")
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


def _load(checkpoint: str | None, device: str) -> Florence:
    import torch

    from florence_lite.florence import DEFAULT_CHECKPOINT, Florence

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device} cannot be used here: {reason}") from None
    return Florence.from_pretrained(checkpoint or DEFAULT_CHECKPOINT, device=device)


# ---- cards -----------------------------------------------------------------------------------------------------------


@app.command()
def tasks() -> None:
    """List the tasks: marker, input and what the answer holds."""
    from florence_lite.cards import tasks

    options = {"none": "", "text": "--text", "phrase": "--phrase", "phrases": "--phrase", "region": "--region"}
    for card in tasks():
        print(f"{card.name:35}  {options[card.input]:8}  {card.summary}")


@app.command()
def checkpoints() -> None:
    """List the checkpoints with their licences and measured figures."""
    from florence_lite.cards import checkpoints

    for card in checkpoints():
        width, height = card.image_size_wh
        print(f"{card.name}  ({card.source}, {card.licence}, {width}×{height} pixels, {len(card.tasks)} tasks)")
        print(f"  {card.summary}")
        for name, value in card.metrics.items():
            print(f"  {name:24}  {value:.4g}")
        if card.protocol:
            print(f"  measured: {card.protocol}")


# ---- training and evaluation -----------------------------------------------------------------------------------------


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run, see examples/.", show_default=False)],
) -> None:
    """Train from scratch on generated scenes, or a checkpoint further on data of your own, as the configuration says.

    An interrupted run goes on where it was.
    """
    from florence_lite.train.config import FineTuneConfig, TrainConfig, read_toml

    if "checkpoint" in read_toml(config):
        own = FineTuneConfig.from_toml(config)
        with _needing("train,eval" if own.validation else "train"):
            from florence_lite.train.finetune import finetune

            with redirect_stdout(sys.stderr):  # trackers talk
                folder = finetune(own)
            print(folder)
        return
    settings = TrainConfig.from_toml(config)
    with _needing("train"):
        from florence_lite.data.scenes import TRAINING_STYLES
        from florence_lite.evaluate.scenes import evaluate_scenes
        from florence_lite.florence import Florence
        from florence_lite.train import scratch

        def evaluate(folder: Path) -> dict[str, float]:
            florence = Florence.from_pretrained(folder)
            styles = settings.styles or TRAINING_STYLES
            return evaluate_scenes(florence, "validation", settings.evaluate_scenes, styles)

        with redirect_stdout(sys.stderr):
            folder = scratch.train(settings, evaluate)
        print(folder)


@app.command("eval")
def evaluate(
    more_tasks: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    checkpoint: Checkpoint = None,
    data: Annotated[
        Path | None, typer.Option(metavar="D", help="Folder or file of annotated images; else generated scenes.")
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="F", help="Of the data; recognised by its files if not given.")
    ] = "auto",
    tasks: Annotated[
        list[str] | None, typer.Option(metavar='"<TASK>" …', help="What to ask of the data: one or several markers.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="S", help="train, validation or test; else all data, or the test scenes.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(metavar="N", help="Images, from the first; else all data, or 200 scenes.")
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(metavar="A", help="Artwork style; repeat --style for several. Default: the training styles."),
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint on annotated images, or without --data on generated scenes."""
    if data is not None:
        if style:
            raise ValueError("--style belongs to generated scenes; leave it out or leave out --data")
        asked = [*(tasks or []), *(more_tasks or [])]
        with _needing("eval"):
            report = _measured(data, format, split, asked, count, lambda: _load(checkpoint, device))
        print(json.dumps(report.to_dict()) if as_json else report)
        return
    if tasks or more_tasks or format != "auto":
        raise ValueError("--tasks and --format belong to annotated images; give their folder as --data")
    with _needing("eval"):
        from florence_lite.data.scenes import TRAINING_STYLES
        from florence_lite.evaluate.scenes import evaluate_scenes

        styles = tuple(style or TRAINING_STYLES)
        figures = evaluate_scenes(_load(checkpoint, device), split or "test", 200 if count is None else count, styles)
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:24}  {value:.4g}")


def _measured(
    data: Path, format: str, split: str | None, tasks: list[str], count: int | None, load: Callable[[], Florence]
) -> Report:
    """The report on the data; what is wrong with tasks and data is told before the network loads."""
    from collections import Counter

    from florence_lite.cards import task
    from florence_lite.data.samples import read_dataset
    from florence_lite.evaluate.metrics import metrics_of
    from florence_lite.evaluate.report import evaluate

    if not tasks:
        raise ValueError('--data needs --tasks, the markers of what to ask, such as --tasks "<OD>" "<CAPTION>"')
    for name in tasks:
        metrics_of(task(name))
    dataset = read_dataset(data, format, split)
    for kind, times in Counter(problem.kind for problem in dataset.problems).items():
        _say(f"data: {kind}: {times}")
    return evaluate(load(), dataset, tasks, count)


@contextmanager
def _needing(extra: str) -> Iterator[None]:
    """Names the remedy for a package that is missing because the `extra` was not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        _say(f"error: the package {error.name} is missing; pip install 'florence-lite[{extra}]'")
        raise typer.Exit(2) from error


def _say(message: str) -> None:
    print(message, file=sys.stderr)
