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
from florence_lite.data.writers import WRITERS, output
from florence_lite.data.writers.output import PARTS
from florence_lite.geometry import rasterize
from tests.data.annotated import rectangle
from tests.data.files import picture, turned

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
        exhaustive=annotation.exhaustive - (set() if len(place) == len(annotation.objects) else OBJECTS),
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


# ---- images ----------------------------------------------------------------------------------------------------------

FILES = ("coco", "voc", "yolo", "jsonl", "labelstudio", "captions")  # formats with a folder of images
CAPTIONED = Annotation(SIZE, (CAT,), captions=("a cat",), exhaustive=OBJECTS)


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))


@pytest.mark.parametrize("format", WRITERS)
def test_images_of_one_name_do_not_replace_each_other(tmp_path, format):
    names = ["a/Größe 1.jpg", "b/größe 1.jpg", "c/größe 1.png", "c/größe 1.jpg", "猫/π.v2.jpg", "猫/π.v3.jpg"]
    files = [picture(tmp_path / "photos" / name, (100 + n, 80)) for n, name in enumerate(names)]
    data = [
        Sample(file, dataclasses.replace(CAPTIONED, size_wh=(100 + n, 80)), name)
        for n, (file, name) in enumerate(zip(files, names, strict=True))
    ]
    written, dataset = through(data, format, tmp_path)
    assert sorted(each.load().size[0] for each in dataset) == [100 + n for n in range(len(names))]
    assert len(dataset) == written.images == len(names) and not dataset.problems
    assert len({each.name.casefold() for each in dataset}) == len(names)


@pytest.mark.parametrize("format", WRITERS)
def test_pictures_that_exif_turns_are_written_upright(tmp_path, format):
    file = turned(tmp_path / "a.jpg", (80, 100))
    written, dataset = through([Sample(file, CAPTIONED, "a.jpg")], format, tmp_path)
    assert dataset[0].load().size == SIZE
    if format in FILES:
        (image,) = images_in(written.path)
        with Image.open(image) as opened:
            assert opened.size == SIZE and not opened.getexif().get(0x0112)


@pytest.mark.parametrize("format", FILES)
def test_images_are_linked_or_copied(tmp_path, format):
    data = [Sample(picture(tmp_path / "a.jpg"), CAPTIONED, "a.jpg")]
    (link,) = images_in(write_dataset(data, format, tmp_path / "linked").path)
    (copy,) = images_in(write_dataset(data, format, tmp_path / "copied", copy_images=True).path)
    assert link.is_symlink() and not copy.is_symlink()
    assert link.read_bytes() == copy.read_bytes() == (tmp_path / "a.jpg").read_bytes()


def test_names_that_no_file_may_have(tmp_path):
    names = ["a/..", "  ", "x" * 300, "a\nb:c?.png", ".hidden.jpg", "rows.parquet!7/image", "s.tar!d/e.jpg"]
    data = [sample(CAPTIONED, name) for name in names]
    written = write_dataset(data, "yolo", tmp_path / "out")
    stems = {path.stem for path in images_in(written.path)}
    assert stems == {"image", "image_2", "x" * 200, "a_b_c_", "hidden", "rows_7", "e"}
    assert len(read_dataset(written.path)) == len(names)


# ---- what is known to be empty, and what is not known ----------------------------------------------------------------


@pytest.mark.parametrize("format", SAID["objects"])
def test_negatives_stay_negatives_and_unknown_stays_unknown(tmp_path, format):
    data = [
        sample(known(objects=(CAT,)), "cat"),
        sample(known(), "empty"),
        sample(known(exhaustive=frozenset()), "unknown"),
        sample(known(objects=(CAT,), exhaustive=frozenset()), "partly"),
    ]
    written, dataset = through(data, format, tmp_path)
    assert [each.annotation.is_negative for each in dataset][:2] == [False, True]
    holds_unknown = format in ("jsonl", "webdataset", "labelstudio")
    assert len(dataset) == (4 if holds_unknown else 3)
    assert sum(each.annotation.is_negative for each in dataset) == 1
    assert ("images of which nothing is known that the format can say" in written.left_out) != holds_unknown
    says_partly = format in ("jsonl", "webdataset", "labelstudio", "coco")
    assert ("objects" in dataset[len(dataset) - 1].annotation.exhaustive) != says_partly
    assert ("word that objects may be missing" in written.left_out) != says_partly


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "huggingface"])
def test_a_box_that_has_no_category_makes_no_empty_image(tmp_path, format):
    """Proposals about an image of which no list names anything: nobody said that there is nothing."""
    cat = ObjectAnnotation("cat", (10, 10, 40, 40))
    proposal = ObjectAnnotation("", (50, 10, 80, 40))
    samples = [sample(known(objects=(cat,)), "a"), sample(known(objects=(proposal,)), "b")]
    samples.append(sample(known(objects=(cat, proposal)), "c"))
    written, dataset = through(samples, format, tmp_path)
    assert written.left_out["objects without a category"] >= 1
    assert not any(each.annotation.is_negative for each in dataset)
    names = {len(each.annotation.objects): "objects" in each.annotation.exhaustive for each in dataset}
    assert 0 not in names and written.images == len(dataset) == 2


def test_coco_says_which_categories_an_incomplete_image_was_searched_for(tmp_path):
    items = (CAT, ObjectAnnotation("dog", (50, 10, 90, 60)))
    said = (ReferringExpression("bus"), ReferringExpression("cat", (0,)))
    other = ReferringExpression("the left one", (0,))
    partly = known(objects=items, expressions=(*said, other), exhaustive=frozenset())
    data = Dataset.of([sample(partly)], classes=("cat", "dog", "bus"))
    written, dataset = through(data, "coco", tmp_path)
    assert written.left_out == {"phrases and what they mean": 1}
    assert dataset[0].annotation.expressions == said
    assert dataset[0].annotation.exhaustive == set()
    assert (written.path / "annotations" / "instances.json").is_file()


# ---- categories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", SAID["objects"])
def test_categories_of_any_spelling(tmp_path, format):
    labels = ["a/b", "two\nlines", "no", "10", "null", "~", "", "猫 & <dog>", '"quoted": yes', "#5", " space "]
    items = tuple(ObjectAnnotation(label, (n, 10, n + 5, 20)) for n, label in enumerate(labels))
    written, dataset = through([sample(known(objects=items))], format, tmp_path)
    found = [item.label for item in dataset[0].annotation.objects]
    if format in OWN:
        assert found == [label.strip() for label in labels]
        return
    nothing = ("null_", "~_") if format == "yolo" else ("null", "~")
    assert found == ["a/b", "two lines", "no", "10", *nothing, "猫 & <dog>", '"quoted": yes', "#5", "space"]
    assert written.left_out["objects without a category"] == 1
    assert written.left_out["spelling of categories"] == (4 if format == "yolo" else 2)


def test_categories_keep_the_order_of_the_data(tmp_path):
    data = Dataset.of([sample(known(objects=(CAT,)))], classes=("zebra", "cat", "ant"))
    for format in ("coco", "yolo"):
        _, dataset = through(data, format, tmp_path / format)
        assert dataset.classes == ("zebra", "cat", "ant")


# ---- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", WRITERS)
def test_splits_are_kept_apart(tmp_path, format):
    data = {split: Dataset.of([sample(CAPTIONED, "a")] * count) for split, count in (("train", 3), ("val", 2))}
    written = write_dataset(data, format, tmp_path / "out")
    columns = {"format": "huggingface", "columns": columns_of(written)} if format in ("huggingface", "datasets") else {}
    counts = [len(read_dataset(written.path, split=split, **columns)) for split in (None, "train", "val")]
    assert counts == [5, 3, 2]


# ---- captions beside images ------------------------------------------------------------------------------------------


def test_captions_have_a_prefix_and_are_one_line(tmp_path):
    words = Annotation(SIZE, captions=("a cat", "a red\ncat"), more_captions=("pet",), exhaustive=frozenset())
    written, dataset = through([sample(words, "a")], "captions", tmp_path, prefix="mytoken, ")
    assert (written.path / "a.txt").read_text() == "mytoken, a red cat\n"
    assert dataset[0].annotation.captions == ("mytoken, a red cat",)
    assert written.left_out == {"further captions": 2}
    with pytest.raises(ValueError, match="prefix is 'x', which only the format 'captions' has"):
        write_dataset([sample(words)], "coco", tmp_path / "coco", prefix="x")


def test_captions_beside_the_images_overwrite_nothing(tmp_path):
    data = [Sample(picture(tmp_path / name / "a.jpg"), CAPTIONED, name) for name in "ab"]
    (tmp_path / "b" / "a.txt").write_text("my own")
    with pytest.raises(ValueError, match="b/a.txt would be overwritten"):
        write_dataset(data, "captions", tmp_path)
    assert not (tmp_path / "a" / "a.txt").exists() and (tmp_path / "b" / "a.txt").read_text() == "my own"
    (tmp_path / "b" / "a.txt").unlink()
    assert write_dataset(data, "captions", tmp_path).images == 2
    assert [each.annotation.captions for each in read_dataset(tmp_path)] == [("a cat",)] * 2


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_image_that_cannot_be_read_is_left_out_and_counted(tmp_path):
    broken, lost = tmp_path / "broken.jpg", tmp_path / "lost.jpg"
    broken.write_bytes(b"no image")
    data = [sample(CAPTIONED), Sample(broken, CAPTIONED, "broken.jpg"), Sample(lost, CAPTIONED, "lost.jpg")]
    data.append(Sample(picture(tmp_path / "small.jpg", (10, 10)), CAPTIONED, "small.jpg"))
    for format in WRITERS:
        written = write_dataset(data, format, tmp_path / format)
        assert (written.images, written.left_out["images that cannot be read"]) == (1, 3)


MISTAKES = {
    "unknown format": ({"format": "COCO"}, ValueError, "format is 'COCO'; choose one of coco, voc"),
    "something is there": ({"output": "full"}, ValueError, "full is there already; give an empty folder"),
    "a file is there": ({"output": "full/x"}, ValueError, "x is there already"),
    "a run was killed": ({"output": "killed"}, ValueError, "killed.partial is left of a run that was killed"),
    "nothing to say": ({"dataset": [sample(Annotation(SIZE, captions=("a",), exhaustive=frozenset()))]}, ValueError,
                       "nothing of the data can be written as yolo: 1 × images of which nothing"),
    "no captions": ({"dataset": [sample(known(objects=(CAT,)))], "format": "captions"}, ValueError, "nothing of the"),
    "no images": ({"dataset": []}, ValueError, "nothing of the data can be written as yolo: there are no images"),
    "no splits": ({"dataset": {"a b": Dataset.of([])}}, ValueError, "splits are called 'a b'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(tmp_path, mistake):
    changes, error, message = MISTAKES[mistake]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "killed.partial").mkdir()
    asked = {"dataset": [sample(CAPTIONED)], "format": "yolo", "output": "out", **changes}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        write_dataset(asked["dataset"], asked["format"], tmp_path / asked["output"])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("format", WRITERS)
def test_a_full_disk_leaves_nothing(tmp_path, format, monkeypatch):
    data = [sample(CAPTIONED, "a"), sample(CAPTIONED, "b")]
    own_name, calls = output.Output._own_name, []

    def full(self, each):
        calls.append(each)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return own_name(self, each)

    monkeypatch.setattr(output.Output, "_own_name", full)
    with pytest.raises(OSError, match="out was not written .No space left on device., and nothing of it is left"):
        write_dataset(data, format, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "out").mkdir()
    assert write_dataset([sample(CAPTIONED)], "coco", tmp_path / "out").images == 1


def test_texts_beside_images_are_taken_away_where_not_all_can_be_written(tmp_path, monkeypatch):
    data = [Sample(picture(tmp_path / f"{name}.jpg"), CAPTIONED, name) for name in "ab"]
    write_text = Path.write_text

    def full(path, *arguments, **more):
        if path.name == "b.txt":
            raise OSError(28, "No space left on device")
        return write_text(path, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="b.txt was not written .No space left on device., and no text is left"):
        write_dataset(data, "captions", tmp_path)
    assert not list(tmp_path.glob("*.txt"))


def test_an_image_whose_tar_is_gone_is_left_out_and_counted(tmp_path):
    data = [sample(CAPTIONED, name) for name in "ab"]
    dataset = read_dataset(write_dataset(data, "webdataset", tmp_path / "tars").path)
    (tmp_path / "tars" / "shard-000000.tar").unlink()
    with pytest.raises(ValueError, match="2 × images that cannot be read"):
        write_dataset(dataset, "coco", tmp_path / "out")


def test_the_same_data_are_the_same_bytes(tmp_path):
    data = [sample(CAPTIONED, name) for name in "ab"]
    for format in ("coco", "voc", "yolo", "jsonl", "labelstudio", "webdataset", "captions", "huggingface"):
        folders = [write_dataset(data, format, tmp_path / f"{format}{n}").path for n in range(2)]
        files = [sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) for folder in folders]
        assert files[0] == files[1]
        assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in files[0])
