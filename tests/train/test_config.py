"""Training runs as TOML files, and what is wrong with them."""

import dataclasses
from pathlib import Path

import pytest

from florence_lite.train.config import FineTuneConfig, TrainConfig, read_toml

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*.toml"))
GOOD = {"output": "runs/a", "tasks": {"<OD>": 1}}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path):
    kind = FineTuneConfig if "checkpoint" in read_toml(path) else TrainConfig
    assert kind.from_toml(path).steps


def test_from_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'output = "o"\nstyles = ["openmoji"]\nsteps = 7\nlearning_rate = 1\n[tasks]\n"<OD>" = 0.5\n"<VQA>" = 2\n'
    )
    expected = TrainConfig("o", {"<OD>": 0.5, "<VQA>": 2}, styles=("openmoji",), steps=7, learning_rate=1)
    assert TrainConfig.from_toml(str(path)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": ""}, "output = '' must be the path of a folder"),
        ({"preset": "huge"}, r"preset = 'huge' must be one of \['base', 'large', 'nano'\]"),
        ({"styles": ("crayon",)}, r"styles = \('crayon',\) must be a list; choose from fluent, openmoji, noto"),
        ({"styles": "openmoji"}, "styles = 'openmoji' must be a list"),
        ({"steps": 0}, "steps = 0 must be a whole number of at least 1"),
        ({"steps": True}, "steps = True must be a whole number"),
        ({"learning_rate": True}, "learning_rate = True must be a number"),
        ({"steps": 10.5}, "steps = 10.5 must be a whole number"),
        ({"batch": "8"}, "batch = '8' must be a whole number"),
        ({"workers": 0}, "workers = 0 must be a whole number of at least 1"),
        ({"save_every": -1}, "save_every = -1"),
        ({"evaluate_every": 0}, "evaluate_every = 0"),
        ({"evaluate_scenes": 0}, "evaluate_scenes = 0"),
        ({"warmup": -1}, "warmup = -1 must be a whole number of at least 0"),
        ({"seed": -1}, "seed = -1 must be a whole number of at least 0"),
        ({"learning_rate": 0}, "learning_rate = 0 must be a number greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"sigma_start": -1.0}, "sigma_start = -1.0 must be a number greater than 0"),
        ({"sigma_end": 0.0}, "sigma_end = 0.0"),
        ({"sigma_share": 1.5}, "sigma_share = 1.5 must lie between 0 and 1"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1 must be a number of at least 0"),
        ({"dense_weight": "1"}, "dense_weight = '1' must be a number of at least 0"),
        ({"tasks": {}}, "tasks = {} must give at least one of .*<OD>"),
        ({"tasks": ["<OD>"]}, r"tasks = \['<OD>'\] must give at least one"),
        ({"tasks": {"<COUNT>": 1}}, "tasks: '<COUNT>' has no training targets; choose from .*<OD>"),
        ({"tasks": {"<OD>": 0}}, "the rate of <OD> is 0; it must be a number greater than 0"),
        ({"tasks": {"<OD>": "often"}}, "the rate of <OD> is 'often'"),
    ],
)
def test_impossible_values(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**GOOD | changes)


OWN = {"output": "runs/a", "checkpoint": "scenes-nano", "data": [{"path": "photos", "tasks": {"<OD>": 1}}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": ""}, "checkpoint = '' must be a name, a folder or a Hub id"),
        ({"data": []}, r"data is missing: give at least one table \[\[data\]\]"),
        ({"data": ["photos"]}, "data: 'photos' must be a table with path and tasks"),
        ({"data": [{"path": "photos"}]}, r"\['tasks'\] missing"),
        ({"data": [{**OWN["data"][0], "weight": 0}]}, "weight = 0 must be a number greater than 0"),
        ({"data": [{**OWN["data"][0], "columns": "image"}]}, "columns = 'image' must be a table"),
        ({"data": [{**OWN["data"][0], "shorten": 1}]}, "shorten = 1 must be true or false"),
        ({"batch": 8, "accumulate": 3}, "batch = 8 cannot be divided into accumulate = 3 equal parts"),
        ({"precision": "fp16"}, "precision = 'fp16' must be one of bf16, fp32"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing = 1 must be true or false"),
        ({"freeze_vision": "yes"}, "freeze_vision = 'yes' must be true or false"),
        ({"features": "ram"}, "features = 'ram' must be one of computed, memory, disk"),
        ({"features": "memory"}, 'features = "memory" needs freeze_vision = true'),
        ({"features": "disk", "freeze_vision": True, "crops": 0.5}, 'features = "disk" allows no crops'),
        ({"features": "disk", "lora_rank": 4, "upright": False}, "needs upright = true"),
        ({"lora_rank": -1}, "lora_rank = -1 must be a whole number of at least 0"),
        ({"lora_targets": "q_proj"}, "lora_targets = 'q_proj' must be a list of layer names"),
        ({"upright": 0}, "upright = 0 must be true or false"),
        ({"crops": 2}, "crops = 2 must lie between 0 and 1"),
        ({"validation": "photos"}, "validation: 'photos' must be a table"),
    ],
)
def test_impossible_fine_tuning(changes, message):
    assert FineTuneConfig(**OWN)
    with pytest.raises(ValueError, match=message):
        FineTuneConfig(**OWN | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output = ", "run.toml is no valid TOML"),
        ('output = "a"', r"run.toml: \['tasks'\] missing"),
        (
            'output = "a"\nstep = 5\n[tasks]\n"<OD>" = 1',
            r"run.toml: unknown field \['step'\]; known fields are .*'steps'",
        ),
        ('output = "a"\nsteps = 0\n[tasks]\n"<OD>" = 1', "run.toml: steps = 0 must be"),
        ('output = "a"\nstyles = "noto"\n[tasks]\n"<OD>" = 1', "run.toml: styles = 'noto' must be a list"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_toml(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no training configuration at .*run.toml"):
        TrainConfig.from_toml(tmp_path / "run.toml")


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig(**GOOD).steps = 3
