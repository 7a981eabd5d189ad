"""What follows from a panoptic map: semantic and instance maps, COCO's form, pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from florence_lite.results import Panoptic, Segment

IDS = np.zeros((60, 80), np.int32)
IDS[:30] = 300  # sky
IDS[5:20, 10:30] = 1
IDS[10:15, 15:20] = 0  # a hole
IDS[5:20, 50:70] = 70_000
SEGMENTS = (
    Segment(1, "dog", 0.9, True, 275),
    Segment(300, "the sky", 0.5, False, int((IDS == 300).sum())),
    Segment(70_000, "dog", None, True, 300),
)


@pytest.fixture
def panoptic() -> Panoptic:
    return Panoptic(IDS, SEGMENTS, dropped=1, parse_errors=2, image=Image.new("RGB", (80, 60), (200, 200, 200)))


def test_semantic_and_instance_maps(panoptic):
    assert (panoptic.size_wh, panoptic.labels) == ((80, 60), ["dog", "the sky"])
    semantic = panoptic.semantic_map()
    assert semantic[6, 11] == semantic[6, 51] == 1 and semantic[0, 0] == 2 and semantic[12, 17] == semantic[50, 5] == 0
    chosen = panoptic.semantic_map(["the sky", "cat"])
    assert chosen[0, 0] == 1 and not chosen[IDS != 300].any()
    assert (panoptic.instance_map() == np.where(IDS == 300, 0, IDS)).all()
    assert (panoptic.mask(70_000) == (IDS == 70_000)).all()
    with pytest.raises(ValueError, match=r"no segment 2; the ids are \[1, 300, 70000\]"):
        panoptic.mask(2)


def test_png_gives_the_ids_back(panoptic, tmp_path):
    panoptic.to_png().save(tmp_path / "ids.png")
    red, green, blue = np.moveaxis(np.asarray(Image.open(tmp_path / "ids.png")).astype(int), -1, 0)
    assert (red + 256 * green + 256**2 * blue == IDS).all()


def test_coco_entry(panoptic):
    entry = panoptic.to_coco(7, "a.png", {"dog": 3, "the sky": 5})
    assert (entry["image_id"], entry["file_name"]) == (7, "a.png")
    assert entry["segments_info"][0] == {
        "id": 1,
        "category_id": 3,
        "category_name": "dog",
        "area": 275,
        "bbox": [10, 5, 20, 15],
        "iscrowd": 0,
        "isthing": 1,
        "score": 0.9,
    }
    assert "score" not in entry["segments_info"][2] and entry["segments_info"][1]["isthing"] == 0
    assert len(panoptic.to_coco(category_ids={"dog": 3})["segments_info"]) == 2
    unnamed = panoptic.to_coco()["segments_info"]
    assert unnamed[0]["category_id"] == unnamed[2]["category_id"] != unnamed[1]["category_id"]
    assert json.loads(json.dumps(panoptic.to_dict()))["segments"][1]["label"] == "the sky"
    assert (panoptic.to_dict()["dropped"], panoptic.to_dict()["parse_errors"]) == (1, 2)


def test_pictures_are_filled_and_holes_stay_holes(panoptic):
    drawn = panoptic.draw(max_side=80)
    assert drawn.size == (80, 60)
    grey = (200, 200, 200)
    picture = np.asarray(panoptic.draw())  # enlarged by 8
    assert tuple(picture[12 * 8 + 4, 17 * 8 + 4]) == grey == tuple(picture[55 * 8, 40 * 8])
    assert tuple(picture[7 * 8, 60 * 8]) != grey and tuple(picture[25 * 8, 5 * 8]) != grey
    assert not panoptic.image.getcolors()[1:]  # the picture itself stays as it was
    bare = Panoptic(IDS, SEGMENTS)
    with pytest.raises(ValueError, match="keeps no image"):
        bare.draw()
    assert (np.asarray(bare.draw(panoptic.image)) == picture).all()


def test_large_maps_are_drawn_from_fewer_pixels():
    ids = np.zeros((1500, 4100), np.int32)
    ids[100:700, 200:2000] = 1
    large = Panoptic(ids, (Segment(1, "dog", 0.9, True, 600 * 1800),))
    [instance] = large._outlines()
    assert instance.bounds == pytest.approx((200, 100, 2000, 700), abs=5)
