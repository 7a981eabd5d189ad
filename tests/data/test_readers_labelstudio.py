"""Label Studio's JSON: what people export after they corrected, and masks that they painted."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence_lite.data import read_dataset
from florence_lite.data.readers.brush import brush_to_mask, mask_to_brush
from florence_lite.geometry import rasterize
from tests.data.annotated import rectangle
from tests.data.files import BOX, kinds, picture, write

FRAME = {"original_width": 100, "original_height": 80, "image_rotation": 0, "to_name": "image"}
CORNERS = {"x": 10, "y": 12.5, "width": 30, "height": 25, "rotation": 0}  # BOX
CAT = {"id": "x1", "from_name": "label", "type": "rectanglelabels", "value": {**CORNERS, "rectanglelabels": ["cat"]}}


def result(**changes):
    return {**FRAME, **CAT, **changes}


def task(*results, image="/data/upload/1/0a1b2c3d-a.jpg", key="annotations", **more):
    return {"id": 7, "data": {"image": image}, key: [{"result": list(results), **more}]}


def read(folder, *tasks):
    picture(folder / "images" / "a.jpg")
    write(folder / "project-1-at-2026.json", list(tasks))
    return read_dataset(folder)


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/0a1b2c3d-a.jpg",
        "/data/local-files/?d=images/a.jpg",
        "/data/local-files/?d=some%20where/images/a.jpg",
        "https://example.org/photos/a.jpg?token=5",
        "s3://bucket/photos/a.jpg",
        "images/a.jpg",
        "a.jpg",
    ],
)
def test_an_export_names_its_images_in_many_ways(tmp_path, image):
    dataset = read(tmp_path, task(result(), image=image, completed_by=1, lead_time=3.5))
    (item,) = dataset[0].annotation.objects
    assert (dataset.format, item.label, item.score) == ("labelstudio", "cat", None)
    assert item.box == pytest.approx(BOX) and dataset[0].annotation.exhaustive == {"objects"}


def test_shapes(tmp_path):
    points = [[10, 12.5], [40, 12.5], [40, 37.5]]
    mask = mask_to_brush(rasterize([rectangle(*BOX)], (100, 80)))
    found = read(
        tmp_path,
        task(
            result(id="p", type="polygonlabels", value={"points": points, "polygonlabels": ["dog"]}),
            result(id="b", type="brushlabels", value={"format": "rle", "rle": mask, "brushlabels": ["bus"]}),
            result(id="r", value={**CORNERS, "x": 40, "rotation": 90, "rectanglelabels": ["ship"]}),
            result(id="l", type="labels", value={**CORNERS, "labels": ["cow"]}),
        ),
    )[0].annotation
    assert [item.label for item in found.objects] == ["dog", "bus", "ship", "cow"]
    dog, bus, ship, cow = found.objects
    assert np.array(dog.polygons) == pytest.approx(np.array([[(10, 10), (40, 10), (40, 30)]]))
    assert bus.box == BOX and (rasterize(bus.polygons, (100, 80)) == rasterize([rectangle(*BOX)], (100, 80))).all()
    assert ship.box == pytest.approx((20, 10, 40, 40)) and len(ship.polygons[0]) == 4
    assert cow.box == pytest.approx(BOX) and not cow.polygons


def test_texts(tmp_path):
    text = {"type": "textarea", "value": {**CORNERS, "text": ["STOP"]}}
    found = read(
        tmp_path,
        task(
            result(id="t", type="rectangle", from_name="bbox", value=CORNERS),
            result(id="t", type="labels", value={**CORNERS, "labels": ["Text"]}),
            result(id="t", from_name="transcription", **text),
            result(id="o"),
            result(id="o", from_name="phrase", type="textarea", value={**CORNERS, "text": ["a cat"]}),
            result(id="d", from_name="description", **text),
            {**FRAME, "id": "c", "from_name": "caption", "type": "textarea", "value": {"text": ["one", "two"]}},
            {**FRAME, "id": "e", "from_name": "paragraph", "type": "textarea", "value": {"text": ["long"]}},
        ),
    )[0].annotation
    assert [(line.text, line.quad) for line in found.lines] == [
        ("STOP", pytest.approx((10, 10, 40, 10, 40, 30, 10, 30)))
    ]
    assert [(item.label, item.phrase) for item in found.objects] == [("cat", "a cat")]
    assert found.regions[0].text == "STOP" and found.regions[0].box == pytest.approx(BOX)
    assert found.captions == ("one", "", "long") and found.more_captions == ("two",)
    assert found.exhaustive == {"objects", "lines"}


def test_what_people_say_counts_before_predictions(tmp_path):
    model = {"result": [result(value={**CORNERS, "rectanglelabels": ["dog"]}, score=0.5)]}
    both = task(result()) | {"predictions": [model]}
    dataset = read(tmp_path, both)
    assert [item.label for item in dataset[0].annotation.objects] == ["cat"]
    dataset = read(tmp_path, {"data": both["data"], "predictions": [model]})
    assert [(i.label, i.score) for i in dataset[0].annotation.objects] == [("dog", 0.5)]
    assert dataset[0].annotation.exhaustive == set()
    dataset = read(tmp_path, task(result(), was_cancelled=True) | {"predictions": [model]})
    assert [item.label for item in dataset[0].annotation.objects] == ["dog"]


def test_a_person_who_saw_nothing_says_that_there_is_nothing(tmp_path):
    picture(tmp_path / "b.jpg")
    dataset = read(tmp_path, task(result()), task(image="b.jpg"))
    assert [each.annotation.is_negative for each in dataset] == [False, True]
    caption = {**FRAME, "id": "c", "from_name": "caption", "type": "textarea", "value": {"text": ["one"]}}
    dataset = read(tmp_path, task(caption), task(image="b.jpg"))
    assert [each.annotation.exhaustive for each in dataset] == [set(), set()]  # nobody was asked for objects


def test_a_truth_that_was_imported_as_incomplete_is_complete_once_a_person_worked_on_it(tmp_path):
    told = task(result())
    told["data"]["exhaustive"] = []
    assert read(tmp_path, told)[0].annotation.exhaustive == set()
    told["annotations"][0] |= {"completed_by": 1, "lead_time": None}
    assert read(tmp_path, told)[0].annotation.exhaustive == set()
    told["annotations"][0]["lead_time"] = 12.5
    assert read(tmp_path, told)[0].annotation.exhaustive == {"objects"}


FAULTS = {
    "no value": (result(value=None), "result left out"),
    "no label": (result(value={**CORNERS, "rectanglelabels": []}), "object left out"),
    "an ellipse": (result(value={"x": 1, "y": 1, "radiusX": 5, "ellipselabels": ["a"]}), "result left out"),
    "a keypoint": (result(value={"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["a"]}), "result left out"),
    "no numbers": (result(value={**CORNERS, "x": "left", "rectanglelabels": ["a"]}), "result left out"),
    "two points": (result(value={"points": [[1, 1], [2, 2]], "polygonlabels": ["a"]}), "result left out"),
    "turned": (result(image_rotation=90), "result left out"),
    "a mask cut short": (result(value={"format": "rle", "rle": [0, 0], "brushlabels": ["a"]}), "result left out"),
    "a small mask": (result(value={"rle": mask_to_brush(np.ones((3, 3))), "brushlabels": ["a"]}), "result left out"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_results_that_are_not_understood_make_the_list_incomplete(tmp_path, fault):
    broken, kind = FAULTS[fault]
    dataset = read(tmp_path, task(result(id="fine"), {**broken, "id": "broken"}))
    assert [item.label for item in dataset[0].annotation.objects] == ["cat"]
    assert dataset[0].annotation.exhaustive == set() and kinds(dataset) == {kind: 1}


def test_tasks_that_cannot_be_used(tmp_path):
    tasks = [
        task(result()),
        5,
        {"annotations": []},
        task(result(), image="lost.jpg"),
        task(result(), {**result(), "original_width": 50}, image="b.jpg"),
        task(result(value={**CORNERS, "rectanglelabels": ["dog"]})),
    ]
    picture(tmp_path / "b.jpg")
    dataset = read(tmp_path, *tasks)
    assert kinds(dataset) == {"record left out": 3, "image missing": 1, "duplicate image": 1}
    assert len(dataset) == 1 and dataset[0].annotation.exhaustive == set()
    write(tmp_path / "project-1-at-2026.json", json.dumps(tasks)[:-9])
    with pytest.raises(ValueError, match="project-1-at-2026.json is no JSON file or is cut short"):
        read_dataset(tmp_path)


def test_a_label_with_the_words_of_coco_does_not_confuse(tmp_path):
    labelled = result(value={**CORNERS, "rectanglelabels": ["images"]})
    assert read(tmp_path, task(labelled)).format == "labelstudio"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 1))
def test_painted_masks_come_back(width, height, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert (brush_to_mask(mask_to_brush(mask), (width, height)) == mask).all()


def test_a_large_mask_is_short():
    runs = mask_to_brush(np.ones((600, 800), dtype=bool))
    assert len(runs) < 200 and brush_to_mask(runs, (800, 600)).all()


def test_a_mask_as_painters_write_it():
    """Values that are not repeated stand one by one: an opaque pixel and a clear one."""
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + f"{7:03b}" + "11111111" * 4 + "00000000" * 4
    bits += "0" * (-len(bits) % 8)
    runs = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert brush_to_mask(runs, (2, 1)).tolist() == [[True, False]]
