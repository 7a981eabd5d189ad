"""Rows of ids, and what transformers' own processor reads in their answers."""

from dataclasses import replace

import pytest

from florence_lite.answers import Answer, Instance
from florence_lite.cards import task
from florence_lite.checkpoint import write_companions
from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.geometry import quantize
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.rules import Pair, pairs
from florence_lite.train.rows import RowWriter
from tests.data.annotated import ANNOTATED, DOOR, LEFT_DOG, RIGHT_DOG, SIZE
from tests.tiny import tiny_config

OPEN = "<OPEN_VOCABULARY_DETECTION>"


@pytest.fixture(scope="module")
def read_elsewhere(toy_tokenizer, tmp_path_factory):
    """transformers' reading of an answer's ids, coordinates as bins."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("native")
    write_companions(folder, toy_tokenizer, Preprocessor((64, 48)), tiny_config(), {}, layout="native")
    processor = transformers.AutoProcessor.from_pretrained(folder)

    def read(marker: str, ids: list[int]) -> dict:
        text = processor.tokenizer.decode([0, *ids], skip_special_tokens=False)
        return processor.post_process_generation(text, task=marker, image_size=(1000, 1000))[marker]

    return read


def writer(tokenizer, side: str) -> RowWriter:
    return RowWriter.of(tiny_config(side, tokenizer.vocabulary.size), tokenizer)


def rows(tokenizer, marker, annotation=ANNOTATED, side="encoder"):
    for pair in pairs(marker, annotation):
        for target in pair.targets:
            yield pair, target, writer(tokenizer, side).write(marker, pair, target, SIZE)


def bins(points) -> list[int]:
    return quantize(points, SIZE, 1000).ravel().tolist()


def boxes(*objects) -> list[list[int]]:
    return [bins([item.box[:2], item.box[2:]]) for item in objects]


def test_open_vocabulary_is_read_elsewhere(toy_tokenizer, read_elsewhere):
    """Every box with its phrase, as Florence-2 writes them."""
    found = {pair.inputs["phrases"][0]: read_elsewhere(OPEN, row.answer) for pair, _, row in rows(toy_tokenizer, OPEN)}
    for phrase, objects in {
        "the door": [DOOR],
        "all dogs": [LEFT_DOG, RIGHT_DOG],
        "the cat": [],
        "everything": [LEFT_DOG, DOOR, RIGHT_DOG],
    }.items():
        assert found[phrase]["bboxes"] == boxes(*objects)
        assert found[phrase]["bboxes_labels"] == [phrase] * len(objects)


def test_open_vocabulary_outlines_are_read_elsewhere(toy_tokenizer, read_elsewhere):
    """Label, `<poly>`, rings, `</poly>`."""
    target = Answer(instances=tuple(Instance("a dog", polygons=item.polygons) for item in (LEFT_DOG, DOOR)))
    row = writer(toy_tokenizer, "encoder").write(OPEN, Pair({"phrases": ("a dog",)}, target.instances), target, SIZE)
    found = read_elsewhere(OPEN, row.answer)
    assert found["polygons_labels"] == ["a dog", "a dog"]
    assert found["polygons"] == [[bins(ring) for ring in item.polygons] for item in (LEFT_DOG, DOOR)]


def test_outlines_are_read_elsewhere(toy_tokenizer, read_elsewhere):
    """Those of a phrase and of a region: rings with `<sep>` between them."""
    for marker, expected in {
        "<REFERRING_EXPRESSION_SEGMENTATION>": [[DOOR], [LEFT_DOG, RIGHT_DOG], []],
        "<REGION_TO_SEGMENTATION>": [[LEFT_DOG], [RIGHT_DOG], [DOOR]],
    }.items():
        found = [read_elsewhere(marker, row.answer)["polygons"] for _, _, row in rows(toy_tokenizer, marker)]
        rings = [[bins(ring) for item in objects for ring in item.polygons] for objects in expected]
        assert found == [[each] if each else [] for each in rings]


@pytest.mark.parametrize(
    "marker, name", [("<OD>", "label"), ("<DENSE_REGION_CAPTION>", "phrase"), ("<REGION_PROPOSAL>", None)]
)
def test_lists_of_boxes_are_read_elsewhere(toy_tokenizer, read_elsewhere, marker, name):
    ((_, _, row),) = rows(toy_tokenizer, marker)
    objects = (LEFT_DOG, DOOR, RIGHT_DOG)
    labels = [getattr(item, name) if name else "" for item in objects]
    assert read_elsewhere(marker, row.answer) == {"bboxes": boxes(*objects), "labels": labels}


def test_a_decoder_that_was_given_a_phrase_need_not_repeat_it(toy_tokenizer):
    """Its row is the phrase's boxes alone; labels that say more than the prompt stay."""
    for _, target, row in rows(toy_tokenizer, OPEN, side="decoder"):
        assert len(row.answer) == 4 * len(target.instances) + 1
    known = Annotation(SIZE, (ObjectAnnotation("dog", LEFT_DOG.box),))
    box = Instance("dog", box=known.objects[0].box)
    for phrases, instances in (
        (("dog", "cat"), (box,)),  # which of the two?
        (("animal",), (box,)),
        (("dog",), (box, replace(box, label="puppy"))),
    ):
        pair, target = Pair({"phrases": phrases}, instances), Answer(instances=instances)
        row = writer(toy_tokenizer, "decoder").write(OPEN, pair, target, SIZE)
        read = writer(toy_tokenizer, "decoder").codec.parse(row.answer, task(OPEN).grammar, SIZE)
        assert [item.label for item in read.instances] == [item.label for item in instances]


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_spaces_round_a_phrase(toy_tokenizer, side):
    """Prompts are stripped, and so are the labels that say the same."""
    expression = replace(ANNOTATED.expressions[0], phrase=" the door ")
    plain = replace(ANNOTATED, expressions=ANNOTATED.expressions[:1])
    spaced = replace(ANNOTATED, expressions=(expression,))
    assert [row for *_, row in rows(toy_tokenizer, OPEN, spaced, side)] == [
        row for *_, row in rows(toy_tokenizer, OPEN, plain, side)
    ]
