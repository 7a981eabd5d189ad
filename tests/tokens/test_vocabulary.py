import dataclasses
from collections import Counter

import pytest

from florence_lite.tokens import IdClass, Vocabulary, added_tokens

FLORENCE = Vocabulary(loc_first=50269, bins=1000, sep=51279, poly_open=51286, poly_close=51287, and_=51288, size=51289)


def test_added_tokens_have_florence_2_order():
    tokens = added_tokens()
    assert len(tokens) == 1024
    id_of = {token: 50265 + i for i, token in enumerate(tokens)}
    assert (id_of["<od>"], id_of["</ocr>"], id_of["<loc_0>"], id_of["<loc_999>"]) == (50265, 50268, 50269, 51268)
    assert (id_of["<cap>"], id_of["</seg>"], id_of["<sep>"], id_of["</region_cap>"]) == (51269, 51278, 51279, 51281)
    assert (id_of["<region_to_desciption>"], id_of["</proposal>"], id_of["<and>"]) == (51282, 51285, 51288)


def test_fewer_bins_mean_fewer_tokens():
    assert len(added_tokens(bins=100)) == 124


def test_locations_and_bins():
    assert FLORENCE.loc(0) == 50269 and FLORENCE.loc(999) == 51268
    assert FLORENCE.bin(50269) == 0 and FLORENCE.bin(51268) == 999
    assert [FLORENCE.bin(id) for id in (-1, 0, 50268, 51269, 99999)] == [None] * 5
    assert FLORENCE.is_loc(50300) and not FLORENCE.is_loc(51279)


@pytest.mark.parametrize("bin", [-1, 1000])
def test_a_bin_outside_is_refused(bin):
    with pytest.raises(ValueError, match=str(bin)):
        FLORENCE.loc(bin)


@pytest.mark.parametrize(
    ("id", "id_class"),
    [
        (0, IdClass.BOS),
        (1, IdClass.PAD),
        (2, IdClass.END),
        (3, IdClass.OTHER),  # <unk>
        (4, IdClass.TEXT),
        (50263, IdClass.TEXT),
        (50264, IdClass.OTHER),  # <mask>
        (50265, IdClass.OTHER),  # <od>
        (50269, IdClass.LOC),
        (51268, IdClass.LOC),
        (51269, IdClass.OTHER),  # <cap>
        (51279, IdClass.SEP),
        (51286, IdClass.POLY_OPEN),
        (51287, IdClass.POLY_CLOSE),
        (51288, IdClass.OTHER),  # <and>
        (51289, IdClass.OTHER),  # rows of a padded embedding
        (51327, IdClass.OTHER),
        (-1, IdClass.OTHER),
    ],
)
def test_id_class(id, id_class):
    assert FLORENCE.id_class(id) is id_class


def test_ids_lists_each_class():
    assert FLORENCE.ids(IdClass.LOC) == tuple(range(50269, 51269))
    assert FLORENCE.ids(IdClass.END) == (2,)
    counted = Counter({c: len(FLORENCE.ids(c)) for c in IdClass})
    assert counted.total() == FLORENCE.size


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("sep", 2, "different"), ("sep", 50300, "different"), ("size", 51288, "size"), ("bins", 0, "bins is 0")],
)
def test_a_vocabulary_is_checked(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FLORENCE, **{field: value})
