"""What all writers share: pictures with names of their own, classes in one order, and the count of what gets lost."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from florence_lite.answers import Instance
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.readers.files import IMAGE_ENDINGS
from florence_lite.data.samples import Dataset, Sample
from florence_lite.image_files import open_image, orientation_of, shown_size, sizes_of
from florence_lite.images import load_image

JPEG_QUALITY = 95  # of a picture that is turned upright and encoded again
_LONGEST = 200  # bytes of a name
_FORBIDDEN = '/\\<>:"|?*'  # in names of files, on one system or another
_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}  # of others: the format's own name

UNREADABLE = "images that cannot be read"
NOTHING_TO_SAY = "images of which nothing is known that the format can say"
WITHOUT_CLASS = "objects without a category"
RENAMED = "spelling of categories"
LOOSE = "boxes other than those of their outlines"


def _objects_with(part: str) -> Callable[[Annotation], int]:
    return lambda annotation: sum(getattr(item, part) not in ("", (), None) for item in annotation.objects)


# What an annotation may say, each with the words that report its loss and how often it is said.
PARTS: dict[str, tuple[str, Callable[[Annotation], int]]] = {
    "objects": ("objects", lambda a: len(a.objects)),
    "outlines": ("outlines of objects", _objects_with("polygons")),
    "phrases": ("phrases of objects", _objects_with("phrase")),
    "scores": ("scores of objects", _objects_with("score")),
    "incomplete": ("word that objects may be missing", lambda a: bool(a.objects) and "objects" not in a.exhaustive),
    "empty": ("word that there are no objects", lambda a: a.is_negative),
    "ignored": ("ignored objects", lambda a: len(a.ignored)),
    "lines": ("lines of text", lambda a: len(a.lines)),
    "line scores": ("scores of lines", lambda a: sum(line.score is not None for line in a.lines)),
    "incomplete lines": ("word that lines may be missing", lambda a: bool(a.lines) and "lines" not in a.exhaustive),
    "no lines": ("word that there is no text", lambda a: "lines" in a.exhaustive and not a.lines),
    "ignored lines": ("ignored lines", lambda a: len(a.ignored_lines)),
    "captions": ("captions", lambda a: sum(map(bool, a.captions))),
    "more captions": ("further captions", lambda a: len(a.more_captions)),
    "wrong captions": ("wrong captions", lambda a: len(a.wrong_captions)),
    "expressions": ("phrases and what they mean", lambda a: len(a.expressions)),
    "questions": ("questions", lambda a: len(a.questions)),
    "regions": ("regions", lambda a: len(a.regions)),
    "stuff": ("stuff", lambda a: len(a.stuff)),
}


@dataclass(frozen=True)
class Written:
    """What was written.

    path: the folder or file. images: how many. left_out: what the format cannot say, or what could not be read → how
    often. hint: how others read it, "" where that needs no words. linked: how many images are links to their files.
    """

    path: Path
    images: int
    left_out: Mapping[str, int]
    hint: str = ""
    linked: int = 0


class Picture(NamedTuple):
    """content: bytes of the encoded picture, upright, or the file that holds them; ending: of its name."""

    content: bytes | Path
    ending: str

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass
class Output:
    """A folder on its way.

    folder: that is written. destination: where it will lie at the end. format: one of the writer's names. says: of
    `PARTS`, what it holds; the rest is counted. copy_images: files of images are copied, instead of linked.
    has_something: whether the format can say anything of an annotation; images of which it cannot are left out. tell:
    is called for each. linked: images that are links so far. without_dots: names have none before their ending.
    """

    folder: Path
    format: str
    says: frozenset[str]
    copy_images: bool = False
    has_something: Callable[[Annotation], bool] = lambda annotation: True
    tell: Callable[[], object] = lambda: None
    images: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    hint: str = ""
    linked: int = 0
    destination: Path | None = None
    without_dots: bool = False
    _names: set[str] = field(default_factory=set)
    _numbers: defaultdict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))

    def lose(self, kind: str, count: int = 1) -> None:
        """Count what the format cannot say."""
        if count:
            self.left_out[kind] += count

    def samples(self, dataset: Dataset) -> Iterator[tuple[str, Picture, Annotation]]:
        """The images that can be written: the stem of a name that no other has, the picture, what is known. What the
        others, and the parts that the format does not hold, would have said is counted."""
        for place, annotation in enumerate(dataset.annotations):
            self.tell()
            if not self.has_something(annotation):
                self.lose(NOTHING_TO_SAY)
                self._count(annotation, PARTS)
                continue
            try:
                sample = dataset[place]  # which may read it out of another file
                picture = picture_of(sample)
            except (ValueError, OSError):
                self.lose(UNREADABLE)
                continue
            self.count_unsaid(annotation)
            yield self._own_name(sample), picture, annotation
            self.images += 1

    def placed(self, dataset: Dataset, folder: str) -> Iterator[tuple[str, Annotation]]:
        """As `samples`, with the pictures put into a folder of the output: name of the file there, what is known."""
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        for stem, picture, annotation in self.samples(dataset):
            name = stem + picture.ending
            self._place(picture, self.folder / folder / name)
            yield name, annotation

    def count_loose(self, item: ObjectAnnotation) -> None:
        """Count the box of an object whose outline is written in its place, where it is another by over a pixel."""
        ends = Instance(polygons=item.polygons).bounds
        self.lose(LOOSE, max(abs(a - b) for a, b in zip(ends, item.box, strict=True)) > 1)

    def count_unsaid(self, annotation: Annotation) -> None:
        """Count the parts of an annotation that the format does not hold."""
        self._count(annotation, (part for part in PARTS if part not in self.says))

    def _count(self, annotation: Annotation, parts: Iterable[str]) -> None:
        for part in parts:
            kind, count = PARTS[part]
            self.lose(kind, int(count(annotation)))

    def _place(self, picture: Picture, path: Path) -> None:
        if isinstance(picture.content, bytes):
            path.write_bytes(picture.content)
            return
        if not self.copy_images:
            try:
                path.symlink_to(os.path.abspath(picture.content))
                self.linked += 1
                return
            except OSError:  # a file system, or a user, without links
                pass
        shutil.copyfile(picture.content, path)

    def _own_name(self, sample: Sample) -> str:
        """The stem of a file name after the sample's, which no other has in any spelling."""
        stem, parent = _stem_of(sample)
        if self.without_dots:
            stem, parent = stem.replace(".", "_"), parent.replace(".", "_")
        last = self._numbers[_compared(stem)]
        further = (f"{stem}_{number}" for number in itertools.count(last + 1))
        longer = [_clean(f"{parent}_{stem}")] if parent else []
        candidates = itertools.chain([stem, *longer] if last == 1 else (), further)
        name = next(each for each in candidates if _compared(each) not in self._names)
        if name not in (stem, *longer):
            self._numbers[_compared(stem)] = int(name.rpartition("_")[2])
        self._names.add(_compared(name))
        return name


def picture_of(sample: Sample) -> Picture:
    """The sample's picture as files of others hold it: its own bytes, or encoded anew where EXIF turns it, for others
    seldom do. Raises ValueError for a picture that cannot be read or has another size than its annotation."""
    image = sample.image
    if isinstance(image, Image.Image):
        return Picture(_encoded(sample.load(), "PNG"), ".png")
    with open_image(image) as opened:
        size, orientation, format = sizes_of(opened).upright, orientation_of(opened), opened.format
    if size != tuple(sample.annotation.size_wh):
        said = f"is {shown_size(size)}, its annotation for {shown_size(sample.annotation.size_wh)}"
        raise ValueError(f"image {sample.name} {said}")
    if orientation != 1:
        format = "JPEG" if format in ("JPEG", "MPO") else "PNG"
        return Picture(_encoded(load_image(image), format), _ENDINGS.get(format, ".png"))
    if isinstance(image, bytes):
        return Picture(image, _ENDINGS.get(format, f".{format.lower()}"))
    known = os.path.splitext(image)[1]
    return Picture(Path(image), known if known.lower() in IMAGE_ENDINGS else _ENDINGS.get(format, f".{format.lower()}"))


def _encoded(picture: Image.Image, format: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format, **({"quality": JPEG_QUALITY, "subsampling": 0} if format == "JPEG" else {}))
    return stream.getvalue()


# ---- names -----------------------------------------------------------------------------------------------------------


def _stem_of(sample: Sample) -> tuple[str, str]:
    """A stem after the image's name, and the name of its folder to tell it from others."""
    name = os.fspath(sample.image) if isinstance(sample.image, Path) else sample.name
    file, _, place = name.rpartition(".parquet!")
    if file:  # a row and column of a parquet file
        name = f"{file}_{place.split('/')[0]}"
    *folders, last = [part for part in name.replace("!", "/").replace(os.sep, "/").split("/") if part] or ["image"]
    ending = next((each for each in IMAGE_ENDINGS if last.lower().endswith(each)), "")
    return _clean(last.removesuffix(last[len(last) - len(ending) :]) if ending else last), (folders or [""])[-1]


def _clean(name: str) -> str:
    """A name that every file system takes, and that no reader changes."""
    kept = "".join(c if c.isprintable() and c not in _FORBIDDEN else "_" for c in name).strip(" .")
    while len(kept.encode()) > _LONGEST:
        kept = kept[:-1].strip(" .")
    return kept or "image"


def _compared(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


# ---- classes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classes:
    """The categories of some data sets in a stable order.

    number_of: label as annotations have it → number, from 0. names: as they are written.
    """

    number_of: dict[str, int]
    names: tuple[str, ...]

    @classmethod
    def of(cls, datasets: Iterable[Dataset], output: Output, spell: Callable[[str], str] = str) -> Classes:
        """Those that the data sets list or use. Space is one blank and what cannot be printed is left out; `spell`
        turns a name into one that the format takes."""
        labels: dict[str, None] = {}
        for dataset in datasets:
            labels |= dict.fromkeys(dataset.classes)
            for annotation in dataset.annotations:
                labels |= dict.fromkeys(item.label for item in (*annotation.objects, *annotation.ignored))
        number_of: dict[str, int] = {}
        names: dict[str, int] = {}
        for label in labels:
            words = " ".join(label.split())
            name = "".join(c for c in words if c.isprintable())
            name = spell(name) if name else ""
            if name:
                output.lose(RENAMED, name != label)
                number_of[label] = names.setdefault(name, len(names))
        return cls(number_of, tuple(names))

    def __bool__(self) -> bool:
        return bool(self.names)

    def sayable(self, splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
        """The data sets as a format that knows categories alone can tell them: a list of which an object without one
        is left out is not complete, and one of which nothing is left does not say that there is nothing."""
        return {
            name: replace(dataset, annotations=tuple(map(self._sayable, dataset.annotations)))
            for name, dataset in splits.items()
        }

    def _sayable(self, annotation: Annotation) -> Annotation:
        if all(item.label in self.number_of for item in annotation.objects):
            return annotation
        return replace(annotation, exhaustive=annotation.exhaustive - {"objects"}, negative="")

    def numbered(self, items: Iterable[ObjectAnnotation], output: Output) -> Iterator[tuple[int, ObjectAnnotation]]:
        """The objects that have a category, with its number; the others are counted."""
        for item in items:
            number = self.number_of.get(item.label)
            if number is None:
                output.lose(WITHOUT_CLASS)
            else:
                yield number, item


# ---- folders that appear at once -------------------------------------------------------------------------------------


@contextmanager
def building(output: Path) -> Iterator[Path]:
    """A folder beside `output` to write to, which takes its place at the end of the block, at once. An interrupted or
    failed block leaves nothing.

    Raises ValueError where `output` holds anything; OSError, saying that nothing is left, where it cannot be written.
    """
    if os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"{output} is there already; give an empty folder or a new name")
    partial = output.with_name(f"{output.name}.partial")
    if partial.exists():
        raise ValueError(f"{partial} is left of a run that was killed, or of one that goes on; delete it")
    try:
        partial.mkdir(parents=True)
        yield partial
        if output.is_dir():
            output.rmdir()
        partial.rename(output)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"{output} was not written ({error.strerror or error}), and nothing of it is left") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
