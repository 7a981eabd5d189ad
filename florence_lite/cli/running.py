"""`florence-lite run`: one prompt about image files, as text, JSON or pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence_lite.cli.answer_folder import AnswerFolder
from florence_lite.cli.common import (
    SHARE,
    Adapter,
    AsJson,
    Checkpoint,
    Device,
    Precision,
    Threshold,
    Tile,
    check_picture,
    in_options,
    load,
    read_number,
    say,
    say_error,
    show,
    show_json,
    stoppable,
    tell_unknown,
)
from florence_lite.cli.inputs import SAMPLE, STANDARD_INPUT, Input, find_images
from florence_lite.printable import printable

if TYPE_CHECKING:
    from florence_lite.answers import Instance
    from florence_lite.cards import CheckpointCard
    from florence_lite.florence import Florence
    from florence_lite.inference import ImageError
    from florence_lite.results import Panoptic, Result

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
            help="Image files, folders of them, patterns in quotes, - for standard input or sample for the one that "
            "comes along; and, last, the prompt: a marker of `florence-lite tasks`, in quotes, or a free sentence.",
            show_default=False,
        ),
    ],
    text: Annotated[str | None, typer.Option(metavar="T", help="Caption, question or phrase of the prompt.")] = None,
    region: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="X0 Y0 X1 Y1", parser=read_number, help="Region of the prompt, in pixels of the image."),
    ] = None,
    phrase: Annotated[
        list[str] | None, typer.Option(metavar="P", help="Phrase of the prompt; repeat --phrase for several.")
    ] = None,
    phrases_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text file of phrases, one a line, for hundreds of them.")
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(metavar="C", help="One of the answers there can be, with a probability each; repeat --choice."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="L", help="Close the list of what the answer may say; repeat --label for several."),
    ] = None,
    threshold: Threshold = None,
    nms: Annotated[
        float | None,
        typer.Option(
            metavar="IOU",
            **SHARE,
            help="Leave out what overlaps a surer one of its label by more, from 0 to 1.",
        ),
    ] = None,
    tile: Tile = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print words and instances as soon as they are written.")
    ] = False,
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    as_json: AsJson = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png", help="Draw the answer into this file; of several images into OUT-1.png, OUT-2.png …"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a JSON file and a picture of each answer into it, called as the image; what is there already "
            "is not asked again.",
        ),
    ] = None,
) -> None:
    """Answer one prompt about each of the images.

    With --json every image gives one line on standard output, a JSON object with its path as "image", and with "error"
    where it could not be answered.
    """
    from florence_lite.cards import task

    arguments, prompt = _split(images_and_prompt)
    card = task(prompt)
    phrases = [*(phrase or []), *read_phrases(phrases_file)] or None
    if region is None or card.input != "region":
        card.prompt(text, phrases, region)  # what is wrong for every image is reported before the network loads
    if tile is not None:
        from florence_lite.inference.tiling import as_tiling

        as_tiling(tile, [card])
    for option, number in (("--threshold …", None if choice else threshold), ("--nms …", nms)):
        if number is not None:
            from florence_lite.inference.prompts import check_places

            check_places(option, [card])
    if stream and (as_json or choice or nms is not None or tile is not None):
        raise ValueError(
            "--stream prints an answer before all of it is known: leave --json, --choice, --nms and --tile out"
        )
    if out is not None and picture is not None:
        raise ValueError("--out draws a picture of every answer: leave --picture out")
    images = find_images(arguments)
    asked: dict[str, Any] = {"text": text, "phrases": phrases, "region": region, "threshold": threshold}
    asked |= {"labels": label or None, "choices": choice or None}
    folder = None
    if out is not None:
        how = {"nms": nms, "tile": tile, "checkpoint": checkpoint, "adapter": adapter, "precision": precision}
        folder = AnswerFolder(out, images, {"prompt": prompt} | asked | how)
        images = folder.images
        if folder.done:
            say(f"answered in {out} before: {folder.done} of {folder.done + len(images)} images")
        if not images:
            return
    files = picture_files(picture, images)
    florence = load(checkpoint, device, adapter, precision)
    tell_unknown(florence.card, prompt, None if prompt.startswith("<") else prompt, text, *(phrases or ()))

    from florence_lite.inference import ImageError
    from florence_lite.progress import progress_bar

    report = AnswerReport(as_json, nms, stream, folder)
    asked["keep_image"] = picture is not None or folder is not None
    if stream:
        answers = _as_they_grow(florence, images, prompt, asked)
    else:
        answers = florence.run_each([image.source for image in images], prompt, tile=tile, **asked)
    how_on = f"the same command goes on, {out} has the answers" if out else "with --out FOLDER such a run can go on"
    with (
        stoppable(lambda: f"{report.told_of(len(images))}; {how_on}"),
        progress_bar(len(images) > FEW and not stream) as progress,
    ):
        bar = progress.add_task("images", total=len(images))
        for image, file, answer in zip(images, files, answers, strict=True):
            if isinstance(answer, ImageError):
                report.failed(image.name, answer)
            else:
                report.answered(image.name, answer, file)
            progress.advance(bar)
    report.finish(florence.card, len(images))


def _as_they_grow(
    florence: Florence, images: Sequence[Input], prompt: str, asked: dict[str, Any]
) -> Iterator[Result | ImageError]:
    """The answers of `run_each`, each shown while it is written."""
    from florence_lite.answers import Instance
    from florence_lite.inference import ImageError

    for index, image in enumerate(images):
        show(f"{image.name}  {_plain(prompt)}")
        in_words = told = False
        try:
            for event in florence.stream(image.source, prompt, **asked):
                if isinstance(event, str):
                    show(event if in_words else f"  {event}", end="")
                    in_words = told = True
                    continue
                if in_words:
                    show()
                    in_words = False
                if isinstance(event, Instance):
                    if event.bounds is not None or not told:
                        show(f"  {_row(event, 0)}")
                    continue
                if event.text and not told:  # what its instances make together
                    show(f"  {_plain(event.text)}")
                yield event
        except (ValueError, OSError) as error:
            yield ImageError(image.name, index, error)


def _split(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Images and prompt as they were given; ValueError where the prompt is forgotten or stands elsewhere."""
    from florence_lite.cards import tasks
    from florence_lite.image_files import is_image_name

    *images, prompt = arguments
    markers = {card.name for card in tasks()}
    for image in images:
        if image in markers:
            raise ValueError(
                f"{image} must be the last argument, behind all images, but {prompt!r} is; several phrases are given "
                "as --phrase … --phrase …"
            )
    if prompt in (STANDARD_INPUT, SAMPLE) or Path(prompt).exists() or is_image_name(prompt):
        alone = ", ".join(card.name for card in tasks() if card.input == "none")
        raise ValueError(
            f'the prompt is missing; write it behind the images:  florence-lite run {shlex.quote(prompt)} "<OD>"  '
            f"Prompts that need nothing else: {alone}; all: florence-lite tasks"
        )
    if not images:
        raise ValueError(f'the image is missing; write it before the prompt:  florence-lite run photo.jpg "{prompt}"')
    return images, prompt


def read_phrases(file: Path | None) -> list[str]:
    """The lines of a file that hold anything; [] without one."""
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"--phrases-file {file} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ValueError(f"--phrases-file {file} cannot be read: {reason}") from None
    if not (phrases := [line.strip() for line in lines if line.strip()]):
        raise ValueError(f"--phrases-file {file} holds no phrase; write one a line")
    return phrases


def picture_files(picture: Path | None, images: Sequence[Input]) -> list[Path | None]:
    """The file for the drawn answer of each image; ValueError where it could not be written or is one of the images."""
    if picture is None:
        return [None] * len(images)
    check_picture("--picture", picture)
    files = [picture]
    if len(images) > 1:
        digits = len(str(len(images)))  # so that the files sort like the images
        files = [picture.with_stem(f"{picture.stem}-{n:0{digits}d}") for n in range(1, len(images) + 1)]
    originals = _identities(image.source for image in images)
    for file in files:
        if _identities([file]) & originals:
            raise ValueError(f"--picture {picture} would overwrite the image {file}; choose another name")
    return files


def _identities(sources: Iterable[Any]) -> set[tuple[int, int]]:
    """What the existing files among the sources are to the system: two names, or links, of one file are one."""
    files = (Path(source) for source in sources if isinstance(source, str | Path))
    stats = (file.stat() for file in files if file.exists())
    return {(stat.st_dev, stat.st_ino) for stat in stats}


@dataclass
class AnswerReport:
    """Prints what becomes of each image, and counts: answers, faults, and answers about pictures that are foreign."""

    as_json: bool
    nms: float | None = None
    told: bool = False  # whether what the answers say is shown already
    folder: AnswerFolder | None = None
    answers: int = field(default=0, init=False)
    faults: int = field(default=0, init=False)
    foreign: int = field(default=0, init=False)

    def failed(self, image: str, error: Exception) -> None:
        """There is no answer about this image."""
        self.faults += 1
        say_error(error)
        if self.as_json:
            show_json({"image": image, "error": in_options(str(error))})

    def answered(self, image: str, result: Result, picture: Path | None) -> None:
        """The answer about this image, drawn into a file if that is asked for and can be done."""
        self.answers += 1
        self.foreign += result.foreign
        if self.nms is not None:
            result = result.nms(self.nms)
        drawn = picture is not None and self._drawn(result, picture)
        if self.as_json:
            extra = {} if picture is None else {"picture": str(picture) if drawn else None}
            show_json({"image": image, **result.to_dict(), **extra})
            self._filed(image, result)
            return
        if not self.told:
            width, height = result.size_wh
            show(f"{image}  {_plain(result.task)}  {width}×{height}")
        for line in listing(result)[len(_said(result)) if self.told else 0 :]:
            show(f"  {line}")
        if drawn:
            show(f"  drawn in {picture}")
        if self._filed(image, result):
            show(f"  written to {self.folder.file(image)}")

    def told_of(self, images: int) -> str:
        """How many of the images are done."""
        return f"{self.answers} of {images} images are answered"

    def finish(self, card: CheckpointCard | None, images: int) -> None:
        """Say what is to be said of all answers about a number of images; exits with 1 where something went wrong, with
        2 where nothing could be answered, now or before."""
        if self.foreign:
            say(foreign_note(card, self.foreign, images))
        if self.faults:
            before = self.folder.done if self.folder else 0
            raise typer.Exit(1 if self.answers or before else 2)

    def _filed(self, image: str, result: Result) -> bool:
        """Whether the answer stands in the folder, where there is one."""
        if self.folder is None:
            return False
        try:
            self.folder.write(image, result)
        except (OSError, ValueError) as error:  # ValueError: too large for the format
            self.faults += 1
            say_error(f"{self.folder.file(image)} cannot be written: {getattr(error, 'strerror', None) or error}")
            return False
        return True

    def _drawn(self, result: Result, picture: Path) -> bool:
        try:
            result.draw().save(picture)
        except (OSError, ValueError) as error:  # ValueError: too large for the format
            self.faults += 1
            reason = getattr(error, "strerror", None) or error
            say_error(f"picture {picture} cannot be written: {reason}")
            return False
        return True


def foreign_note(card: CheckpointCard, foreign: int, images: int) -> str:
    """What to do about answers that nothing is sure of, from a checkpoint that knows one kind of pictures."""
    return (
        f"note: {foreign} of {images} {'answer is' if images == 1 else 'answers are'} unsure; lists leave out guesses, "
        f"--threshold 0 shows them. {card.name} was trained on {card.trained_on}; "
        f"for photographs:  --checkpoint {card.for_photographs}"
    )


def listing(result: Result) -> list[str]:
    """What a result says, as lines for people: its words, then a row of label, score and box for each instance."""
    lines = _said(result) or ["nothing found"]
    lines += absence(result)
    if result.dropped:
        lines.append(f"left out of the answer: {result.dropped}")
    if result.parse_errors:
        lines.append(f"parse errors in the answer, dropped or repaired: {result.parse_errors}")
    if result.truncated:
        lines.append("the answer was cut short: it reached the most tokens of its task")
    return lines


def absence(result: Result | Panoptic) -> list[str]:
    """Lines with the phrases that are absent, and with those that are likely but were left out as guesses, if any."""
    said: dict[str, list[str]] = {"not in the image": [], "left out as a guess": []}
    for phrase in result.absent:
        is_guess = result.foreign and result.presence[phrase] > 0.5
        what = "left out as a guess" if is_guess else "not in the image"
        said[what].append(f"{_plain(phrase)} ({result.presence[phrase]:.2f})")
    return [f"{what}: {', '.join(phrases)}" for what, phrases in said.items() if phrases]


def _said(result: Result) -> list[str]:
    if result.choices:
        likeliest = sorted(result.choices.items(), key=lambda each: -each[1])
        width = max(len(_plain(choice)) for choice in result.choices)
        return [f"{_plain(choice):{width}}  {probability:.2f}" for choice, probability in likeliest]
    lines = [_plain(line) for line in result.text.splitlines() if line.strip()]
    if lines and result.score is not None:
        lines[-1] += f"  ({result.score:.2f})"
    rows = [item for item in result.instances if item.bounds is not None or item.label != result.text]
    width = max((len(_plain(item.label)) for item in rows), default=0)
    return lines + [_row(item, width) for item in rows]


def _row(item: Instance, width: int) -> str:
    cells = [f"{_plain(item.label):{width}}", "    " if item.score is None else f"{item.score:.2f}"]
    if item.bounds is not None:
        cells.append(" ".join(f"{number:7.1f}" for number in item.bounds))
    return "  ".join(cells).rstrip()


def _plain(words: str) -> str:
    """Words of a model on one line, as they are printed."""
    return printable(" ".join(words.split()))
