"""Answers of a checkpoint as annotations: a folder with `parts/*.parquet`, as `annotate` and `refine` write it.

Each row answers one question about one image (`florence_lite.data.rows`). All answers about an image are put together:

    <OD>, <REGION_TO_CATEGORY>             objects with a label; without <OD> also those of <REGION_PROPOSAL>
    <OPEN_VOCABULARY_DETECTION>            objects with their phrase as label, and each phrase as an expression
    <CAPTION_TO_PHRASE_GROUNDING>, <REFERRING_EXPRESSION_SEGMENTATION>   expressions; their objects may lack a label
    <REGION_TO_SEGMENTATION>               the outline of the object with that box
    <DENSE_REGION_CAPTION>, <REGION_TO_DESCRIPTION>   the phrase of the object with that box, else a region
    <CAPTION>, <DETAILED_CAPTION>, <MORE_DETAILED_CAPTION>, <OCR_WITH_REGION>, <REGION_TO_OCR>, <VQA> and free prompts,
    <IMAGE_TEXT_MATCHING>                  captions, lines, questions, sentences that are true and wrong

Boxes of two answers that overlap by an IoU of `SAME_OBJECT` are one object. A list of all objects is complete if it
names some and was read without fault, and if no other answer tells of objects beyond it. An empty one says nothing,
unless it is marked as `verified`. Of several answers to the same question one counts: the opinion that the run names
first. The images stay where they are; their names lead there, in or out of the folder.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from florence_lite.answers import Box, Instance
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression, Region, TextLine
from florence_lite.data.readers.answers import CAPTIONS
from florence_lite.data.readers.files import choose_split
from florence_lite.data.readers.frames import ImageFrame, frame_of
from florence_lite.data.readers.records import ProblemLog, caption_levels, finished
from florence_lite.data.rows import AnswerRow, from_record, schema
from florence_lite.data.samples import Dataset
from florence_lite.data.sources import read_source
from florence_lite.files import read_json_object
from florence_lite.geometry import box_iou
from florence_lite.image_files import ImageSizes, image_sizes

NAME = "annotated"
LOOKS_FOR = "parts/*.parquet of annotate or refine"
ENDINGS, DEPTH = (".parquet",), 1
SAME_OBJECT = 0.7  # IoU; two prompts seldom place the same object more exactly, and neighbours overlap less
PARTS, RUN = "parts", "run.json"


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    return file.parent.name == PARTS


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`. `outside` changes nothing: the images of
    such a folder always lie elsewhere."""
    folder = root.parent if root.name == PARTS else root
    log = ProblemLog(folder)
    answers = _answers(files, log, _opinions(folder))
    common = _common(answers)
    sources = sorted(answers)
    if split is not None:
        chosen = choose_split([Path(source) for source in sources], split, Path(common or "/"), "image", folders=True)
        sources = sorted(map(str, chosen))
    rows, kept = [], []
    for source in sources:
        frame = _frame(answers[source], log, folder)
        if frame is not None:
            rows.append((None, _Known(frame).annotation(answers[source]), source.removeprefix(f"{common}{os.sep}")))
            kept.append(source)
    described = f"{len(files)} parts, answers about {len(answers)} images"
    return finished(rows, log, NAME, [described], images=_Pictures(tuple(kept)))


@dataclass(frozen=True)
class _Pictures(Sequence):
    """Files of images, or the bytes of those that lie in other files, read one at a time."""

    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Path | bytes:
        source = self.sources[index]
        return Path(source) if _is_file(source) else read_source(source)


# ---- rows of one image -----------------------------------------------------------------------------------------------


def _answers(files: Sequence[Path], log: ProblemLog, opinions: Sequence[tuple[str, str]]) -> dict[str, list[AnswerRow]]:
    """Source of an image → the answers about it, one to each question; what went wrong is reported."""
    found: dict[int, dict[tuple, AnswerRow]] = defaultdict(dict)
    sources: dict[int, str] = {}
    seen: set[int] = set()
    for file in files:
        for record in _records(file):
            if record["id"] in seen:
                continue  # parts may be copies of each other's rows
            seen.add(record["id"])
            row = from_record(record)
            source = sources.setdefault(row.image.image_id, row.image.source)
            if row.result is None:
                log.add(file, source, "no answer", f"{row.query.task}: {row.error}")
                continue
            query, of_image = row.query, found[row.image.image_id]
            question = (query.task, query.text, query.phrases, query.region)
            if question in of_image:
                row, other = sorted((of_image[question], row), key=lambda each: _rank(each, opinions))
                said = f"{query.task}: that of {_who(row)} counts, not that of {_who(other)}"
                log.add(file, source, "another opinion left out", said)
            of_image[question] = row
    return {sources[number]: list(answers.values()) for number, answers in found.items()}


def _records(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a part as dicts. Raises ValueError for a file that is none, ModuleNotFoundError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        remedy = "pip install 'florence-lite[annotate]'"
        raise ModuleNotFoundError(f"the package pyarrow is missing; {remedy}", name="pyarrow") from None
    try:
        with pq.ParquetFile(file) as part:
            if missing := sorted(set(schema().names) - set(part.schema_arrow.names) - {"verified"}):
                raise ValueError(f"it has no columns {', '.join(missing)}")
            for batch in part.iter_batches(1024):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file} is no part of annotate or refine: {error}") from None


def _opinions(folder: Path) -> list[tuple[str, str]]:
    """Checkpoint and tag of the opinions that were asked for, the first first; [] where nothing says it.

    Raises ValueError for a record of the run that is none.
    """
    file = folder / RUN
    run = read_json_object(file) if file.is_file() else {}
    try:
        listed = run.get("opinions") or [each for asked in run.get("asked", ()) for each in asked["checkpoints"]]
        return list(dict.fromkeys((each["checkpoint"], each["tag"]) for each in listed))
    except (TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{file} does not tell which checkpoints were asked, as annotate and refine write it"
        ) from None


def _rank(answer: AnswerRow, opinions: Sequence[tuple[str, str]]) -> tuple:
    """Smaller is better: a person's word, then the order of the run, then the untagged, then the surer."""
    query, result = answer.query, answer.result
    named = (query.checkpoint, query.tag)
    place = opinions.index(named) if named in opinions else len(opinions)
    scores = [item.score for item in result.instances if item.score is not None]
    sure = result.score if result.score is not None else sum(scores) / max(1, len(scores))
    return not answer.verified, place, query.tag, -sure, query.checkpoint, query.revision, query.decoding


def _who(answer: AnswerRow) -> str:
    query = answer.query
    return query.checkpoint + (f" ({query.tag})" if query.tag else "")


def _is_file(source: str) -> bool:
    """Whether an image is a file of its own, rather than a part of one, behind its "!"."""
    return "!" not in source or os.path.isfile(source)


def _common(sources: Iterable[str]) -> str:
    """The folder that holds all images, "" where there is none."""
    folders = [os.path.dirname(source) for source in sources]
    return os.path.commonpath(folders) if folders and all(map(os.path.isabs, folders)) else ""


def _frame(answers: Sequence[AnswerRow], log: ProblemLog, folder: Path) -> ImageFrame | None:
    """The frame of the image, None, reported, for one that is not there. Only files of their own are looked at; what
    lies in others is taken to be as it was."""
    image = answers[0].image
    sizes = ImageSizes(image.size_wh, image.size_wh)
    if _is_file(image.source):
        try:
            sizes = image_sizes(image.source)
        except FileNotFoundError as error:
            return log.add(folder, image.source, "image missing", str(error))
        except (ValueError, OSError) as error:
            return log.add(folder, image.source, "image unreadable", str(error))
    frame = frame_of(sizes, image.size_wh, log, folder, image.source)
    return frame and replace(frame, from_shares=True)


# ---- what the answers say together -----------------------------------------------------------------------------------


@dataclass
class _Known:
    """What is known so far about one image.

    complete: of "objects" and "lines", those of which a list of all was read without fault.
    expressions: phrase → places of its objects.
    """

    frame: ImageFrame
    complete: set[str] = field(default_factory=set)
    negative: str = ""
    objects: list[ObjectAnnotation] = field(default_factory=list)
    expressions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lines: list[TextLine] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    true: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def annotation(self, answers: Sequence[AnswerRow]) -> Annotation:
        """The annotation that the answers make, those first that others refer to."""
        order = {marker: place for place, marker in enumerate(_TASKS)}
        for answer in sorted(answers, key=lambda each: order.get(each.query.task, len(order))):
            task = answer.query.task
            _TASKS.get(task, _Known._words if task.startswith("<") else _Known._question)(self, answer)
        captions = caption_levels(*(self.captions.get(marker, "") for marker in CAPTIONS))
        if self.true and not (captions and captions[0]):
            captions = (self.true.pop(0), *captions[1:])
        return self.frame.annotation(
            self.complete,
            self.negative,
            objects=tuple(self.objects),
            lines=tuple(self.lines),
            captions=captions,
            more_captions=tuple(text for text in self.true if text != captions[0]),
            wrong_captions=tuple(self.wrong),
            expressions=tuple(ReferringExpression(phrase, places) for phrase, places in self.expressions.items()),
            questions=tuple(self.questions),
            regions=tuple(self.regions),
        )

    def _list(self, part: str, answer: AnswerRow) -> None:
        """Take down whether an answer names all objects, or all lines."""
        result = answer.result
        if answer.verified or (result.instances and _is_whole(answer)):
            self.complete.add(part)
        if answer.verified and not result.instances:
            self.negative = "verified to be empty"

    def _objects(self, answer: AnswerRow) -> None:
        """A list of all objects; proposals beside another list say nothing more."""
        query = answer.query
        if query.task == "<REGION_PROPOSAL>" and "objects" in self.complete:
            return
        self._list("objects", answer)
        for number, item in enumerate(answer.result.instances):
            if found := self._object(item, f"{query.task} {number}", label=item.label):
                self.objects.append(found)

    def _category(self, answer: AnswerRow) -> None:
        """The label of a region; objects of another are not in question."""
        label = answer.result.text.strip()
        others = [place for place, known in enumerate(self.objects) if known.label not in ("", label)]
        if item := self._region_of(answer):
            self._place(item, "<REGION_TO_CATEGORY>", others, label=label)

    def _phrases(self, answer: AnswerRow) -> None:
        """Places of phrases. Asked for as categories, they are labels too."""
        query, result = answer.query, answer.result
        places: dict[str, list[int]] = {phrase: [] for phrase in result.absent if phrase and _is_whole(answer)}
        as_labels = query.task == "<OPEN_VOCABULARY_DETECTION>"
        taken: dict[str, set[int]] = defaultdict(set)
        for number, item in enumerate(result.instances):
            phrase = item.label.strip() or (query.text or "").strip()
            words = {"label" if as_labels else "phrase": phrase}
            place = self._place(item, f"{query.task} {number}", taken[phrase], **words)
            if place is not None and phrase:
                taken[phrase].add(place)
                places.setdefault(phrase, []).append(place)
        for phrase, found in places.items():
            if self.expressions.setdefault(phrase, tuple(found)) != tuple(found):
                self.frame.report("another place of a phrase", f"{phrase!r} is placed by two tasks; the first counts")

    def _descriptions(self, answer: AnswerRow) -> None:
        """Words about everything: a list of all objects where no other is."""
        if "objects" in self.complete:
            return self._describe(answer, answer.result.instances)
        self._list("objects", answer)
        for number, item in enumerate(answer.result.instances):
            if found := self._object(item, f"<DENSE_REGION_CAPTION> {number}", phrase=item.label):
                self.objects.append(found)

    def _description(self, answer: AnswerRow) -> None:
        """Words about a region."""
        if region := self._region_of(answer):
            self._describe(answer, (replace(region, label=answer.result.text),))

    def _describe(self, answer: AnswerRow, items: Sequence[Instance]) -> None:
        """Words about places: those of an object where one lies there."""
        task = answer.query.task
        for number, item in enumerate(items):
            words, box = item.label.strip(), item.bounds
            place = self._nearest(box) if box else None
            if place is not None and not self.objects[place].phrase:
                self.objects[place] = replace(self.objects[place], phrase=words)
            elif words and (inside := self.frame.box(box, f"{task} {number}", part="regions")):
                self.regions.append(Region(words, inside))

    def _outline(self, answer: AnswerRow) -> None:
        """The outline of what lies in a region, whose box stays."""
        rings = [ring for item in answer.result.instances for ring in item.polygons]
        item = self._region_of(answer)
        if item and rings:
            place = self._place(item, "<REGION_TO_SEGMENTATION>")
            if place is not None and not self.objects[place].polygons:
                outlines = self.frame.polygons(rings, "<REGION_TO_SEGMENTATION>")
                self.objects[place] = replace(self.objects[place], polygons=outlines)

    def _read(self, answer: AnswerRow) -> None:
        """Lines of text."""
        task, result = answer.query.task, answer.result
        items = result.instances
        if task == "<OCR_WITH_REGION>":
            self._list("lines", answer)
        else:
            region = self._region_of(answer)
            items = (replace(region, label=result.text.strip()),) if region and result.text.strip() else ()
        for number, item in enumerate(items):
            what, text = f"{task} {number}", item.label.strip()
            if not text or not item.outlines:
                self.frame.lose("lines", "line left out", "it has no text or no place", what)
                continue
            if task != "<OCR_WITH_REGION>" and any(_iou(item, line.quad) >= SAME_OBJECT for line in self.lines):
                continue
            corners = [number for point in item.outlines[0] for number in point]
            if quad := self.frame.quad(corners, what):
                self.lines.append(TextLine(text, quad, item.score))
                if task != "<OCR_WITH_REGION>" and "lines" in self.complete:
                    self.frame.lose("lines", "line beyond the list", f"{text!r} is in no list of all lines", what)

    def _caption(self, answer: AnswerRow) -> None:
        if answer.result.text.strip() and not answer.result.truncated:
            self.captions[answer.query.task] = answer.result.text.strip()

    def _match(self, answer: AnswerRow) -> None:
        sentence, said = (answer.query.text or "").strip(), answer.result.text.strip().lower()
        if sentence and said in ("yes", "no"):
            (self.true if said == "yes" else self.wrong).append(sentence)

    def _question(self, answer: AnswerRow) -> None:
        query, text = answer.query, answer.result.text.strip()
        asked = query.text if query.task == "<VQA>" else query.task
        if asked and asked.strip() and text:
            self.questions.append(Question(asked, text))

    def _words(self, answer: AnswerRow) -> None:
        """An answer of which an annotation keeps nothing."""
        task = answer.query.task
        self.frame.report("task without a place in annotations", f"what {task} says is left out")

    # ---- objects -----------------------------------------------------------------------------------------------------

    def _region_of(self, answer: AnswerRow) -> Instance | None:
        """The region that was asked about."""
        query = answer.query
        if query.region is None or len(query.region) != 4:
            return self.frame.report("answer left out", f"{query.task} about {query.region} is no answer about a box")
        return Instance(box=query.region, score=answer.result.score)

    def _object(self, item: Instance, what: str, label: str = "", phrase: str = "") -> ObjectAnnotation | None:
        return self.frame.object(label.strip(), item.bounds, item.polygons, phrase, what, item.score)

    def _place(self, item: Instance, what: str, taken: Iterable[int] = (), **words: str) -> int | None:
        """The place of an object among the others: that of the one it is, or behind them. taken: those it is not."""
        found = self._object(item, what, **words)
        if found is None:
            return None
        place = self._nearest(found.box, taken)
        if place is None:
            if "objects" in self.complete:
                said = f"{found.label or found.phrase or 'a box'} is in no list of all objects"
                self.frame.lose("objects", "object beyond the list", said, what)
            self.objects.append(found)
            return len(self.objects) - 1
        known = self.objects[place]
        self.objects[place] = replace(
            known,
            label=known.label or found.label,
            phrase=known.phrase or ("" if known.label else found.phrase),  # a phrase may mean several
            polygons=known.polygons or found.polygons,
        )
        return place

    def _nearest(self, box: Box, taken: Iterable[int] = ()) -> int | None:
        """The object that a box is, or None."""
        if not self.objects:
            return None
        overlaps = box_iou([box], [item.box for item in self.objects])[0]
        overlaps[list(taken)] = 0
        best = int(overlaps.argmax())
        return best if overlaps[best] >= SAME_OBJECT else None


_TASKS: dict[str, Callable[[_Known, AnswerRow], None]] = {
    "<OD>": _Known._objects,
    "<REGION_PROPOSAL>": _Known._objects,
    "<DENSE_REGION_CAPTION>": _Known._descriptions,
    "<REGION_TO_CATEGORY>": _Known._category,
    "<OPEN_VOCABULARY_DETECTION>": _Known._phrases,
    "<CAPTION_TO_PHRASE_GROUNDING>": _Known._phrases,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _Known._phrases,
    "<REGION_TO_SEGMENTATION>": _Known._outline,
    "<REGION_TO_DESCRIPTION>": _Known._description,
    "<OCR_WITH_REGION>": _Known._read,
    "<REGION_TO_OCR>": _Known._read,
    **dict.fromkeys(CAPTIONS, _Known._caption),
    "<IMAGE_TEXT_MATCHING>": _Known._match,
    "<VQA>": _Known._question,
}
"""In the order in which an annotation is made of them: what lists all objects stands before what refers to some."""


def _is_whole(answer: AnswerRow) -> bool:
    return not answer.result.truncated and not answer.result.parse_errors


def _iou(item: Instance, quad: Sequence[float]) -> float:
    return float(box_iou([item.bounds], [Instance(quad=quad).bounds])[0, 0])
