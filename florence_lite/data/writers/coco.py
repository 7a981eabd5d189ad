"""COCO JSON: `annotations/instances.json`, `annotations/captions.json` and `images/`.

Source: https://cocodataset.org/#format-data. Each split has files and a folder of its own. Ids count from 1 as the data
go. Shapes of several rings that are not merely apart are run lengths; ignored objects have `iscrowd`; a phrase is an
object's `caption`, a score its `score`; captions have a `length`. Images whose objects may not be all there are stand
in `instances_incomplete.json`, with LVIS's lists of the categories that were searched for, so that nobody takes them
for complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from florence_lite.answers import Polygons
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.readers.coco import CAPTION_LENGTHS, SEARCHED, union
from florence_lite.data.samples import Dataset
from florence_lite.data.writers.output import PARTS, Classes, Output
from florence_lite.geometry import box_area, mask_to_rle, polygon_area, rasterize

FORMATS = {
    "coco": frozenset(
        ("objects", "outlines", "phrases", "scores", "incomplete", "empty", "ignored", "captions", "more captions")
        + ("expressions",)  # of categories; the others are counted here
    )
}


def write(splits: Mapping[str, Dataset], output: Output) -> None:
    """The files of each split."""
    classes = Classes.of(splits.values(), output)
    splits = classes.sayable(splits)
    output.has_something = lambda a: any(a.captions) or bool(a.more_captions) or _says_objects(a, classes)
    folder = output.folder / "annotations"
    folder.mkdir()
    for split, dataset in splits.items():
        end = f"_{split}" if split else ""
        with ExitStack() as stack:
            whole, partial, captions = (
                stack.enter_context(_writing(folder / f"{name}{end}.json", classes.names if objects else None))
                for name, objects in (("instances", True), ("instances_incomplete", True), ("captions", False))
            )
            for number, (name, annotation) in enumerate(output.placed(dataset, f"images/{split}".rstrip("/")), start=1):
                width, height = annotation.size_wh
                image = {"id": number, "file_name": name, "width": width, "height": height}
                meant: set[str] = set()
                if _says_objects(annotation, classes):
                    file = whole if "objects" in annotation.exhaustive else partial
                    if file is partial:
                        searched, meant = _searched(annotation, classes)
                        image |= searched
                    _add_objects(file, image, annotation, classes, output)
                output.lose(PARTS["expressions"][0], len(annotation.expressions) - len(meant))
                _add_captions(captions, image, annotation, output)
        if not whole.counts["images"] and partial.counts["images"]:
            partial.file.rename(whole.file)
        elif whole.counts["images"] > 1 and not whole.counts["annotations"]:
            output.lose(PARTS["empty"][0], whole.counts["images"])  # of a file without annotations nobody believes it
    if not any(folder.iterdir()):
        folder.rmdir()


def _says_objects(annotation: Annotation, classes: Classes) -> bool:
    """Whether anything of the objects can be said: one of a category, that there are none, or which are not there."""
    items = (*annotation.objects, *annotation.ignored)
    return bool(classes) and (
        "objects" in annotation.exhaustive
        or any(item.label in classes.number_of for item in items)
        or any(each.phrase in classes.number_of and not each.objects for each in annotation.expressions)
    )


def _searched(annotation: Annotation, classes: Classes) -> tuple[dict[str, list[int]], set[str]]:
    """LVIS's lists of an image: categories that are known to be absent, and those that may not be complete; and the
    phrases that these say."""
    places: dict[str, set[int]] = {}
    for place, item in enumerate(annotation.objects):
        places.setdefault(item.label, set()).add(place)
    ignored = {item.label for item in annotation.ignored}
    told = {
        each.phrase: not each.objects
        for each in annotation.expressions
        if each.phrase in classes.number_of
        and each.phrase not in ignored
        and set(each.objects) == places.get(each.phrase, set())
    }
    absent, partly = SEARCHED
    return {
        absent: sorted({classes.number_of[label] + 1 for label, is_absent in told.items() if is_absent}),
        partly: sorted(set(range(1, len(classes.names) + 1)) - {classes.number_of[label] + 1 for label in told}),
    }, set(told)


def _add_objects(file: _File, image: dict[str, Any], annotation: Annotation, classes: Classes, output: Output) -> None:
    file.add("images", image)
    for is_ignored, items in ((0, annotation.objects), (1, annotation.ignored)):
        for number, item in classes.numbered(items, output):
            record = _object_record(item, annotation.size_wh)
            file.add("annotations", {**record, "category_id": number + 1, "iscrowd": is_ignored}, image["id"])


def _object_record(item: ObjectAnnotation, size_wh: tuple[int, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = item.box
    segmentation, area = _segmentation(item.polygons, size_wh)
    record: dict[str, Any] = {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": segmentation}
    record["area"] = float(box_area(item.box)) if area is None else area
    if item.phrase:
        record["caption"] = item.phrase
    if item.score is not None:
        record["score"] = item.score
    return record


def _segmentation(polygons: Polygons, size_wh: tuple[int, int]) -> tuple[list | dict[str, Any], float | None]:
    """Polygons, which COCO adds up, or run lengths of what they cannot say; and its area."""
    if not polygons:
        return [], None
    if union(polygons, size_wh) == polygons:
        return [[side for point in ring for side in point] for ring in polygons], sum(map(polygon_area, polygons))
    mask = rasterize(polygons, size_wh)
    return mask_to_rle(mask), float(mask.sum())


def _add_captions(file: _File, image: dict[str, Any], annotation: Annotation, output: Output) -> None:
    """The captions, each with its length; further ones need a first."""
    first, *longer = (*annotation.captions, "", "", "")[:3]
    further = annotation.more_captions if first.strip() else ()
    output.lose(PARTS["more captions"][0], len(annotation.more_captions) - len(further))
    short, detailed, paragraph = CAPTION_LENGTHS
    known = [(short, first), (detailed, longer[0]), (paragraph, longer[1]), *((short, each) for each in further)]
    known = [(length, words) for length, words in known if words.strip()]
    if known:
        file.add("images", image)
    for length, words in known:
        file.add("annotations", {"caption": words, "length": length}, image["id"])


# ---- one file --------------------------------------------------------------------------------------------------------


@dataclass
class _File:
    """A COCO file that grows on the disk: its images in their place, its annotations beside it until the end."""

    file: Path
    streams: dict[str, IO[str]]
    counts: dict[str, int] = field(default_factory=lambda: {"images": 0, "annotations": 0})

    def add(self, part: str, record: dict[str, Any], image_id: int | None = None) -> None:
        """A record of "images" or "annotations"; the latter are numbered."""
        if image_id is not None:
            record = {"id": self.counts[part] + 1, "image_id": image_id, **record}
        self.streams[part].write((",\n" if self.counts[part] else "") + json.dumps(record, ensure_ascii=False))
        self.counts[part] += 1


@contextmanager
def _writing(file: Path, categories: Iterable[str] | None) -> Iterator[_File]:
    """A file of these categories, None for one of captions; nothing is left of it where nothing was added."""
    beside = file.with_suffix(".annotations")
    with file.open("w+", encoding="utf-8") as stream, beside.open("w+", encoding="utf-8") as annotations:
        found = _File(file, {"images": stream, "annotations": annotations})
        stream.write('{"images": [\n')
        yield found
        stream.write('\n],\n"annotations": [\n')
        annotations.seek(0)
        shutil.copyfileobj(annotations, stream)
        stream.write("\n]")
        if categories is not None:
            records = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
            stream.write(f',\n"categories": {json.dumps(records, ensure_ascii=False)}')
        stream.write("}\n")
    beside.unlink()
    if not found.counts["images"]:
        file.unlink()
