"""Closed questions and masked words, held against values worked out by hand."""

import pytest

from florence_lite.answers import Instance
from florence_lite.data.annotation import Annotation, Question
from florence_lite.data.samples import Sample
from florence_lite.evaluate.closed import BLANK, COMMON_LISTS, closed_questions, infilling, lists_of
from florence_lite.results import Result
from tests.data.annotated import ANNOTATED
from tests.evaluate.given import SIZE, samples
from tests.tiny import SIDES, noise_image, tiny_florence

LISTS = {"yes_no": ("yes", "no"), "numbers": ("1", "2")}


class Answers:
    """Stands in for `Florence`: question → its answer from a list and its free one."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def encode(self, picture, keep_image):
        return picture.info["name"]

    def run(self, image, prompts, keep_image, choices=None):
        self.asked += [(image, prompt.text, choices) for prompt in prompts]
        return [Result(each.task, SIZE, self.answers[each.text][0 if choices else 1]) for each in prompts]


def questions(**answers):
    return Annotation(SIZE, questions=tuple(Question(question, answer) for question, answer in answers.items()))


def test_closed_questions_by_hand():
    data = samples(
        questions(dog="Yes", cat="no", many="2", colour="red"), questions(colour="blue"), questions(car="no")
    )
    florence = Answers({"dog": ("yes", "Yes"), "cat": ("yes", "maybe"), "car": ("no", "maybe"), "many": ("1", " 2")})
    found = closed_questions(florence, data, LISTS | {"animals": ("cat", "dog")})
    assert found.metrics == {
        "yes_no_accuracy": pytest.approx(2 / 3),
        "yes_no_out_of_list": 0,
        "yes_no_open_accuracy": pytest.approx(1 / 3),
        "yes_no_open_out_of_list": pytest.approx(2 / 3),
        "yes_no_constant": pytest.approx(2 / 3),  # no
        "numbers_accuracy": 0,
        "numbers_out_of_list": 0,
        "numbers_open_accuracy": 1,
        "numbers_open_out_of_list": 0,
        "numbers_constant": 1,
        "animals_accuracy": None,
        "animals_out_of_list": None,
        "animals_open_accuracy": None,
        "animals_open_out_of_list": None,
        "animals_constant": None,
    }
    assert found.notes == ("3 of yes_no, 1 of numbers, 0 of animals", "2 with answers of no list are left out")
    closed = [(image, question, choices) for image, question, choices in florence.asked if choices]
    assert closed == [
        ("image 0", "dog", ("yes", "no")),
        ("image 0", "cat", ("yes", "no")),
        ("image 0", "many", ("1", "2")),
        ("image 2", "car", ("yes", "no")),
    ]


def test_an_answer_outside_of_its_list_is_counted():
    found = closed_questions(Answers({"dog": ("perhaps", "yes")}), samples(questions(dog="yes")), LISTS)
    assert found.metrics["yes_no_out_of_list"] == 1 and found.metrics["yes_no_accuracy"] == 0


def test_lists_of_data():
    """The commonest first, each once however it is written, none that another list has; one alone is no choice."""
    data = samples(questions(a="Red", b=" blue", c="yes", d="11"), questions(a="BLUE", b="10", c="blue"))
    assert lists_of(data) == COMMON_LISTS | {"others": ("blue", "Red", "11")}
    assert lists_of(samples(questions(a="Red", b="red"))) == COMMON_LISTS


class Filler:
    """Stands in for `Florence`: sentence with masks → the words that it fills in; for grey pictures always the same."""

    def __init__(self, words, blind):
        self.words, self.blind, self.asked = words, blind, []

    def run(self, picture, prompts, keep_image):
        grey = picture.getcolors() == [(SIZE[0] * SIZE[1], BLANK)]
        self.asked += [prompt.text for prompt in prompts if not grey]
        said = [self.blind if grey else self.words[prompt.text] for prompt in prompts]
        return [Result("<INFILLING>", SIZE, instances=tuple(map(Instance, parts))) for parts in said]


def test_infilling_by_hand():
    data = samples(Annotation(SIZE, captions=("a dog on the grass",)), Annotation(SIZE))
    words = {
        "a <mask> on the grass": ["Dog"],
        "a <mask> on the <mask>": ["dog", "sand"],
        "a dog on the <mask>": [],
    }
    florence = Filler(words, ["grass"])
    found = infilling(florence, data)
    # Of four masks, two of the dog and two of the grass; grass in all first places is right once.
    assert found.metrics == {"infilling": 2 / 4, "infilling_blank": 1 / 4, "infilling_constant": 2 / 4}
    assert found.notes == ("4 masks",) and florence.asked == list(words)
    florence = Filler(words, [])
    assert infilling(florence, data, each=1).metrics["infilling"] == 1 and florence.asked == list(words)[:1]


def test_nothing_to_fill_in():
    assert set(infilling(Filler({}, []), samples(Annotation(SIZE))).metrics.values()) == {None}


@pytest.mark.parametrize("side", SIDES)
def test_a_real_network_is_measured(toy_tokenizer, side):
    florence = tiny_florence(toy_tokenizer, side)
    data = [Sample(noise_image(n, SIZE), ANNOTATED, f"image {n}") for n in range(2)]
    metrics = closed_questions(florence, data, LISTS).metrics
    assert metrics["yes_no_out_of_list"] == metrics["numbers_out_of_list"] == 0
    assert metrics["yes_no_constant"] == 1 and metrics["yes_no_open_accuracy"] <= 1
    assert 0 <= infilling(florence, data, each=2).metrics["infilling"] <= 1
