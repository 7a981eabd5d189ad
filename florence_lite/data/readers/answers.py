"""Prompts and answers of Florence-2 as annotations: {"image": …, "prefix": "<OD>", "suffix": "dog<loc_100>…"}.

The prefix is a task's marker, with what it takes behind it; the suffix is the answer as the model writes it, its places
in `BINS` bins a side. Another prefix is a question. Answers about a region, and outlines, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from florence_lite.answers import Quad
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression, TextLine
from florence_lite.data.readers.frames import ImageFrame
from florence_lite.data.readers.records import Unclear, caption_levels
from florence_lite.geometry import dequantize

BINS = 1000
CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
_OBJECTS = ("<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>")
_PHRASES = ("<CAPTION_TO_PHRASE_GROUNDING>", "<OPEN_VOCABULARY_DETECTION>")
_QUESTIONS = ("<VQA>", "<DocVQA>", "")


def annotation_of_answer(record: dict[str, Any], frame: ImageFrame) -> Annotation:
    """What a prompt and its answer say about the image. Raises Unclear for such as cannot be read."""
    prefix, suffix = record.get("prefix"), record.get("suffix")
    if not isinstance(prefix, str) or not isinstance(suffix, str):
        raise Unclear(f"its prefix is {prefix!r} and its suffix {suffix!r}; both must be texts")
    marker, asked = re.fullmatch(r"\s*(<[A-Za-z_]+>)?(.*)", prefix, re.DOTALL).groups()
    marker, asked, suffix = marker or "", asked.strip(), re.sub(r"</?s>|<pad>", "", suffix).strip()
    if marker in CAPTIONS and suffix and "<loc_" not in suffix:
        texts = [suffix if name == marker else "" for name in CAPTIONS]
        return frame.annotation((), captions=caption_levels(*texts))
    if marker in _OBJECTS:
        with_labels, as_phrases = marker != "<REGION_PROPOSAL>", marker == _OBJECTS[1]
        objects = list(_boxed(suffix, frame, with_labels, as_phrases))
        complete = () if asked else ("objects",)  # what is asked for behind the marker may be some objects only
        return frame.annotation(complete, f"its answer to {marker} is empty", objects=tuple(objects))
    if marker == "<OCR_WITH_REGION>":
        lines = [TextLine(text, quad) for text, quad in _quads(suffix, frame)]
        return frame.annotation(("lines",), lines=tuple(lines))
    if marker in _PHRASES and suffix:
        objects = list(_boxed(suffix, frame, with_labels=True, as_phrases=True))
        phrases = dict.fromkeys(item.phrase for item in objects)
        meant = [(phrase, tuple(i for i, o in enumerate(objects) if o.phrase == phrase)) for phrase in phrases]
        expressions = tuple(ReferringExpression(phrase, numbers) for phrase, numbers in meant)
        captions = (asked,) if marker == _PHRASES[0] and asked else ()
        return frame.annotation((), objects=tuple(objects), captions=captions, expressions=expressions)
    if marker in _QUESTIONS and asked and suffix and not re.search(r"<(loc|seg)_?\d", suffix):
        return frame.annotation((), questions=(Question(asked, suffix),))
    raise Unclear(f"the answer {suffix[:60]!r} to {prefix[:60]!r} cannot be read as an annotation")


def _placed(suffix: str, frame: ImageFrame, corners: int) -> Iterator[tuple[str, list[float]]]:
    """Label and coordinates in pixels of each place, of `corners` points."""
    parts = re.split(r"((?:<loc_\d+>)+)", suffix)
    if parts[-1].strip():
        raise Unclear(f"{parts[-1][:60]!r} at the end of its answer has no place")
    size = frame.size_wh[0] / frame.scale[0], frame.size_wh[1] / frame.scale[1]
    for label, places in zip(parts[:-1:2], parts[1::2], strict=True):
        bins = [int(number) for number in re.findall(r"\d{1,9}", places)]
        if len(bins) % (2 * corners) or max(bins) >= BINS:
            raise Unclear(f"{places[:60]!r} is not {2 * corners} numbers below {BINS} for each place")
        points = dequantize([bins[at : at + 2] for at in range(0, len(bins), 2)], size, BINS)
        for first in range(0, len(points), corners):
            yield label.strip(), points[first : first + corners].ravel().tolist()


def _boxed(suffix: str, frame: ImageFrame, with_labels: bool, as_phrases: bool) -> Iterator[ObjectAnnotation]:
    for number, (label, box) in enumerate(_placed(suffix, frame, 2)):
        if bool(label) != with_labels:
            raise Unclear(f"place {number} of its answer has the label {label[:60]!r}")
        names = {"label": "" if as_phrases else label, "phrase": label if as_phrases else ""}
        item = replace(frame, from_shares=True).object(box=box, record=f"place {number}", **names)
        if item is not None:
            yield item


def _quads(suffix: str, frame: ImageFrame) -> Iterator[tuple[str, Quad]]:
    for number, (text, corners) in enumerate(_placed(suffix, frame, 4)):
        if not text:
            raise Unclear(f"place {number} of its answer has no text")
        if quad := replace(frame, from_shares=True).quad(corners, f"place {number}"):
            yield text, quad
