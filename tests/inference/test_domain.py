"""Answers about pictures that a checkpoint knows nothing about."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from florence_lite import Florence
from florence_lite.answers import Answer, Instance
from florence_lite.inference.answering import joined
from florence_lite.inference.domain import AXES, FILE, SURE, UNSURE, Domain, is_foreign
from florence_lite.results import Result
from tests.tiny import noise_image

NARROW = SimpleNamespace(for_photographs="org/name")
LOW, HIGH = UNSURE - 0.01, UNSURE
WIDTH = 24
EXAMPLES = Path(__file__).parents[2] / "examples"


def seen(count: int, seed: int = 0, shift: float = 0.0) -> list[torch.Tensor]:
    """Features [9, WIDTH] of made-up pictures."""
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(9, WIDTH, generator=random) * torch.linspace(0.1, 1, WIDTH) + shift for _ in range(count)]


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain.fit(seen(300), seen(200, seed=1))


def test_pictures_of_the_training_s_kind_are_held(domain):
    assert domain.axes.shape == (2 * WIDTH, AXES) and domain.mean.dtype == domain.axes.dtype == torch.float32
    assert sum(map(domain.distance, seen(300))) / 300 == pytest.approx(1, abs=0.01)
    assert sum(map(domain.holds, seen(200, seed=1))) == 198  # the limit is at 99 of 100
    assert not any(map(domain.holds, seen(50, seed=2, shift=1.0)))
    assert domain.holds(seen(1, seed=3)[0].half())


def test_there_and_back(domain, tmp_path):
    assert Domain.read(tmp_path) is None
    domain.write(tmp_path)
    again = Domain.read(tmp_path)
    assert torch.equal(again.mean, domain.mean) and torch.equal(again.axes, domain.axes)
    assert again.limit == pytest.approx(domain.limit)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"mean": torch.zeros(4), "axes": torch.zeros(5, 2), "limit": torch.tensor(1.0)},
        {"mean": torch.zeros(4), "axes": torch.zeros(4), "limit": torch.tensor(1.0)},
        {"mean": torch.zeros(4), "axes": torch.zeros(4, 2), "limit": torch.zeros(2)},
        None,
    ],
)
def test_damaged_files(tmp_path, tensors):
    if tensors is None:
        (tmp_path / FILE).write_bytes(b"none")
    else:
        save_file(tensors, tmp_path / FILE)
    with pytest.raises(ValueError, match=f"{FILE} is damaged .*; copy it again|{FILE} is damaged: its parts"):
        Domain.read(tmp_path)


def test_features_of_another_tower(domain):
    with pytest.raises(ValueError, match=f"is of a tower of width {WIDTH}, not 5"):
        domain.holds(torch.zeros(9, 5))


def boxes(*scores):
    return Answer(instances=[Instance("dog", box=(0, 0, 1, 1), score=score) for score in scores])


@pytest.mark.parametrize(
    ("answer", "score", "unsure"),
    [
        (boxes(LOW, 0.01), None, True),
        (boxes(LOW, HIGH), None, False),
        (boxes(), None, False),  # nothing is claimed
        (boxes(None), None, False),  # nothing was measured
        (Answer("a dog"), LOW, True),
        (Answer("a dog"), HIGH, False),
        (Answer("a dog"), None, False),
    ],
)
def test_foreign_is_another_kind_of_picture_or_where_nothing_is_sure(answer, score, unsure):
    assert is_foreign(NARROW, lambda: True, answer, score) == unsure
    assert is_foreign(NARROW, lambda: False, answer, score)
    assert not is_foreign(SimpleNamespace(for_photographs=""), lambda: False, answer, score)
    assert not is_foreign(None, lambda: False, answer, score)


@pytest.mark.parametrize(
    ("parts", "foreign"),
    [
        ([(True, 1), (True, 2)], True),
        ([(True, 1), (False, 1)], False),
        ([(True, 1), (False, 0)], True),
        ([(True, 0), (True, 0)], True),  # nothing found in a foreign picture
        ([(False, 0), (False, 0)], False),
    ],
)
def test_joined_answers_are_foreign_where_all_that_found_something_are(parts, foreign):
    item = Instance("dog", box=(0, 0, 1, 1), score=0.1, tokens=(0, 1))
    results = [
        Result("<OD>", (9, 9), instances=[item] * count, foreign=each, token_logprobs=()) for each, count in parts
    ]
    assert joined(results).foreign == foreign


def test_the_embedded_checkpoint_knows_its_scenes_and_nothing_else():
    florence = Florence.from_pretrained("scenes-nano")
    known = florence.run([EXAMPLES / f"{name}.png" for name in ("meadow", "lions", "donuts", "football")], "<OD>")
    assert not any(result.foreign for result in known)
    noise, plain = florence.run([noise_image(0), noise_image(1).convert("1").resize((9, 9))], "<CAPTION>")
    assert noise and noise.foreign
    assert not plain and plain.foreign  # its tower knows no such picture, whatever is said of it


@pytest.mark.parametrize("prompt", ["<OD>", "<REGION_PROPOSAL>"])
def test_lists_about_a_foreign_picture_leave_out_guesses_unless_the_call_says_otherwise(prompt):
    florence = Florence.from_pretrained("scenes-nano")
    noise = florence.encode(noise_image(0))
    every, sure = florence.run(noise, prompt, threshold=0), florence.run(noise, prompt)
    assert every.foreign and sure.foreign and every and not every.dropped
    kept = [item for item in every if item.score >= SURE]
    assert list(sure) == kept and len(kept) < len(every) and sure.dropped == len(every) - len(kept)
    assert len(florence.run(noise, prompt, threshold=UNSURE / 2)) >= len(sure)
    told = [event for event in florence.stream(noise, prompt) if not isinstance(event, Result | str)]
    assert [(item.label, item.tokens) for item in told] == [(item.label, item.tokens) for item in kept]
    assert [item.box for item in told] == [pytest.approx(item.box, abs=1e-3) for item in kept]


def test_phrases_about_a_foreign_picture_are_absent_where_all_is_guessed():
    florence = Florence.from_pretrained("scenes-nano")
    noise = florence.encode(noise_image(0))
    phrases = ["all animals", "the dog", "the chair", "the penguin", "the car"]
    every, sure = florence.detect(noise, phrases, threshold=0), florence.detect(noise, phrases)
    assert every.foreign and len(every) >= len(phrases) and not every.absent
    kept = [
        item for item in every if item.score >= SURE and sure.presence[item.label] >= florence.calibration.threshold
    ]
    assert list(sure) == kept and sure.presence == pytest.approx(every.presence, abs=1e-5)
    assert set(sure.absent) == set(phrases) - {item.label for item in kept}


def test_nothing_is_left_out_of_a_known_picture():
    florence = Florence.from_pretrained("scenes-nano")
    result = florence.run(EXAMPLES / "meadow.png", "<OD>")
    assert result and not result.foreign and not result.dropped
