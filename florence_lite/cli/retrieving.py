"""`florence-lite match`, `rank` and `find`: images against texts, and the images that show what a phrase names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence_lite.cli.common import (
    Adapter,
    AsJson,
    Checkpoint,
    Device,
    Images,
    Threshold,
    load,
    show,
    show_json,
    stoppable,
    tell_unknown,
    within,
)
from florence_lite.cli.inputs import Input, find_images
from florence_lite.cli.running import FEW, AnswerReport, picture_files

if TYPE_CHECKING:
    from PIL import Image

Texts = Annotated[
    list[str], typer.Option(metavar="T", help="A sentence; repeat --text for several.", show_default=False)
]

ONE_IMAGE = (
    "rank compares at least two images; for several texts about one:  "
    'florence-lite run IMAGE "<CAPTION>" --choice … --choice …'
)


def match(
    images: Images,
    text: Texts,
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Tell how probably each text is true of each image.

    For checkpoints that learned to tell; rank works with every checkpoint that writes captions. With --json every image
    gives one line, with "probabilities" by text, or with "error".
    """
    from florence_lite.inference.retrieval import check_matching, check_texts
    from florence_lite.progress import progress_bar

    texts, found = check_texts(text), find_images(images)
    florence = load(checkpoint, device, adapter)
    check_matching(florence.card, florence.name)
    tell_unknown(florence.card, "<IMAGE_TEXT_MATCHING>", *texts)
    report = AnswerReport(as_json)
    with stoppable(lambda: report.told_of(len(found))), progress_bar(len(found) > FEW) as progress:
        for image in progress.track(found, description="images"):
            try:
                with warnings.catch_warnings():  # the note above said it
                    warnings.filterwarnings("ignore", ".* was not trained on ")
                    probabilities = florence.match(image.source, texts)[0].tolist()
            except (ValueError, OSError) as error:
                report.failed(image.name, error)
                continue
            report.answers += 1
            if as_json:
                show_json({"image": image.name, "probabilities": dict(zip(texts, probabilities, strict=True))})
            else:
                show(image.name)
                _show_best(probabilities, texts)
    report.finish(florence.card, len(found))


def rank(
    images: Images,
    text: Texts,
    detail: Annotated[
        str, typer.Option(metavar="D", help="What captions the texts are like: short, detailed or paragraph.")
    ] = "short",
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Order texts by how well they suit each image, and images by how well they suit each text.

    Only the order of scores says something. With --json every image gives one line, with "scores" and "log_likelihoods"
    by text, or with "error".
    """
    from florence_lite.inference.retrieval import check_texts

    texts, found = check_texts(text), find_images(images)
    if len(found) < 2:
        raise ValueError(ONE_IMAGE)
    florence = load(checkpoint, device, adapter)
    tell_unknown(florence.card, "<IMAGE_TEXT_MATCHING>", *texts)
    report = AnswerReport(as_json)
    errors: dict[int, Exception] = {}
    try:
        ranking = florence.rank(_readable(found, errors), texts, detail)
    except ValueError:
        if len(found) - len(errors) >= 2:
            raise
        ranking = None  # too few of the images can be read
    named = iter(range(len(found)))
    for place, image in enumerate(found):
        if place in errors:
            report.failed(image.name, errors[place])
        elif ranking is not None:
            row = next(named)
            report.answers += 1
            if as_json:
                values = {"scores": ranking.scores[row], "log_likelihoods": ranking.log_likelihoods[row]}
                by_text = {name: dict(zip(texts, each.tolist(), strict=True)) for name, each in values.items()}
                show_json({"image": image.name, **by_text})
            else:
                show(image.name)
                _show_best(ranking.scores[row].tolist(), texts)
    if ranking is None:
        raise ValueError(ONE_IMAGE)
    if not as_json:
        names = [image.name for place, image in enumerate(found) if place not in errors]
        for column, each in enumerate(texts):
            show(each)
            _show_best(ranking.scores[:, column].tolist(), names)
    if report.faults:
        raise typer.Exit(1)


def find(
    images: Images,
    phrase: Annotated[list[str], typer.Option(metavar="P", help="What to look for; one phrase.", show_default=False)],
    top: Annotated[int, typer.Option(metavar="K", callback=within(1), help="How many images to show.")] = 5,
    threshold: Threshold = None,
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Draw what is found; of several images into OUT-1.png, OUT-2.png …"),
    ] = None,
) -> None:
    """Find the images in which a phrase is most probably present, and where in them; the best first.

    Images in which it is less probable than the threshold, that of --threshold or of the checkpoint, are left out and
    counted; --threshold 0 lists all. With --json each of the others gives one line, as run prints it, and so does every
    image that cannot be read, with "error".
    """
    from florence_lite.cards import task

    if len(phrase) > 1:
        raise ValueError(f"find looks for one phrase, but {len(phrase)} --phrase were given: call it once for each")
    [wanted] = phrase
    task("<OPEN_VOCABULARY_DETECTION>").prompt(phrases=[wanted])
    given = find_images(images)
    files = picture_files(picture, given)
    florence = load(checkpoint, device, adapter)
    tell_unknown(florence.card, "<OPEN_VOCABULARY_DETECTION>", wanted)
    options: dict[str, Any] = {"keep_image": picture is not None, "threshold": threshold}
    search = florence.find([image.source for image in given], wanted, top, **options)
    report = AnswerReport(as_json)
    if not as_json and len(search):
        show(f"{wanted}  best of {search.images} images")
        _show_best([found.presence for found in search], [given[found.index].name for found in search])
    for found, file in zip(search, files, strict=False):
        report.answered(given[found.index].name, found.result, file)
    for error in search.errors:
        report.failed(given[error.index].name, error)
    report.answers = search.images - len(search.errors)
    if not as_json and report.answers and not len(search):
        show(f"{wanted}  nothing found in {search.images} images")
    elif not as_json and search.absent:
        show(f"images left out, in which the phrase is less probable than the threshold: {search.absent}")
    report.finish(florence.card, len(search))


def _readable(images: Sequence[Input], errors: dict[int, Exception]) -> Iterator[Image.Image]:
    """The pictures that can be read; what is wrong with another goes into `errors`, by its place."""
    from florence_lite.images import load_image

    for place, image in enumerate(images):
        try:
            picture = load_image(image.source)
        except (ValueError, OSError) as error:
            errors[place] = error
        else:
            yield picture


def _show_best(values: Sequence[float], names: Sequence[str]) -> None:
    """A line for each name with its value, the highest first."""
    for place in sorted(range(len(names)), key=lambda place: -values[place]):
        show(f"  {values[place]:6.2f}  {names[place]}")
