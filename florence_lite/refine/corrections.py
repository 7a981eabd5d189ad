"""What a person says of an image, which wins over the model: read, matched with the rows' images, made to rows."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florence_lite.answers import Box, Instance, Polygons, same_label
from florence_lite.data import read_dataset
from florence_lite.data.annotation import Annotation
from florence_lite.data.readers.annotated import PARTS, RUN
from florence_lite.data.readers.answers import CAPTIONS
from florence_lite.data.readers.records import REPAIRED
from florence_lite.data.rows import AnswerRow, ImageSource, Query, int64_of
from florence_lite.data.samples import Sample
from florence_lite.files import read_json_object
from florence_lite.geometry import box_iou
from florence_lite.refine.judged import PERSON, ImageRows, JudgedRow
from florence_lite.refine.stage import Stage
from florence_lite.refine.store import image_columns
from florence_lite.results import Result

# What the tasks speak of: where a person says all of it, their rows are replaced.
_OBJECTS = (
    "<OD>",
    "<REGION_PROPOSAL>",
    "<DENSE_REGION_CAPTION>",
    "<OPEN_VOCABULARY_DETECTION>",
    "<CAPTION_TO_PHRASE_GROUNDING>",
    "<REFERRING_EXPRESSION_SEGMENTATION>",
    "<REGION_TO_CATEGORY>",
    "<REGION_TO_SEGMENTATION>",
    "<REGION_TO_DESCRIPTION>",
)
_LINES = ("<OCR_WITH_REGION>", "<OCR>", "<REGION_TO_OCR>")
_ASPECT = 0.02  # by how much, as a share, the sides of a scaled copy may differ in proportion


@dataclass
class Corrected:
    """annotations: image → what a person says of it. images: in the file. unmatched: those that belong to no image of
    the rows or of which something could not be read, and why, a line each. repaired: what was used otherwise than it
    stands there, a line each."""

    annotations: dict[int, Annotation] = field(default_factory=dict)
    images: int = 0
    unmatched: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def read_corrections(path: str | os.PathLike, folder: Path) -> Corrected:
    """The annotations that `read_dataset` reads from `path`, for the images of the rows in `folder`.

    An image is known by its path, else by its content, else by a name that is the number of the image, else by its file
    name where only one image is called so; then it may be a scaled copy. Raises what `read_dataset` raises, and
    ValueError for a folder of a model's answers, and where no image is one of the rows'.
    """
    _refuse_answers(Path(path))
    try:
        dataset = read_dataset(path, outside=True)
    except ValueError as error:
        raise ValueError(f"corrections: {error}; an annotation file must lie where its images are found") from None
    known = _KnownImages(folder)
    corrected = Corrected(images=len(dataset))
    for problem in dataset.problems:
        (corrected.repaired if problem.kind in REPAIRED else corrected.unmatched).append(f"{problem}")
    for sample in dataset:
        found = known.find(sample)
        if isinstance(found, str):
            corrected.unmatched.append(f"{sample.name}: {found}")
        elif corrected.annotations.setdefault(found, sample.annotation) != sample.annotation:
            corrected.unmatched.append(f"{sample.name}: its image is there before with something else, which counts")
    if not corrected.annotations:
        raise ValueError(
            f"corrections: none of the {len(dataset)} images of {path} is one of the images in {folder}; the first: "
            f"{corrected.unmatched[-len(dataset)]}"
        )
    return corrected


def _refuse_answers(path: Path) -> None:
    """Raises ValueError for a folder that annotate or refine wrote: what a model says would count as a person's."""
    folder = next((each.parent for each in (path, path.parent) if each.name == PARTS and each.is_dir()), path)
    if (folder / PARTS).is_dir() or ((folder / RUN).is_file() and "florence_lite" in read_json_object(folder / RUN)):
        raise ValueError(
            f"the corrections {path} are answers of a model, as annotate and refine write them into {folder}; give a "
            "file that a person has edited, such as a copy of the to_check.jsonl that refine writes"
        )


class _KnownImages:
    """The images of the rows, by their paths and names."""

    def __init__(self, folder: Path):
        self.sizes: dict[int, tuple[int, int]] = {}
        self.sources: dict[str, int] = {}
        self.names: dict[str, set[int]] = defaultdict(set)
        for each in image_columns(folder):
            if each["image_id"] not in self.sizes:
                self.sizes[each["image_id"]] = each["width"], each["height"]
                self.sources[each["source"]] = each["image_id"]
                self.names[os.path.basename(each["source"].rpartition("!")[2])].add(each["image_id"])

    def find(self, sample: Sample) -> int | str:
        """The number of a sample's image, or why there is none."""
        path = os.path.abspath(sample.image) if isinstance(sample.image, str | os.PathLike) else ""
        if path in self.sources:
            return self._of_size(self.sources[path], sample)
        content = Path(path).read_bytes() if path else sample.image
        if isinstance(content, bytes) and (number := int64_of(content)) in self.sizes:
            return self._of_size(number, sample)
        name, stem = os.path.basename(path), Path(path).stem
        if stem.removeprefix("-").isdecimal() and int(stem) in self.sizes:
            return self._of_size(int(stem), sample)
        called = self.names.get(name, ())
        if len(called) == 1:
            return self._of_size(next(iter(called)), sample)
        return f"{len(called)} images are called {name}, none has its path" if called else "no row is about this image"

    def _of_size(self, number: int, sample: Sample) -> int | str:
        (width, height), size = sample.annotation.size_wh, self.sizes[number]
        if not all(size):
            return "it could not be read when it was asked about: annotate it again"
        if abs(width * size[1] - height * size[0]) <= _ASPECT * width * size[1]:
            return number
        return f"it is {width}×{height} pixels, the image of that name is {size[0]}×{size[1]}"


class Corrections(Stage):
    """Rows of the model where a person has corrected the image: theirs take their place.

    Where a person says what all objects are, it is measured how many of the model's are right at which score, so that a
    threshold can be chosen.
    """

    NAME = "corrections"

    def __init__(self, corrected: Corrected):
        self.corrected = corrected
        self._measured: dict[int, list[tuple[float, bool]]] = {}  # image → its objects: score, is it right

    def judge(self, image: ImageRows) -> None:
        annotation = self.corrected.annotations.get(image.image.image_id)
        if annotation is None:
            return
        source = next((row.row.image for row in image.rows if row.row.result is not None), image.image)
        said = [JudgedRow.of(row) for row in rows_of(annotation, source)]
        asked = {row.question for row in said}
        if "objects" in annotation.exhaustive:
            true = [item for row in said if row.task == "<OD>" for item in row.left.values()]
            answered = [item for row in image.open if row.task == "<OD>" for item in row.left.values()]
            scored = [item for item in answered if item.score is not None and item.bounds is not None]
            self._measured[image.image.image_id] = [(item.score, _is_right(item, true)) for item in scored]
        for row in image.standing:
            if row.question in asked or row.task in replaced_tasks(annotation):
                row.drop(self.NAME, "corrected", "by a person")
        image.rows += said

    def told(self) -> list[str]:
        lines = [f"{len(self.corrected.annotations)} of {self.corrected.images} corrected images are among the rows'"]
        unmatched, repaired = self.corrected.unmatched, self.corrected.repaired
        for said, listed, where in (
            ("could not be used", unmatched, "see report.json"),
            ("were repaired", repaired, "as florence-lite data check lists them"),
        ):
            if listed:
                lines += [f"{len(listed)} {said}:", *(f"  {line}" for line in listed[:10])]
            if len(listed) > 10:
                lines.append(f"  and more, {where}")
        measured = [each for several in self._measured.values() for each in several]
        if measured:
            lines.append("objects of <OD> that are right in corrected images, by score:")
        for tenth in range(10):
            right = [is_right for score, is_right in measured if tenth == min(int(10 * score), 9)]
            if right:
                share = f"{sum(right)} of {len(right)}"
                lines.append(f"  {tenth / 10:.1f} to {(tenth + 1) / 10:.1f}: {share}, {sum(right) / len(right):.0%}")
        return lines


def _is_right(item: Instance, true: Sequence[Instance]) -> bool:
    """Whether one of the true ones has its label and lies there, by an IoU of 0.5."""
    alike = [each.bounds for each in true if same_label(each.label) == same_label(item.label)]
    return bool(alike) and box_iou([item.bounds], alike).max() >= 0.5


def replaced_tasks(annotation: Annotation) -> set[str]:
    """The tasks that an annotation answers, so that a model's answers to them go."""
    tasks: set[str] = set()
    if annotation.objects or "objects" in annotation.exhaustive:
        tasks.update(_OBJECTS)
    if annotation.lines or "lines" in annotation.exhaustive:
        tasks.update(_LINES)
    return tasks | {task for task, caption in zip(CAPTIONS, annotation.captions, strict=False) if caption}


def rows_of(annotation: Annotation, image: ImageSource) -> Iterator[AnswerRow]:
    """An annotation as rows about an image, verified, of which `read_dataset` makes the same annotation again.

    Coordinates are scaled to the image. Objects and lines that are not all there is are told of one by one. Stuff and
    what is to be ignored have no rows; where objects are to be ignored, the others are told of one by one too.
    """
    say = _Rows(image, image.size_wh[0] / annotation.size_wh[0], image.size_wh[1] / annotation.size_wh[1])
    objects = [say.instance(item.label, item.box, item.polygons) for item in annotation.objects]
    boxes = [say.box(item.box) for item in annotation.objects]
    if "objects" in annotation.exhaustive and not annotation.ignored:
        yield say.row("<OD>", instances=objects)
    else:
        for item, box in zip(objects, boxes, strict=True):
            yield say.row("<REGION_TO_CATEGORY>", item.label, region=box)
            if item.polygons:
                yield say.row("<REGION_TO_SEGMENTATION>", instances=[item], region=box)
    for known, box in zip(annotation.objects, boxes, strict=True):
        if known.phrase:
            yield say.row("<REGION_TO_DESCRIPTION>", known.phrase, region=box)
    for region in annotation.regions:
        yield say.row("<REGION_TO_DESCRIPTION>", region.text, region=say.box(region.box))
    for each in annotation.expressions:
        meant = [Instance(each.phrase, objects[n].box, None, objects[n].polygons) for n in each.objects]
        absent = () if meant else (each.phrase,)
        yield say.row("<REFERRING_EXPRESSION_SEGMENTATION>", "", meant, absent, phrases=(each.phrase,))
    quads = [Instance(line.text, quad=say.points(line.quad)) for line in annotation.lines]
    if "lines" in annotation.exhaustive:
        yield say.row("<OCR_WITH_REGION>", instances=quads)
    else:
        for item in quads:
            yield say.row("<REGION_TO_OCR>", item.label, region=item.bounds)
    for task, caption in zip(CAPTIONS, annotation.captions, strict=False):
        if caption:
            yield say.row(task, caption)
    for said, captions in (("yes", annotation.more_captions), ("no", annotation.wrong_captions)):
        for caption in captions:
            yield say.row("<IMAGE_TEXT_MATCHING>", said, text=caption)
    for question in annotation.questions:
        yield say.row("<VQA>", question.answer, text=question.question)


@dataclass(frozen=True)
class _Rows:
    """Makes a person's rows about an image. across, down: factors of scale."""

    image: ImageSource
    across: float
    down: float

    def points(self, numbers: Iterable[float]) -> tuple[Any, ...]:
        """x y x y … scaled, as many as they are."""
        return tuple(value * (self.down if n % 2 else self.across) for n, value in enumerate(numbers))

    def box(self, box: Box) -> Box:
        return self.points(box)

    def instance(self, label: str, box: Box, polygons: Polygons) -> Instance:
        rings = tuple(tuple((x * self.across, y * self.down) for x, y in ring) for ring in polygons)
        return Instance(label, polygons=rings) if rings else Instance(label, box=self.box(box))

    def row(
        self,
        task: str,
        words: str = "",
        instances: Iterable[Instance] = (),
        absent: tuple[str, ...] = (),
        text: str | None = None,
        phrases: tuple[str, ...] | None = None,
        region: Box | None = None,
    ) -> AnswerRow:
        query = Query(task, PERSON, "", text, phrases, region, tag=PERSON)
        result = Result(task, self.image.size_wh, words, tuple(instances), absent=absent)
        return AnswerRow(self.image, query, result, verified=True)
