"""Small files are read with errors that name them, and written at once."""

import re

import pytest

from florence_lite.files import (
    LFS_POINTER,
    read_json,
    read_json_object,
    read_text,
    read_toml,
    refuse_long_name,
    replace_text,
)


def read_table(file):
    return read_toml(file, "card")


def test_a_long_name_is_refused_before_anything_is_written(tmp_path):
    refuse_long_name(tmp_path / "gone" / "a")
    refuse_long_name(tmp_path / ("a" * 250), spare=0)
    for output in (tmp_path / ("a" * 250), tmp_path / ("a" * 300), tmp_path / "/".join(["ab"] * 2000)):
        with pytest.raises(ValueError, match="^the output /.* is too long for the file system; give a shorter one"):
            refuse_long_name(output)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["bare", "byte order mark"])
def test_reading(tmp_path, mark):
    file = tmp_path / "a"
    file.write_bytes(mark + '{"word": "ä"}'.encode())
    assert read_text(file) == '{"word": "ä"}'
    assert read_json(file) == read_json_object(file) == {"word": "ä"}
    file.write_bytes(mark + 'word = "ä"'.encode())
    assert read_table(file) == {"word": "ä"}


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_text, b"\xff\xfe", "is no UTF-8 text"),
        (read_json, b"\xff\xfe", "is no UTF-8 text"),
        (read_table, b"\xff\xfe", "is no UTF-8 text"),
        (read_json, b'{"a":\n1', r"is no JSON file or is cut short \(.*line 2"),
        (read_json_object, b"[1]", r"holds a JSON list; it must be an object, \{…\}"),
        (read_table, b"a = 1\nb c", r"is no valid TOML: .*line 2"),
        (read_json, b"[" * 200_000, "is nested too deeply for a JSON file"),
        (read_json, b'{"a":' * 200_000, "is nested too deeply for a JSON file"),
        (read_json, b"1" * 5000, "is no JSON file or is cut short"),
        (read_json_object, b'{"a": "' + b"a" * 2**22 + b'"}', "has more than 4,194,304 bytes"),
        (read_table, b"a = " + b"[" * 200_000, "is nested too deeply for a card"),
        (read_table, b"a = " + b"{a = " * 50_000, "is nested too deeply for a card"),
        (read_table, b"a." * 100_000 + b"a = 1", "is nested too deeply for a card"),
        (read_table, b"[" + b'"a" . ' * 40_000 + b"a]", "is nested too deeply for a card"),
        (read_table, b"a = {" + b"a." * 100_000 + b"a = 1}", "is nested too deeply for a card"),
        (read_table, b"a = " + b"1" * 5000, "is no valid TOML"),
        (read_table, b"#" * (2**18 + 1), "has more than 262,144 bytes"),
        (read_text, LFS_POINTER + b"v1", "is a git-lfs pointer, not the file itself: run `git lfs pull`"),
        (read_json, LFS_POINTER + b"v1", "is a git-lfs pointer"),
        (read_table, LFS_POINTER + b"v1", "is a git-lfs pointer"),
    ],
)
def test_damaged_files_are_named(tmp_path, read, content, message):
    file = tmp_path / "damaged"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(file)) + " " + message):
        read(file)


def test_what_only_looks_nested(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('text = "1.2.3. ' + "word. " * 50 + '..."\nnumbers = [' + "1.5, " * 500 + "2.5]\na.b.c = 1\n")
    assert read_table(file)["a"] == {"b": {"c": 1}}


def test_lines_end_alike_everywhere(tmp_path):
    (tmp_path / "a").write_bytes(b"one\r\ntwo\rthree\n")
    assert read_text(tmp_path / "a") == "one\ntwo\nthree\n"


def test_data_may_be_larger_than_settings(tmp_path):
    (tmp_path / "a").write_text('"' + "a" * 2**22 + '"')
    assert len(read_json(tmp_path / "a")) == 2**22


def test_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no card at '.*goal.toml'"):
        read_table(tmp_path / "goal.toml")


def test_an_interrupted_text_leaves_the_old_one(tmp_path):
    file = tmp_path / "new" / "a.txt"
    replace_text(file, "one\n")
    assert file.read_bytes() == b"one\n"
    assert [path.name for path in file.parent.iterdir()] == ["a.txt"]
    with pytest.raises(UnicodeEncodeError):
        replace_text(file, "two\n\udc80")
    assert file.read_bytes() == b"one\n"
    assert [path.name for path in file.parent.iterdir()] == ["a.txt"]
