"""The whole: folders in, folders out."""

import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from florence_lite.answers import Instance
from florence_lite.data import read_dataset
from florence_lite.refine import STAGES, RefineConfig, refine
from florence_lite.refine import run as whole
from tests.refine.answers import failed, item, listed, nowhere, picture, query, said, write_answers

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("imagehash")


def rows_in(folder):
    """All rows of the parts in a folder, those of `dropped` too."""
    return [row for part in sorted(folder.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


def put_together(kept, dropped):
    """id → the rows that were read, from what was kept and what was dropped."""
    found = {}
    for row in kept + [row for row in dropped if row["instance"] is None]:
        row = {name: value for name, value in row.items() if name not in ("reason", "instance")}
        found.setdefault(row["id"], []).append(row)
    for row in dropped:
        if row["instance"] is not None:
            found[row["id"]][0].setdefault("gone", {})[row["instance"]] = row["instances"][0]
    for [row, *_] in found.values():
        if gone := row.pop("gone", {}):
            remaining = iter(row["instances"])
            count = len(row["instances"]) + len(gone)
            row["instances"] = [gone[place] if place in gone else next(remaining) for place in range(count)]
            row["dropped"] -= len(gone) if row["id"] in {each["id"] for each in kept} else 0
    return found


def test_what_is_not_judged_is_counted_once_however_often_stages_look(tmp_path):
    images = [picture(tmp_path, f"{n}.png", n) for n in range(3)]
    second = listed(images[0], item("dog"), ask=query(tag="second"))
    write_answers(tmp_path / "in", [*(listed(image, item("dog")) for image in images), second])
    report = refine(tmp_path / "in", tmp_path / "out", RefineConfig(settings={"balance": {}}))  # two look ahead
    assert any(line.endswith("no other opinion was asked the same: 2 of <OD>") for line in report.lines())


def test_a_record_of_the_run_that_is_none_is_named(tmp_path):
    folder = write_answers(tmp_path / "in", [listed(nowhere())])
    (folder / "run.json").write_text('{"opinions": [5]}')
    with pytest.raises(ValueError, match="run.json does not tell which checkpoints were asked"):
        refine(folder, tmp_path / "out")


# ---- kept and dropped are what was read ------------------------------------------------------------------------------

LABELS = st.sampled_from(["dog", "cat", "red car", "a long description of a dog"])
SCORES = st.none() | st.floats(0, 1)
COORDINATES = st.floats(0, 100)
SHAPES = st.one_of(
    st.tuples(*4 * [COORDINATES]).map(lambda b: {"box": (*map(min, b[:2], b[2:]), *map(max, b[:2], b[2:]))}),
    st.just({"box": (0, 0, 100, 80)}),
    st.just({"box": (10, 10, 50, 40)}),
    st.tuples(*8 * [COORDINATES]).map(lambda quad: {"quad": quad}),
    st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=4).map(lambda ring: {"polygons": (ring,)}),
    st.just({"polygons": (((0, 0), (9, 0), (9, 9)), ((2, 1), (8, 1), (8, 7)))}),
    st.just({}),
)
INSTANCES = st.builds(lambda label, shape, score: Instance(label, **shape, score=score), LABELS, SHAPES, SCORES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two that look alike, one that does not, and one that is not there."""
    folder = tmp_path_factory.mktemp("photos")
    same = picture(folder, "a.png", 1), picture(folder, "b.png", 1, (200, 160)), picture(folder, "c.png", 3)
    return [*same, nowhere()]


@st.composite
def answers(draw, photos):
    rows = []
    for image in draw(st.lists(st.sampled_from(photos), max_size=12)) + [photos[0]]:
        ask = {"checkpoint": draw(st.sampled_from(["teacher", "witness"]))}
        kind = draw(st.sampled_from(["boxes", "boxes", "phrases", "caption", "region", "error"]))
        if kind == "caption":
            rows.append(said(image, draw(st.sampled_from(["two dogs", "a cat", ""])), score=draw(SCORES), **ask))
        elif kind == "region":
            text, task = draw(LABELS), "<REGION_TO_CATEGORY>"
            rows.append(said(image, text, task, draw(SCORES), region=(10.0, 10.0, 50.0, 40.0), **ask))
        elif kind == "error":
            rows.append(failed(image, ask=query(**ask)))
        else:
            more = {"parse_errors": draw(st.integers(0, 1)), "truncated": draw(st.booleans()), "dropped": 2}
            if kind == "phrases":
                ask = {"task": "<OPEN_VOCABULARY_DETECTION>", "phrases": ("dog", "cat"), **ask}
                more["presence"] = {"dog": draw(st.floats(0, 1))}
            rows.append(listed(image, *draw(st.lists(INSTANCES, max_size=5)), ask=query(**ask), **more))
    return list({row.id: row for row in rows}.values())


@st.composite
def stages(draw, rows):
    """Some stages in any order, that can judge the rows."""
    names = draw(st.permutations(list(STAGES)).flatmap(lambda all: st.integers(0, len(all)).map(lambda n: all[:n])))
    tasks = {row.query.task for row in rows}
    boxes = [(row.query.task, row.query.checkpoint) for row in rows]
    several = any((task, "witness") in boxes and (task, "teacher") in boxes for task in tasks)
    able = {
        "opinions": several,
        "captions": {"<OD>", "<CAPTION>"} <= tasks,
        "regions": {"<OD>", "<REGION_TO_CATEGORY>"} <= tasks,
        "balance": "<OD>" in tasks,
        # It refuses to judge where no picture that is left can be read; the first stage sees one that can.
        "duplicates": names[:1] == ["duplicates"] or all(os.path.isfile(row.image.source) for row in rows),
    }
    settings = {"balance": {"most": 1, "count": draw(st.sampled_from(["images", "instances"]))}}
    chosen = tuple(name for name in names if able.get(name, True))
    return RefineConfig(chosen, (), {name: table for name, table in settings.items() if name in chosen}, sheet=0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_kept_and_dropped_are_what_was_read(tmp_path_factory, photos, data):
    rows = data.draw(answers(photos))
    config = data.draw(stages(rows))
    folder = tmp_path_factory.mktemp("run")
    write_answers(folder / "in", rows, data.draw(st.integers(1, 9)))
    before = {row["id"]: [row] for row in rows_in(folder / "in" / "parts")}
    report = refine(folder / "in", folder / "out", config)
    kept, dropped = rows_in(folder / "out" / "parts"), rows_in(folder / "out" / "dropped")
    after = put_together(kept, dropped)
    assert after == before
    assert all(row["reason"] for row in dropped)
    assert report.read.rows == report.kept.rows + sum(stage.rows for stage in report.stages)
    assert len(kept) == report.kept.rows and sum(len(row["instances"] or []) for row in kept) == report.kept.instances


def test_a_row_that_is_there_twice_is_kept_once(photos, tmp_path):
    row = listed(photos[0], item("dog"))
    report = refine(write_answers(tmp_path / "in", [row, row, row], 2), tmp_path / "out")
    assert (report.read.rows, report.kept.rows) == (3, 1)
    assert [row["reason"] for row in rows_in(tmp_path / "out" / "dropped")] == [
        "repeated: a row of this id is there before"
    ] * 2


def small(photos, folder, per_part=3):
    rows = []
    for image in photos[:3]:
        rows += [listed(image, item("dog", score=0.25), item("cat", (60, 10, 90, 40), 0.9)), said(image, "a dog")]
    return write_answers(folder, rows, per_part)


def test_the_order_and_the_parts_of_what_is_read_change_nothing(photos, tmp_path, monkeypatch):
    first, second = small(photos, tmp_path / "a", 1), small(photos, tmp_path / "b", 100)
    monkeypatch.setattr("florence_lite.refine.store.ROWS_AT_ONCE", 2)  # several buckets
    for folder in (first, second):
        refine(folder, folder.with_suffix(".out"))
    for kind in ("parts", "dropped"):
        one, other = (tmp_path / name / kind for name in ("a.out", "b.out"))
        assert sorted(os.listdir(one)) == sorted(os.listdir(other)) and os.listdir(one)
        assert all(file.read_bytes() == (other / file.name).read_bytes() for file in one.iterdir())
        assert len(os.listdir(one)) > 1


def test_what_is_kept_is_a_data_set_and_the_report_tells_it(photos, tmp_path):
    report = refine(small(photos, tmp_path / "in"), tmp_path / "out")
    dataset = read_dataset(tmp_path / "out")
    assert [sorted(each.label for each in sample.annotation.objects) for sample in dataset] == [["cat"], ["cat"]]
    assert report.kept.images == 2 and report.kept.rows == 4
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    counts = {stage["name"]: (stage["rows"], stage["instances"]) for stage in told["stages"]}
    assert counts["scores"] == (0, 3) and counts["duplicates"] == (2, 0)
    lines = list(report.lines())
    assert any(line.split()[:3] == ["scores", "0", "3"] for line in lines)
    assert any("kept: 4 rows about 2 images" in line for line in lines)
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


# ---- empty answers ---------------------------------------------------------------------------------------------------


def verified(folder):
    return {
        os.path.basename(row["source"]): row["verified"] for row in rows_in(folder / "parts") if not row["instances"]
    }


@pytest.mark.parametrize("believed", [False, True])
def test_empty_answers_are_negatives_only_when_told_so(tmp_path, believed):
    images = [
        picture(tmp_path, f"{name}.png", seed) for seed, name in enumerate(["none", "gone", "left", "seen", "odd"])
    ]
    none, gone, left, seen, odd = images
    rows = [
        listed(none),
        listed(gone, item("dog", score=0.1)),
        listed(left, dropped=1),
        listed(seen),
        listed(seen, item("dog", score=0.2), ask=query(checkpoint="witness")),
        listed(odd, foreign=True),
    ]
    write_answers(tmp_path / "in", rows)
    config = RefineConfig(settings={"faults": {"foreign": True}}, empty_are_negatives=believed)
    report = refine(tmp_path / "in", tmp_path / "out", config)
    marks = verified(tmp_path / "out")
    assert marks == {"none.png": believed, "gone.png": False, "left.png": False, "seen.png": False, "odd.png": False}
    assert report.empty == {"verified": int(believed), "unverified": 5 - believed, "emptied": 2}
    negatives = [sample.name for sample in read_dataset(tmp_path / "out") if sample.annotation.is_negative]
    assert negatives == (["none.png"] if believed else [])


# ---- the output as a whole -------------------------------------------------------------------------------------------


def test_a_failed_run_leaves_the_earlier_output_and_nothing_else(photos, tmp_path, monkeypatch):
    source = small(photos, tmp_path / "in")
    refine(source, tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    monkeypatch.setattr(whole, "_write_records", lambda *rest: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        refine(source, tmp_path / "out", RefineConfig(without=("scores",)))
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_an_output_that_was_being_replaced_when_it_was_killed_is_put_back(photos, tmp_path):
    source = small(photos, tmp_path / "in")
    refine(source, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "out.replaced")
    (tmp_path / "out.refining").mkdir()
    with whole.written_as_a_whole(tmp_path / "out") as partial:
        assert (tmp_path / "out" / "report.json").is_file() and not any(partial.iterdir())
        (partial / "new").touch()
    assert os.listdir(tmp_path / "out") == ["new"] and sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_two_at_once_are_refused(photos, tmp_path):
    source = small(photos, tmp_path / "in")
    with whole.written_as_a_whole(tmp_path / "out"), pytest.raises(ValueError, match="another refine is writing"):
        refine(source, tmp_path / "out")


def test_hashes_are_not_computed_twice(photos, tmp_path, monkeypatch):
    source = small(photos, tmp_path / "in")
    first = refine(source, tmp_path / "out", RefineConfig(sheet=0))
    monkeypatch.setattr("florence_lite.refine.duplicates.read_source", lambda name: pytest.fail(f"{name} was read"))
    assert refine(source, tmp_path / "out", RefineConfig(sheet=0)).to_dict() == first.to_dict()


def missing(folder):
    return folder / "nothing"


def without_parts(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def broken_part(folder):
    copy = folder / "broken"
    shutil.copytree(folder / "in", copy)
    part = next((copy / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:100])
    return copy


def other_columns(folder):
    import pyarrow as pa

    (folder / "other" / "parts").mkdir(parents=True)
    pq.write_table(pa.table({"id": [1], "label": ["dog"]}), folder / "other" / "parts" / "a.parquet")
    return folder / "other"


def no_rows(folder):
    table = pq.read_table(next((folder / "in" / "parts").iterdir()))
    (folder / "none" / "parts").mkdir(parents=True)
    pq.write_table(table.slice(0, 0), folder / "none" / "parts" / "a.parquet")
    return folder / "none"


def a_file(folder):
    (folder / "out").write_text("mine")
    return folder / "out"


def of_others(folder):
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("mine")
    return folder / "out"


def edited(folder):
    refine(folder / "in", folder / "out")
    with (folder / "out" / "to_check.jsonl").open("a") as file:
        file.write("\n")
    return folder / "out"


@pytest.mark.parametrize(
    "source, to, error",
    [
        (missing, None, "there is no folder .*nothing; name the one that annotate wrote"),
        (without_parts, None, r"holds no parts/\*.parquet"),
        (broken_part, None, "parquet is no part of annotate or refine"),
        (other_columns, None, "a.parquet is no part of annotate or refine: it has no column"),
        (no_rows, None, "its 1 parts hold no rows"),
        (None, lambda folder: folder / "in", "the output .* must be another folder than"),
        (None, lambda folder: folder / "in" / "out", "the output .* must be another folder than"),
        (None, lambda folder: folder, "the output .* must be another folder than"),
        (None, a_file, "the output .*out is a file"),
        (None, of_others, "holds something else than what refine writes"),
        (None, edited, "to_check.jsonl has been edited"),
    ],
)
def test_folders_that_are_wrong_are_named_and_nothing_is_touched(photos, tmp_path, source, to, error):
    small(photos, tmp_path / "in", 100)
    source, to = source(tmp_path) if source else tmp_path / "in", to(tmp_path) if to else tmp_path / "out"
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        refine(source, to)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_missing_package_is_named_with_its_remedy(photos, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "imagehash" else find(name))
    with pytest.raises(ModuleNotFoundError, match=r"imagehash: pip install 'florence-lite\[annotate\]'"):
        refine(small(photos, tmp_path / "in"), tmp_path / "out")
