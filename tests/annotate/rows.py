"""Rows of an output folder, and whether two folders hold the same."""

from collections import Counter

import pytest

from florence_lite.annotate.parts import part_files

pq = pytest.importorskip("pyarrow.parquet")


def read_rows(folder) -> list[dict]:
    return [row for file in part_files(folder) for row in pq.read_table(file).to_pylist()]


def assert_once(folder) -> None:
    """No row is there twice."""
    assert not [number for number, count in Counter(row["id"] for row in read_rows(folder)).items() if count > 1]


def assert_same(folder, other) -> None:
    """The same rows in both but for `seconds` and, since answers are made in batches, the last digits of numbers."""
    found, expected = ({row.pop("id"): row for row in read_rows(each)} for each in (folder, other))
    assert found.keys() == expected.keys()
    for number, row in found.items():
        row.pop("seconds"), expected[number].pop("seconds")
        assert approximate(row) == expected[number], number


def approximate(value):
    """What compares equal to a value whose floats differ in their last digits."""
    if isinstance(value, dict):
        return {name: approximate(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(approximate(each) for each in value)
    return pytest.approx(value, rel=1e-4, abs=1e-4) if isinstance(value, float) else value
