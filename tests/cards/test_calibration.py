"""Calibrations: the formula, and the files and tables they are read from."""

import math

import pytest

from florence_lite.cards import Calibration, CheckpointCard
from florence_lite.files import read_toml


@pytest.mark.parametrize("log_odds", [-1e9, -3.0, 0.0, 0.4, 7.0, 1e9])
def test_presence(log_odds):
    calibration = Calibration(beta=0.4, temperature=2.0)
    expected = 0.5 + math.tanh(max(-100.0, min(100.0, (log_odds - 0.4) / 2)) / 2) / 2
    assert calibration.presence(log_odds) == pytest.approx(expected) and 0 <= calibration.presence(log_odds) <= 1
    assert Calibration().presence(0.0) == 0.5 == Calibration().threshold


def test_files_and_cards_say_the_same(tmp_path):
    calibration = Calibration(-1.25, 1.5, 0.375, 'scenes of the "validation" split')
    calibration.write(tmp_path / "calibration.json")
    assert Calibration.read(tmp_path) == Calibration.read(tmp_path / "calibration.json") == calibration
    (tmp_path / "card.toml").write_text(calibration.to_toml(), encoding="utf-8")
    table = read_toml(tmp_path / "card.toml", "card")["calibration"]
    known = {"name": "a", "summary": "b", "source": "c/d", "licence": "MIT", "image_size_wh": (9, 9), "tasks": ()}
    assert CheckpointCard(**known, calibration=table).calibration == calibration
    assert CheckpointCard(**known).calibration is None
    with pytest.raises(ValueError, match="calibration: temperature = 0"):
        CheckpointCard(**known, calibration={"temperature": 0})
    with pytest.raises(ValueError, match="calibration = 5 must be a table"):
        CheckpointCard(**known, calibration=5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON file"),
        ("[]", "must be an object"),
        ('{"betta": 1}', "unknown field 'betta'; did you mean 'beta'?"),
        ('{"beta": "1"}', "beta = '1' must be a number"),
        ('{"beta": 1e9}', "beta = 1000000000.0 must be a number from -1000 to 1000"),
        ('{"beta": NaN}', "beta = nan"),
        ('{"temperature": -1}', "temperature = -1 must be a number greater than 0"),
        ('{"temperature": 1e-9}', "temperature = 1e-09 must be a number from 0.001"),
        ('{"threshold": 1.5}', "threshold = 1.5 must be a number between 0 and 1"),
        ('{"about": 5}', "about = 5 must be a string"),
        (f'{{"about": "{"x" * 5000}"}}', "has more than 4,096 bytes"),
    ],
)
def test_damaged_files(tmp_path, text, message):
    file = tmp_path / "calibration.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Calibration.read(tmp_path)
    assert str(file) in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="florence-lite calibrate makes one"):
        Calibration.read(tmp_path / "nowhere.json")
