"""COCO files, run lengths and expressions beside them."""

import pickle

import numpy as np
import pytest

from florence_lite.data import read_dataset
from florence_lite.data.annotation import ReferringExpression
from florence_lite.data.readers.coco import CAPTION_LENGTHS, union
from florence_lite.data.readers.rle import rle_to_mask
from florence_lite.geometry import mask_iou, mask_to_rle, rasterize
from tests.data.files import coco, kinds, picture, write

ONE = [("a.jpg", 100, 80)]
CAT = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}
DOG = {"image_id": 1, "category_id": 2, "bbox": [50, 10, 40, 60]}


@pytest.fixture
def folder(tmp_path):
    """A data set of one image of 100×80 pixels, without files of annotations."""
    picture(tmp_path / "a.jpg")
    return tmp_path


def read(folder, annotations, images=ONE, **more):
    write(folder / "instances.json", coco(images, annotations) | more)
    return read_dataset(folder)


# ---- run lengths -----------------------------------------------------------------------------------------------------

COMPRESSED = {  # made with faster-coco-eval
    (1, 1): b"1",
    (3, 4): b"0<",
    (40, 60): b"e<i0?00\\OF::FF:::0000000000ka1",
}


def framed_mask() -> np.ndarray:
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:30, 10:20] = True
    mask[10:15, 12:14] = False
    return mask


@pytest.mark.parametrize(("size", "mask"), [((1, 1), np.zeros((1, 1))), ((3, 4), np.ones((3, 4))), ((40, 60), None)])
def test_compressed_run_lengths(size, mask):
    expected = framed_mask() if mask is None else mask
    for counts in (COMPRESSED[size], COMPRESSED[size].decode()):
        assert (rle_to_mask({"size": list(size), "counts": counts}) == expected).all()


def test_run_lengths_invert_ours():
    masks = np.random.default_rng(0).random((20, 7, 9)) < np.linspace(0, 1, 20)[:, None, None]
    for mask in masks:
        assert (rle_to_mask(mask_to_rle(mask)) == mask).all()


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "add up to 3 for 2×2 pixels"),
        ({"size": [2, 2], "counts": [5, -1]}, "add up to 4 for 2×2"),
        ({"size": [40, 60], "counts": "e<i0?00"}, "add up to .* for 40×60"),
        ({"counts": [4]}, "need a size"),
        ({"size": [2], "counts": [4]}, "need a size"),
        ({"size": [2, 2], "counts": None}, "need a size"),
        ({"size": [2, 2], "counts": "é"}, "need a size"),
    ],
)
def test_run_lengths_that_are_none(rle, message):
    with pytest.raises(ValueError, match=message):
        rle_to_mask(rle)


# ---- objects ---------------------------------------------------------------------------------------------------------


def test_boxes_polygons_and_negatives(folder):
    picture(folder / "empty.jpg")
    outlined = {**DOG, "segmentation": [[50, 10, 90, 10, 90, 70]]}
    dataset = read(folder, [CAT, outlined], [*ONE, ("empty.jpg", 100, 80)])
    cat, dog = dataset[0].annotation.objects
    assert (cat.label, cat.box, cat.polygons) == ("cat", (10, 10, 30, 30), ())
    assert (dog.label, dog.box, dog.polygons) == ("dog", (50, 10, 90, 70), (((50, 10), (90, 10), (90, 70)),))
    assert dataset[1].annotation.objects == () and dataset[1].annotation.exhaustive == {"objects"}
    assert (dataset.classes, dataset.problems) == (("cat", "dog"), ())
    assert dataset.summary()["negatives"] == {"instances.json lists it without objects": 1}


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_become_outlines_with_holes(folder, compressed):
    picture(folder / "a.jpg", (60, 40))
    counts = COMPRESSED[40, 60].decode() if compressed else mask_to_rle(framed_mask())["counts"]
    record = {"image_id": 1, "category_id": 1, "segmentation": {"size": [40, 60], "counts": counts}}
    dataset = read(folder, [{**record, "bbox": [10, 5, 10, 25]}, record], [("a.jpg", 60, 40)])
    for item in dataset[0].annotation.objects:
        assert item.box == pytest.approx((10, 5, 20, 30), abs=1)
        assert mask_iou(rasterize(item.polygons, (60, 40)), framed_mask()) > 0.95
        assert len(item.polygons) == 2


def test_outlines_are_scaled_with_the_image(folder):
    outlined = {**CAT, "segmentation": [[10, 10, 30, 10, 30, 30]]}
    masked = {**CAT, "segmentation": mask_to_rle(np.pad(np.ones((20, 20), dtype=bool), ((10, 130), (10, 170))))}
    dataset = read(folder, [outlined, masked], [("a.jpg", 200, 160)])
    first, second = dataset[0].annotation.objects
    assert first.polygons == (((5, 5), (15, 5), (15, 15)),)
    assert first.box == second.box == (5, 5, 15, 15)
    assert rasterize(second.polygons, (100, 80)).sum() == pytest.approx(100, abs=10)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "three or more points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three or more points"),
        ([[1, 2, 3, 4, 5, None]], "three or more points"),
        ({"size": [80, 100], "counts": [1]}, "add up to 1"),
        ({"size": [40, 60], "counts": [2400]}, "are for 60×40 pixels, not 100×80"),
        ("polygon", "is a str, not a list"),
        ([[120, 10, 150, 10, 150, 40]], "lies outside of the image of 100×80"),
    ],
)
def test_outlines_that_are_none_leave_the_box(folder, segmentation, message):
    dataset = read(folder, [{**CAT, "segmentation": segmentation}])
    assert dataset[0].annotation.objects[0].polygons == ()
    assert kinds(dataset) == {"polygon left out": 1}
    assert message in dataset.problems[0].what


def test_outlines_end_where_the_image_does(folder):
    """A slanting edge is cut at the border; its outer corner is not moved onto it."""
    dataset = read(folder, [{**CAT, "segmentation": [[80, 10, 140, 40, 80, 70]]}])
    (ring,) = dataset[0].annotation.objects[0].polygons
    assert set(ring) == {(80, 10), (100, 20), (100, 60), (80, 70)}


def test_overlapping_parts_add_up():
    left, right = ((0, 0), (30, 0), (30, 30), (0, 30)), ((20, 0), (50, 0), (50, 30), (20, 30))
    apart = ((60, 0), (70, 0), (70, 30), (60, 30))
    assert union((left, apart), (80, 40)) == (left, apart)
    assert rasterize(union((left, right), (80, 40)), (80, 40)).sum() == 50 * 30


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ([{**CAT, "category_id": 7}], {"unknown category": 1}),
        ([{**CAT, "image_id": 9}], {"annotation left out": 1, "not taken as empty": 1}),
        ([{"image_id": 1, "caption": " "}], {"annotation left out": 1}),
        ([{"image_id": 1, "keywords": "cat"}], {"annotation left out": 1}),
        (["cat"], {"annotation left out": 1, "not taken as empty": 1}),
        ([{**CAT, "image_id": [1]}], {"annotation left out": 1, "not taken as empty": 1}),
        ([{**CAT, "bbox": [10**400, 1, 1, 1]}], {"box left out": 1}),
    ],
)
def test_records_that_are_left_out(folder, annotations, expected):
    content = coco(ONE, [])
    content["annotations"] = annotations
    write(folder / "instances.json", content)
    dataset = read_dataset(folder)
    annotation = dataset[0].annotation
    assert annotation.objects == () and kinds(dataset) == expected
    assert annotation.is_negative == ("caption" in annotations[0])  # else something is there that was not understood


def test_duplicate_ids(folder):
    picture(folder / "b.jpg")
    content = coco([*ONE, ("b.jpg", 100, 80)], [CAT, CAT, DOG])
    content["images"][1]["id"] = 1
    for record in content["annotations"]:
        record["id"] = 5
    write(folder / "instances.json", content)
    dataset = read_dataset(folder)
    assert [item.label for item in dataset[0].annotation.objects] == ["cat", "dog"]  # two different records are kept
    assert (len(dataset), kinds(dataset)) == (1, {"duplicate id": 3})


def test_an_image_under_two_ids(folder):
    dataset = read(folder, [CAT, {**DOG, "image_id": 2}], [*ONE, *ONE])
    assert [item.label for item in dataset[0].annotation.objects] == ["cat", "dog"]
    assert (len(dataset), kinds(dataset)) == (1, {"duplicate image": 1})


def test_captions_of_another_file_join_the_objects(folder):
    picture(folder / "b.jpg")
    captions = [{"image_id": n, "caption": f"sentence {i}"} for n in (1, 2) for i in range(3)]
    write(
        folder / "captions.json", {k: v for k, v in coco([*ONE, ("b.jpg", 100, 80)], captions).items() if k[0] != "c"}
    )
    dataset = read(folder, [CAT])
    both, captioned = dataset.annotations
    assert both.captions == ("sentence 0",) and both.more_captions == ("sentence 1", "sentence 2")
    assert both.exhaustive == {"objects"} and len(both.objects) == 1
    assert captioned.exhaustive == set() and captioned.captions  # nothing is known about its objects


def test_captions_of_several_lengths(folder):
    captions = [{"image_id": 1, "caption": length, "length": length} for length in reversed(CAPTION_LENGTHS)]
    assert read(folder, captions)[0].annotation.captions == CAPTION_LENGTHS
    assert read(folder, captions[:2])[0].annotation.captions == ("", *CAPTION_LENGTHS[1:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotations": [', "instances.json is no JSON file or is cut short .*line 1"),
        ('{"images": 5, "annotations": []}', 'instances.json has no list "images"'),
        ('["images", "annotations"]', 'instances.json has no list "images"'),
    ],
)
def test_files_that_are_no_coco(folder, content, message):
    write(folder / "instances.json", content)
    with pytest.raises(ValueError, match=message):
        read_dataset(folder, "coco")


# ---- expressions -----------------------------------------------------------------------------------------------------


def read_expressions(folder, records, split=None):
    picture(folder / "b.jpg")
    content = coco([*ONE, ("b.jpg", 100, 80)], [CAT, DOG])
    write(folder / "instances.json", content)
    write(folder / "refs.json", records)
    return read_dataset(folder, split=split)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"caption": "the cat", "bbox_xyxy": [10, 10, 30, 30]}, [("the cat", (0,))]),
        ({"expression": "the cat", "bbox_xyxy": [11, 10, 30, 31]}, [("the cat", (0,))]),  # nearly
        ({"phrase": "the dog", "bbox": [50, 10, 40, 60]}, [("the dog", (1,))]),
        ({"phrase": "both", "bbox": [[50, 10, 40, 60], [10, 10, 20, 20]]}, [("both", (1, 0))]),
        (
            {"sentences": [{"sent": "dog", "raw": "Dog!"}, {"sent": "a dog"}], "ann_id": 2},
            [("dog", (1,)), ("a dog", (1,))],
        ),
        ({"sentences": ["both"], "ann_ids": [1, 2]}, [("both", (0, 1))]),
        ({"sent": "the bird", "ann_id": [-1]}, [("the bird", ())]),
        ({"sent": "the bird", "bbox_xyxy": None}, [("the bird", ())]),
        ({"sent": "the bird", "ann_id": [1], "no_target": True}, [("the bird", ())]),
    ],
)
def test_expressions(folder, record, expected):
    dataset = read_expressions(folder, [{"image_id": 1, **record}])
    annotation = dataset[0].annotation
    assert annotation.expressions == tuple(ReferringExpression(*each) for each in expected)
    assert len(annotation.objects) == 2 and annotation.exhaustive == {"objects"}
    assert dataset.problems == ()


def test_an_object_known_by_its_phrase_alone(folder):
    dataset = read_expressions(folder, [{"file_name": "b.jpg", "sent": "a hat", "bbox_xyxy": [5, 5, 25, 15]}])
    annotation = dataset[1].annotation
    item = annotation.objects[0]
    assert (item.label, item.phrase, item.box) == ("", "a hat", (5, 5, 25, 15))
    assert annotation.exhaustive == set()  # the list of objects was not complete
    assert dataset[0].annotation.exhaustive == {"objects"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image_id": 7, "sent": "x", "ann_id": 1}, "its image 7 is in no COCO file"),
        ({"image_id": [1], "sent": "x", "ann_id": 1}, "its image [1] is in no COCO file"),
        ({"image_id": 1, "sent": "x", "bbox": 5}, "one of its boxes is unusable"),
        ({"image_id": 2, "sent": "x", "ann_id": 1}, "its annotation 1 is no object of the image"),
        ({"image_id": 1, "sent": "x"}, "it says with none of ann_ids"),
        ({"image_id": 1, "sent": " ", "ann_id": 1}, "it has no words"),
        ({"image_id": 1, "sent": "x", "bbox_xyxy": [9, 9, 5, 5]}, "one of its boxes is unusable"),
    ],
)
def test_expressions_that_are_left_out(folder, record, message):
    good = {"image_id": 1, "sent": "the cat", "ann_id": 1}
    dataset = read_expressions(folder, [good, record])
    assert len(dataset[0].annotation.expressions) == 1
    assert dataset.problems[-1].what.startswith(message)
    assert (dataset.problems[-1].file, dataset.problems[-1].record) == ("refs.json", "expression number 1")


def test_expressions_decide_the_split(folder):
    records = [
        {"image_id": 1, "sent": "the cat", "ann_id": 1, "split": "train"},
        {"image_id": 1, "sent": "the dog", "ann_id": 2, "split": "val"},
        {"image_id": 2, "sent": "the dog", "ann_id": [], "split": "testA"},
    ]
    named = {
        split: [
            (s.name, [r.phrase for r in s.annotation.expressions]) for s in read_expressions(folder, records, split)
        ]
        for split in ("train", "val", "testA")
    }
    assert named == {
        "train": [("a.jpg", ["the cat"])],
        "val": [("a.jpg", ["the dog"])],
        "testA": [("b.jpg", ["the dog"])],
    }


def test_pickles_of_plain_data_only(folder):
    write(folder / "instances.json", coco(ONE, [CAT]))
    refs = folder / "refs(unc).p"
    refs.write_bytes(pickle.dumps([{"image_id": 1, "ann_id": 1, "sentences": [{"sent": "the cat"}]}], protocol=2))
    assert read_dataset(folder)[0].annotation.expressions == (ReferringExpression("the cat", (0,)),)
    refs.write_bytes(pickle.dumps([print]))
    with pytest.raises(ValueError, match=r"refs\(unc\).p cannot be read .*builtins.print, which is not plain data"):
        read_dataset(folder)


def test_expressions_need_a_coco_file(folder):
    write(folder / "refs.json", [{"image_id": 1, "sent": "x", "ann_id": 1}])
    with pytest.raises(ValueError, match="refs.json, but no COCO file that names the images"):
        read_dataset(folder)


# ---- real data -------------------------------------------------------------------------------------------------------


def test_shared_coco(shared_data):
    dataset = read_dataset(shared_data / "coco_permissive")
    assert dataset.format == "refcoco"
    counts = dataset.summary()
    whole = {"objects told by two files": 1, "some categories not looked for": 1}  # there is a file of persons alone
    assert counts["negatives"] == {} and counts["ignored"] == 55
    assert (counts["images"], counts["captions"], counts["expressions"], counts["outlined"]) == (746, 3732, 93, 510)
    assert counts["problems"] == {"scaled to the image": 740, "box clipped": 9, **whole}
    for annotation in dataset.annotations:
        width, height = annotation.size_wh
        assert max(width, height) <= 320
        assert all(
            0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height for x0, y0, x1, y1 in (o.box for o in annotation.objects)
        )
