"""Answers as rows of a table."""

import pytest

from florence_lite.answers import Instance
from florence_lite.data.readers.rle import rle_to_mask
from florence_lite.data.rows import AnswerRow, ImageSource, Query, from_record, int64_of, schema, to_record
from florence_lite.geometry import rasterize
from florence_lite.results import Result

pa = pytest.importorskip("pyarrow")

SQUARE = ((1.0, 1.0), (9.0, 1.0), (9.0, 9.0), (1.0, 9.0))
HOLE = ((4.0, 4.0), (6.0, 4.0), (6.0, 6.0), (4.0, 6.0))
IMAGE = ImageSource(int64_of(b"a picture"), "/photos/a.jpg", (12, 10), 9)
INSTANCES = (
    Instance("dog", box=(0, 1, 2, 3), score=0.5),
    Instance("STOP", quad=(0, 0, 5, 0, 5, 2, 0, 2)),
    Instance("ring", polygons=(SQUARE, HOLE), score=1.0),
    Instance("only words"),
)
RESULT = Result(
    "<OD>", (12, 10), "", INSTANCES, 2, True, 3, True, 0.25, {"yes": 0.75, "no": 0.25}, {"a dog": 0.9}, ("a cat",)
)
QUERY = Query("<OD>", "scenes-nano", "1234", "text", ("a", "b"), (0.0, 1.0, 2.0, 3.0), '{"num_beams": 3}', "second")


def through_a_table(row):
    [record] = pa.Table.from_pylist([to_record(row)], schema()).to_pylist()
    return record, from_record(record)


def test_a_row_comes_back_from_a_table_as_it_was():
    row = AnswerRow(IMAGE, QUERY, RESULT, 0.125)
    record, back = through_a_table(row)
    assert back == row and record["id"] == row.id
    assert [item["rle"] is None for item in record["instances"]] == [True, True, False, True]
    assert (rle_to_mask(record["instances"][2]["rle"]) == rasterize((SQUARE, HOLE), (12, 10))).all()


def test_a_verified_row_says_so_and_is_the_same_row():
    row = AnswerRow(IMAGE, QUERY, RESULT)
    verified = AnswerRow(IMAGE, QUERY, RESULT, verified=True)
    record, back = through_a_table(verified)
    assert back == verified != row and verified.id == row.id
    assert not from_record({**record, "verified": None}).verified
    record.pop("verified")
    assert from_record(record) == row


def test_an_error_is_a_row_without_an_answer():
    row = AnswerRow(ImageSource(7, "/photos/b.jpg", (0, 0), 3), Query("<OD>", "c", "r"), None, 0.0, "it is no image")
    record, back = through_a_table(row)
    assert back == row and record["instances"] is None and record["phrases"] is None


@pytest.mark.parametrize(
    "field, value",
    [
        ("task", "<OCR>"),
        ("text", None),
        ("phrases", ("a",)),
        ("phrases", ("b", "a")),
        ("region", None),
        ("revision", "1235"),
        ("decoding", "{}"),
        ("tag", ""),
    ],
)
def test_what_makes_another_row(field, value):
    other = Query(**{**vars(QUERY), field: value})
    assert other.row_id(1) != QUERY.row_id(1) != QUERY.row_id(2)


def test_a_checkpoint_under_another_name_gives_the_same_row():
    assert Query(**{**vars(QUERY), "checkpoint": "/copies/nano"}).row_id(1) == QUERY.row_id(1)
