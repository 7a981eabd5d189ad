"""Annotate → refine → read, with the embedded checkpoint on pictures that it knows."""

import json
import shutil
from pathlib import Path

import pytest

from florence_lite import cards
from florence_lite.annotate import AnnotateConfig, CheckpointConfig, TaskConfig, annotate
from florence_lite.data import read_dataset
from florence_lite.geometry import box_iou
from florence_lite.refine import RefineConfig, refine
from tests.refine.test_run import rows_in

pytest.importorskip("pyarrow")
pytest.importorskip("imagehash")
pytestmark = pytest.mark.skipif(
    all(card.source != "embedded" for card in cards.checkpoints()),
    reason="no checkpoint is embedded in this installation",
)
EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("donuts.png", "football.png", "lions.png", "meadow.png")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Answers about four scenes, a copy of one in another format and a file that is no image; of two opinions."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "photos").mkdir()
    for name in NAMES:
        shutil.copy(EXAMPLES / name, folder / "photos" / name)
    shutil.copy(EXAMPLES.parent / "florence_lite" / "cli" / "sample.jpg", folder / "photos" / "meadow.jpg")
    (folder / "photos" / "broken.png").write_text("no image")
    tasks = ("<OD>", "<CAPTION>", TaskConfig("<REGION_TO_CATEGORY>", of="<OD>"))
    source, output = str(folder / "photos"), str(folder / "answers")
    annotate(AnnotateConfig(source, output, tasks), tell=lambda line: None)
    beams = CheckpointConfig(tag="beams", decoding={"num_beams": 2})
    annotate(AnnotateConfig(source, output, ("<OD>",), checkpoints=(beams,)), tell=lambda line: None)
    return folder / "answers"


def test_the_file_of_the_examples_gives_a_data_set_of_what_is_true(answers, tmp_path):
    report = refine(answers, tmp_path / "clean", RefineConfig.from_toml(EXAMPLES / "refine.toml"))
    dropped = {stage.name: (stage.rows, stage.instances) for stage in report.stages}
    assert dropped["errors"][0] == 4 and dropped["duplicates"][0] > 0
    assert dropped["opinions"][0] == 5  # the rows of the second opinion
    dataset = read_dataset(tmp_path / "clean")
    assert {Path(sample.name).stem for sample in dataset} == {Path(name).stem for name in NAMES}
    truth = json.loads((EXAMPLES / "truth.json").read_text(encoding="utf-8"))
    found = 0
    for sample in dataset:
        objects = truth[f"{Path(sample.name).stem}.png"]["objects"]
        for item in sample.annotation.objects:
            own = [each["box"] for each in objects if each["label"] == item.label]
            assert own and box_iou([item.box], own).max() > 0.5 and item.score >= 0.3
            found += 1
    assert found >= 8 and all(sample.annotation.objects for sample in dataset)


def test_kept_and_dropped_are_what_annotate_wrote(answers, tmp_path):
    refine(answers, tmp_path / "clean", RefineConfig(settings={"captions": {}, "regions": {}, "balance": {"most": 2}}))
    kept, dropped = rows_in(tmp_path / "clean" / "parts"), rows_in(tmp_path / "clean" / "dropped")
    whole = [row["id"] for row in kept] + [row["id"] for row in dropped if row["instance"] is None]
    read = rows_in(answers / "parts")
    assert sorted(whole) == sorted(row["id"] for row in read)
    assert sum(len(row["instances"] or []) for row in kept + dropped) == sum(
        len(row["instances"] or []) for row in read
    )
