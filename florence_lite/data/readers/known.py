"""All answers of a checkpoint about one image as one annotation.

    <OD>, <REGION_TO_CATEGORY>             objects with a label; without <OD> also those of <REGION_PROPOSAL>
    <OPEN_VOCABULARY_DETECTION>            objects with their phrase as label, and each phrase as an expression
    <CAPTION_TO_PHRASE_GROUNDING>, <REFERRING_EXPRESSION_SEGMENTATION>   expressions; their objects may lack a label
    <REGION_TO_SEGMENTATION>               the outline of the object with that box
    <DENSE_REGION_CAPTION>, <REGION_TO_DESCRIPTION>   the phrase of the object with that box, else a region
    <CAPTION>, <DETAILED_CAPTION>, <MORE_DETAILED_CAPTION>, <OCR_WITH_REGION>, <REGION_TO_OCR>, <VQA> and free prompts,
    <IMAGE_TEXT_MATCHING>                  captions, lines, questions, sentences that are true and wrong

Boxes of two answers that overlap by an IoU of `SAME_OBJECT` are one object. A list of all objects is complete if it
names some and was read without fault, and if no other answer tells of objects beyond it. An empty one says nothing,
unless it is marked as `verified`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from florence_lite.answers import Box, Instance, Quad
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression, Region, TextLine
from florence_lite.data.readers.answers import CAPTIONS
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.records import caption_levels
from florence_lite.data.rows import AnswerRow
from florence_lite.geometry import box_iou

SAME_OBJECT = 0.7  # IoU; two prompts seldom place the same object more exactly, and neighbours overlap less


@dataclass
class Known:
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
            _TASKS.get(task, Known._words if task.startswith("<") else Known._question)(self, answer)
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


_TASKS: dict[str, Callable[[Known, AnswerRow], None]] = {
    "<OD>": Known._objects,
    "<REGION_PROPOSAL>": Known._objects,
    "<DENSE_REGION_CAPTION>": Known._descriptions,
    "<REGION_TO_CATEGORY>": Known._category,
    "<OPEN_VOCABULARY_DETECTION>": Known._phrases,
    "<CAPTION_TO_PHRASE_GROUNDING>": Known._phrases,
    "<REFERRING_EXPRESSION_SEGMENTATION>": Known._phrases,
    "<REGION_TO_SEGMENTATION>": Known._outline,
    "<REGION_TO_DESCRIPTION>": Known._description,
    "<OCR_WITH_REGION>": Known._read,
    "<REGION_TO_OCR>": Known._read,
    **dict.fromkeys(CAPTIONS, Known._caption),
    "<IMAGE_TEXT_MATCHING>": Known._match,
    "<VQA>": Known._question,
}
"""In the order in which an annotation is made of them: what lists all objects stands before what refers to some."""


def _is_whole(answer: AnswerRow) -> bool:
    return not answer.result.truncated and not answer.result.parse_errors


def _iou(item: Instance, quad: Quad) -> float:
    return float(box_iou([item.bounds], [Instance(quad=quad).bounds])[0, 0])
