"""The configuration of training from scratch, and what is wrong with one."""

from pathlib import Path

import pytest

from florence_lite.scenes import TRAINING_STYLES
from florence_lite.scenes.config import TrainConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "train-scenes-nano.toml"
GOOD = {"output": "runs/a", "tasks": {"<OD>": 1}}


def test_the_example():
    config = TrainConfig.from_toml(EXAMPLE)
    assert config.steps and set(config.styles) == set(TRAINING_STYLES)


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
        ({"preset": "huge"}, r"preset = 'huge' must be one of base, large, nano"),
        ({"styles": ("crayon",)}, r"styles = \('crayon',\) must be a list of some of fluent, openmoji, noto"),
        ({"styles": "openmoji"}, "styles = 'openmoji' must be a list"),
        ({"evaluate_scenes": -1}, "evaluate_scenes = -1"),
        ({"negatives": 1.5}, "negatives = 1.5"),
        ({"dense_weight": "1"}, "dense_weight = '1' must be a number of at least 0"),
        ({"tasks": {}}, "tasks = {} must give at least one of .*<OD>"),
        ({"tasks": ["<OD>"]}, r"tasks = \['<OD>'\] must give at least one"),
        ({"tasks": {"<COUNT>": 1}}, "tasks: unknown task '<COUNT>'; .*<OD>"),
        ({"tasks": {"<OD>": 0}}, "the rate of <OD> is 0; it must be a number greater than 0"),
        ({"tasks": {"<OD>": "often"}}, "the rate of <OD> is 'often'"),
        ({"styles": ()}, r"styles = \(\) must be a list of some of"),
        ({"steps": 0}, "steps = 0 must be a whole number of at least 1"),
    ],
)
def test_impossible_values(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**GOOD | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('output = "a"', r"run.toml: missing tasks"),
        (
            'output = "a"\nstep = 5\n[tasks]\n"<OD>" = 1',
            r"run.toml: unknown field 'step'; did you mean 'steps'\? fields: .*evaluate_every",
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
