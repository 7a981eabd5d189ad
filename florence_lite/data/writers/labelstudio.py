"""Label Studio: `tasks.json` to import, `config.xml` for its labelling interface, and `images/`.

Answers of a checkpoint become `predictions` with scores, which people correct; truths become `annotations`. Tasks name
images as Label Studio's local storage does: start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT at this folder, and add its `images` as a local storage. Images of which nothing
is known are tasks too. Source: https://labelstud.io/guide/tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as XML

from florence_lite.answers import Box
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.readers import annotated
from florence_lite.data.readers.brush import mask_to_brush
from florence_lite.data.readers.labelstudio import CAPTIONS, DESCRIPTION, LINE, PHRASE
from florence_lite.data.samples import Dataset
from florence_lite.data.writers.output import PARTS, Classes, Output
from florence_lite.geometry import rasterize

FORMATS = {
    "labelstudio": frozenset(PARTS)
    - {"ignored", "ignored lines", "wrong captions", "expressions", "questions", "stuff", "more captions"}
}
_LABELS = {"box": "RectangleLabels", "outline": "PolygonLabels", "mask": "BrushLabels"}
_TEXTS = {PHRASE: "box", LINE: "line", DESCRIPTION: "region"}  # control of a text → that of its places


def write(splits: Mapping[str, Dataset], output: Output) -> None:
    """A file of tasks for each split."""
    classes = Classes.of(splits.values(), output)
    are_answers = any(_is_answer(dataset) for dataset in splits.values())
    for split, dataset in splits.items():
        with (output.folder / f"{split or 'tasks'}.json").open("w", encoding="utf-8") as stream:
            stream.write("[")
            folder = f"images/{split}".rstrip("/")
            for number, (name, annotation) in enumerate(output.placed(dataset, folder)):
                task = _task(f"{folder}/{name}", annotation, classes, are_answers, output)
                stream.write((",\n" if number else "\n") + json.dumps(task, ensure_ascii=False))
            stream.write("\n]\n")
    config = XML.ElementTree(_config(classes))
    XML.indent(config)
    config.write(output.folder / "config.xml", encoding="utf-8")
    output.hint = "config.xml is the labelling interface, images a local storage with this folder as document root"


def _is_answer(dataset: Dataset) -> bool:
    """Whether a model said it, rather than people."""
    return dataset.format == annotated.NAME or any(map(_scores, dataset.annotations))


def _scores(annotation: Annotation) -> list[float]:
    """Those of a model; people give none."""
    scores = [item.score for item in annotation.objects] + [line.score for line in annotation.lines]
    return [score for score in scores if score is not None]


def _task(image: str, annotation: Annotation, classes: Classes, is_answer: bool, output: Output) -> dict[str, Any]:
    address = f"/data/local-files/?d={quote(image)}"
    task: dict[str, Any] = {"data": {"image": address, "exhaustive": sorted(annotation.exhaustive)}}
    width, height = annotation.size_wh
    frame = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    results = [result | frame for result in _results(annotation, classes, output)]
    if not results and not annotation.exhaustive:
        return task
    if not is_answer:
        return task | {"annotations": [{"result": results}]}
    scores = _scores(annotation)
    score = {"score": sum(scores) / len(scores)} if scores else {}
    return task | {"predictions": [{"model_version": "florence-lite", "result": results, **score}]}


def _results(annotation: Annotation, classes: Classes, output: Output) -> Iterator[dict[str, Any]]:
    size = annotation.size_wh
    for place, (number, item) in enumerate(_described(annotation.objects, classes, output)):
        if item.polygons:
            output.count_loose(item)
        yield from _object(f"object{place}", item, classes.names[number] if number is not None else "", size)
    for place, line in enumerate(annotation.lines):
        points = _percent(zip(line.quad[0::2], line.quad[1::2], strict=True), size)
        score = {} if line.score is None else {"score": line.score}
        yield _result(f"line{place}", "line", "polygonlabels", {"points": points, "polygonlabels": ["text"]}) | score
        yield _result(f"line{place}", LINE, "textarea", {"points": points, "text": [line.text]})
    for place, region in enumerate(annotation.regions):
        box = _box(region.box, size)
        yield _result(f"region{place}", "region", "rectanglelabels", {**box, "rectanglelabels": ["region"]})
        yield _result(f"region{place}", DESCRIPTION, "textarea", {**box, "text": [region.text]})
    for name, words in zip(CAPTIONS, annotation.captions, strict=False):
        if words.strip():
            yield _result(name, name, "textarea", {"text": [words]})


def _described(
    items: Iterable[ObjectAnnotation], classes: Classes, output: Output
) -> Iterator[tuple[int | None, ObjectAnnotation]]:
    """The objects with the number of their category; None for those of which only a phrase is known."""
    for item in items:
        if item.label or not item.phrase:
            yield from classes.numbered([item], output)
        else:
            yield None, item


def _object(number: str, item: ObjectAnnotation, label: str, size_wh: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """A box, an outline, or a mask for what several rings enclose; and its phrase."""
    value: dict[str, Any]
    if len(item.polygons) > 1:
        name, value = "mask", {"format": "rle", "rle": mask_to_brush(rasterize(item.polygons, size_wh))}
    elif item.polygons:
        name, value = "outline", {"points": _percent(item.polygons[0], size_wh), "closed": True}
    else:
        name, value = "box", _box(item.box, size_wh)
    kind = _LABELS[name].lower()
    score = {} if item.score is None else {"score": item.score}
    yield _result(number, name, kind, value | {kind: [label] if label else []}) | score
    if item.phrase:
        yield _result(number, PHRASE, "textarea", value | {"text": [item.phrase]})


def _result(number: str, name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "from_name": name, "type": kind, "value": value}


def _box(box: Box, size_wh: tuple[int, int]) -> dict[str, float]:
    (x0, y0), (x1, y1) = _percent((box[:2], box[2:]), size_wh)
    return {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}


def _percent(points: Iterable[Iterable[float]], size_wh: tuple[int, int]) -> list[list[float]]:
    return [[100 * value / side for value, side in zip(point, size_wh, strict=True)] for point in points]


def _config(classes: Classes) -> XML.Element:
    """The labelling interface: a control for each kind of result."""
    view = XML.Element("View")
    XML.SubElement(view, "Image", name="image", value="$image", zoom="true")
    for name, tag in _LABELS.items():
        control = XML.SubElement(view, tag, name=name, toName="image")
        for label in classes.names:
            XML.SubElement(control, "Label", value=label)
    for name, tag, label in (("line", "PolygonLabels", "text"), ("region", "RectangleLabels", "region")):
        XML.SubElement(XML.SubElement(view, tag, name=name, toName="image"), "Label", value=label)
    for name, places in _TEXTS.items():
        attributes = {"name": name, "toName": "image", "editable": "true", "perRegion": "true"}
        if places != "box":
            attributes["whenTagName"] = places
        XML.SubElement(view, "TextArea", attributes)
    for name in CAPTIONS:
        XML.SubElement(view, "TextArea", name=name, toName="image", placeholder=name.replace("_", " "), editable="true")
    return view
