"""What is near a threshold, for a person to look at: a page, a picture, and a file of annotations to correct."""

from __future__ import annotations

import base64
import heapq
import html
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from PIL import Image, ImageDraw

from florence_lite.answers import Instance
from florence_lite.data import read_dataset
from florence_lite.data.readers.annotated import PARTS
from florence_lite.data.samples import Sample
from florence_lite.data.sources import read_source
from florence_lite.data.writers.jsonl import annotation_record
from florence_lite.image_files import open_image
from florence_lite.images import load_image
from florence_lite.printable import printable
from florence_lite.refine.judged import ImageRows, JudgedRow
from florence_lite.refine.stage import Stage
from florence_lite.refine.store import write_part
from florence_lite.results.pictures import draw, tiled

PAGE, PICTURE, TO_CHECK, PICTURES = "near.html", "near.png", "to_check.jsonl", "to_check_images"
TILE = 360  # pixels of the longer side of an image on the sheet
COLUMNS = 4
IN_PICTURE = 24  # images in the picture; the page has all
MOST_SHOWN, FARTHEST = 6, 0.2  # instances of an image that are shown, the nearest first; those that are far are not
KEPT, DROPPED = (0, 150, 70), (220, 30, 30)

_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}  # of formats that are called otherwise
_LISTS = {"<OD>": "objects", "<REGION_PROPOSAL>": "objects", "<OCR_WITH_REGION>": "lines"}


class Near(NamedTuple):
    """An instance, or an answer in words (place None), and how far above the threshold of a stage it is."""

    distance: float
    margin: float
    stage: str
    row: JudgedRow
    place: int | None

    @property
    def is_kept(self) -> bool:
        return not self.row.is_out and (self.place is None or self.place in self.row.left)

    @property
    def instance(self) -> Instance:
        result = self.row.row.result
        return Instance(result.text, score=result.score) if self.place is None else result.instances[self.place]


class NearThreshold:
    """The images that have something nearest to a threshold, at most so many.

    stages: those that judge; the ones without a threshold of scores have no margins.
    """

    def __init__(self, stages: Sequence[Stage], most: int):
        self.stages, self.most = stages, most
        self._heap: list[tuple[float, int, list[Near]]] = []

    def offer(self, image: ImageRows) -> None:
        """Keep a judged image if it is among the nearest so far."""
        if not self.most or image.is_of_person:
            return
        near = sorted(self._near(image), key=lambda each: (each.distance, each.row.id, each.place or 0))
        if near:
            shown = near[:1] + [each for each in near[1:MOST_SHOWN] if each.distance <= FARTHEST]
            entry = -near[0].distance, image.image.image_id, shown
            (heapq.heappush if len(self._heap) < self.most else heapq.heappushpop)(self._heap, entry)

    def found(self) -> list[list[Near]]:
        """Of each image what is near, the nearest first."""
        return [near for _, _, near in sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))]

    def _near(self, image: ImageRows) -> Iterator[Near]:
        """All but what was dropped for another reason than its margin."""
        for row in image.rows:
            dropped = {drop.place: drop.stage for drop in row.drops}
            for stage in self.stages:
                for place, margin in stage.margins(row):
                    if dropped.get(place, stage.NAME) == stage.NAME and dropped.get(None, stage.NAME) == stage.NAME:
                        yield Near(abs(margin), margin, stage.NAME, row, place)


def write_sheet(found: list[list[Near]], folder: Path, scratch: Path, output: Path) -> list[str]:
    """Write page, picture and annotations to correct into `folder`; returns what could not be shown, a line each.

    scratch: an empty folder. output: what the folder will be called.
    """
    tiles, figures, told = [], [], []
    for near in found:
        image = near[0].row.row.image
        try:
            tile = _tile(near, read_source(image.source))
        except (OSError, ValueError) as error:
            told.append(f"not on the contact sheet: {error}")
            tile = Image.new("RGB", (TILE, TILE // 2), "lightgrey")
        tiles.append(tile)
        figures.append(_figure(near, tile))
    (folder / PAGE).write_text(_page(figures, output), encoding="utf-8")
    tiled([_named(*pair) for pair in zip(tiles[:IN_PICTURE], found, strict=False)], COLUMNS).save(folder / PICTURE)
    return told + _write_to_check(found, folder, scratch)


# ---- pictures --------------------------------------------------------------------------------------------------------


def _tile(near: list[Near], content: bytes) -> Image.Image:
    """The image with what is near on it, green if it is kept and red if not; words stand below, and on the region that
    they are about."""
    placed = [(each, _placed(each)) for each in near]
    shown = [each for each, instance in placed if instance.bounds is not None]
    instances = [instance for _, instance in placed if instance.bounds is not None]
    colors = [KEPT if each.is_kept else DROPPED for each in shown]
    words = "\n".join(each.instance.label for each, instance in placed if instance.bounds is None)
    return draw(load_image(content), instances, near[0].row.size_wh, words, TILE, colors)


def _placed(near: Near) -> Instance:
    """The instance; words about a region as one that lies there."""
    region = near.row.question.region
    is_about_region = near.place is None and region is not None
    return replace(near.instance, box=region) if is_about_region else near.instance


def _named(tile: Image.Image, near: list[Near]) -> Image.Image:
    """The tile under a line that says what is nearest."""
    named = Image.new("RGB", (tile.width, tile.height + 14), "white")
    named.paste(tile, (0, 14))
    words = f"{_short(near[0])}  {Path(near[0].row.row.image.source).name}"
    ImageDraw.Draw(named).text((0, 0), words, fill=KEPT if near[0].is_kept else DROPPED)
    return named


def _short(near: Near) -> str:
    return f"{near.margin:+.3f} {'kept' if near.is_kept else 'dropped'}"


def _figure(near: list[Near], tile: Image.Image) -> str:
    buffer = io.BytesIO()
    tile.save(buffer, format="JPEG", quality=85)
    picture = base64.b64encode(buffer.getvalue()).decode("ascii")
    rows = "".join(map(_line, near))
    heads = "".join(f"<th>{head}</th>" for head in ("distance", "label", "score", "verdict", "task", "row"))
    name = _text(near[0].row.row.image.source)
    return (
        f'<figure><img src="data:image/jpeg;base64,{picture}" alt="{name}"/><figcaption>{name}</figcaption>'
        f"<table><tr>{heads}</tr>{rows}</table></figure>"
    )


def _line(near: Near) -> str:
    score = "" if near.instance.score is None else f"{near.instance.score:.3f}"
    cells = (f"{near.margin:+.3f}", near.instance.label, score, _verdict(near), near.row.task, str(near.row.id))
    shown = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
    return f'<tr class="{"kept" if near.is_kept else "dropped"}">{shown}</tr>'


def _verdict(near: Near) -> str:
    if near.is_kept:
        return "kept"
    return next(drop.reason for drop in near.row.drops if drop.place in (near.place, None))


def _text(words: str) -> str:
    return html.escape(printable(words))


def _page(figures: Sequence[str], output: Path) -> str:
    folder, file = html.escape(str(output)), html.escape(str(output / TO_CHECK))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><title>Near the threshold</title><style>
body {{ font: 14px sans-serif; margin: 1.5em; max-width: 90em }}
main {{ display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start }}
figure {{ margin: 0; padding: .5em; border: 1px solid #ccc; max-width: 42em }}
img {{ max-width: 100% }}
figcaption {{ overflow-wrap: anywhere; font-weight: bold }}
td, th {{ text-align: left; padding: 0 .6em 0 0 }}
.kept td:first-child {{ color: #009646 }} .dropped td:first-child {{ color: #dc1e1e }}
</style></head><body>
<h1>Near the threshold</h1>
<p>{len(figures)} images, those with the smallest distance between a score and its threshold first. Green is kept, red
is dropped. Where most of the red is right, lower the threshold; where much of the green is wrong, raise it.</p>
<h2>How corrections come back</h2>
<ol>
<li>Copy <code>{file}</code> out of the folder (and <code>{PICTURES}/</code>, if it is there): it has a line for each of
these images, with what is kept and what is near.</li>
<li>In each line take out what is wrong and add what is missing; <code>"objects": []</code> says that there are none.
Every line that stays counts as looked at: take out those that you did not look at. Any other format that
<code>florence-lite data check</code> reads does too, such as COCO from a labelling tool, beside its images.</li>
<li>Run the same command again with <code>--corrections FILE</code>. In those images the file wins over the model, and
no filter applies.</li>
</ol>
<main>
{os.linesep.join(figures)}
</main>
<p>Made of <code>{folder}</code>.</p>
</body></html>
"""


# ---- annotations to correct ------------------------------------------------------------------------------------------


def _write_to_check(found: list[list[Near]], folder: Path, scratch: Path) -> list[str]:
    """A line for each image with what is kept of the rows that have something near, and what is near. Images are named
    by their whole paths, so that the file may be moved."""
    lines, told = [], []
    for near in found:
        image = near[0].row.row.image
        part = scratch / f"{image.image_id}"
        records = list(_records(near))
        write_part(part / PARTS, records)
        try:
            sample = read_dataset(part, "annotated")[0]
            name = _file_of(sample, image.image_id, folder)
        except (OSError, ValueError) as error:
            told.append(f"not in {TO_CHECK}: {error}")
            continue
        complete = {_LISTS[record["task"]] for record in records if record["task"] in _LISTS}
        annotation = replace(sample.annotation, exhaustive=frozenset(complete))  # once a person has looked at it
        lines.append(json.dumps({"image": name, **annotation_record(annotation)}, ensure_ascii=False) + "\n")
    (folder / TO_CHECK).write_text("".join(lines), encoding="utf-8", newline="\n")
    return told


def _records(near: list[Near]) -> Iterator[dict[str, Any]]:
    """The rows that have something near, with the instances that are kept or near."""
    for row in {each.row.id: each.row for each in near}.values():
        places = set(row.left) | {each.place for each in near if each.row is row and each.place is not None}
        yield {**row.record, "instances": [row.record["instances"][place] for place in sorted(places)]}


def _file_of(sample: Sample, number: int, folder: Path) -> str:
    """Where the image lies; one that lies in another file is written beside the annotations, as it is, so that it is
    known again by its content."""
    if not isinstance(sample.image, bytes):
        return os.path.abspath(cast(Path, sample.image))
    with open_image(sample.image) as opened:
        kind = opened.format
    path = folder / PICTURES / f"{number}.{_ENDINGS.get(kind, kind.lower())}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(sample.image)
    return f"{PICTURES}/{path.name}"
