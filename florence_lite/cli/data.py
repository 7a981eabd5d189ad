"""The commands `florence-lite data …`: looking at data sets before training on them, and writing them for others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from florence_lite.cli.common import AsJson, Columns, Format, Outside, check_picture, read_data, show, show_json
from florence_lite.cli.usage import taught

if TYPE_CHECKING:
    from florence_lite.train.rows import RowWriter

data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at annotated images, and write them for other tools."
)


@data_app.callback()
def data() -> None:
    """Look at annotated images, and write them for other tools."""


@data_app.command(**taught("data check"))
def check(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder or file of annotated images.")],
    format: Format = "auto",
    split: Annotated[str | None, typer.Option(metavar="S", help="train, val or test; else all there is.")] = None,
    column: Columns = None,
    outside: Outside = False,
    checkpoint: Annotated[
        str, typer.Option(metavar="C", help="Whose tokens and limits count: name of a card, folder or Hub id.")
    ] = "scenes-nano",
    sheet: Annotated[Path | None, typer.Option(metavar="OUT.png", help="Draw some annotated images into it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count what a data set holds, report its problems, and measure its answers against a checkpoint's limits.

    The exit code is 1 where no task can be trained on the data.
    """
    from florence_lite.progress import progress_bar
    from florence_lite.train.dataset_check import check_dataset, contact_sheet, report_lines

    if sheet is not None:
        check_picture("--sheet", sheet)
    dataset = read_data(folder, format, split, column, outside)
    network = _network(checkpoint)
    with progress_bar(not as_json) as progress:
        bar = progress.add_task("images", total=len(dataset))
        found = check_dataset(dataset, network, lambda: progress.advance(bar))
    if as_json:
        show_json(found.to_dict())
    else:
        for line in report_lines(found):
            show(line)
    if sheet is not None:
        contact_sheet(dataset).save(sheet)
        if not as_json:
            show(f"drawn in {sheet}")
    if not found.tasks:
        raise typer.Exit(1)


@data_app.command(**taught("data convert"))
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or file of annotated images, or of answers.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="coco, voc, yolo, jsonl, captions, labelstudio, webdataset, huggingface (parquet) or datasets.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="DEST", help="Folder to write; nothing may lie in it.")],
    format: Format = "auto",
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="S", help="train, val or test; repeat --split; else all, without splits."),
    ] = None,
    column: Columns = None,
    outside: Outside = False,
    prefix: Annotated[
        str, typer.Option(metavar="P", help="For captions: what each begins with, such as a trigger word.")
    ] = "",
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy images that are files, instead of linking.")
    ] = False,
) -> None:
    """Write annotated images in the format of another tool.

    What a format cannot say is counted. Captions may be written into the folder of the images, beside them.
    """
    from florence_lite.data import write_dataset
    from florence_lite.data.samples import kinds_listed
    from florence_lite.progress import progress_bar

    datasets = {name: read_data(source, format, name or None, column, outside) for name in split or [""]}
    images = sum(map(len, datasets.values()))
    with progress_bar(True) as progress:
        bar = progress.add_task("images", total=images)
        try:
            written = write_dataset(
                datasets if split else datasets[""], to, output, prefix, copy_images, lambda: progress.advance(bar)
            )
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from None
    problems = Counter(problem.kind for dataset in datasets.values() for problem in dataset.problems)
    if problems:
        show(f"problems of {source}: {kinds_listed(dict(problems.most_common()))}; florence-lite data check lists them")
    links = "; images are links; --copy-images copies them" if written.linked else ""
    show(f"{written.images} of {images} images in {written.path}{links}")
    if written.left_out:
        show(f"left out: {kinds_listed(written.left_out)}")
    if written.hint:
        show(written.hint)


def _network(checkpoint: str) -> RowWriter:
    from florence_lite.checkpoint import find_checkpoint, read_config
    from florence_lite.tokens import Tokenizer
    from florence_lite.train.rows import RowWriter

    folder = find_checkpoint(checkpoint).folder
    return RowWriter.of(read_config(folder), Tokenizer.from_file(folder))
