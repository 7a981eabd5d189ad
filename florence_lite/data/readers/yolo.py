"""YOLO text labels: boxes, segments, and boxes with keypoints.

Source: https://docs.ultralytics.com/datasets/. `data.yaml` (names, and where the images of each split lie) or
`classes.txt` / `obj.names` (a name a line) gives the classes. The labels of `images/a.jpg` are `labels/a.txt`, or
`a.txt` beside it: a line per object, `class cx cy width height` or `class x y x y x y …`, as shares of the image's
width and height; where `data.yaml` has a `kpt_shape`, a box and as many keypoints, which are not read.

An image without a label file has no objects if others of its folder have one and no label file is left over; nothing is
known of the images of a folder without label files: they are left out.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from florence_lite.data.annotation import ObjectAnnotation
from florence_lite.data.readers.files import (
    IMAGE_ENDINGS,
    beginning,
    choose_split,
    files_below,
    read_lines,
    split_words,
)
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.images import OUTSIDE, Images
from florence_lite.data.readers.records import ProblemLog, finished
from florence_lite.data.readers.settings import read_yaml
from florence_lite.data.samples import Dataset
from florence_lite.geometry import from_cxcywh

NAME = "yolo"
LOOKS_FOR = "data.yaml with names, or classes.txt or obj.names"
ENDINGS, DEPTH = (".yaml", ".yml", "classes.txt", ".names"), 1
_OTHER_LABELS = (".json", ".xml", ".csv")
OVER = 0.1  # shares by which an outline may leave its image
_SPLITS = ("train", "val", "valid", "validation", "test")


def accepts(file: Path) -> bool:
    """Whether a file looks like the list of classes of this format."""
    if file.suffix.lower() in (".yaml", ".yml"):
        return any(line.startswith("names:") for line in beginning(file, 2**20).splitlines())
    return file.name.lower() == "classes.txt" or file.suffix.lower() == ".names"


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    if len(files) > 1:
        yamls = [file for file in files if file.suffix.lower() in (".yaml", ".yml")]
        files = yamls if len(yamls) == 1 else files
    if len(files) > 1:
        raise ValueError(f"{root} has several lists of classes, {', '.join(map(log.name, files))}: read one of them")
    settings = _Settings.read(files[0])
    paths = list(dict.fromkeys(_images(settings, root, split, log, outside)))
    label_files = _LabelFiles()
    labels = {path: label_files.of(path) for path in paths}
    labelled = Counter(path.parent for path, file in labels.items() if file)
    astray = label_files.without_image({path.parent for path in paths}, set(labels.values()))
    for folder, files_astray in astray.items():
        said = f"{len(files_astray)} label files belong to no image, such as {files_astray[0].name}"
        log.add(files[0], log.name(folder), "label files without an image", f"{said}; no image there is taken as empty")
    images = Images(root, log)
    rows = []
    for path, file in labels.items():
        if not labelled[path.parent]:
            continue
        frame = images.frame(path, None, file or path, log.name(path))
        if frame is None:
            continue
        try:
            objects = tuple(_objects(file, frame, settings)) if file else ()
        except ValueError as error:
            log.add(file, log.name(path), "record left out", str(error))
            continue
        why = "its label file is empty" if file else "it has no label file, others of its folder have one"
        if file is None and path.parent in astray:
            frame.incomplete.add("objects")  # one of those label files may be meant for it
        if file is None and (other := label_files.of_another_format(path)):
            frame.lose("objects", "label file of another format", f"{log.name(other)} is not read")
        rows.append((path, frame.annotation(("objects",), why, objects=objects), log.name(path)))
    for folder, count in Counter(path.parent for path in paths if not labelled[path.parent]).items():
        said = f"0 of {count} images have a label file in {_label_folders(folder, log)}; left out"
        log.add(files[0], log.name(folder), "images without labels", said)
    described = (
        f"{log.name(files[0])}: {len(settings.classes)} classes",
        f"{len(rows)} images, {sum(labels[row[0]] is not None for row in rows)} with a label file",
    )
    return finished(rows, log, NAME, described, settings.classes.values())


@dataclass(frozen=True)
class _Settings:
    """What data.yaml, or a list of names, says.

    classes: number → name. keypoints: how many numbers stand behind a box, None where the file has none.
    places: split → folders, or lists of images. base: the folder that places are relative to.
    """

    file: Path
    classes: dict[int, str]
    keypoints: int | None = None
    places: dict[str, list[str]] | None = None
    base: str = ""

    @classmethod
    def read(cls, file: Path) -> _Settings:
        if file.suffix.lower() not in (".yaml", ".yml"):
            names = [line.strip() for line in read_lines(file)]
            while names and not names[-1]:
                names.pop()
            if not all(names):
                raise ValueError(f"{file}: line {names.index('') + 1} is empty; each line is the name of a class")
            return cls(file, dict(enumerate(names)))
        settings = read_yaml(file)
        names = settings.get("names") if isinstance(settings, dict) else None
        given = dict(enumerate(names)) if isinstance(names, list) else names
        try:
            classes = {int(number): _name(name) for number, name in given.items()}
        except (AttributeError, TypeError, ValueError):
            classes = {}
        if not classes or not all(classes.values()):
            raise ValueError(f"{file}: names is {names!r}; it must be a list of class names, or number: name")
        places = {
            word: [str(place) for place in (given if isinstance(given, list) else [given])]
            for word in settings
            if (given := settings[word]) and word.lower() not in ("names", "nc", "path", "kpt_shape", "download")
        }
        return cls(file, classes, _keypoints(settings, file), places, str(settings.get("path") or ""))


def _name(name: Any) -> str:
    """A class as it is written; "" for null and for what is no name."""
    return "" if not isinstance(name, str) or name.strip() in ("", "~", "null", "Null", "NULL") else name.strip()


def _keypoints(settings: dict, file: Path) -> int | None:
    shape = settings.get("kpt_shape")
    if shape is None:
        return None
    try:
        count, numbers = (int(each) for each in shape)
    except (TypeError, ValueError):
        count, numbers = 0, 0
    if count < 1 or numbers not in (2, 3):
        raise ValueError(f"{file}: kpt_shape is {shape!r}; it must be [keypoints, 2 or 3 numbers each]")
    return count * numbers


def _images(settings: _Settings, root: Path, split: str | None, log: ProblemLog, outside: bool) -> list[Path]:
    """The image files of a split, by data.yaml where it names folders, else by the names of folders."""
    given = settings.places or {}
    if not any(word in given for word in _SPLITS):
        return choose_split(files_below(root, IMAGE_ENDINGS), split, root, "folder of images", folders=True)
    places = [place for word in (split_words(split) if split else _SPLITS) for place in given.get(word, ())]
    if not places:
        raise ValueError(f"{settings.file} has no split {split!r}, only {', '.join(w for w in _SPLITS if w in given)}")
    images: list[Path] = []
    for place in places:
        path = _resolved(place, settings, root, log, outside)
        if path is not None and path.is_dir():
            images += files_below(path, IMAGE_ENDINGS)
        elif path is not None:
            images += [image for line in read_lines(path) if (image := _from_list(line, path, root, log, outside))]
    return images


def _resolved(place: str, settings: _Settings, root: Path, log: ProblemLog, outside: bool) -> Path | None:
    """The folder (or list of images) that data.yaml names: relative to its `path`, to itself, or, as some exports
    have it, with leading `../` that do not fit."""
    folder = settings.file.parent
    names = (place.replace("\\", "/"), place.replace("\\", "/").lstrip("./"))
    candidates = [Path(os.path.normpath(base / name)) for name in names for base in (folder / settings.base, folder)]
    there = [path for path in candidates if os.path.exists(path)]
    allowed = [path for path in there if outside or path.is_relative_to(root)]
    if not allowed:
        kind, what = "folder missing", "there is no such folder or list of images; left out"
        if there:
            kind, what = "folder outside", f"{there[0]} is outside of {root}; {OUTSIDE}"
        return log.add(settings.file, place, kind, what)
    return allowed[0]


def _from_list(line: str, file: Path, root: Path, log: ProblemLog, outside: bool) -> Path | None:
    name = line.strip().replace("\\", "/")
    if not name:
        return None
    there = [Path(os.path.normpath(file.parent / each)) for each in (name, name.lstrip("./"))]
    there = [path for path in there if os.path.isfile(path)]
    allowed = [path for path in there if outside or path.is_relative_to(root)]
    if not allowed:
        what = f"it is outside of {root}; {OUTSIDE}" if there else "there is no such file"
        return log.add(file, name, "image missing", what)
    return allowed[0]


class _LabelFiles:
    """The label files beside folders of images, found by the names of images in any spelling."""

    def __init__(self):
        self._listed: dict[Path, dict[str, Path]] = {}  # folder of labels → name as it is compared → file

    def of(self, image: Path) -> Path | None:
        """The label file of an image, None where it has none."""
        names = [_compared(name) for name in (f"{image.stem}.txt", f"{image.name}.txt")]
        folders = [self._files(folder) for folder in _label_folders_of(image.parent)]
        return next((files[name] for files in folders for name in names if name in files), None)

    def of_another_format(self, image: Path) -> Path | None:
        """A file called like the image that may hold its labels in another format."""
        places = (f / f"{image.stem}{ending}" for f in _label_folders_of(image.parent) for ending in _OTHER_LABELS)
        return next((path for path in places if os.path.isfile(path)), None)

    def without_image(self, folders: Iterable[Path], used: set[Path | None]) -> dict[Path, list[Path]]:
        """Folder of images → the files in its folders of labels that look like labels and belong to no image."""
        found = {}
        for folder in sorted(folders):
            files = [file for each in _label_folders_of(folder) for file in self._files(each).values()]
            astray = [file for file in files if file not in used and _is_label(file)]
            if astray:
                found[folder] = astray
        return found

    def _files(self, folder: Path) -> dict[str, Path]:
        if folder not in self._listed:
            there = sorted(folder.iterdir()) if folder.is_dir() else []
            texts = [path for path in there if path.suffix.lower() == ".txt" and path.is_file()]
            self._listed[folder] = {_compared(path.name): path for path in texts}
        return self._listed[folder]


def _compared(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_label(file: Path) -> bool:
    """Whether a text file begins as a label does, rather than as a list of names or images."""
    first = beginning(file, 4096).split("\n")[0].split()
    try:
        return len([float(word) for word in first]) >= 5
    except ValueError:
        return False


def _label_folders_of(folder: Path) -> list[Path]:
    """Where the labels of a folder of images are: where the last "images" in its path is "labels", in any capitals, or
    beside them."""
    parts = folder.parts
    at = next((at for at in range(len(parts) - 1, 0, -1) if parts[at].lower() == "images"), None)
    words = ("labels", "Labels", "LABELS") if at is not None else ()
    return [*(Path(*parts[:at], word, *parts[at + 1 :]) for word in words), folder]


def _label_folders(folder: Path, log: ProblemLog) -> str:
    return " or ".join(dict.fromkeys(log.name(each) for each in (_label_folders_of(folder)[0], folder)))


def _objects(file: Path, frame: ImageFrame, settings: _Settings) -> Iterator[ObjectAnnotation]:
    seen: set[tuple[str, ...]] = set()
    classes, size, frame = settings.classes, frame.size_wh, replace(frame, from_shares=True)
    for number, line in enumerate(read_lines(file), start=1):
        words, what = line.split(), f"line {number}"
        if not words:
            continue
        try:
            category, *shares = (float(word) for word in words)
        except ValueError:
            frame.lose("objects", "object left out", f"{line[:60]!r} is not all numbers", what)
            continue
        is_box = len(shares) == 4 + (settings.keypoints or 0)
        is_segment = settings.keypoints is None and len(shares) >= 6 and len(shares) % 2 == 0
        if not (is_box or is_segment):
            said = f"{len(shares)} numbers behind the class are neither a box nor a segment"
            if settings.keypoints is not None:
                said = f"{len(shares)} numbers behind the class are not a box and {settings.keypoints} of keypoints"
            frame.lose("objects", "object left out", said, what)
        elif category not in classes:
            said = f"class {words[0]} is none of the {len(classes)} names; left out"
            frame.lose("objects", "unknown category", said, what)
        elif not all(-1 <= share <= 2 for share in shares[:4]):
            said = f"{line[:60]!r} must hold shares of width and height, from 0 to 1; pixels are divided by "
            frame.lose("objects", "object left out", f"{said}{size[0]} and {size[1]}", what)
        elif is_segment and not all(-OVER <= share <= 1 + OVER for share in shares):
            said = f"{line[:60]!r} is no outline, whose shares lie from 0 to 1: keypoints need a kpt_shape"
            frame.lose("objects", "object left out", said, what)
        elif tuple(words) in seen:
            frame.report("duplicate object", "the same line is there before; left out", what)
        else:
            seen.add(tuple(words))
            points = [share * size[at % 2] for at, share in enumerate(shares)]
            box, outline = from_cxcywh(*points[:4]), []
            if is_segment:
                xs, ys = points[::2], points[1::2]
                box, outline = (min(xs), min(ys), max(xs), max(ys)), [list(zip(xs, ys, strict=True))]
            item = frame.object(classes[int(category)], box, outline, record=what)
            if item is not None:
                yield item
