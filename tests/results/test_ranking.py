"""Which texts and images come first."""

import numpy as np
import pytest

from florence_lite.results import Ranking

SCORES = np.array([[0.1, 0.9], [0.4, 0.2], [0.3, 0.2]])
RANKING = Ranking(("a rabbit", "a dog"), SCORES, SCORES)


def test_the_best_come_first():
    assert RANKING.texts_of(0) == [1, 0] and RANKING.images_of(0) == [1, 2, 0]
    assert RANKING.images_of(np.int64(1)) == RANKING.images_of(-1) == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RANKING.images_of("a rabbit"), ValueError, "text is .a rabbit.; it must be the place of one"),
        (lambda: RANKING.images_of(5), IndexError, "text is 5; there are 2, from 0 to 1"),
        (lambda: RANKING.texts_of(1.0), ValueError, "image is 1.0; it must be the place of one, from 0 to 2"),
        (lambda: RANKING.texts_of(3), IndexError, "image is 3; there are 3, from 0 to 2"),
    ],
)
def test_places_that_are_none(call, error, message):
    with pytest.raises(error, match=message):
        call()
