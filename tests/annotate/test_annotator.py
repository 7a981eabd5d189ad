"""Images in, rows out."""

import threading
from dataclasses import replace

import pytest

from florence_lite.annotate import AnnotateConfig
from florence_lite.annotate.annotator import FILES_AHEAD, Annotator, ReadImage, read_ahead
from florence_lite.data.rows import int64_of
from florence_lite.data.sources import ListedImage
from florence_lite.inference.many_images import IMAGES_AHEAD
from tests.annotate.conftest import png

SHORT = {"max_new_tokens": 8}


def image(number):
    content = png(number)
    return ReadImage(f"{number}.png", int64_of(content), content)


@pytest.fixture
def annotator(checkpoint):
    """Makes one that asks tasks of the tiny checkpoint."""

    def make(*tasks, **more):
        checkpoints = [{"checkpoint": str(checkpoint), "decoding": SHORT, **more}]
        return Annotator(AnnotateConfig("photos", "answers", tasks, checkpoints=checkpoints))

    return make


def test_answers_come_in_the_order_of_the_images_and_few_are_on_their_way(annotator):
    taken, answered = [], 0
    images = (taken.append(number) or image(number) for number in range(60))
    for number, answers in enumerate(annotator("<CAPTION>").answers(images)):
        assert answers.rows[0].image.source == f"{number}.png" and answers.rows[0].seconds > 0
        answered += 1
        assert len(taken) - number <= IMAGES_AHEAD
    assert answered == 60


def test_a_fault_of_the_source_comes_behind_the_answers_about_what_it_gave(annotator):
    def images():
        yield from map(image, range(3))
        raise ValueError("the list ends here")

    answers = annotator("<CAPTION>").answers(images())
    assert [next(answers).rows[0].image.source for _ in range(3)] == ["0.png", "1.png", "2.png"]
    with pytest.raises(ValueError, match="the list ends here"):
        next(answers)


def test_what_is_on_its_way_is_dropped_when_the_run_shall_stop(annotator):
    stop, answered = threading.Event(), 0
    for _ in annotator("<CAPTION>").answers(map(image, range(40)), stop=stop):
        answered += 1
        if answered == 5:
            stop.set()
    assert answered == 5


def test_a_region_outside_of_an_image_is_an_error_of_that_question_alone(annotator):
    tasks = ("<CAPTION>", {"task": "<REGION_TO_CATEGORY>", "region": [0, 0, 4000, 4000]})
    [answers] = annotator(*tasks).answers([image(0)])
    caption, category = answers.rows
    assert not caption.error and "4000" in category.error and category.result is None
    assert caption.image.size_wh == category.image.size_wh == (60, 50)


def test_text_that_is_too_long_for_the_network_ends_the_run(annotator):
    with pytest.raises(ValueError, match="shorten it"):
        list(annotator({"task": "<VQA>", "text": "why " * 400}).answers([image(0)]))


def test_an_answer_that_is_too_long_to_be_asked_about_is_an_error(annotator, monkeypatch):
    asked = annotator("<CAPTION>", {"task": "<CAPTION_TO_PHRASE_GROUNDING>", "of": "<CAPTION>"})
    question = type(asked.questions[1])
    queries = question.queries

    def long(self, answer, vocabulary):
        return [replace(each, text="why " * 400) for each in queries(self, replace(answer, text="x"), vocabulary)]

    monkeypatch.setattr(question, "queries", long)
    [answers] = asked.answers([image(0)])
    assert [bool(row.error) for row in answers.rows] == [False, True] and "shorten it" in answers.rows[1].error
    assert len(answers.marks) == 1


def test_closed_answers_have_a_probability_each(annotator):
    asked = annotator({"task": "<VQA>", "text": "which?", "decoding": {"choices": ["dog", "cat"]}}, decoding={})
    for answers in asked.answers(map(image, range(3))):
        [row] = answers.rows
        assert sum(row.result.choices.values()) == pytest.approx(1) and row.result.text in ("dog", "cat")


def test_options_that_no_answer_can_have_are_refused_before_an_image_is_read(annotator):
    with pytest.raises(ValueError, match="unknown option 'num_beamz'; did you mean 'num_beams'"):
        annotator({"task": "<OD>", "decoding": {"num_beamz": 3}})


def test_files_are_read_a_few_ahead():
    listed = []
    images = (listed.append(n) or ListedImage(f"{n}", content=b"x" * n) for n in range(60))
    for number, read in enumerate(read_ahead(images)):
        assert (read.name, read.content) == (str(number), b"x" * number)
        assert len(listed) - number <= FILES_AHEAD
