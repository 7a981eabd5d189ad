"""Training runs as TOML files, and what is wrong with them."""

import dataclasses
from pathlib import Path

import pytest

from florence_lite.train.config import DataConfig, FineTuneConfig

OTHERS = {"train-scenes-nano.toml", "annotate.toml", "refine.toml"}  # have configurations of other kinds
EXAMPLES = sorted(path for path in Path(__file__).parents[2].glob("examples/*.toml") if path.name not in OTHERS)
OWN = {"output": "runs/a", "checkpoint": "scenes-nano", "data": [{"path": "photos", "tasks": {"<OD>": 1}}]}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path):
    assert FineTuneConfig.from_toml(path).steps


def test_from_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'output = "o"\ncheckpoint = "c"\nsteps = 7\nlearning_rate = 1\nlora_targets = ["fc1"]\n[[data]]\npath = "p"\n'
        '[data.tasks]\n"<OD>" = 0.5\n"<VQA>" = 2\n'
    )
    data = DataConfig("p", {"<OD>": 0.5, "<VQA>": 2})
    expected = FineTuneConfig("o", "c", (data,), lora_targets=("fc1",), steps=7, learning_rate=1)
    assert FineTuneConfig.from_toml(str(path)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": ""}, "output = '' must be the path of a folder"),
        ({"steps": 0}, "steps = 0 must be a whole number of at least 1"),
        ({"steps": True}, "steps = True must be a whole number"),
        ({"learning_rate": True}, "learning_rate = True must be a number"),
        ({"steps": 10.5}, "steps = 10.5 must be a whole number"),
        ({"batch": "8"}, "batch = '8' must be a whole number"),
        ({"workers": 0}, "workers = 0 must be a whole number of at least 1"),
        ({"save_every": -1}, "save_every = -1"),
        ({"evaluate_every": 0}, "evaluate_every = 0"),
        ({"warmup": -1}, "warmup = -1 must be a whole number of at least 0"),
        ({"seed": -1}, "seed = -1 must be a whole number of at least 0"),
        ({"learning_rate": 0}, "learning_rate = 0 must be a number greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"sigma_start": -1.0}, "sigma_start = -1.0 must be a number greater than 0"),
        ({"sigma_end": 0.0}, "sigma_end = 0.0"),
        ({"minutes": 0}, "minutes = 0"),
        ({"sigma_share": 1.5}, "sigma_share = 1.5 must be a number between 0 and 1"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1 must be a number of at least 0"),
    ],
)
def test_impossible_values(changes, message):
    with pytest.raises(ValueError, match=message):
        FineTuneConfig(**OWN | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": ""}, "checkpoint = '' must be a name, a folder or a Hub id"),
        ({"data": []}, r"data is missing: give at least one table \[\[data\]\]"),
        ({"data": ["photos"]}, r"\[\[data\]\] number 1: 'photos' must be a table with path"),
        ({"data": [{"path": "photos"}]}, r"\[\[data\]\] number 1: missing tasks"),
        ({"data": [{"path": "photos", "tasks": {}}]}, "tasks = {} must give at least one of .*<OD>"),
        ({"data": [{"path": "photos", "tasks": ["<OD>"]}]}, r"tasks = \['<OD>'\] must give at least one"),
        ({"data": [{"path": "photos", "tasks": {"<COUNT>": 1}}]}, "tasks: unknown task '<COUNT>'; .*<OD>"),
        ({"data": [{"path": "photos", "tasks": {"<OD>": 0}}]}, "the rate of <OD> is 0; it must be a number greater"),
        ({"data": [{**OWN["data"][0], "weight": 0}]}, "weight = 0 must be a number greater than 0"),
        ({"data": [{**OWN["data"][0], "columns": "image"}]}, "columns = 'image' must be a table"),
        ({"data": [{**OWN["data"][0], "shorten": 1}]}, "shorten = 1 must be true or false"),
        ({"batch": 8, "accumulate": 3}, "batch = 8 cannot be divided into accumulate = 3 equal parts"),
        ({"data": [{"path": "photos", "tasks": {"<OD>": 1}, "language": "de"}]}, "language = 'de' must be \"en\", or"),
        ({"precision": "fp16"}, "precision = 'fp16' must be one of auto, bf16, fp32"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing = 1 must be true or false"),
        ({"freeze_vision": "yes"}, "freeze_vision = 'yes' must be true or false"),
        ({"features": "ram"}, "features = 'ram' must be one of computed, memory, disk"),
        ({"features": "memory"}, 'features = "memory" needs freeze_vision = true'),
        ({"features": "disk", "freeze_vision": True, "crops": 0.5}, 'features = "disk" allows no crops'),
        ({"features": "disk", "lora_rank": 4, "upright": False}, "needs upright = true"),
        ({"lora_rank": -1}, "lora_rank = -1 must be a whole number of at least 0"),
        ({"lora_targets": "q_proj"}, "lora_targets = 'q_proj' must be a list of layer names"),
        ({"upright": 0}, "upright = 0 must be true or false"),
        ({"crops": 2}, "crops = 2 must be a number between 0 and 1"),
        ({"validation": "photos"}, r"\[validation\]: 'photos' must be a table"),
    ],
)
def test_impossible_fine_tuning(changes, message):
    assert FineTuneConfig(**OWN)
    with pytest.raises(ValueError, match=message):
        FineTuneConfig(**OWN | changes)


GOOD_FILE = 'output = "a"\ncheckpoint = "c"\ndata = [{path = "p", tasks = {"<OD>" = 1}}]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output = ", "run.toml is no valid TOML"),
        ('output = "a"', r"run.toml: missing checkpoint, data"),
        ('output = "a"\nstep = 5', r"run.toml: unknown field 'step'; did you mean 'steps'\? fields: .*evaluate_every"),
        (GOOD_FILE + "steps = 0", "run.toml: steps = 0 must be"),
        (GOOD_FILE + 'lora_targets = "fc1"', "run.toml: lora_targets = 'fc1' must be a list"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        FineTuneConfig.from_toml(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no training configuration at .*run.toml"):
        FineTuneConfig.from_toml(tmp_path / "run.toml")


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FineTuneConfig(**OWN).steps = 3
