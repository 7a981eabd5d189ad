"""Labels of which there are enough."""

import pytest

from florence_lite.refine.balance import Balance
from florence_lite.refine.judged import PERSON, ImageRows, JudgedRow
from tests.refine.answers import item, left, listed, nowhere, query, said


def balanced(stage, *rows):
    images = [ImageRows([JudgedRow.of(row)]) for row in rows]
    stage.observe(images)
    stage.settle()
    for image in images:
        stage.judge(image)
    return [image.rows[0] for image in images]


def photo(number, *items, **more):
    return listed(nowhere(f"{number}.jpg"), *items, **more)


def test_images_go_as_a_whole_unless_they_show_something_rarer():
    rows = [photo(number, item("dog", score=0.5 + 0.1 * number)) for number in range(4)]
    rare = photo(4, item("dog", score=0.1), item("cat", score=0.2))
    empty, caption = photo(5), said(nowhere("6.jpg"), "dogs")
    judged = balanced(Balance(most=2, choose="score"), *rows, rare, empty, caption)
    assert [row.is_out for row in judged] == [True, True, False, False, False, False, False]
    assert left(judged[4]) == ["dog", "cat"]


def test_instances_go_one_by_one_and_exactly():
    rows = [photo(n, item("dog", score=0.1 * n), item("cat"), item("Dog", score=0.15 * n)) for n in range(1, 5)]
    judged = balanced(Balance(most=3, count="instances", choose="score"), *rows)
    items = [item for row in judged for item in row.left.values()]
    assert sorted(item.score for item in items if item.label in ("dog", "Dog")) == pytest.approx([0.4, 0.45, 0.6])
    assert sum(item.label == "cat" for item in items) == 3


@pytest.mark.parametrize("count", ["images", "instances"])
def test_choice_at_random_is_the_same_every_time_and_another_with_another_seed(count):
    rows = [photo(number, item("dog")) for number in range(40)]

    def kept(seed, rows=rows):
        judged = balanced(Balance(most=10, count=count, seed=seed), *rows)
        return {row.id for row in judged if not row.is_out and row.left}

    assert len(kept(0)) == 10 and kept(0) == kept(0, rows[::-1]) != kept(1)


def test_what_a_person_corrected_counts_first_and_stays():
    rows = [photo(number, item("dog")) for number in range(4)]
    own = [photo(number, item("dog", score=None), ask=query(checkpoint=PERSON)) for number in range(5, 8)]
    judged = balanced(Balance(most=2), *rows, *own)
    assert [row.is_out for row in judged] == [True] * 4 + [False] * 3
