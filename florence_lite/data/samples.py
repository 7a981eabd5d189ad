"""Data sets: annotated images behind one interface, whatever files they come from.

dataset = read_dataset("photos")                 # the format is recognised
dataset[0].annotation, dataset[0].load()
dataset.summary(), dataset.problems              # what is there, and what was left out or repaired
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

from PIL import Image

from florence_lite.data.annotation import Annotation
from florence_lite.images import load_image


@dataclass(frozen=True)
class Sample:
    """One annotated image.

    image: its file, the bytes of a file, or the picture itself.
    annotation: in pixels of that image, upright.
    name: file name or record id, for messages and reports.
    """

    image: Path | bytes | Image.Image
    annotation: Annotation
    name: str

    def load(self) -> Image.Image:
        """The picture, RGB and upright. Raises what `florence_lite.images.load_image` raises, and ValueError where it
        has another size than its annotation says."""
        image = load_image(self.image)
        if image.size != tuple(self.annotation.size_wh):
            raise ValueError(f"image {self.name} is {image.size}, its annotation is for {self.annotation.size_wh}")
        return image


@dataclass(frozen=True)
class Problem:
    """Something of a data set that was left out or repaired.

    file: the file that says it; record: the entry of that file (an id, a line, an image's name).
    kind: what happened, in the same words for every case of its kind; what: this case, with the values.
    """

    file: str
    record: str
    what: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: {self.kind}: {self.what}"


@dataclass(frozen=True)
class Dataset(Sequence[Sample]):
    """Annotated images in the order of their files. `dataset[i]` is a `Sample`, `dataset[a:b]` a shorter `Dataset`.

    images: files, their bytes or pictures, possibly read only when one is asked for; annotations and names: of the same
        length.
    format: name of the reader; files: what it read, as one line of text each.
    classes: names of the categories, in the order of the data set's own list where it has one.
    problems: what was left out or repaired.

    Raises ValueError where the lengths differ.
    """

    images: Sequence[Path | bytes | Image.Image]
    annotations: tuple[Annotation, ...]
    names: tuple[str, ...]
    format: str = ""
    files: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __post_init__(self):
        lengths = len(self.images), len(self.annotations), len(self.names)
        if len(set(lengths)) > 1:
            raise ValueError(f"a data set has {lengths[0]} images, {lengths[1]} annotations and {lengths[2]} names")
        if not self.classes:
            found = dict.fromkeys(item.label for a in self.annotations for item in a.objects if item.label)
            object.__setattr__(self, "classes", tuple(found))

    @classmethod
    def of(cls, samples: Sequence[Sample], **more: Any) -> Dataset:
        """The data set of some samples; `more` are further fields of it."""
        images, annotations, names = (
            [s.image for s in samples],
            [s.annotation for s in samples],
            [s.name for s in samples],
        )
        return cls(images, tuple(annotations), tuple(names), **more)

    def __len__(self) -> int:
        return len(self.annotations)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Sample | Dataset:
        if not isinstance(index, slice):
            return Sample(self.images[index], self.annotations[index], self.names[index])
        numbers = range(len(self))[index]
        return Dataset(
            _Chosen(self.images, numbers),
            self.annotations[index],
            self.names[index],
            self.format,
            self.files,
            self.classes,
            self.problems,
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def summary(self) -> dict[str, Any]:
        """Counts: images; negatives, a dict of reason → images that are known to have no object; incomplete, images
        with objects or lines that may not be all; unknown, images of which nothing at all is known; objects, outlined
        (objects with polygons), ignored, lines, captions, expressions, questions, regions; problems, a dict of kind →
        count."""
        known = self.annotations
        return {
            "images": len(known),
            "negatives": dict(Counter(a.negative or "no objects" for a in known if a.is_negative).most_common()),
            "incomplete": sum(
                any(getattr(a, name) and name not in a.exhaustive for name in ("objects", "lines")) for a in known
            ),
            "unknown": sum(
                not any(getattr(a, field.name) for field in fields(a) if field.name != "size_wh") for a in known
            ),
            "objects": sum(len(a.objects) for a in known),
            "outlined": sum(bool(item.polygons) for a in known for item in a.objects),
            "ignored": sum(len(a.ignored) + len(a.ignored_lines) for a in known),
            "lines": sum(len(a.lines) for a in known),
            "captions": sum(len(a.captions) + len(a.more_captions) for a in known),
            "expressions": sum(len(a.expressions) for a in known),
            "questions": sum(len(a.questions) for a in known),
            "regions": sum(len(a.regions) for a in known),
            "problems": dict(Counter(problem.kind for problem in self.problems).most_common()),
        }


def kinds_listed(kinds: Mapping[str, int]) -> str:
    """Kinds of problems with their counts, for people."""
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items())


def summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    """What `Dataset.summary` counts, but for the problems, in lines for people."""
    yield ", ".join(f"{count} {name}" for name, count in summary.items() if isinstance(count, int) and count)
    if negatives := summary["negatives"]:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in negatives.items())
        yield f"negatives, images without objects: {sum(negatives.values())} ({reasons})"
    if summary["incomplete"]:
        yield f"incomplete, images that name some of their objects or lines, maybe not all: {summary['incomplete']}"
        yield "  (something was not understood, or not looked for: what asks for all is not trained on them)"
    if summary["unknown"]:
        yield f"unknown, images of which nothing is known, not even that they are empty: {summary['unknown']}"
        yield "  (their records hold nothing, or nothing that was understood: nothing is trained on them)"
    if summary["ignored"]:
        yield f"ignored, crowds, difficult objects and illegible lines, never asked for nor wrong: {summary['ignored']}"


@dataclass(frozen=True)
class _Chosen(Sequence):
    """Some items of a sequence, none of which is read before it is asked for."""

    items: Sequence
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return _Chosen(self.items, self.numbers[index])
        return self.items[self.numbers[index]]
