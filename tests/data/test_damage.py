"""Two thousand damaged data sets; `python -m tests.data.damage` tries more."""

import random

import pytest

from florence_lite.data import read_dataset
from tests.data.damage import VALID, fault_in_reading, write_valid

CASES = 2004 // len(VALID)


@pytest.mark.parametrize("kind", VALID)
def test_what_is_not_damaged_is_read_without_problems(tmp_path, kind):
    write_valid(tmp_path, VALID[kind])
    dataset = read_dataset(tmp_path)
    assert dataset.problems == () and len(dataset) == len(VALID[kind].images)
    empty = [bool(annotation.objects or annotation.lines) for annotation in dataset.annotations]
    assert empty == [True, True, False][: len(empty)]


@pytest.mark.parametrize("kind", VALID)
def test_damage_ends_in_a_data_set_or_in_a_clear_error(tmp_path, kind):
    write_valid(tmp_path, VALID[kind])
    faults = [fault_in_reading(tmp_path, VALID[kind], random.Random(f"0 {kind} {n}")) for n in range(CASES)]
    assert [fault for fault in faults if fault] == []
