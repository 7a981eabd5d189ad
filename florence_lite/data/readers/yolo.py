"""YOLO text labels: boxes and segments.

Source: https://docs.ultralytics.com/datasets/. `data.yaml` (names, and where the images of each split lie) or
`classes.txt` / `obj.names` (a name a line) gives the classes. The labels of `images/a.jpg` are `labels/a.txt`, or
`a.txt` beside it: a line per object, `class cx cy width height` or `class x y x y x y …`, as shares of the image's
width and height. An image without a label file has no objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.readers.files import IMAGE_ENDINGS, files_below, of_split, read_lines, split_words
from florence_lite.data.readers.frames import ImageFrame, Images
from florence_lite.data.readers.records import ProblemLog, finished
from florence_lite.data.samples import Dataset
from florence_lite.files import read_text
from florence_lite.geometry import from_cxcywh

NAME = "yolo"
LOOKS_FOR = "data.yaml with names, or classes.txt or obj.names"
ENDINGS, DEPTH = (".yaml", ".yml", "classes.txt", ".names"), 1
_SPLITS = ("train", "val", "valid", "validation", "test")


def accepts(file: Path) -> bool:
    """Whether a file looks like the list of classes of this format."""
    if file.suffix in (".yaml", ".yml"):
        return any(
            line.startswith("names:") for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        )
    return file.name == "classes.txt" or file.suffix == ".names"


def read(files: Sequence[Path], root: Path, split: str | None) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    if len(files) > 1:
        yamls = [file for file in files if file.suffix in (".yaml", ".yml")]
        files = yamls if len(yamls) == 1 else files
    if len(files) > 1:
        raise ValueError(f"{root} has several lists of classes, {', '.join(map(log.name, files))}: read one of them")
    settings = _settings(files[0])
    classes = settings["names"]
    images = Images(root, log)
    rows, labelled = [], 0
    for path in dict.fromkeys(_images(settings, files[0], root, split, log)):
        labels = _labels_of(path)
        file = labels or path
        frame = images.frame(path, None, file, log.name(path))
        if frame is None:
            continue
        objects = _objects(labels, frame, classes) if labels else ()
        labelled += labels is not None
        rows.append((path, Annotation(frame.size_wh, objects, exhaustive=frozenset({"objects"})), log.name(path)))
    described = f"{log.name(files[0])}: {len(classes)} classes", f"{len(rows)} images, {labelled} with a label file"
    return finished(rows, log, NAME, described, classes.values())


def _settings(file: Path) -> dict[str, Any]:
    """data.yaml, or the same made from a list of names. "names" is a dict of number → name."""
    if file.suffix not in (".yaml", ".yml"):
        names = [line.strip() for line in read_lines(file) if line.strip()]
        return {"names": dict(enumerate(names))}
    import yaml

    try:
        settings = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from None
    names = settings.get("names") if isinstance(settings, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(number, int) for number in names):
        raise ValueError(f"{file}: names is {names!r}; it must be a list of class names, or number: name")
    return {**settings, "names": {number: str(name) for number, name in names.items()}}


def _images(settings: dict, file: Path, root: Path, split: str | None, log: ProblemLog) -> list[Path]:
    """The image files of a split, by data.yaml where it names folders, else by the names of folders."""
    words = split_words(split) if split else _SPLITS
    places = [place for word in words if (given := settings.get(word)) for place in _listed(given)]
    if not any(settings.get(word) for word in _SPLITS):
        found = files_below(root, IMAGE_ENDINGS, depth=4)
        if split is None:
            return found
        chosen = [f for f in found if any(of_split(part, split) for part in f.relative_to(root).parts[:-1])]
        if not chosen:
            raise ValueError(f"{root} has no folder of images of the split {split!r}, and {file.name} names none")
        return chosen
    if not places:
        given = ", ".join(word for word in _SPLITS if settings.get(word))
        raise ValueError(f"{file} has no split {split!r}, only {given}")
    images: list[Path] = []
    for place in places:
        folder = _resolved(str(place), str(settings.get("path") or ""), file)
        if folder is None:
            log.add(file, str(place), "folder missing", "there is no such folder or list of images; left out")
        elif folder.is_dir():
            images += files_below(folder, IMAGE_ENDINGS, depth=4)
        else:
            images += [path for line in read_lines(folder) if (path := _from_list(line, folder, log))]
    return images


def _listed(given: Any) -> list:
    return given if isinstance(given, list) else [given]


def _resolved(place: str, base: str, file: Path) -> Path | None:
    """The folder (or list of images) that data.yaml names: relative to its `path`, to itself, or, as some exports
    have it, with leading `../` that do not fit."""
    bases = [file.parent / base, file.parent]
    candidates = [each / name for name in (place, place.lstrip("./")) for each in bases]
    return next((path for path in candidates if path.exists()), None)


def _from_list(line: str, file: Path, log: ProblemLog) -> Path | None:
    name = line.strip()
    if not name:
        return None
    for path in (file.parent / name, file.parent / name.lstrip("./")):
        if path.is_file():
            return path
    return log.add(file, name, "image missing", "there is no such file")


def _labels_of(image: Path) -> Path | None:
    """The label file of an image, None where it has none."""
    parts = list(image.with_suffix(".txt").parts)
    places = [image.with_suffix(".txt")]
    if "images" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("images")
        places.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]))
    return next((path for path in places if path.is_file()), None)


def _objects(file: Path, frame: ImageFrame, classes: dict[int, str]) -> tuple[ObjectAnnotation, ...]:
    objects, seen = [], set()
    width, height = frame.size_wh
    for number, line in enumerate(read_lines(file), start=1):
        words, what = line.split(), f"line {number}"
        if not words:
            continue
        try:
            category, *shares = (float(word) for word in words)
        except ValueError:
            frame.report("object left out", f"{line!r} is not all numbers", what)
            continue
        is_box, is_segment = len(shares) == 4, len(shares) >= 6 and len(shares) % 2 == 0
        if not (is_box or is_segment):
            frame.report(
                "object left out", f"{len(shares)} numbers behind the class are neither a box nor a segment", what
            )
        elif category not in classes:
            frame.report("unknown category", f"class {words[0]} is none of the {len(classes)} names; left out", what)
        elif max(shares) > 2 or min(shares) < -1:
            frame.report("object left out", f"{line!r} must hold shares of width and height, from 0 to 1", what)
        elif tuple(words) in seen:
            frame.report("duplicate object", "the same line is there before; left out", what)
        else:
            seen.add(tuple(words))
            if is_box:
                box, polygons = from_cxcywh(*shares), ()
            else:
                xs, ys = shares[::2], shares[1::2]
                box = (min(xs), min(ys), max(xs), max(ys))
                polygons = [[(x * width, y * height) for x, y in zip(xs, ys, strict=True)]]
            pixels = [share * side for share, side in zip(box, (width, height, width, height), strict=True)]
            item = frame.object(classes[int(category)], pixels, polygons, record=what)
            objects += [] if item is None else [item]
    return tuple(objects)
