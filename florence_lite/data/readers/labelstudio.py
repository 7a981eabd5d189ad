"""Label Studio's JSON, of tasks to import and of an export after people corrected them.

A list of tasks, each with `data` that names the image, and `annotations` by people or `predictions` of models with
results: boxes (`rectanglelabels`, also turned), outlines (`polygonlabels`), painted masks (`brushlabels`), and texts. A
text of a place is a line of text, or, by the name of its control, an object's `phrase` or a region's `description`; a
text of the whole image is its `caption`, `detailed_caption` or `paragraph`. Places are percent of the image's sides.

What a person annotated counts before predictions, and is all there is of what the tasks of the file label; a prediction
is not, unless the task says so (`data.exhaustive`, as our writer has it). Source: https://labelstud.io/guide/export.
"""

from __future__ import annotations

import math
import mmap
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from florence_lite.data.annotation import LISTS, Annotation, ObjectAnnotation, Region, TextLine
from florence_lite.data.readers.brush import brush_to_mask
from florence_lite.data.readers.files import IMAGE_ENDINGS, choose_split
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.images import Images
from florence_lite.data.readers.records import ProblemLog, Unclear, caption_levels, finished, label_of, size_of
from florence_lite.data.samples import Dataset
from florence_lite.files import read_json
from florence_lite.geometry import mask_to_rings

NAME = "labelstudio"
LOOKS_FOR = 'a .json list of tasks with "data" and "annotations" or "predictions"'
ENDINGS, DEPTH = (".json",), 1
CAPTIONS = ("caption", "detailed_caption", "paragraph")  # names of controls, as our writer calls them
PHRASE, DESCRIPTION, LINE = "phrase", "description", "transcription"
_IMAGE_KEYS = ("image", "img", "photo", "picture", "ocr", "url")
_PLACES = ("rectanglelabels", "polygonlabels", "brushlabels", "labels")


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if not text[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            return False
        answers = (b'"annotations"', b'"predictions"')
        return text.find(b'"data"') >= 0 and any(text.find(key) >= 0 for key in answers)


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    images = Images(root, log, files, outside)
    rows: list[tuple] = []
    described: list[str] = []
    seen: dict[Path, int] = {}
    for file in choose_split(files, split, root, "file of tasks"):
        tasks = read_json(file)
        if not isinstance(tasks, list):
            raise ValueError(f"{file} is no list of tasks; is it an export of Label Studio as JSON?")
        labels = _labelled(tasks)
        before = len(rows)
        for number, task in enumerate(tasks):
            what = f"task {task.get('id', number)}" if isinstance(task, dict) else f"task {number}"
            try:
                row = _row(task, what, labels, file, images, log)
            except Unclear as error:
                log.add(file, what, "record left out", str(error))
                continue
            if row is None:
                continue
            path, annotation, name = row
            if path in seen:
                log.add(file, what, "duplicate image", f"{name} is that of a task before; the first is taken")
                if annotation != rows[seen[path]][1]:  # which of the two is true is not known
                    rows[seen[path]] = path, replace(rows[seen[path]][1], exhaustive=frozenset(), negative=""), name
                continue
            seen[path] = len(rows)
            rows.append((path, annotation, name))
        described.append(f"{log.name(file)}: {len(rows) - before} images")
    return finished(rows, log, NAME, [*described, images.described()])


def _labelled(tasks: list) -> set[str]:
    """Of "objects" and "lines", those that any task of a file has: a person who sees none says that there is none."""
    found = set()
    for task in tasks:
        for answer in _answers(task, "annotations") + _answers(task, "predictions"):
            results = answer.get("result")
            for result in results if isinstance(results, list) else ():
                value = result.get("value") if isinstance(result, dict) else None
                if isinstance(value, dict) and result.get("type") in _PLACES and result.get("from_name") != LINE:
                    found.add("lines" if result.get("from_name") == "line" else "objects")
                if isinstance(value, dict) and "text" in value and result.get("from_name") == LINE:
                    found.add("lines")
    return found


def _answers(task: Any, key: str) -> list[dict]:
    """The annotations or predictions of a task; cancelled ones say nothing."""
    listed = task.get(key) if isinstance(task, dict) else None
    listed = listed if isinstance(listed, list) else []
    return [each for each in listed if isinstance(each, dict) and not each.get("was_cancelled")]


def _row(
    task: Any, what: str, labels: set[str], file: Path, images: Images, log: ProblemLog
) -> tuple[Path, Annotation, str] | None:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        raise Unclear('it has no "data"')
    names = _image_names(data)
    near = (file.parent, file.parent / "images")
    path = None
    for name in names:
        try:
            path = images.find(name, file, near)
            break
        except Unclear as error:
            reason = error
    if path is None:
        return log.add(file, what, "image missing", str(reason))
    by_people, by_models = _answers(task, "annotations"), _answers(task, "predictions")
    answers = by_people or by_models
    if len(answers) > 1:
        kind = "annotations" if by_people else "predictions"
        log.add(file, what, "another opinion left out", f"it has {len(answers)} {kind}; the first counts")
    answers.sort(key=lambda each: not each.get("ground_truth"))
    answer = answers[0] if answers else {}
    results = answer.get("result", [])
    if not isinstance(results, list):
        raise Unclear(f"its result is a {type(results).__name__}, no list")
    dicts = [result for result in results if isinstance(result, dict)]
    sizes = {size_of(each.get("original_width"), each.get("original_height")) for each in dicts} - {None}
    if len(sizes) > 1:
        raise Unclear(f"its results are for images of several sizes: {sorted(sizes)}")
    frame = images.frame(path, sizes.pop() if sizes else None, file, what)
    if frame is None:
        return None
    told = data.get("exhaustive")
    edited = answer.get("lead_time") is not None or answer.get("updated_by") is not None
    if isinstance(told, list) and not (by_people and edited):
        complete = set(map(str, told)) & set(LISTS)
    else:
        complete = labels if by_people else set()
    return path, _Results(replace(frame, from_shares=True)).annotation(results, complete), log.name(path)


def _image_names(data: dict) -> list[str]:
    """What a task calls its image, as it stands and without what Label Studio puts round a file's name."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    key = next((key for key in (*_IMAGE_KEYS, *texts) if _is_image(texts.get(key, ""))), None)
    key = key or next((key for key in _IMAGE_KEYS if key in texts), None)
    if key is None:
        raise Unclear(f"its data name no image: {', '.join(map(str, data))}")
    address = texts[key]
    names = [address]
    try:
        parted = urlsplit(address)
        names += parse_qs(parted.query).get("d", [])  # /data/local-files/?d=folder/a.jpg
        names.append(unquote(parted.path).lstrip("/"))
    except ValueError:
        pass
    names += [re.sub(r"^[0-9a-f]{8}-", "", name.rsplit("/", 1)[-1]) for name in names[1:]]  # upload/1/12345678-a.jpg
    return list(dict.fromkeys(filter(None, names[1:]))) or [address]


def _is_image(address: str) -> bool:
    return unquote(address).split("&")[0].lower().endswith(IMAGE_ENDINGS)


@dataclass
class _Results:
    """What the results of an answer say about one image."""

    frame: ImageFrame
    objects: list[ObjectAnnotation] = field(default_factory=list)
    lines: list[TextLine] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    captions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def annotation(self, results: list, complete: set[str]) -> Annotation:
        places: dict[Any, list[dict]] = defaultdict(list)  # results of one place have one id
        for number, result in enumerate(results):
            value = result.get("value") if isinstance(result, dict) else None
            if not isinstance(value, dict):
                self.frame.lose("objects", "result left out", f"{str(result)[:60]} has no value", f"result {number}")
            elif "text" in value and not _has_place(value):
                self._caption(result)
            elif not _has_place(value) and result.get("type") in ("choices", "rating", "number", "taxonomy"):
                what = f"a {result['type']} is no part of annotations"
                self.frame.report("result left out", what, f"result {number}")
            else:
                places[str(result.get("id", number))].append(result)
        for number, group in places.items():
            self._place(group, f"result {number}")
        firsts = [(self.captions[name] or [""])[0] for name in CAPTIONS]
        further = self.captions[CAPTIONS[0]][1:]
        return self.frame.annotation(
            complete,
            "its annotation has no objects",
            objects=tuple(self.objects),
            lines=tuple(self.lines),
            regions=tuple(self.regions),
            captions=caption_levels(*firsts),
            more_captions=tuple(further),
        )

    def _caption(self, result: dict) -> None:
        name = result.get("from_name") if result.get("from_name") in CAPTIONS else CAPTIONS[0]
        self.captions[name] += _texts(result["value"])

    def _place(self, group: list[dict], what: str) -> None:
        """What the results say about one place."""
        values = [result["value"] for result in group]
        label, text, name = _label(values), " ".join(t for v in values for t in _texts(v)), _name_of_text(group)
        part = "lines" if name == LINE or (group[0].get("from_name") == "line") else "objects"
        rings = self._rings(values[0], group[0], part, what)
        if not rings:
            return
        points = np.concatenate([np.array(ring) for ring in rings])
        box = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        score = next((r["score"] for r in group if r.get("score") is not None), None)
        outlines = () if _is_upright(values[0]) else rings
        if part == "lines":
            ring = rings[0] if len(rings[0]) == 4 else _corners(box)
            if not text:
                self.frame.lose("lines", "line left out", "it has no text", what)
            elif quad := self.frame.quad([side for point in ring for side in point], what):
                self.lines.append(TextLine(text, quad, self.frame.score(score, what)))
        elif name == DESCRIPTION:
            if text and (inside := self.frame.box(box, what, part="regions")):
                self.regions.append(Region(text, inside))
        elif not label and not text:
            self.frame.lose("objects", "object left out", "it has no label", what)
        elif item := self.frame.object(label, box, outlines, text, what, score):
            self.objects.append(item)

    def _rings(self, value: dict, result: dict, part: str, what: str) -> list[list[tuple[float, float]]]:
        """The outline in the record's pixels; [], reported, where there is none that is understood."""
        width, height = (side / factor for side, factor in zip(self.frame.size_wh, self.frame.scale, strict=True))
        try:
            if result.get("image_rotation"):
                raise ValueError(f"the image was turned by {result['image_rotation']} degrees in Label Studio")
            if "rle" in value:
                mask = brush_to_mask(value["rle"], (round(width), round(height)))
                rings = [[tuple(point) for point in ring.tolist()] for ring in mask_to_rings(mask)]
            elif "points" in value:
                rings = [[(float(x) * width / 100, float(y) * height / 100) for x, y in value["points"]]]
            else:
                rings = [_rectangle(value, width, height)]
            if not rings or min(map(len, rings)) < 3 or not np.isfinite(np.concatenate(rings)).all():
                raise ValueError("its outline has no three points of finite numbers")
            return rings
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            said = str(error) if not isinstance(error, KeyError) else f"it is of a kind that is not read: {list(value)}"
            self.frame.lose(part, "result left out", said, what)
            return []


def _has_place(value: dict) -> bool:
    return any(key in value for key in ("x", "points", "rle"))


def _is_upright(value: dict) -> bool:
    """Whether a place is a box and nothing more exact."""
    return "x" in value and not value.get("rotation")


def _texts(value: dict) -> list[str]:
    text = value.get("text")
    listed = text if isinstance(text, list) else [text]
    return [words for each in listed if (words := label_of(each))]


def _label(values: Sequence[dict]) -> str:
    """The first label of the results of a place."""
    for value in values:
        for key, labels in value.items():
            if key.endswith("labels") and isinstance(labels, list) and labels:
                return label_of(labels[0])
    return ""


def _name_of_text(group: Sequence[dict]) -> str:
    """Which kind of text a place has: that of its control, `LINE` for one of another name, "" for none."""
    names = [str(result.get("from_name")) for result in group if "text" in result["value"]]
    if not names:
        return ""
    return names[0] if names[0] in (PHRASE, DESCRIPTION) else LINE


def _rectangle(value: dict, width: float, height: float) -> list[tuple[float, float]]:
    """The corners of a box in percent, which may be turned clockwise about its first."""
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    w, h = float(value["width"]) * width / 100, float(value["height"]) * height / 100
    angle = math.radians(float(value.get("rotation") or 0))
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in ((0, 0), (w, 0), (w, h), (0, h))]


def _corners(box: Sequence[float]) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
