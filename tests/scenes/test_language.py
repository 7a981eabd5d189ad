"""Every sentence about a scene is checked by a second reading: parsed by its words and compared with the boxes."""

import re
from collections import Counter

import numpy as np
import pytest

from florence_lite import scenes
from florence_lite.scenes.catalogue import GROUPS, STUFF
from florence_lite.scenes.language import View, captions, expressions, plural, questions

NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
PLACE = "|".join(
    ["at the top left", "at the top right", "at the top", "at the bottom left", "at the bottom right", "at the bottom"]
    + ["on the left", "on the right", "in the center"]
)
RELATION = "left of|right of|above|below"
SINGULAR = {plural(label): label for label in scenes.CLASSES}


@pytest.fixture(scope="module")
def annotations():
    return [scenes.render_scene(seed, ("openmoji",), (96, 96))[1] for seed in range(300)]


def centre(annotation, i):
    x0, y0, x1, y1 = annotation.objects[i].box
    return (x0 + x1) / 2, (y0 + y1) / 2


def area(annotation, i):
    x0, y0, x1, y1 = annotation.objects[i].box
    return (x1 - x0) * (y1 - y0)


def is_at(annotation, i, place):
    """Whether the object's centre is in the part of the image that the words name."""
    x, y = centre(annotation, i)
    width, height = annotation.size_wh
    column = "left" if x < width / 3 else "right" if x >= 2 * width / 3 else ""
    row = "top" if y < height / 3 else "bottom" if y >= 2 * height / 3 else ""
    words = set(place.split()) & {"left", "right", "top", "bottom"}
    return words == {column, row} - {""}


def lead(annotation, i, j, relation):
    """How many pixels the centre of i is left of (right of, above, below) the centre of j."""
    (x, y), (other_x, other_y) = centre(annotation, i), centre(annotation, j)
    return {"left of": other_x - x, "right of": x - other_x, "above": other_y - y, "below": y - other_y}[relation]


def meaning(annotation, phrase):
    """The objects that a phrase could mean, read generously: a little further left is left."""
    of = {label: [i for i, thing in enumerate(annotation.objects) if thing.label == label] for label in scenes.CLASSES}
    if phrase in of:
        return of[phrase]
    if phrase.startswith("all "):
        kind = phrase.removeprefix("all ")
        members = GROUPS[kind] if kind in GROUPS else [SINGULAR[kind]]
        return [i for i, thing in enumerate(annotation.objects) if thing.label in members]
    words = phrase.removeprefix("the ")
    if words in of:
        return of[words]
    if words in STUFF:
        return []  # no object
    if match := re.fullmatch(rf"(.+) ({RELATION}) the (.+)", words):
        label, relation, anchor = match.groups()
        return [i for i in of[label] for j in of[anchor] if i != j and lead(annotation, i, j, relation) > 0]
    if match := re.fullmatch(rf"(.+) ({PLACE})", words):
        label, place = match.groups()
        return [i for i in of[label] if is_at(annotation, i, place)]
    word, label = words.split(" ", 1)
    rank = {
        "leftmost": lambda i: -centre(annotation, i)[0],
        "rightmost": lambda i: centre(annotation, i)[0],
        "topmost": lambda i: -centre(annotation, i)[1],
        "bottommost": lambda i: centre(annotation, i)[1],
        "largest": lambda i: area(annotation, i),
        "smallest": lambda i: -area(annotation, i),
    }[word]
    return [max(of[label], key=rank)]


def test_referrals_mean_what_they_say(annotations):
    kinds = Counter()
    for seed, annotation in enumerate(annotations):
        counts = []
        for expression in annotation.expressions:
            assert sorted(expression.objects) == sorted(meaning(annotation, expression.phrase)), (seed, expression)
            kinds[min(len(expression.objects), 2)] += 1
            counts.append(len(expression.objects))
        phrases = [expression.phrase for expression in annotation.expressions]
        assert len(set(phrases)) == len(phrases) or counts.count(0) > 1, f"seed {seed} repeats itself"
    assert min(kinds[0], kinds[1], kinds[2]) > 200, f"too few absent, unique or ambiguous phrases: {kinds}"


def test_every_wording_of_an_expression_occurs(annotations):
    phrases = {}
    for annotation in annotations:
        for expression in annotation.expressions:
            phrases.setdefault(len(expression.objects), []).append(expression.phrase)
    for pattern in (
        rf"the .+ ({RELATION}) the .+",
        rf"the .+ ({PLACE})",
        "the (leftmost|rightmost|topmost|bottommost) .+",
    ):
        assert any(re.fullmatch(pattern, phrase) for phrase in phrases[1]), pattern
    for pattern in ("the largest .+", "the smallest .+", "the [a-z]+"):
        assert any(re.fullmatch(pattern, phrase) for phrase in phrases[1]), pattern
    assert {"all animals", "all food", "all vehicles"} <= set(phrases[2]) | set(phrases[3])
    for pattern in (rf"the .+ ({RELATION}) the .+", rf"the .+ ({PLACE})", "all .+", "the [a-z]+", "[a-z]+"):
        assert any(re.fullmatch(pattern, phrase) for phrase in phrases[0]), pattern


def test_unique_phrases_are_unique_by_a_margin(annotations):
    for annotation in annotations:
        margin = 0.119 * min(annotation.size_wh)
        for expression in annotation.expressions:
            if match := re.fullmatch(rf"the .+ ({RELATION}) the (.+)", expression.phrase):
                anchors = [j for j, thing in enumerate(annotation.objects) if thing.label == match[2]]
                for i in expression.objects:
                    assert lead(annotation, i, anchors[0], match[1]) >= margin
            if match := re.fullmatch("the largest (.+)", expression.phrase):
                areas = [area(annotation, i) for i, thing in enumerate(annotation.objects) if thing.label == match[1]]
                assert sorted(areas)[-1] >= 1.39 * sorted(areas)[-2]


def test_hard_absent_phrases_are_about_what_is_there(annotations):
    hard = 0
    for annotation in annotations:
        present = {thing.label for thing in annotation.objects}
        for expression in annotation.expressions:
            match = re.fullmatch(rf"the (.+?) ({PLACE}|({RELATION}) the .+)", expression.phrase)
            hard += not expression.objects and match is not None and match[1] in present
    assert hard > 200


def test_absent_phrases_say_how_hard_they_are(annotations):
    """A changed one names something that is there; of a random one nothing is there."""
    seen = Counter()
    for annotation in annotations:
        present = {thing.label for thing in annotation.objects} | {item.label for item in annotation.stuff}
        for expression in annotation.expressions:
            assert bool(expression.kind) == (not expression.objects)
            words = expression.phrase.removeprefix("the ").removeprefix("all ")
            if expression.kind == "random":
                assert words not in present and SINGULAR.get(words) not in present
                seen["stuff"] += words in STUFF
            seen[expression.kind] += 1
    assert min(seen.values()) > 200, seen


def test_wrong_captions_are_wrong(annotations):
    """Each differs from what is true in an object or in a place."""
    counts = Counter()
    for annotation in annotations:
        true = [Counter(each.replace(" and ", ", ").split(", ")) for each in annotation.captions[:2]]
        for wrong in annotation.wrong_captions:
            said = Counter(wrong.replace(" and ", ", ").split(", "))
            assert said not in true, wrong
            assert not any(said <= each for each in true), f"{wrong}: what leaves something out is true"
            counts["one mistake" if any((said & each) for each in true) else "all"] += 1
        assert bool(annotation.objects) <= len(annotation.wrong_captions) <= 2
    assert min(counts.values()) > 100, counts


def test_captions_count_the_objects_and_quote_the_text(annotations):
    for annotation in annotations:
        short, detailed, paragraph = annotation.captions
        counted = Counter()
        for item in re.split(", | and ", short):
            number, noun = item.split(" ", 1)
            counted[SINGULAR[noun] if number in NUMBERS else noun] += NUMBERS.get(number, 1)
        assert counted == Counter(thing.label for thing in annotation.objects)
        assert re.split(", | and ", detailed) == [thing.phrase for thing in annotation.objects]
        assert re.findall('"(.+?)"', paragraph) == [line.text for line in annotation.lines]
        assert f": {short}." in paragraph and paragraph.count(" is ") >= len(annotation.objects)


def test_phrases_say_class_size_and_place(annotations):
    for annotation in annotations:
        width, height = annotation.size_wh
        for i, thing in enumerate(annotation.objects):
            match = re.fullmatch(rf"an? (small |large |)({thing.label}) ({PLACE})", thing.phrase)
            assert match, thing.phrase
            assert is_at(annotation, i, match[3])
            share = (area(annotation, i) / (width * height)) ** 0.5
            assert match[1] == ("small " if share < 0.2 else "large " if share > 0.33 else "")


def answer(annotation, question):
    """The answer by a second reading; None where it has to be given by the caller's eye."""
    labels = [thing.label for thing in annotation.objects]
    if question == "how many objects are there?":
        return str(len(labels))
    if match := re.fullmatch("how many (.+) are there\\?", question):
        return str(labels.count(SINGULAR[match[1]]))
    if match := re.fullmatch("is there an? (.+)\\?", question):
        return "yes" if match[1] in labels else "no"
    if match := re.fullmatch(rf"what is ({PLACE})\?", question):
        (only,) = [label for i, label in enumerate(labels) if is_at(annotation, i, match[1])]
        return only
    if match := re.fullmatch(rf"what is ({RELATION}) the (.+)\?", question):
        j = labels.index(match[2])
        assert labels.count(match[2]) == 1
        beside = [label for i, label in enumerate(labels) if i != j and lead(annotation, i, j, match[1]) > 0]
        assert len(beside) <= 1
        return beside[0] if beside else "nothing"
    if question == "what is the largest object?":
        return labels[max(range(len(labels)), key=lambda i: area(annotation, i))]
    assert question == "what does the text say?"
    return " ".join(line.text for line in annotation.lines) or "nothing"


def test_questions_have_the_right_answer(annotations):
    kinds = Counter()
    for seed, annotation in enumerate(annotations):
        for question in annotation.questions:
            assert question.answer == answer(annotation, question.question), (seed, question)
            kinds[question.answer] += 1
    assert abs(kinds["yes"] - kinds["no"]) < 100, "yes and no are about as frequent"


def test_an_empty_scene_has_words_too():
    view = View((), (), (100, 100))
    assert captions(view, (), "a plain blue background") == (
        "nothing",
        "nothing",
        "A plain blue background. There are no objects: nothing. There is no text.",
    )
    assert all(not expression.objects for expression in expressions(view, np.random.default_rng(0)))
    assert {question.answer for question in questions(view, (), np.random.default_rng(0))} <= {"0", "no", "nothing"}
