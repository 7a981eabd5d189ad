"""Staging and committing rows."""

from pathlib import Path

import numpy as np
import pytest

from florence_lite.annotate.parts import AT_MOST_NEW, Answers, Files, Ids, open_output, part_files, read_ids, stage
from florence_lite.data.rows import AnswerRow, ImageSource, Query
from florence_lite.results import Result
from tests.annotate.rows import read_rows

QUERY = Query("<OD>", "tiny", "1")


def answers(*numbers, marks=(), text=""):
    rows = [
        AnswerRow(ImageSource(number, f"/{number}.png", (4, 3), 9), QUERY, Result("<OD>", (4, 3), text))
        for number in numbers
    ]
    return [Answers(rows, list(marks), (numbers[0] if numbers else 0, 5))]


def ids(*numbers):
    return sorted(QUERY.row_id(number) for number in numbers)


def test_only_what_is_committed_is_there(tmp_path):
    with open_output(tmp_path / "out", {}) as output:
        staged = stage(output.folder, answers(1, 2))
        assert not part_files(output.folder) and staged.rows == 2
        assert output.commit(staged) == 2 and sorted(read_ids(part_files(output.folder)[0])[0]) == ids(1, 2)
        left = stage(output.folder, answers(3))
        assert output.commit(staged) == 0  # a second time
    assert Path(left.path).is_file()
    with open_output(tmp_path / "out", {}) as output:
        assert not Path(left.path).exists()  # nobody will commit it any more
        assert output.commit(left) == 0
        assert QUERY.row_id(1) in output.done and QUERY.row_id(3) not in output.done and output.rows == 2
        assert output.files.image_id(1) == 5 and output.files.image_id(3) is None


def test_rows_that_are_there_already_are_left_out(tmp_path):
    with open_output(tmp_path / "out", {}) as output:
        output.commit(stage(output.folder, answers(1, 2, text="first")))
        assert output.commit(stage(output.folder, answers(2, 3, 3, text="second"))) == 1
        assert output.commit(stage(output.folder, answers(1, 2, 3))) == 0
    rows = read_rows(tmp_path / "out")
    assert sorted(row["id"] for row in rows) == ids(1, 2, 3)
    assert {row["image_id"]: row["text"] for row in rows} == {1: "first", 2: "first", 3: "second"}


def test_marks_without_rows_are_kept(tmp_path):
    with open_output(tmp_path / "out", {}) as output:
        assert output.commit(stage(output.folder, answers(marks=[77]))) == 0
        assert output.commit(stage(output.folder, answers(marks=[77]))) == 0
        assert len(part_files(output.folder)) == 1
    with open_output(tmp_path / "out", {}) as output:
        assert 77 in output.done and 78 not in output.done


def test_a_part_is_named_by_its_rows_in_whatever_order(tmp_path):
    names = []
    for folder, order in (("a", (1, 2, 3)), ("b", (3, 1, 2))):
        with open_output(tmp_path / folder, {}) as output:
            output.commit(stage(output.folder, answers(*order)))
            names += [file.name for file in part_files(output.folder)]
    assert names[0] == names[1]


def full(descriptor):
    raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    with open_output(tmp_path / "out", {}) as output:
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left on device; what is in parts/ is whole: make room"):
            stage(output.folder, answers(1))
        assert not list((output.folder / "staging").iterdir())


def test_ids_are_a_set_in_eight_bytes_each():
    generator = np.random.default_rng(0)
    numbers = generator.integers(-(2**63), 2**63 - 1, AT_MOST_NEW + 10)
    found = Ids(numbers[:5])
    assert [found.add(int(number)) for number in numbers] == [False] * 5 + [True] * (len(numbers) - 5)
    assert len(found) == len(numbers) and len(found._new) < 20
    assert all(int(number) in found for number in numbers[::1000]) and 5 not in found
    assert 3 not in Ids() and 2**63 - 1 not in found


def test_files_by_their_keys():
    files = Files(np.array([[5, 1], [-3, 2], [5, 1]], np.int64))
    assert [files.image_id(key) for key in (5, -3, 4, 2**63 - 1)] == [1, 2, None, None]
