"""Formats that labelling and training tools write."""

import json

import pytest

from florence_lite.data import read_dataset
from tests.data.files import BOX, kinds, picture, write

# ---- formats of the trade --------------------------------------------------------------------------------------------


def answer(tmp_path, prefix, suffix):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "annotations.jsonl", json.dumps({"image": "a.jpg", "prefix": prefix, "suffix": suffix}))
    return read_dataset(tmp_path)[0].annotation


def test_prompts_and_answers_as_lines(tmp_path):
    annotation = answer(tmp_path, "<OD>", "cat<loc_100><loc_125><loc_400><loc_375>dog<loc_0><loc_0><loc_9><loc_9>")
    assert [item.label for item in annotation.objects] == ["cat", "dog"] and annotation.exhaustive == {"objects"}
    assert annotation.objects[0].box == pytest.approx(BOX, abs=0.1)
    assert answer(tmp_path, "<OD>", "").is_negative
    quads = answer(tmp_path, "<OCR_WITH_REGION>", "GO" + "".join(f"<loc_{n}>" for n in (1, 1, 90, 1, 90, 9, 1, 9)))
    assert [line.text for line in quads.lines] == ["GO"]
    assert answer(tmp_path, "<DETAILED_CAPTION>", "a cat").captions == ("", "a cat")
    regions = answer(tmp_path, "<DENSE_REGION_CAPTION>", "a red cat<loc_1><loc_1><loc_90><loc_90>").objects
    assert (regions[0].label, regions[0].phrase) == ("", "a red cat")
    grounded = answer(tmp_path, "<CAPTION_TO_PHRASE_GROUNDING>a cat", "cat<loc_1><loc_1><loc_90><loc_90>" * 2)
    assert (grounded.captions, grounded.expressions[0].objects, grounded.exhaustive) == (("a cat",), (0, 1), set())
    for prefix in ("<VQA>how many?", "how many?"):
        assert answer(tmp_path, prefix, "two").questions[0].answer == "two"
    assert len(answer(tmp_path, "<REGION_PROPOSAL>", "<loc_1><loc_1><loc_90><loc_90>").objects) == 1


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("<OD>", "cat"),
        ("<OD>", "cat<loc_1><loc_2>"),
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_1000>"),
        ("<OD>", "<loc_1><loc_1><loc_9><loc_9>"),
        ("<REGION_TO_CATEGORY><loc_1><loc_1><loc_9><loc_9>", "cat"),
        ("<UNKNOWN>", "cat"),
        ("<CAPTION>", ""),
        ("<OD>", 5),
    ],
)
def test_answers_that_cannot_be_read(tmp_path, prefix, suffix):
    with pytest.raises(ValueError, match="line 1: record left out"):
        answer(tmp_path, prefix, suffix)


def test_paddleocr(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    square = [[10, 10], [60, 10], [60, 30], [10, 30]]
    curved = [[10, 10], [30, 8], [60, 10], [60, 30], [30, 28], [10, 30]]
    texts = [
        {"transcription": "GO", "points": square, "difficult": False},
        {"transcription": "CURVED", "points": curved},
        {"transcription": "###", "points": square},
        {"transcription": "hard", "points": square, "difficult": True},
    ]
    write(tmp_path / "Label.txt", f"images/a.jpg\t{json.dumps(texts)}\n")
    dataset = read_dataset(tmp_path)
    annotation = dataset[0].annotation
    assert [(line.text, line.quad) for line in annotation.lines] == [
        ("GO", (10, 10, 60, 10, 60, 30, 10, 30)),
        ("CURVED", (10, 10, 60, 10, 60, 30, 10, 30)),
    ]
    assert len(annotation.ignored_lines) == 2 and annotation.exhaustive == {"lines"}
    assert kinds(dataset) == {"outline made a quad": 1}
    write(tmp_path / "Label.txt", f"images/a.jpg\t{json.dumps([*texts, {'transcription': 'x', 'points': [[1, 2]]}])}\n")
    assert read_dataset(tmp_path)[0].annotation.exhaustive == set()


def test_rotated_boxes_of_voc(tmp_path):
    picture(tmp_path / "a.jpg")
    turned = "<robndbox><cx>50</cx><cy>40</cy><w>40</w><h>20</h><angle>1.5707963</angle></robndbox>"
    write(tmp_path / "a.xml", f"<annotation><object><name>ship</name>{turned}</object></annotation>")
    (item,) = read_dataset(tmp_path)[0].annotation.objects
    assert item.box == pytest.approx((40, 20, 60, 60), abs=1e-4) and len(item.polygons[0]) == 4
