"""`florence-lite calibrate`: what the presences of a checkpoint mean, fitted on annotated images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from florence_lite.cli.common import (
    AsJson,
    Checkpoint,
    Columns,
    Device,
    Format,
    Outside,
    check_picture,
    load,
    needing,
    read_data,
    say,
    show,
    show_json,
    within,
)


def calibrate(
    checkpoint: Checkpoint = None,
    data: Annotated[
        Path | None, typer.Option(metavar="D", help="Folder or file of annotated images; else generated scenes.")
    ] = None,
    format: Format = "auto",
    column: Columns = None,
    outside: Outside = False,
    split: Annotated[
        str | None,
        typer.Option(metavar="S", help="One that was not trained on; else all data, or the validation scenes."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(metavar="N", callback=within(2), help="Images, from the first; else all data, or 200 scenes."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="F.json", help="File or folder to write it into, else the checkpoint's folder."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Draw a reliability diagram, before and after, into it.")
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Fit how sure a checkpoint must be for a phrase to be present, and choose its threshold.

    Half of the images are fitted on, and the calibration error before and after is that of the other half. The result
    goes into the folder of a local checkpoint, or into --output, which `from_pretrained(calibration=…)` takes.
    """
    from florence_lite.cards.calibration import FILE
    from florence_lite.files import refuse_long_name

    if picture is not None:
        check_picture("--picture", picture)
    local = Path(checkpoint) if checkpoint is not None and Path(checkpoint).is_dir() else None
    file = output or local
    if file is not None:
        refuse_long_name(file, "--output")
    if file is not None and file.is_dir():
        file = file / FILE
    if file is not None and file.suffix.lower() != ".json":
        raise ValueError(f"--output {file}: the name must end in .json, or be that of a folder")
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"--output {file}: there is no folder {file.parent}")
    with needing("train,eval,vis" if picture is not None else "train,eval"):
        if picture is not None:
            import matplotlib.figure  # noqa: F401  before the work, not after it

        from florence_lite.train.calibrating import calibrate as fit

        florence = load(checkpoint, device)
        samples, what = _samples(data, format, column, outside, split)
        if data is None:
            count = count or 200
        number = len(samples) if count is None else min(count, len(samples))
        about = f"{what}, every other of {number} images"
        fitted = fit(florence, samples, count, about)
    for problem in fitted.problems:
        say(f"left out: {problem}")
    if file is not None:
        fitted.calibration.write(file)
    if picture is not None:
        fitted.draw(picture)
    if as_json:
        show_json(fitted.to_dict() | {"file": None if file is None else str(file)})
        return
    show(f"fitted on {fitted.present} phrases that mean something and {fitted.absent} that mean nothing")
    show(
        f"calibration error on {len(fitted.held_out)} phrases of other images: "
        f"{fitted.ece_before:.4f} before, {fitted.ece_after:.4f} after"
    )
    if file is not None:
        show(f"written to {file}")
    if local is None:
        show("for the checkpoint's card:")
        for line in fitted.calibration.to_toml().splitlines():
            show(line)
    if picture is not None:
        show(f"drawn in {picture}")


def _samples(data: Path | None, format: str, column: list[str] | None, outside: bool, split: str | None) -> tuple:
    """The annotated images, and what they are in words."""
    if data is None:
        if column or outside or format != "auto":
            raise ValueError("--format, --column and --outside belong to annotated images; give their folder as --data")
        from florence_lite.scenes import Scenes

        split = split or "validation"
        return Scenes(split), f"generated scenes ({split})"
    dataset, what = read_data(data, format, split, column, outside), f"{data.name}{f' ({split})' if split else ''}"
    for kind, times in Counter(problem.kind for problem in dataset.problems).items():
        say(f"data: {kind}: {times}")
    return dataset, what
