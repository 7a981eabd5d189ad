"""Fitting presences: the right parameters from made-up log-odds, and the whole way from annotated images."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from florence_lite import Florence
from florence_lite.cards import Calibration
from florence_lite.data import Annotation, ObjectAnnotation, Sample
from florence_lite.data.annotation import ReferringExpression
from florence_lite.data.samples import Dataset
from florence_lite.evaluate.metrics.presence import calibration_error
from florence_lite.train.calibrating import Judged, best_threshold, calibrate, fit
from tests.tiny import SIDES, noise_image, tiny_florence

pytest.importorskip("torchmetrics", reason="the extra eval is not installed")
WORDS = ["apple", "green", "door", "wheels", "dog", "cat", "sign", "light"]


def drawn(beta: float, temperature: float, count: int = 4000) -> list[Judged]:
    """Phrases whose log-odds mean what a calibration says."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 3, count)
    chance = 1 / (1 + np.exp(-(log_odds - beta) / temperature))
    return [Judged(float(z), bool(u < p)) for z, u, p in zip(log_odds, rng.random(count), chance, strict=True)]


@pytest.mark.parametrize(("beta", "temperature"), [(0.0, 1.0), (1.5, 2.0), (-2.0, 0.5)])
def test_the_parameters_are_found_again(beta, temperature):
    judged = drawn(beta, temperature)
    found = fit(judged, "here")
    assert found.beta == pytest.approx(beta, abs=0.15) and found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.about == "here" and found == fit(judged, "here")
    present = [each.present for each in judged]
    before = calibration_error([Calibration().presence(each.log_odds) for each in judged], present)
    after = calibration_error([found.presence(each.log_odds) for each in judged], present)
    assert after < 0.03 and (after < before / 2 or (beta, temperature) == (0.0, 1.0))


def test_phrases_that_are_told_apart_without_a_fault_are_not_infinitely_sure():
    found = fit([Judged(float(z), z > 0) for z in (-3, -2, -1, 1, 2, 3)])
    assert 0.1 < found.temperature < 10 and 0.5 < found.presence(1.0) < found.presence(3.0) < 0.95


def test_log_odds_that_say_nothing():
    with pytest.raises(ValueError, match="cannot be calibrated; train it on phrases of both kinds"):
        fit([Judged(float(z), z < 0) for z in (-2, -1, 1, 2)])


@pytest.mark.parametrize(
    ("presence", "present", "expected"),
    [
        ([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], 0.55),
        ([0.1, 0.3, 0.8, 0.9], [0, 1, 0, 1], 0.2),  # F1 is 0.8 from 0.3 on, 2/3 from 0.9 on
        ([0.5, 0.5, 0.2], [1, 0, 0], 0.35),  # equals are answered alike
        ([0.4, 0.6], [1, 1], 0.2),
    ],
)
def test_the_threshold_of_the_best_f1(presence, present, expected):
    assert best_threshold(np.array(presence), np.array(present, dtype=bool)) == pytest.approx(expected)


def scene(number: int, absent: bool = True) -> Sample:
    """Two objects, and two phrases that mean nothing."""
    picture = noise_image(number)
    labels = [WORDS[number % 8], WORDS[(number + 3) % 8]]
    others = [word for word in WORDS if word not in labels][:2] if absent else []
    objects = tuple(ObjectAnnotation(label, (10, 10, 40, 40)) for label in labels)
    said = [ReferringExpression(label, (place,)) for place, label in enumerate(labels)]
    said += [ReferringExpression(label, (), "random") for label in others]
    known = Annotation(picture.size, objects, expressions=tuple(said))
    return Sample(picture, known, f"image {number}")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("absent", [True, False])
def test_from_annotated_images(toy_tokenizer, monkeypatch, tmp_path, side, absent):
    """Where a data set has no phrase that means nothing, its other labels are such."""
    samples = [scene(number, absent) for number in range(16)]
    florence, rng, asked = tiny_florence(toy_tokenizer, side), np.random.default_rng(1), iter(samples)
    real = florence.answering.log_odds

    def better(image, phrases):
        """Of phrases that mean something the log-odds lie higher, more or less."""
        shown = {item.label for item in next(asked).annotation.objects}
        assert real(image, phrases).keys() == set(phrases)
        return {phrase: rng.normal(2 if phrase in shown else -2, 2) for phrase in phrases}

    monkeypatch.setattr(florence.answering, "log_odds", better)
    fitted = calibrate(florence, Dataset.of(samples), about="sixteen")
    assert fitted.present == 16 and fitted.absent >= 16 and len(fitted.held_out) >= 32
    assert fitted.calibration.about == "sixteen" and 0 <= fitted.ece_after <= 1 and not fitted.problems
    assert json.loads(json.dumps(fitted.to_dict()))["held_out"] == len(fitted.held_out)
    pytest.importorskip("matplotlib", reason="the extra vis is not installed")
    fitted.draw(tmp_path / "diagram.png")
    with Image.open(tmp_path / "diagram.png") as drawn_:
        assert drawn_.size[0] > 400


def test_too_few_phrases(toy_tokenizer):
    florence = tiny_florence(toy_tokenizer, "decoder")
    with pytest.raises(
        ValueError, match="half of the 4 images have 4 phrases that mean something and 4 that mean noth"
    ):
        calibrate(florence, [scene(number) for number in range(4)])


def test_presence_of_either_side_is_calibrated_by_its_log_odds(toy_tokenizer):
    """What `log_odds` gives is what answers are gated by."""
    for side in SIDES:
        florence = tiny_florence(toy_tokenizer, side)
        image = florence.encode(noise_image(0))
        log_odds = florence.answering.log_odds(image, WORDS)
        presence = florence.detect(image, WORDS).presence
        assert presence == pytest.approx({word: 1 / (1 + math.exp(-z)) for word, z in log_odds.items()}, abs=1e-5)


def test_fine_tuned_and_changed_weights_lose_it(toy_tokenizer, tmp_path):
    """Saved as it was loaded, it stays."""
    calibration = Calibration(0.5, 2.0, 0.4)
    plain = tiny_florence(toy_tokenizer, "decoder")
    florence = Florence(plain.model, toy_tokenizer, calibration=calibration)
    florence.save_pretrained(tmp_path)
    loaded = Florence.from_pretrained(tmp_path)
    assert loaded.calibration == calibration == Calibration.read(tmp_path)
    assert Florence.from_pretrained(tmp_path, calibration=Calibration(1.0)).calibration == Calibration(1.0)
    Calibration(3.0).write(tmp_path / "other.json")
    assert Florence.from_pretrained(tmp_path, calibration=tmp_path / "other.json").calibration == Calibration(3.0)
    loaded.model.decoder.norm.weight.data.mul_(1.01)
    loaded.model.decoder.norm.weight.data = loaded.model.decoder.norm.weight.data.clone()
    loaded.save_pretrained(tmp_path)
    assert Florence.from_pretrained(tmp_path).calibration is None
