"""Annotated images written as files of other tools, and read back."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from florence_lite.data import (
    Annotation,
    Dataset,
    ObjectAnnotation,
    Question,
    ReferringExpression,
    Region,
    Sample,
    TextLine,
    read_dataset,
    write_dataset,
)
from florence_lite.data.annotation import Stuff
from florence_lite.data.writers import WRITERS
from florence_lite.data.writers.output import PARTS
from florence_lite.geometry import rasterize
from tests.data.annotated import rectangle

SIZE = (100, 80)
OBJECTS = frozenset({"objects"})
CAT = ObjectAnnotation("cat", (10.0, 10.0, 40.0, 30.0), score=0.5)
RED = Image.new("RGB", SIZE, "red")


@pytest.fixture(autouse=True)
def no_bars(monkeypatch, tmp_path):
    """`datasets` draws no bars, and keeps what it reads where the test's other files are."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def columns_of(written) -> dict[str, str]:
    """The columns that the hint tells."""
    words = written.hint.split()
    return dict(word.split("=") for word in words if "=" in word)


def back(written, format) -> Dataset:
    """What our own readers make of it, recognised where that can be."""
    if format in ("huggingface", "datasets"):
        return read_dataset(written.path, "huggingface", columns=columns_of(written))
    return read_dataset(written.path)


def through(samples, format, folder, **more):
    """What was written, and what is read of it."""
    samples = samples if isinstance(samples, Dataset) else Dataset.of(samples)
    written = write_dataset(samples, format, folder / "out", **more)
    return written, back(written, format)


def sample(annotation, name="a", image=RED) -> Sample:
    return Sample(image, annotation, name)


def known(**parts) -> Annotation:
    return Annotation(SIZE, **{"exhaustive": OBJECTS, **parts})


# ---- what a format can say comes back --------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co", "Zl", "Zp")), min_size=1, max_size=8)
LABELS = WORDS.map(lambda text: " ".join(text.split())).filter(lambda text: text and text.isprintable())
SCORES = st.none() | st.floats(0, 1)


@st.composite
def boxes(draw, least=2.0):
    x0, y0 = draw(st.floats(0, SIZE[0] - least)), draw(st.floats(0, SIZE[1] - least))
    x1, y1 = draw(st.floats(x0 + least, SIZE[0])), draw(st.floats(y0 + least, SIZE[1]))
    return x0, y0, x1, y1


@st.composite
def objects(draw):
    box = draw(boxes())
    rings = (rectangle(*box),) if draw(st.booleans()) else ()
    label, phrase = draw(st.one_of(st.tuples(LABELS, st.just("") | LABELS), st.tuples(st.just(""), LABELS)))
    return ObjectAnnotation(label, box, rings, phrase, draw(SCORES))


@st.composite
def annotations(draw):
    """Of anything that an annotation may say."""
    found = tuple(draw(st.lists(objects(), max_size=4, unique_by=lambda item: item.box)))
    quads = [(a, b, c, b, c, d, a, d) for a, b, c, d in draw(st.lists(boxes(), max_size=2))]
    lines = tuple(TextLine(draw(LABELS), quad, draw(SCORES)) for quad in quads)
    names = [draw(LABELS) for _ in range(draw(st.integers(0, 2)))]
    meant = st.lists(st.integers(0, len(found) - 1), unique=True) if found else st.just([])
    return Annotation(
        SIZE,
        found,
        lines,
        captions=tuple(draw(st.lists(LABELS, max_size=3))),
        expressions=tuple(ReferringExpression(name, tuple(sorted(draw(meant)))) for name in dict.fromkeys(names)),
        questions=tuple(Question(draw(LABELS), draw(LABELS)) for _ in range(draw(st.integers(0, 1)))),
        regions=tuple(Region(draw(LABELS), draw(boxes())) for _ in range(draw(st.integers(0, 1)))),
        exhaustive=frozenset(draw(st.sets(st.sampled_from(["objects", "lines"])))),
        stuff=(Stuff("sky", (rectangle(0, 0, 100, 20),)),) if draw(st.booleans()) else (),
        ignored=tuple(draw(st.lists(objects(), max_size=1))),
    )


SETTINGS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ANY = st.lists(annotations(), min_size=1, max_size=3)
# Parts of annotations → formats that say them in full, whatever else is known.
SAID = {
    "objects": ("jsonl", "webdataset", "coco", "voc", "yolo", "labelstudio", "huggingface", "datasets"),
    "lines": ("jsonl", "webdataset", "labelstudio", "huggingface", "datasets"),
    "captions": ("jsonl", "webdataset", "coco", "labelstudio", "huggingface", "datasets"),
    "questions": ("jsonl", "webdataset", "huggingface", "datasets"),
    "regions": ("jsonl", "webdataset", "labelstudio"),
    "expressions": ("jsonl", "webdataset"),
    "stuff": ("jsonl", "webdataset"),
    "ignored": ("jsonl", "webdataset", "coco", "voc", "huggingface", "datasets"),
    "exhaustive": ("jsonl", "webdataset", "labelstudio"),
}
ROUNDED = {"voc": 0.51, "yolo": 1e-5}  # pixels; others: what floats lose


OWN = ("jsonl", "webdataset")  # say everything
FIRST = Annotation(SIZE, (ObjectAnnotation("cat", (1, 1, 99, 79)),), captions=("a cat",), exhaustive=OBJECTS)


@pytest.mark.parametrize("format", [name for name in WRITERS if name not in ("captions", "datasets")])
@SETTINGS
@given(known=ANY)
def test_what_a_format_says_comes_back_and_the_rest_is_counted(format, known, tmp_path_factory):
    samples = [sample(each, f"image {n}") for n, each in enumerate((FIRST, *known))]
    written, dataset = through(samples, format, tmp_path_factory.mktemp("any"))
    assert written.images == len(dataset) and (format not in OWN or not written.left_out)
    if format == "huggingface":
        names = [f"row {number}" for number in range(len(dataset))]
        assert [each.name for each in dataset] == names
    found = {Path(each.name).stem: each.annotation for each in dataset}
    for number, each in enumerate((FIRST, *known)):
        if format != "huggingface" and f"image {number}" in found:
            compare(each, found[f"image {number}"], format)
    if format not in (*OWN, "labelstudio"):  # an object without a category is lost with all that is known of it
        known = [classed(each) for each in known]
    before, after = count([FIRST, *known]), count(dataset.annotations)
    before[PARTS["objects"][0]] -= written.left_out.get("objects that are there twice", 0)
    missing = {kind: number - after[kind] - written.left_out.get(kind, 0) for kind, number in before.items()}
    assert {kind: number for kind, number in missing.items() if number > 0} == {}


def classed(annotation):
    """The annotation with those objects only that have a category."""
    place = {n: at for at, n in enumerate(n for n, item in enumerate(annotation.objects) if item.label)}
    meant = [(each, [place[n] for n in each.objects if n in place]) for each in annotation.expressions]
    return dataclasses.replace(
        annotation,
        objects=tuple(item for item in annotation.objects if item.label),
        ignored=tuple(item for item in annotation.ignored if item.label),
        expressions=tuple(dataclasses.replace(each, objects=tuple(places)) for each, places in meant),
    )


def count(annotations):
    """Kind of what is said → how often."""
    return Counter({kind: sum(int(number(each)) for each in annotations) for kind, number in PARTS.values()})


def compare(one, other, format):
    """What the format says in full is the same."""
    if format in SAID["objects"]:
        tolerance = ROUNDED.get(format, 1e-9)
        named = [item for item in one.objects if item.label or (format in (*OWN, "labelstudio") and item.phrase)]
        assert [item.label for item in other.objects] == [item.label for item in named]
        for a, b in zip(named, other.objects, strict=True):
            assert b.box == pytest.approx(a.box, abs=tolerance)
            if format not in ("voc", "yolo"):
                assert (b.phrase, b.score) == (a.phrase, a.score)
                assert np.array(b.polygons) == pytest.approx(np.array(a.polygons), abs=1e-9)
    for part in ("captions", "questions", "expressions", "stuff", "exhaustive"):
        if format in SAID[part]:
            assert getattr(one, part) == getattr(other, part)
    for part in ("lines", "regions"):
        if format in SAID[part]:
            assert [each.text for each in getattr(one, part)] == [each.text for each in getattr(other, part)]
            place = "quad" if part == "lines" else "box"
            places = [[getattr(each, place) for each in getattr(a, part)] for a in (one, other)]
            assert np.array(places[1]) == pytest.approx(np.array(places[0]), abs=1e-9)
    if format in SAID["ignored"]:
        assert [item.label for item in one.ignored if item.label or format in OWN] == [i.label for i in other.ignored]


def test_holes_and_several_parts(tmp_path):
    ring = (rectangle(10, 10, 60, 60), rectangle(20, 20, 40, 40))  # with a hole
    parts = (rectangle(5, 62, 30, 78), rectangle(60, 62, 95, 78), rectangle(40, 64, 45, 70))
    items = (ObjectAnnotation("ring", (10, 10, 60, 60), ring), ObjectAnnotation("parts", (5, 62, 95, 78), parts))
    data = [sample(known(objects=items))]
    for format in ("coco", "labelstudio", "huggingface", "jsonl", "webdataset"):
        written, dataset = through(data, format, tmp_path / format)
        assert not written.left_out
        for one, other in zip(items, dataset[0].annotation.objects, strict=True):
            masks = rasterize(one.polygons, SIZE), rasterize(other.polygons, SIZE)
            assert (masks[0] == masks[1]).all(), format
    written, dataset = through(data, "yolo", tmp_path / "yolo")
    assert written.left_out == {"holes of outlines": 1}
    masks = [rasterize(item.polygons, SIZE) for item in dataset[0].annotation.objects]
    assert (masks[0] == rasterize(ring[:1], SIZE)).all() and (masks[1] == rasterize(parts, SIZE)).all()
    assert [item.box for item in dataset[0].annotation.objects] == [pytest.approx(item.box) for item in items]


def test_yolo_writes_boxes_where_an_outline_is_unknown(tmp_path):
    items = (ObjectAnnotation("a", (10, 10, 60, 60), (rectangle(10, 10, 60, 60),)), ObjectAnnotation("b", CAT.box))
    written, dataset = through([sample(known(objects=items))], "yolo", tmp_path)
    assert written.left_out == {"outlines of objects": 1}
    assert not any(item.polygons for item in dataset[0].annotation.objects)
