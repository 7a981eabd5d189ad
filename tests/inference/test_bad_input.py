"""The table of bad input to what is asked beyond the prompts of Florence-2, each with what its user is told."""

import pytest
from PIL import Image

IMAGE = Image.new("RGB", (24, 16), "gray")
REGION = (2, 2, 20, 14)

TABLE = [  # (a call, what its message names)
    ("no phrases", lambda f: f.detect(IMAGE, phrases=[]), r"phrases=\[\] is empty; give at least one phrase"),
    ("an empty phrase", lambda f: f.detect(IMAGE, phrases=["bus", " "]), r"phrases\[1\]=' ' must be a string"),
    ("one string", lambda f: f.detect(IMAGE, phrases="bus"), r"must be a list of strings, such as phrases=\['bus'\]"),
    ("a mark", lambda f: f.detect(IMAGE, phrases=["a<loc_1>"]), r"phrases\[0\]='a<loc_1>' holds <loc_1>, which is no"),
    ("a long phrase", lambda f: f.detect(IMAGE, phrases=["bus " * 999]), r"tokens; the network takes \d+: shorten it"),
    ("a threshold", lambda f: f.detect(IMAGE, threshold=2), "threshold is 2; it must be a number from 0 to 1"),
    (
        "no boxes",
        lambda f: f.caption(IMAGE, threshold=0.5),
        "threshold=… has no part in task <CAPTION>: .*leave it",
    ),
    ("only words", lambda f: f.run(IMAGE, ["<OCR>", "<CAPTION>"], threshold=0), "task <OCR>, <CAPTION>: no boxes"),
    ("a nan", lambda f: f.detect(IMAGE, threshold=float("nan")), "threshold is nan; it must be a number from 0 to 1"),
    ("a tile", lambda f: f.detect(IMAGE, tile=(100, 200)), "the overlap must be smaller than the size of the tiles"),
    ("one choice", lambda f: f.ask(IMAGE, "what?", choices=["cat"]), "leaves nothing to choose: give at least two"),
    ("no choices", lambda f: f.ask(IMAGE, "what?", choices=[]), "leaves nothing to choose: give at least two"),
    ("an empty choice", lambda f: f.ask(IMAGE, "what?", choices=["cat", ""]), r"choices\[1\]='' must be a string"),
    ("a choice twice", lambda f: f.ask(IMAGE, "what?", choices=["cat", "cat"]), "'cat' is given twice"),
    (
        "a mark as choice",
        lambda f: f.ask(IMAGE, "what?", choices=["cat", "a<loc_3>"]),
        r"choices\[1\]='a<loc_3>' holds",
    ),
    ("a mark as label", lambda f: f.detect(IMAGE, labels=["lion<loc_1>"]), r"labels\[0\]='lion<loc_1>' holds <loc_1>"),
    (
        "a mark to match",
        lambda f: f.match([IMAGE], ["a<loc_1>"]),
        r"texts\[0\]='a<loc_1>' holds <loc_1>, which is no word",
    ),
    ("a mark to rank", lambda f: f.rank([IMAGE], ["a", "b</s>"]), r"texts\[1\]='b</s>' holds </s>, which is no word"),
    ("no texts", lambda f: f.match([IMAGE], []), r"texts=\[\] is empty; give at least one text"),
    ("an empty text", lambda f: f.match([IMAGE], [""]), r"texts\[0\]='' must be a string"),
    ("no images", lambda f: f.match([], ["a cat"]), "there are no images; give at least one"),
    ("no prior", lambda f: f.rank([IMAGE], ["a", "b"]), r"others as background=\[…\], or prior_weight=0"),
    ("no best", lambda f: f.find([IMAGE], "bus", top=0), "top is 0; it must be a whole number of at least 1"),
    ("no mask", lambda f: f.infill(IMAGE, "a cat on grass"), "has no <mask>: put one in the place of what is missing"),
]


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in TABLE], ids=[case[0] for case in TABLE])
def test_bad_input_is_told_with_thing_value_and_remedy(florence, call, message):
    with pytest.raises(ValueError, match=message):
        call(florence)


def test_a_phrase_given_twice_is_asked_once(florence):
    result = florence.detect(IMAGE, phrases=["a bus", "a bus", "a cat"])
    assert list(result.presence) == ["a bus", "a cat"]


def test_ten_thousand_phrases_are_answered_each(florence):
    phrases = [f"p{number}" for number in range(10_000)]
    result = florence.detect(IMAGE, phrases=phrases, max_new_tokens=2)
    assert list(result.presence) == phrases


def test_a_threshold_beside_tasks_of_words_holds_for_the_others(florence):
    caption, found = florence.run(IMAGE, ["<CAPTION>", "<OD>"], threshold=1.0)
    assert caption.token_ids == florence.caption(IMAGE).token_ids and not found.boxes_xyxy.size
