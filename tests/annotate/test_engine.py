"""Runs of the embedded engine from beginning to end."""

import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from florence_lite.annotate import AnnotateConfig, annotate
from florence_lite.annotate.parts import part_files
from florence_lite.data.rows import from_record
from florence_lite.data.sources import ListedImage, read_source
from florence_lite.florence import Florence
from florence_lite.inference.encoded import ImageEncoder, OpenedImage
from tests.annotate.conftest import png
from tests.annotate.rows import assert_once, assert_same, read_rows


@pytest.fixture
def finished(config):
    return config, annotate(config, tell=lambda line: None)


def test_rows_are_what_florence_answers(finished, checkpoint, photos):
    config, report = finished
    florence = Florence.from_pretrained(checkpoint)
    rows = [from_record(row) for row in read_rows(config.output)]
    answered = [row for row in rows if row.result is not None]
    assert (
        len(rows) == report.rows
        and report.answered == 39
        and {row.query.task for row in rows}
        == {
            "<OD>",
            "<CAPTION>",
            "<REGION_TO_CATEGORY>",
        }
    )
    for row in answered[::7]:
        options = next(each.decoding for each in config.tasks if each.task == row.query.task)
        result = florence.run(read_source(row.image.source), row.query.task, region=row.query.region, **options)
        assert result.labels == row.result.labels and result.text == row.result.text
        assert result.size_wh == row.image.size_wh == row.result.size_wh
        assert row.image.bytes == len(read_source(row.image.source))


def test_questions_about_an_answer_are_asked_about_each_of_its_boxes(finished):
    config, _ = finished
    rows = [from_record(row) for row in read_rows(config.output)]
    by_image = {}
    for row in rows:
        by_image.setdefault(row.image.image_id, {}).setdefault(row.query.task, []).append(row)
    asked = 0
    for of_image in by_image.values():
        [detection] = of_image["<OD>"]
        regions = of_image.get("<REGION_TO_CATEGORY>", [])
        if detection.error:
            assert [row.query.region for row in regions] == [None] and regions[0].error == detection.error
            continue
        boxes = {tuple(round(side) for side in box) for box in detection.result.boxes_xyxy}
        near = {tuple(round(side) for side in row.query.region) for row in regions}
        assert len(near) <= len(boxes) and len(regions) <= len(detection.result)
        asked += len(regions)
    assert asked > 10


def test_bad_and_repeated_images_are_told(finished, photos):
    config, report = finished
    failed = {row["source"].rsplit("/", 1)[-1]: row["error"] for row in read_rows(config.output) if row["error"]}
    assert failed.keys() == {"cut.png", "empty.png"} and all(name in error for name, error in failed.items())
    assert report.failed == 2 and sum(report.errors.values()) == 2 and report.duplicates == 1
    [line] = Path(config.output, "duplicates.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["source"] == str(photos / "repeated.png")
    told = "\n".join(report.lines())
    assert "39 of 40 images answered (2 with errors, 1 of the same bytes as others" in told
    assert report.to_dict()["errors"] == dict(report.errors)


def test_the_same_run_again_does_nothing(finished):
    config, first = finished
    before = {file: file.read_bytes() for file in part_files(config.output)}
    report = annotate(config, tell=lambda line: None)
    assert (report.rows, report.answered, report.done, report.failed) == (0, 0, 39, 0)
    assert report.failed_before == 2 and "2 images had an error before" in "\n".join(report.lines())
    assert {file: file.read_bytes() for file in part_files(config.output)} == before and first.rows > 100


def test_more_images_tasks_and_opinions_are_added(config, photos, tmp_path):
    few = replace(config, source=[str(photos / "0*.png")], tasks=config.tasks[:1])
    annotate(few, tell=lambda line: None)
    told = []
    annotate(replace(config, tasks=config.tasks[:1]), tell=told.append)
    assert any("those to this one are added" in line for line in told)
    annotate(config, tell=lambda line: None)
    assert_once(config.output)
    whole = replace(config, output=str(tmp_path / "whole"))
    annotate(whole, tell=lambda line: None)
    assert_same(config.output, whole.output)
    [only] = config.checkpoints
    second = replace(config, checkpoints=[only, replace(only, tag="second")], source=[str(photos / "0*.png")])
    report = annotate(second, tell=lambda line: None)
    rows = [row for row in read_rows(config.output) if row["tag"] == "second"]
    assert report.rows == len(rows) and len({row["image_id"] for row in rows}) == 10
    assert_once(config.output)


def test_opinions_of_one_checkpoint_share_the_encoded_image(config, monkeypatch):
    calls, encode = [], ImageEncoder.encode

    def counted(self, opened):
        calls.append(len(opened) if isinstance(opened[0], OpenedImage) else 0)
        return encode(self, opened)

    monkeypatch.setattr(ImageEncoder, "encode", counted)
    [only] = config.checkpoints
    both = replace(config, checkpoints=[only, replace(only, decoding={"num_beams": 2}, tag="beams")])
    annotate(both, tell=lambda line: None)
    assert sum(calls) == 37
    decodings = {row["decoding"] for row in read_rows(config.output) if row["task"] == "<OD>"}
    assert decodings == {'{"max_new_tokens": 24}', '{"max_new_tokens": 24, "num_beams": 2}'}


def test_the_same_weights_under_two_names_are_one_checkpoint(config, tmp_path, checkpoint):
    link = tmp_path / "other name"
    link.symlink_to(checkpoint)
    [only] = config.checkpoints
    with pytest.raises(ValueError, match="the same weights and are asked the same.*tag"):
        annotate(replace(config, checkpoints=[only, replace(only, checkpoint=str(link))]))


def test_a_captions_words_and_an_answers_labels_are_asked_about(checkpoint, photos, tmp_path):
    tasks = [
        {"task": "<CAPTION>", "decoding": {"max_new_tokens": 8}},
        {"task": "<CAPTION_TO_PHRASE_GROUNDING>", "of": "<CAPTION>", "decoding": {"max_new_tokens": 8}},
        {"task": "<OD>", "decoding": {"max_new_tokens": 24}},
        {"task": "<OPEN_VOCABULARY_DETECTION>", "of": "<OD>", "decoding": {"max_new_tokens": 8}},
        {"task": "<REFERRING_EXPRESSION_SEGMENTATION>", "of": "<OD>", "decoding": {"max_new_tokens": 8}},
    ]
    config = AnnotateConfig(
        str(photos / "0*.png"), tmp_path / "answers", tasks, checkpoints=[{"checkpoint": str(checkpoint)}]
    )
    annotate(config, tell=lambda line: None)
    rows = [from_record(row) for row in read_rows(config.output)]
    of = {}
    for row in rows:
        of.setdefault((row.image.image_id, row.query.task), []).append(row)
    grounded = phrased = 0
    for image in {row.image.image_id for row in rows}:
        [caption], [detection] = of[image, "<CAPTION>"], of[image, "<OD>"]
        words, labels = caption.result.text.strip(), {each.strip() for each in detection.result.labels} - {""}
        grounding = of.get((image, "<CAPTION_TO_PHRASE_GROUNDING>"), [])
        assert [row.query.text for row in grounding] == ([words] if words else [])
        single = of.get((image, "<REFERRING_EXPRESSION_SEGMENTATION>"), [])
        assert {row.query.phrases[0] for row in single} == labels
        together = of.get((image, "<OPEN_VOCABULARY_DETECTION>"), [])
        assert [set(row.query.phrases) for row in together] == ([labels] if labels else [])
        grounded, phrased = grounded + bool(words), phrased + len(labels)
    assert grounded and phrased


def test_what_is_done_is_not_read_again_unless_it_has_changed(checkpoint, photos, tmp_path, monkeypatch):
    copies = tmp_path / "photos"
    copies.mkdir()
    for number in range(4):
        (copies / f"{number}.png").write_bytes((photos / f"{number:02d}.png").read_bytes())
        os.utime(copies / f"{number}.png", (10**9, 10**9))
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(photos / "05.png", "05.png")
    os.utime(tmp_path / "s.tar", (10**9, 10**9))
    few = AnnotateConfig(
        [copies, tmp_path / "s.tar"],
        tmp_path / "answers",
        ["<OD>"],
        checkpoints=[{"checkpoint": str(checkpoint), "decoding": {"max_new_tokens": 8}}],
    )
    annotate(few, tell=lambda line: None)
    read, own = [], ListedImage.read
    monkeypatch.setattr(ListedImage, "read", lambda self: read.append(self.name) or own(self))
    report = annotate(few, tell=lambda line: None)
    assert (report.done, report.images, read) == (5, 5, [])
    (copies / "2.png").write_bytes(png(30))
    os.utime(copies / "2.png", (10**9, 10**9 + 1))
    report = annotate(few, tell=lambda line: None)
    assert read == [str(copies / "2.png")] and (report.done, report.answered) == (4, 1)
    read.clear()
    report = annotate(replace(few, tasks=[*few.tasks, "<CAPTION>"]), tell=lambda line: None)
    assert len(read) == 5 and report.answered == 5
