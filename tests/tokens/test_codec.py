import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from florence_lite.answers import Answer, Instance
from florence_lite.geometry import dequantize, quantize
from florence_lite.tokens import GRAMMARS, Codec, Tokenizer
from tests.tokens.spelling import (
    BOS,
    CLOSE,
    END,
    OPEN,
    OTHER,
    PAD,
    SEP,
    SIZE,
    answer,
    box,
    centres,
    polygon,
    quad,
    spell,
)

A, B = (1, 2, 30, 40), (5, 6, 70, 80)
LINE, OTHER_LINE = (1, 2, 30, 2, 30, 9, 1, 9), (1, 12, 30, 12, 30, 19, 1, 19)
TRIANGLE, HOLE = (0, 0, 90, 0, 0, 90), (10, 10, 20, 10, 10, 20)
NASTY = [
    "",
    " ",
    "  dog ",
    "\n",
    "a\nb",
    "a<b sign",
    "<loc_5>",
    "</s>",
    "<s><pad>",
    "<poly>",
    "café",
    "猫",
    "🧑‍🚀",
    "\0",
]


@pytest.fixture(scope="session")
def codec(toy_tokenizer) -> Codec:
    return Codec(toy_tokenizer)


# The defects known of other implementations, and the rest of what can happen to an answer. Parts are read by `spell`.
PARSED = {
    "one box": ("labelled_boxes", ["dog", A, END], answer(box("dog", *A))),
    "boxes share a label": ("labelled_boxes", ["dog", A, B, END], answer(box("dog", *A), box("dog", *B))),
    "label with a newline": ("labelled_boxes", ["stop\nsign", A, END], answer(box("stop\nsign", *A))),
    "label with <": ("labelled_boxes", ["a<b sign", A, END], answer(box("a<b sign", *A))),
    "accents": ("labelled_boxes", ["café", A, END], answer(box("café", *A))),
    "characters of several ids": ("labelled_boxes", ["猫中", A, END], answer(box("猫中", *A))),
    "caption of several bytes a character": ("text", ["中新中", END], answer(text="中新中")),
    "spaces are kept": ("labelled_boxes", [" dog ", A, END], answer(box(" dog ", *A))),
    "box before the first label": ("labelled_boxes", [A, "dog", B, END], answer(box("", *A), box("dog", *B))),
    "six locations": ("labelled_boxes", ["dog", A, 7, 8, END], answer(box("dog", *A), parse_errors=1)),
    "label without a box": ("labelled_boxes", ["dog", A, "cat", END], answer(box("dog", *A), parse_errors=1)),
    "box cut short, next clean": (
        "labelled_boxes", ["dog", 1, 2, 3, "cat", B, END], answer(box("cat", *B), parse_errors=1),
    ),
    "box cut at the limit": ("labelled_boxes", ["dog", A, "cat", 1, 2], answer(box("dog", *A), truncated=True)),
    "label cut at the limit": ("labelled_boxes", ["dog", A, "ca"], answer(box("dog", *A), truncated=True)),
    "parts": ("parts", ["dog", SEP, "on the left", END], answer(Instance("dog"), Instance("on the left"))),
    "a part is missing": (
        "parts", ["dog", SEP, SEP, "left", END], answer(Instance("dog"), Instance("left"), parse_errors=1),
    ),
    "the last part is missing": ("parts", ["dog", SEP, END], answer(Instance("dog"), parse_errors=1)),
    "parts begin with a mark": ("parts", [SEP, "dog", END], answer(Instance("dog"), parse_errors=1)),
    "a part cut at the limit": ("parts", ["dog", SEP, "le"], answer(Instance("dog"), truncated=True)),
    "no parts": ("parts", [END], answer()),
    "cut between items": ("labelled_boxes", ["dog", A], answer(box("dog", *A), truncated=True)),
    "corners in the wrong order": (
        "labelled_boxes", ["dog", (30, 2, 1, 40), "cat", (1, 40, 30, 2), END],
        answer(box("dog", *A), box("cat", *A), parse_errors=2),
    ),
    "typed location": ("labelled_boxes", ["dog<loc_1000>", A, END], answer(box("dog<loc_1000>", *A))),
    "no boxes": ("labelled_boxes", [END], answer()),
    "start token, then the answer": ("labelled_boxes", [END, BOS, "dog", A, END, PAD], answer(box("dog", *A))),
    "start token, then nothing": ("labelled_boxes", [END, BOS, END], answer()),
    "repeated <s>": ("labelled_boxes", [END, BOS, BOS, BOS, "dog", A, END], answer(box("dog", *A))),
    "only the end, padded": ("labelled_boxes", [END, PAD, PAD], answer()),
    "nothing at all": ("labelled_boxes", [], answer(truncated=True)),
    "after the end": ("labelled_boxes", ["dog", A, END, "cat", B, END], answer(box("dog", *A))),
    "pads inside": ("labelled_boxes", [PAD, "d", PAD, "og", 1, PAD, 2, 30, 40, END], answer(box("dog", *A))),
    "marks out of place": (
        "labelled_boxes", ["dog", SEP, OTHER, A, CLOSE, END], answer(box("dog", *A), parse_errors=2),
    ),
    "proposals": ("boxes", [A, B, END], answer(box("", *A), box("", *B))),
    "words among proposals": ("boxes", ["the dog", A, END], answer(box("", *A), parse_errors=1)),
    "quads": (
        "labelled_quads", ["STOP", LINE, "88", OTHER_LINE, END], answer(quad("STOP", *LINE), quad("88", *OTHER_LINE)),
    ),
    "quad cut short, next line clean": (
        "labelled_quads", ["A", LINE[:6], "B", OTHER_LINE, END], answer(quad("B", *OTHER_LINE), parse_errors=1),
    ),
    "quad without words": (
        "labelled_quads", ["A", LINE, OTHER_LINE, END], answer(quad("A", *LINE), quad("", *OTHER_LINE)),
    ),
    "</s> and pads stay out of the first line": (
        "labelled_quads", [END, BOS, PAD, "A", LINE, END, PAD], answer(quad("A", *LINE)),
    ),
    "pads stay out of captions": ("text", [END, BOS, PAD, "a dog", PAD, END, PAD, PAD], answer(text="a dog")),
    "caption cut at the limit": ("text", ["a dog and"], answer(text="a dog and", truncated=True)),
    "locations in a caption": ("text", ["a dog", A, " sits", END], answer(text="a dog sits", parse_errors=1)),
    "lines of text": ("text", ["one\ntwo\n", END], answer(text="one\ntwo\n")),
    "a box and a polygon": (
        "labelled_boxes_or_polygons", ["dog", A, "cat", OPEN, TRIANGLE, CLOSE, END],
        answer(box("dog", *A), polygon("cat", TRIANGLE)),
    ),
    "a box and a polygon of one label": (
        "labelled_boxes_or_polygons", ["cat", OPEN, TRIANGLE, SEP, HOLE, CLOSE, A, END],
        answer(polygon("cat", TRIANGLE, HOLE), box("cat", *A)),
    ),
    "bracket never closed": (
        "labelled_boxes_or_polygons", ["cat", OPEN, TRIANGLE, "dog", A, END],
        answer(polygon("cat", TRIANGLE), box("dog", *A), parse_errors=1),
    ),
    "polygon of two points in brackets": (
        "labelled_boxes_or_polygons", ["cat", OPEN, A, CLOSE, A, END], answer(box("cat", *A), parse_errors=1),
    ),
    "polygon with a hole": ("polygons", [TRIANGLE, SEP, HOLE, END], answer(polygon("", TRIANGLE, HOLE))),
    "polygon of two points": ("polygons", [A, END], answer(parse_errors=1)),
    "ring of two points": ("polygons", [TRIANGLE, SEP, A, END], answer(polygon("", TRIANGLE), parse_errors=1)),
    "whole ring, then two short ones": (
        "polygons", [TRIANGLE, SEP, 1, 2, SEP, 3, 4, END], answer(polygon("", TRIANGLE), parse_errors=2),
    ),
    "x without y": ("polygons", [TRIANGLE, 5, END], answer(polygon("", TRIANGLE), parse_errors=1)),
    "polygon cut at the limit": ("polygons", [TRIANGLE, 5], answer(polygon("", TRIANGLE), truncated=True)),
    "second ring cut at the limit": ("polygons", [TRIANGLE, SEP, 1, 2], answer(polygon("", TRIANGLE), truncated=True)),
    "region and its words": ("region_text", ["dog", A, END], answer(box("dog", *A), text="dog")),
    "region without locations": ("region_text", ["dog", END], answer(Instance("dog"), text="dog")),
    "region without words": ("region_text", [A, END], answer(box("", *A))),
    "region echoed twice": ("region_text", ["dog", A, A, END], answer(box("dog", *A), text="dog", parse_errors=1)),
    "region cut short": ("region_text", ["dog", 1, 2, END], answer(Instance("dog"), text="dog", parse_errors=1)),
    "region cut at the limit": ("region_text", ["dog", 1, 2], answer(Instance("dog"), text="dog", truncated=True)),
    "no region": ("region_text", [END], answer()),
}  # fmt: skip


@pytest.mark.parametrize(("grammar", "parts", "expected"), PARSED.values(), ids=PARSED)
def test_parse(codec, grammar, parts, expected):
    assert codec.parse(spell(codec.tokenizer, *parts), grammar, SIZE) == expected


@pytest.mark.parametrize("outside", [-1, -(10**12), 51_327, 10**12])
def test_ids_that_no_vocabulary_has(codec, outside):
    assert outside not in range(codec.vocabulary.size)
    ids = spell(codec.tokenizer, "dog", A, END)
    assert codec.parse([outside, *ids], "labelled_boxes", SIZE) == answer(box("dog", *A), parse_errors=1)


def test_ids_may_be_an_array(codec):
    ids = np.array(spell(codec.tokenizer, "dog", A, END), dtype=np.int32)
    assert codec.parse(ids, "labelled_boxes", SIZE) == answer(box("dog", *A))


def test_a_wrong_grammar_or_size_is_refused(codec):
    with pytest.raises(ValueError, match="unknown grammar 'xml'"):
        codec.parse([], "xml", SIZE)
    with pytest.raises(ValueError, match="size_wh"):
        codec.parse([], "text", (0, 10))


# Each instance: tokens, coords_at.
SPANS = [
    ("labelled_boxes", [BOS, "dog", A, B, "door handle", A, END], [((1, 6), 2), ((6, 10), 6), ((10, 16), 12)]),
    ("labelled_boxes", ["dog", 1, 2, "cat", A, END], [((3, 8), 4)]),
    ("boxes", [END, BOS, A, B, END], [((2, 6), 2), ((6, 10), 6)]),
    ("labelled_quads", ["dog", LINE, "cat", LINE, END], [((0, 9), 1), ((9, 18), 10)]),
    ("labelled_boxes_or_polygons", ["dog", OPEN, TRIANGLE, CLOSE, A, END], [((0, 9), 1), ((9, 13), 9)]),
    ("labelled_boxes_or_polygons", ["dog", 1, 2, OPEN, TRIANGLE, END], [((0, 10), 3)]),
    ("polygons", [BOS, TRIANGLE, SEP, HOLE, END], [((1, 14), 1)]),
    ("polygons", [BOS, TRIANGLE], [((1, 7), 1)]),
    ("region_text", ["dog", A, END], [((0, 5), 1)]),
    ("region_text", [BOS, "dog", END], [((1, 2), None)]),
    ("region_text", [BOS, "dog", 1, 2, END], [((1, 2), None)]),
]


@pytest.mark.parametrize(("grammar", "parts", "expected"), SPANS)
def test_instances_know_their_ids(grammar, parts, expected, shared_words):
    ids = spell(shared_words, *parts)
    instances = Codec(shared_words).parse(ids, grammar, SIZE).instances
    assert [(instance.tokens, instance.coords_at) for instance in instances] == expected


@pytest.fixture(scope="session")
def shared_words() -> Tokenizer:
    """A tokenizer for which "dog" and "cat" are one id and "door handle" is two."""
    tokenizer = Tokenizer.train(["dog", "cat", "door handle"] * 5, vocab_size=1400)
    assert [len(tokenizer.encode_plain(words)) for words in ("dog", "cat", "door handle")] == [1, 1, 2]
    return tokenizer


SERIALIZED = [
    ("text", answer(text="a dog"), ["a dog"]),
    ("text", answer(), []),
    ("labelled_boxes", answer(box("dog", *A), box("dog", *B), box("cat", *A)), ["dog", A, B, "cat", A]),
    ("labelled_boxes", answer(box("", *A), box("dog", *B)), [A, "dog", B]),
    ("labelled_boxes", answer(), []),
    ("boxes", answer(box("", *A), box("", *B)), [A, B]),
    ("labelled_quads", answer(quad("A", *LINE), quad("A", *LINE)), ["A", LINE, "A", LINE]),
    ("labelled_boxes_or_polygons", answer(box("dog", *A), box("dog", *B)), ["dog", A, "dog", B]),
    ("labelled_boxes_or_polygons", answer(polygon("dog", TRIANGLE, HOLE)), ["dog", OPEN, TRIANGLE, SEP, HOLE, CLOSE]),
    ("polygons", answer(polygon("", TRIANGLE, HOLE)), [TRIANGLE, SEP, HOLE]),
    ("region_text", answer(box("dog", *A)), ["dog", A]),
    ("region_text", answer(text="dog"), ["dog"]),
    ("labelled_boxes", answer(box("</s><loc_3>", *A)), ["</s><loc_3>", A]),
    ("parts", answer(Instance("dog"), Instance("left")), ["dog", SEP, "left"]),
    ("parts", answer(Instance("dog")), ["dog"]),
]


@pytest.mark.parametrize(("grammar", "said", "parts"), SERIALIZED)
def test_serialize(codec, grammar, said, parts):
    assert codec.serialize(said, grammar, SIZE) == spell(codec.tokenizer, *parts)


def test_serialize_takes_pixels_and_brings_them_inside(codec):
    said = answer(Instance("dog", box=(-3, 60, 320.1, 9999)))
    assert codec.serialize(said, "labelled_boxes", (640, 480)) == spell(codec.tokenizer, "dog", (0, 125, 500, 999))


def test_serialize_names_the_grammar_that_does_not_fit(codec):
    with pytest.raises(ValueError, match="'labelled_boxes'.*'quad'"):
        codec.serialize(answer(quad("A", *LINE)), "labelled_boxes", SIZE)


coordinate = st.integers(0, 999)
labels = st.one_of(st.sampled_from(NASTY), st.text(max_size=8))


@st.composite
def shapes(draw, label: str, kind: str) -> Instance:
    if kind == "label":
        return Instance(label or "words")
    if kind == "polygons":
        ring = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=5)
        return Instance(label, polygons=draw(st.lists(ring, min_size=1, max_size=3)))
    bins = [draw(coordinate) for _ in range(8 if kind == "quad" else 4)]
    if kind == "quad":
        return Instance(label, quad=bins)
    x0, y0, x1, y1 = bins
    return Instance(label, box=(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))


KINDS = {
    "labelled_boxes": ["box"],
    "boxes": ["box"],
    "labelled_quads": ["quad"],
    "labelled_boxes_or_polygons": ["box", "polygons"],
    "polygons": ["polygons"],
    "region_text": ["box", "label"],
    "parts": ["label"],
}


@st.composite
def answers(draw, grammar: str) -> Answer:
    """An answer that the grammar can express; its coordinates are bins."""
    if grammar == "text":
        return Answer(text=draw(labels))
    most = 1 if grammar in ("polygons", "region_text") else 5
    kinds = draw(st.lists(st.sampled_from(KINDS[grammar]), max_size=most))
    words = [draw(labels) if grammar not in ("boxes", "polygons") else "" for _ in kinds]
    if GRAMMARS[grammar].inherits_label:
        words.sort(key=bool)  # unlabelled instances come first
    instances = [draw(shapes(label, kind)) for label, kind in zip(words, kinds, strict=True)]
    return Answer(instances[0].label if grammar == "region_text" and instances else "", tuple(instances))


def in_pixels(said: Answer, size_wh: tuple[int, int]) -> Answer:
    """The same answer with bins replaced by their centres in pixels."""

    def pixels(bins):
        return dequantize(np.reshape(bins, (-1, 2)), size_wh, 1000)

    def moved(instance: Instance) -> Instance:
        return Instance(
            instance.label,
            box=None if instance.box is None else pixels(instance.box).ravel(),
            quad=None if instance.quad is None else pixels(instance.quad).ravel(),
            polygons=[pixels(ring) for ring in instance.polygons],
        )

    return Answer(said.text, [moved(instance) for instance in said.instances])


said_in = st.sampled_from(list(GRAMMARS)).flatmap(lambda name: st.tuples(st.just(name), answers(name)))


@given(said=said_in, size=st.sampled_from([SIZE, (640, 480), (1, 1), (31, 4000)]))
@example(said=("text", Answer("<loc_5></s>")), size=SIZE)
def test_what_is_serialized_is_parsed_again(codec, said, size):
    grammar, bins = said
    expected = in_pixels(bins, size)
    ids = codec.serialize(expected, grammar, size)
    assert codec.parse([*ids, codec.vocabulary.eos], grammar, size) == expected
    assert codec.parse([codec.vocabulary.bos, *ids, codec.vocabulary.eos], grammar, size) == expected


@given(said=said_in)
def test_serialized_answers_keep_to_their_grammar(codec, said):
    form = GRAMMARS[said[0]]
    state = form.start
    for id in [*codec.serialize(said[1], said[0], SIZE), codec.vocabulary.eos]:
        id_class = codec.vocabulary.id_class(id)
        assert id_class in form.allowed(state)
        state = form.advance(state, id_class)
    assert state.ended


@given(said=said_in)
def test_coordinates_between_bins_keep_their_bins(codec, said):
    grammar, bins = said
    ids = [*codec.serialize(bins, grammar, (999, 1001)), codec.vocabulary.eos]
    read = codec.parse(ids, grammar, (999, 1001))
    for before, after in zip(bins.instances, read.instances, strict=True):
        for ring_before, ring_after in zip(before.outlines, after.outlines, strict=True):
            expected = quantize(ring_before, (999, 1001), 1000)
            assert (quantize(ring_after, (999, 1001), 1000) == expected).all()


ANY_PART = st.one_of(
    st.sampled_from(["dog", "a cat", "猫", END, BOS, PAD, SEP, OPEN, CLOSE, OTHER, A, B, LINE, TRIANGLE]), coordinate
)
NOT_THE_END = ANY_PART.filter(lambda part: part is not END)


@given(grammar=st.sampled_from(list(GRAMMARS)), parts=st.lists(NOT_THE_END, max_size=25), end=st.booleans())
def test_a_stream_says_early_what_parsing_says_at_the_end(codec, grammar, parts, end):
    ids = spell(codec.tokenizer, *parts, *[END] * end)
    whole = codec.parse(ids, grammar, SIZE)
    stream = codec.stream(grammar, SIZE)
    told = []
    for position, id in enumerate(ids):
        new = stream.push(id)
        assert all(instance.tokens[1] <= position + 1 for instance in new)
        told += new
    assert described(told) == described(whole.instances[: len(told)])
    assert len(whole.instances) - len(told) <= (not end)  # an item may only be left open by a cut
    assert stream.finish() == whole == stream.finish()
    assert stream.push(codec.vocabulary.eos) == () and stream.finish() == whole


@given(grammar=st.sampled_from(list(GRAMMARS)), parts=st.lists(ANY_PART, max_size=25), cut=st.integers(0, 60))
def test_what_was_said_before_a_cut_stands(codec, grammar, parts, cut):
    ids = spell(codec.tokenizer, *parts)
    whole, part = codec.parse(ids, grammar, SIZE), codec.parse(ids[:cut], grammar, SIZE)
    stream = codec.stream(grammar, SIZE)
    told = [instance for id in ids[:cut] for instance in stream.push(id)]
    assert described(told) == described(whole.instances[: len(told)]) == described(part.instances[: len(told)])
    assert part.parse_errors <= whole.parse_errors


def described(instances) -> list:
    return [(instance, instance.tokens, instance.coords_at) for instance in instances]


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("length", [20, 1000, 70_000])
def test_random_ids_raise_nothing_and_stay_inside_the_image(codec, grammar, length):
    rng = np.random.default_rng(length)
    size = codec.vocabulary.size
    ids = rng.integers(-3, size + 3, (70_000 // length, length))
    if length > 1000:
        ids[ids == codec.vocabulary.eos] = codec.vocabulary.pad  # so that the end does not come early
    width, height = 640, 480
    for row in ids.tolist():
        read = codec.parse(row, grammar, (width, height))
        assert read.truncated == (codec.vocabulary.eos not in row)
        for instance in read.instances:
            x0, y0, x1, y1 = instance.bounds or (0, 0, 0, 0)
            assert 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height
            assert 0 <= instance.tokens[0] < instance.tokens[1] <= length


GRAMMAR_OF = {
    "<OD>": "labelled_boxes",
    "<OPEN_VOCABULARY_DETECTION>": "labelled_boxes_or_polygons",
    "<REGION_PROPOSAL>": "boxes",
    "<OCR_WITH_REGION>": "labelled_quads",
}


@pytest.mark.parametrize("folder", ["florence-2-large", "florence-2-base-ft-tuned"])
def test_real_answers_of_florence_2(published, folder):
    """The reference cuts its values to whole pixels, so each lies in [expected, expected + 1)."""
    codec = Codec(Tokenizer.from_file(published / folder))
    cases = json.loads((published / "florence2_golden.json").read_text(encoding="utf-8"))["cases"]
    listed = [case for case in cases if "text" in case]
    assert len(listed) == 5
    for case in listed:
        ids = codec.tokenizer.encode_prompt(case["text"])[1:-1]
        read = codec.parse(ids, GRAMMAR_OF[case["task"]], case["size"])
        expected = case["expect"]
        shapes = np.array([instance.box or instance.quad for instance in read.instances])
        whole = np.array(expected["bboxes"] if "bboxes" in expected else expected["quad_boxes"])
        assert (np.floor(shapes) == whole).all()
        assert [instance.label for instance in read.instances] == expected.get("labels", expected.get("bboxes_labels"))
        assert (read.parse_errors, read.truncated) == (0, False)
        assert read == codec.parse(
            [*codec.serialize(read, GRAMMAR_OF[case["task"]], case["size"]), 2], GRAMMAR_OF[case["task"]], case["size"]
        )


def test_centres_are_what_the_geometry_says():
    assert dequantize(np.reshape(A, (-1, 2)), SIZE, 1000).ravel().tolist() == list(centres(*A))
