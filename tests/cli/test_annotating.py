"""`florence-lite annotate` on a tiny checkpoint."""

import io
import json
import tarfile

import pytest

from florence_lite.annotate.parts import part_files

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def asked(tiny, tmp_path):
    """Options of a short run."""
    options = ("--checkpoint", tiny, "--output", str(tmp_path / "answers"), "--decoding", "max_new_tokens=8")
    return ("--tasks", "<OD>", "<CAPTION>", *options)


def rows(tmp_path):
    return [row for file in part_files(tmp_path / "answers") for row in pq.read_table(file).to_pylist()]


def test_annotate_writes_rows_and_tells_what_it_did(command, asked, photos, tmp_path):
    code, out, err = command("annotate", tmp_path, *asked)
    assert code == 1 and "6 of 6 images answered (1 with errors)" in out and "12 rows in 1 new parts" in out
    assert "holds no image of a known format, whatever its name says" in out and "Traceback" not in err
    assert {row["source"] for row in rows(tmp_path)} == set(photos)
    assert {row["task"] for row in rows(tmp_path)} == {"<OD>", "<CAPTION>"}
    code, out, _ = command("annotate", tmp_path, *asked, "--json")
    report = json.loads(out)
    assert code == 1 and (report["images"], report["done"], report["rows"], report["failed_before"]) == (6, 6, 0, 1)


def test_phrases_text_and_several_checkpoints(command, asked, photos, tmp_path, tiny):
    inputs = ("--phrase", "a dog", "--phrase", "a cat", "--text", "what is it?")
    more = ("<OPEN_VOCABULARY_DETECTION>", "<VQA>")
    code, out, err = command("annotate", *photos[:2], *asked, *more, *inputs)
    assert code == 0, err
    asked_of = {row["task"]: (row["text_input"], row["phrases"]) for row in rows(tmp_path)}
    assert asked_of["<VQA>"] == ("what is it?", None)
    assert asked_of["<OPEN_VOCABULARY_DETECTION>"] == (None, ["a dog", "a cat"])
    code, out, err = command("annotate", *photos[:2], *asked, "--tag", "second", "--json")
    assert code == 0 and json.loads(out)["rows"] == 4 and "those to this one are added" in err
    assert {row["tag"] for row in rows(tmp_path)} == {"", "second"}


def test_a_missing_file_of_a_list_is_a_row_with_its_error(command, asked, photos, tmp_path):
    (tmp_path / "list.txt").write_text(f"{photos[0]}\ngone.png\n")
    code, out, _ = command("annotate", tmp_path / "list.txt", *asked, "--json")
    assert code == 1 and json.loads(out)["errors"] == {"does not exist": 1}
    errors = {row["source"]: row["error"] for row in rows(tmp_path) if row["error"]}
    assert errors == {str(tmp_path / "gone.png"): f"image {tmp_path / 'gone.png'} does not exist"}


def test_where_no_image_can_be_answered_the_code_is_2(command, asked, photos):
    assert command("annotate", photos[3], *asked)[0] == 2


def empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def cut_tar(tmp_path):
    with tarfile.open(tmp_path / "cut.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.size = 5000
        tar.addfile(info, io.BytesIO(bytes(5000)))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:300])
    return tmp_path / "cut.tar"


def parquet_without_images(tmp_path):
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), tmp_path / "numbers.parquet")
    return tmp_path / "numbers.parquet"


def file_for_output(tmp_path):
    (tmp_path / "file").write_text("x")
    return tmp_path / "file"


def other_folder(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("x")
    return tmp_path / "other"


def other_schema(tmp_path):
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "run.json").write_text('{"schema": 0, "asked": []}')
    return tmp_path / "answers"


def toml(tmp_path):
    (tmp_path / "run.toml").write_text('[[tasks]]\ntask = "<OD>"\ntreshold = 0.5\n')
    return tmp_path / "run.toml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photoz", "--tasks", "<OD>", "--output", "{out}"], "source photoz does not exist"),
        ([empty, "--tasks", "<OD>", "--output", "{out}"], "holds no images"),
        ([parquet_without_images, "--tasks", "<OD>", "--output", "{out}"], "no column that is known to hold images"),
        (["{photo}", "--tasks", "<OD>", "--column", "pic", "--output", "{out}"], "column is 'pic', but"),
        (["{photo}", "--tasks", "<OD>", "--output", 300 * "x"], "is too long for the file system; give a shorter one"),
        (["{photo}", "--tasks", "<ODD>", "--output", "{out}"], "'<ODD>'"),
        (["{photo}", "--tasks", "<VQA>", "--output", "{out}"], "task <VQA> needs --text"),
        (["{photo}", "--tasks", "<OD>", "--text", "a", "--output", "{out}"], "none of the --tasks takes it: <OD>"),
        (["{photo}", "--tasks", "<OD>", "--checkpoint", "scenes-nono", "--output", "{out}"], "scenes-nono"),
        (["{photo}", "--tasks", "<OD>", "--device", "tpu", "--output", "{out}"], "tpu"),
        (["{photo}", "--tasks", "<OD>", "--precision", "fp8", "--output", "{out}"], "precision = 'fp8'"),
        (["{photo}", "--tasks", "<OD>", "--decoding", "beams=3", "--output", "{out}"], "unknown option 'beams'"),
        (["{photo}", "--tasks", "<OD>", "--decoding", "3", "--output", "{out}"], "must be NAME=VALUE"),
        (["{photo}", "--tasks", "<OD>", "--output", file_for_output], "is a file; it must be a folder"),
        (["{photo}", "--tasks", "<OD>", "--output", other_folder], "holds other things (thesis.doc)"),
        (["{photo}", "--tasks", "<OD>", "--output", other_schema], "rows of schema 0"),
        (["{photo}", "--tasks", "<OD>", "--output", "{photo}"], "is a file; it must be a folder"),
        (["{photo}", "--tasks", "<OD>"], "the run has no output; give the folder"),
        (["{photo}", "--output", "{out}"], "the run has no tasks; give what to ask"),
        (["--tasks", "<OD>", "--output", "{out}"], "the run has no source"),
        (["{photo}", "--config", toml, "--output", "{out}"], "unknown field 'treshold'; did you mean 'threshold'"),
        (["{photo}", "--config", "gone.toml", "--output", "{out}"], "no annotation configuration at 'gone.toml'"),
        (["{photo}", "--tasks", "<OD>", "--output", "{out}", "--engine", "spark"], "engine is 'spark'"),
        (
            ["{photo}", "--tasks", "<OD>", "--output", "{out}", "--workers", "2"],
            "more than 1 only with the engine ray (--engine ray)",
        ),
    ],
    ids=lambda value: None if isinstance(value, list) else value[:30],
)
def test_mistakes_are_named_and_nothing_is_left_behind(command, tiny, photos, tmp_path, arguments, message):
    out = tmp_path / "answers"
    made = [str(each(tmp_path)) if callable(each) else each.format(photo=photos[0], out=out) for each in arguments]
    if "--checkpoint" not in made:
        made += ["--checkpoint", tiny]
    code, printed, err = command("annotate", *made)
    assert code == 2 and message in err and err.count("error:") == 1 and not printed
    assert other_schema in arguments or not out.exists()


def test_a_tar_that_is_cut_is_a_row_with_its_error(command, asked, photos, tmp_path):
    code, out, _ = command("annotate", photos[0], cut_tar(tmp_path), *asked)
    assert code == 1 and "is damaged or cut short" in out
    code, _, err = command("annotate", cut_tar(tmp_path), *asked[:-4], "--output", str(tmp_path / "b"))
    assert code == 2
