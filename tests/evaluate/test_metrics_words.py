"""Captions, text, short answers and labels, against values worked out by hand."""

import math
from dataclasses import replace

import pytest

from florence_lite.answers import Instance
from florence_lite.evaluate.metrics import METRICS
from florence_lite.evaluate.metrics.words import caption_tokens, short_form
from tests.evaluate.given import found, places, words

BOX = (0, 0, 10, 10)


def metrics(name, *cases, needs=None):
    if needs:
        pytest.importorskip(needs, reason="the extra eval is not installed")
    return METRICS[name].measure(cases).metrics


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("A man, in the Park.", "a man in the park"),
        ("It's a dog's life, isn't it?", "it 's a dog 's life is n't it"),
        ("They can’t; he'll", "they ca n't he 'll"),
        ("a black-and-white T-shirt", "a black-and-white t-shirt"),
        ("3.5 of 1,000 at 5:30", "3.5 of 1,000 at 5:30"),
        ("The cats' bowls", "the cats bowls"),
        ("a T.V. set", "a t.v. set"),
        ("… !", ""),
    ],
)
def test_caption_tokens(text, tokens):
    assert caption_tokens(text) == tokens.split()


@pytest.mark.parametrize(
    "cases, expected",
    [
        ([], None),
        ([words("a", "a")], None),  # one image: no word is rarer than another
        ([words("a", " "), words("a", "a")], None),
        ([words("one two three four", "one two three four"), words("a b c d", "a b c d")], 10),
        ([words("One, two three four.", "one two three four"), words("one two three four", "a b c d")], 5),
        ([words("", "one two three four"), words("", "a b c d")], 0),
        # Two words in a row at most, so two of the four orders are right; "red" is in both images and weighs nothing.
        ([words("red dog", "red dog"), words("red cat", "red cat")], 5),
        # Right by its one rare word; one pair of words too few: exp(-1 / (2 * 6 ** 2)).
        ([words("dog", "red dog"), words("", "red cat")], 10 * math.exp(-1 / 72) / 4 / 2),
        ([words("red dog", "red dog", "blue hat"), words("red cat", "red cat")], (2.5 + 5) / 2),  # mean of references
    ],
)
def test_cider(cases, expected):
    expected = None if expected is None else pytest.approx(expected)
    assert metrics("cider", *cases, needs="pycocoevalcap.cider.cider") == {"cider": expected}


@pytest.mark.parametrize(
    "cases, bleu1, bleu4",
    [
        ([], None, None),
        ([words("a b c d", "a b c d")], 1, 1),
        ([words("a b c d", "x", "A b, c d!")], 1, 1),
        ([words("a b x d", "a b c d")], 0.75, 0),
        ([words("a b", "a b c d")], math.exp(1 - 4 / 2), 0),
        ([words("", "a b c d")], 0, 0),
        ([words("a b c d e", "a b c d f")], 0.8, (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
        ([words("a a", "a b")], 0.5, 0),  # a word counts as often as it is true
        ([words("a b c", "a b c")], 1, 0),  # four words in a row are not there to be right
        (
            [words("a b c d", "a b c d e f", "a b c d e", "x y")],
            math.exp(1 - 5 / 4),
            math.exp(1 - 5 / 4),
        ),  # the closest
        ([words("a b c d", "a b c d e", "x y z")], 1, 1),  # the shorter of two as close
        ([words("a b c d", "a b c d"), words("e f g h", "x", "y", "e f g h")], 1, 1),  # as many references as there are
        ([words("a b c d", "a b c d"), words("e x", "e")], 5 / 6, (5 / 6 * 3 / 4) ** 0.25),  # all words together
        ([words("a b c d", "a b c d"), words("anything", "")], 1, 1),  # without a reference nothing is measured
    ],
)
def test_bleu(cases, bleu1, bleu4):
    expected = {"bleu1": bleu1, "bleu4": bleu4}
    expected = {name: value if value is None else pytest.approx(value) for name, value in expected.items()}
    assert metrics("bleu", *cases, needs="sacrebleu") == expected


@pytest.mark.parametrize(
    "cases, cer, wer",
    [
        ([], None, None),
        ([words("anything", "")], None, None),
        ([words("stop here", "stop here")], 0, 0),
        ([words("stop\nhere ", "stop  here")], 0, 0),
        ([words("", "stop here")], 1, 1),
        ([words("step here", "stop here")], 1 / 9, 1 / 2),
        ([words("STOP", "stop")], 1, 1),
        ([words("ab", "ab"), words("cdx", "cd")], 1 / 4, 1 / 2),  # all texts together
        ([words("ab", "ab"), words("cd ef", "")], 5 / 2, 2),  # words where there are none
    ],
)
def test_error_rates(cases, cer, wer):
    for name, value in (("cer", cer), ("wer", wer)):
        expected = None if value is None else pytest.approx(value)
        assert metrics(name, *cases, needs="jiwer") == {name: expected}


def test_lines_of_text_are_read_in_their_order():
    right = places([found("stop", BOX), found("here", BOX)], [found("stop", BOX), found("here", BOX)])
    turned = places([found("stop", BOX), found("here", BOX)], [found("here", BOX), found("stop", BOX)])
    assert metrics("wer", right, needs="jiwer") == {"wer": 0}
    assert metrics("wer", turned)["wer"] == 1


@pytest.mark.parametrize(
    "answer, texts, expected",
    [
        ("Hello", ["hello"], 1),
        ("hallo", ["hello"], 0.8),
        ("hallo", ["bonjour", "hello"], 0.8),
        ("ax", ["ab"], 0),  # just half right
        ("abx", ["abc"], 2 / 3),
        ("", ["abc"], 0),
    ],
)
def test_anls(answer, texts, expected):
    assert metrics("anls", words(answer, *texts), needs="rapidfuzz") == {"anls": pytest.approx(expected)}


@pytest.mark.parametrize(
    "answer, texts, expected",
    [
        ("Yes.", ["yes"], 1),
        ("no", ["yes"], 0),
        ("two", ["3", "2", "3"], 1),  # too few annotators to agree
        ("a", ["x"] * 10, 0),
        ("b", ["b"] + ["x"] * 9, 0.3),
        ("b", ["b"] * 2 + ["x"] * 8, 0.6),
        ("b", ["b"] * 3 + ["x"] * 7, 0.9),
        ("b", ["b"] * 4 + ["x"] * 6, 1),
        ("b", ["b"] * 10, 1),
    ],
)
def test_vqa_accuracy(answer, texts, expected):
    assert metrics("vqa_accuracy", words(answer, *texts)) == {"vqa_accuracy": pytest.approx(expected)}


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("The two dogs.", "2 dogs"),
        ("  It's 3.50! ", "its 3.50"),
        ("t-shirt", "t shirt"),
        ("an apple, a pear", "apple pear"),
        ("the", ""),
    ],
)
def test_short_form(answer, expected):
    assert short_form(answer) == expected


def test_accuracy_and_nothing_to_measure():
    assert metrics("accuracy", words("Door  handle", "door handle"), words("cat", "dog", "yak")) == {"accuracy": 0.5}
    assert metrics("accuracy") == {"accuracy": None}
    assert metrics("vqa_accuracy") == {"vqa_accuracy": None}
    assert metrics("anls", needs="rapidfuzz") == {"anls": None}


@pytest.mark.parametrize(
    "truth, answer, precision, recall, f1",
    [
        ([], [], None, None, None),
        (["dog", "dog", "cat"], ["Dog", "cat", "dog"], 1, 1, 1),
        (["dog", "dog"], ["dog"], 1, 0.5, 2 / 3),
        (["dog"], ["dog", "dog", "yak"], 1 / 3, 1, 0.5),
        (["dog"], [], None, 0, 0),
        ([], ["dog"], 0, None, 0),
    ],
)
def test_label_f1(truth, answer, precision, recall, f1):
    case = places([found(label, BOX) for label in truth], [found(label, BOX) for label in answer])
    expected = {"label_precision": precision, "label_recall": recall, "label_f1": f1}
    assert metrics("label_f1", case) == {k: v if v is None else pytest.approx(v) for k, v in expected.items()}


@pytest.mark.parametrize(
    ("truths", "answers", "expected"),
    [
        ([["dog", "grass"]], [["Dog", " grass "]], 1),
        ([["dog", "grass"]], [["grass", "dog"]], 0),  # each in its place
        ([["dog", "grass"], ["cat"]], [["dog"], ["dog"]], 1 / 3),  # masks count, not sentences
        ([["dog"]], [["dog", "grass"]], 1),
        ([["dog"]], [[]], 0),
        ([], [], None),
    ],
)
def test_infilling(truths, answers, expected):
    given = zip(truths, answers, strict=True)
    cases = [places([Instance(word) for word in truth], [Instance(word) for word in said]) for truth, said in given]
    assert metrics("infilling", *cases) == {"infilling": expected if expected is None else pytest.approx(expected)}


def test_what_is_ignored_is_not_wrong_to_name():
    answer = [found("dog", (0, 0, 9, 9)), found("cat", (20, 20, 40, 40)), found("cat", (50, 20, 70, 40))]
    for label, precision in (("cat", 1), ("", 1), ("yak", 1 / 3)):
        case = places([found("dog", (0, 0, 9, 9))], answer, [found(label, (60, 60, 90, 70))])
        assert METRICS["label_f1"].measure([case]).metrics["label_precision"] == pytest.approx(precision)


def test_text_in_place_of_what_cannot_be_read_is_no_error():
    quads = [(0, 0, 40, 0, 40, 10, 0, 10), (0, 30, 40, 30, 40, 40, 0, 40)]
    stop, noise = (Instance(text, quad=quad) for text, quad in zip(("STOP", "x?"), quads, strict=True))
    illegible = [Instance("", quad=quads[1])]
    assert METRICS["cer"].measure([places([stop], [stop, noise], illegible)]).metrics["cer"] == 0
    assert METRICS["cer"].measure([places([stop], [stop, noise])]).metrics["cer"] > 0


def test_words_that_are_read():
    """ "Bus" for "bus" is no word read; of two equal words one is."""
    cases = [words("gate Bus exit", "bus gate"), words("stop", "stop stop"), words("", "")]
    measured = metrics("word_f1", *cases)
    assert measured == pytest.approx({"word_precision": 2 / 4, "word_recall": 2 / 4, "word_f1": 2 / 4})
    assert metrics("word_f1") == {"word_precision": None, "word_recall": None, "word_f1": None}


def test_objects_that_are_named():
    """Plurals name their object, a part of a word does not; what is in no image of the data is not looked for."""

    def case(said, *objects):
        given = words(said, "…")
        return replace(given, truth=replace(given.truth, objects=objects))

    cases = [
        case("two Buses and some strawberries on a table", "bus", "bus", "strawberry"),
        case("a hot dog and a cat", "hot dog", "dog"),  # "dog" is said within "hot dog"
        case("a scary catalogue", "car", "cat"),
        words("a bus", "a bus"),  # of which objects are not known
    ]
    measured = metrics("object_f1", *cases)
    right, given, true = 4, 5, 6
    assert measured == pytest.approx(
        {"object_precision": right / given, "object_recall": right / true, "object_f1": 2 * right / (given + true)}
    )
