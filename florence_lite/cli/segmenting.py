"""`florence-lite segment`, `panoptic` and `remove`: outlines, maps of segments, and pictures without something."""

from __future__ import annotations

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
    Tile,
    check_picture,
    load,
    read_number,
    say,
    show,
    show_json,
    stoppable,
    tell_unknown,
    within,
)
from florence_lite.cli.inputs import Input, find_images
from florence_lite.cli.running import AnswerReport, absence, foreign_note, listing, picture_files

if TYPE_CHECKING:
    from PIL import Image

OneImage = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE",
        help="An image file, - for standard input or sample for the one that comes along.",
        show_default=False,
    ),
]


def segment(
    images: Images,
    phrase: Annotated[
        list[str] | None, typer.Option(metavar="P", help="What to outline; repeat --phrase for several. Else all.")
    ] = None,
    region: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="X0 Y0 X1 Y1", parser=read_number, help="Outline what is in this box, in pixels of the image."
        ),
    ] = None,
    threshold: Threshold = None,
    tile: Tile = None,
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Draw the outlines; of several images into OUT-1.png, OUT-2.png …"),
    ] = None,
) -> None:
    """Outline all objects of images, or what phrases name, each instance on its own."""
    from florence_lite.cards import task

    phrases = phrase or None
    if phrases and region is not None:
        raise ValueError("--phrase and --region exclude each other; give one of them, or none for all objects")
    if phrases:
        task("<OPEN_VOCABULARY_DETECTION>").prompt(phrases=phrases)
    found = find_images(images)
    files = picture_files(picture, found)
    florence = load(checkpoint, device, adapter)
    tell_unknown(florence.card, "<OPEN_VOCABULARY_DETECTION>", *(phrases or ()))
    report = AnswerReport(as_json)
    options: dict[str, Any] = {"keep_image": picture is not None, "threshold": threshold, "tile": tile}
    with stoppable(lambda: report.told_of(len(found))):
        for image, file in zip(found, files, strict=True):
            try:
                result = florence.segment(image.source, phrases=phrases, region=region, **options)
            except (ValueError, OSError) as error:
                report.failed(image.name, error)
            else:
                report.answered(image.name, result, file)
    report.finish(florence.card, len(found))


def panoptic(
    image: OneImage,
    thing: Annotated[
        list[str] | None,
        typer.Option(metavar="P", help="Phrase of countable objects; repeat --thing for several. Else all objects."),
    ] = None,
    stuff: Annotated[
        list[str] | None, typer.Option(metavar="P", help='Phrase of stuff, such as "the sky"; repeat --stuff.')
    ] = None,
    tile: Tile = None,
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
    picture: Annotated[Path | None, typer.Option(metavar="OUT.png", help="Draw the segments into this file.")] = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            metavar="IDS.png",
            help="Write the id of every pixel into this file, as COCO's panoptic PNG does; small ids look black.",
        ),
    ] = None,
) -> None:
    """Tell of every pixel of an image which thing or stuff it belongs to.

    With --json the answer is one object on standard output; its "coco" belongs to the picture of --ids.
    """
    given = _only_image(image)
    _check_outputs(given, {"--picture": picture, "--ids": ids})
    if ids is not None and ids.suffix.lower() != ".png":
        raise ValueError(f"--ids {ids}: the name must end in .png, which keeps every number as it is")
    florence = load(checkpoint, device, adapter)
    tell_unknown(florence.card, "<OPEN_VOCABULARY_DETECTION>", *(thing or ()), *(stuff or ()))
    result = florence.panoptic(given.source, things=thing or None, stuff=stuff or [], tile=tile)
    if picture is not None:
        _save("--picture", result.draw(), picture)
    if ids is not None:
        _save("--ids", result.to_png(), ids)
    if as_json:
        coco = result.to_coco(file_name=(ids or Path("ids.png")).name)
        show_json({"image": given.name, **result.to_dict(), "coco": coco["segments_info"]})
    else:
        width, height = result.size_wh
        show(f"{given.name}  panoptic  {width}×{height}")
        longest = max((len(segment.label) for segment in result.segments), default=0)
        for segment in result.segments:
            score = "    " if segment.score is None else f"{segment.score:.2f}"
            kind = "thing" if segment.is_thing else "stuff"
            show(f"  {segment.id:3}  {segment.label:{longest}}  {kind}  {score}  {segment.area} pixels")
        if not result.segments:
            show("  nothing found")
        for line in absence(result):
            show(f"  {line}")
        if result.dropped:
            show(f"  left out, as others hide most of them: {result.dropped}")
        if result.parse_errors:
            show(f"  parse errors in the answers, dropped or repaired: {result.parse_errors}")
        for what, file in (("drawn", picture), ("ids", ids)):
            if file is not None:
                show(f"  {what} in {file}")
    if result.foreign:
        say(foreign_note(florence.card, 1, 1))


def remove(
    image: OneImage,
    phrase: Annotated[str, typer.Argument(metavar="PHRASE", help="What to remove.", show_default=False)],
    output: Annotated[
        Path, typer.Option(metavar="OUT.png", help="Write the image without it into this file.", show_default=False)
    ],
    dilate: Annotated[
        int | None,
        typer.Option(
            metavar="N", callback=within(0), help="Pixels to paint around it; else a fiftieth of the shorter side."
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Paint over what a phrase names with a smooth fill from the colours around it.

    Where the phrase is absent the image is written as it was, and that is said. Another filling, by an inpainting
    model, is `Florence.remove` with inpaint=… in Python.
    """
    from florence_lite.inference.editing import check_removal

    given = _only_image(image)
    check_removal(given.source, phrase, None, dilate)
    _check_outputs(given, {"--output": output})
    florence = load(checkpoint, device, adapter)
    tell_unknown(florence.card, "<OPEN_VOCABULARY_DETECTION>", phrase)
    removal = florence.remove(given.source, phrase, dilate=dilate)
    _save("--output", removal.image, output)
    painted = int(removal.mask.sum())
    if as_json:
        about = {"output": str(output), "found": removal.found, "painted_pixels": painted}
        show_json({"image": given.name, **about, **removal.result.to_dict()})
    else:
        width, height = removal.result.size_wh
        show(f"{given.name}  remove  {width}×{height}")
        for line in listing(removal.result):
            show(f"  {line}")
        said = f"{painted} pixels painted over" if removal.found else "nothing to paint over, the image is unchanged"
        show(f"  {said}; written to {output}")
    if removal.result.foreign:
        say(foreign_note(florence.card, 1, 1))


def _only_image(argument: str) -> Input:
    found = find_images([argument])
    if len(found) != 1:
        raise ValueError(f"{argument} holds {len(found)} images; this command takes one")
    return found[0]


def _check_outputs(image: Input, files: dict[str, Path | None]) -> None:
    """Raises ValueError, naming the option, where a file cannot be written or would replace another one of the call."""
    taken: dict[Any, str] = {}
    if isinstance(image.source, str):
        taken[Path(image.source).resolve()] = "the image"
    for option, file in files.items():
        if file is None:
            continue
        check_picture(option, file)
        if (other := taken.setdefault(file.resolve(), option)) != option:
            raise ValueError(f"{option} {file} would overwrite {other}; choose another name")


def _save(option: str, picture: Image.Image, file: Path) -> None:
    try:
        picture.save(file)
    except (OSError, ValueError) as error:  # ValueError: too large for the format
        raise ValueError(f"{option} {file} cannot be written: {getattr(error, 'strerror', None) or error}") from None
