"""Annotated images as rows of tokens."""

from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
import torch

from florence_lite.cards import task, tasks
from florence_lite.data.annotation import Annotation
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.rules import draw, pairs, thinned
from florence_lite.tokens import Codec
from florence_lite.train.collate import TaskCollator
from florence_lite.train.lanes import IGNORED
from tests.data.annotated import ANNOTATED, SIZE
from tests.tiny import noise_image
from tests.train.unpacked import unpacked

GRID = (10, 8)
ALL_TASKS = {card.name: 1.0 for card in tasks()}
BARE = Annotation(SIZE)  # tells nothing but that there is nothing
PAIRS = [(noise_image(0, SIZE), ANNOTATED), (noise_image(1, SIZE), BARE), (noise_image(2, SIZE), ANNOTATED)]


def collator(tokenizer, rates=ALL_TASKS, **options) -> TaskCollator:
    return TaskCollator(Codec(tokenizer), Preprocessor((64, 48)), rates, GRID, **options)


@pytest.fixture
def collate(toy_tokenizer):
    return collator(toy_tokenizer)


def test_shapes(collate):
    batch = collate(PAIRS, np.random.default_rng(0))
    assert batch.pixel_values.shape == (3, 3, 48, 64)
    [group] = batch.groups
    assert sorted(group.tasks) == sorted(ALL_TASKS)
    for tensor in (group.input_ids, group.labels, group.positions):
        assert tensor.shape == group.labels.shape and tensor.shape[0] == 3 and tensor.dtype == torch.int64
    assert group.places.shape == (sum(group.sizes),) and batch.tokens == sum(group.sizes)
    assert sorted(group.places.tolist()) == (group.labels.flatten() != IGNORED).nonzero().flatten().tolist()
    moved = batch.moved(lambda tensor: tensor + 1)
    for name, tensor in vars(group).items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(getattr(moved.groups[0], name), tensor + 1)


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_prompt_and_answer(collate, toy_tokenizer, seed):
    """`<s> prompt </s> <s> answer </s>`: labels only on the answer, the first of them on its `<s>`; nothing behind."""
    vocabulary = toy_tokenizer.vocabulary
    seen = set()
    for name, image, input_ids, labels in unpacked(collate(PAIRS, np.random.default_rng(seed))):
        kept = [place for place, label in enumerate(labels) if label != IGNORED]
        first, last = kept[0], kept[-1]
        assert kept == list(range(first, last + 1))
        assert input_ids[0] == input_ids[first] == vocabulary.bos and input_ids[first - 1] == vocabulary.eos
        answer = labels[first : last + 1]
        assert answer[-1] == vocabulary.eos
        assert input_ids[first + 1 : last + 1] == answer[:-1]  # each label is the next input
        assert last + 1 == len(input_ids)
        assert (input_ids[:first], answer[:-1]) in possible_rows(collate, name, PAIRS[image][1])
        seen.add((name, image))
    assert {name for name, _ in seen} == set(ALL_TASKS)


def possible_rows(collate, name: str, annotation: Annotation):
    """(prompt ids, answer ids) of every target that may be drawn."""
    card, possible = task(name), []
    for seed in range(24):
        pair, target = draw(pairs(name, annotation), np.random.default_rng(seed))
        prompt = card.prompt(**pair.inputs, size_wh=annotation.size_wh)
        if card.input == "phrases":  # the prompt is in the decoder, which need not repeat the phrase
            target = replace(target, instances=tuple(replace(item, label="") for item in target.instances))
        answer = collate.codec.serialize(thinned(target, annotation.size_wh), card.grammar, annotation.size_wh)
        possible.append((collate.codec.tokenizer.encode_prompt(prompt), answer))
    return possible


def test_rows_stand_behind_each_other_in_few_lanes(collate, toy_tokenizer):
    """No lane is longer than the longest row, and no two lanes of an image would fit into one."""
    batch = collate(PAIRS, np.random.default_rng(0))
    [group] = batch.groups
    lengths = [len(row.input_ids) for row in unpacked(batch)]
    assert group.labels.shape[-1] == max(lengths)
    filled = (group.input_ids != toy_tokenizer.vocabulary.pad).sum(-1)
    assert filled.sum() == sum(lengths) and len(lengths) > group.labels.shape[1] * group.labels.shape[0]
    for of_image in filled.tolist():
        least = sorted(each for each in of_image if each)
        assert len(least) < 2 or sum(least[:2]) > max(lengths)
    assert (group.positions[group.input_ids == toy_tokenizer.vocabulary.pad] == 0).all()


def test_rows_with_a_prompt_of_the_encoder_have_lanes_of_their_own(toy_tokenizer):
    """In groups of similar length."""
    batch = collator(toy_tokenizer, prompt_side="encoder")(PAIRS, np.random.default_rng(0))
    pad = toy_tokenizer.vocabulary.pad
    for group in batch.groups:
        longest = (group.input_ids != pad).sum(-1).max(0).values.tolist()
        assert group.positions is None and group.prompt_ids.shape[:2] == group.labels.shape[:2]
        assert longest == sorted(longest) and longest[-1] == group.input_ids.shape[-1]
        assert longest[-1] + 1 <= 1.5 * (longest[0] + 1)
        assert (group.labels != IGNORED).any(-1).any(0).all()
    assert len(batch.groups) > 1
    packed = collator(toy_tokenizer)(PAIRS, np.random.default_rng(0))
    of_packed = sorted((row.task, row.image) for row in unpacked(packed))
    assert sorted((row.task, row.image) for row in unpacked(batch)) == of_packed
    vocabulary = toy_tokenizer.vocabulary
    for row in unpacked(batch):
        told = [id for id in row.labels if id != IGNORED]
        assert row.input_ids[:2] == [vocabulary.eos, vocabulary.bos] and told[-1] == vocabulary.eos
        assert row.labels[1 : 1 + len(told)] == told and row.input_ids[2 : 1 + len(told)] == told[:-1]


@pytest.mark.parametrize("rates", [{"<OD>": 1.0, "<CAPTION>": 1.0}, {"<REGION_TO_SEGMENTATION>": 1.0, "<VQA>": 2.0}])
def test_lanes_are_no_larger_than_groups_of_similar_rows(toy_tokenizer, rates):
    for seed in range(8):
        batch, lengths = collator(toy_tokenizer, rates)(PAIRS, np.random.default_rng(seed)), {}
        for row in unpacked(batch):
            lengths.setdefault(row.image, []).append(len(row.input_ids))
        columns = zip_longest(*(sorted(each, reverse=True) for each in lengths.values()), fillvalue=0)
        assert batch.groups[0].labels[0].numel() <= sum(map(max, columns))


def test_a_row_alone_needs_no_places(toy_tokenizer):
    [group] = collator(toy_tokenizer, {"<OD>": 1.0})(PAIRS, np.random.default_rng(0)).groups
    assert group.positions is None and group.labels.shape[1] == 1


def test_the_same_seed_makes_the_same_batch(collate):
    one, other = (collate(PAIRS, np.random.default_rng(3)) for _ in range(2))
    assert list(unpacked(one)) == list(unpacked(other))
    assert list(unpacked(one)) != list(unpacked(collate(PAIRS, np.random.default_rng(4))))


def test_rates(toy_tokenizer):
    """Whole rates are exact; fractions come as often as they say, for all images of a batch together."""
    collate = collator(toy_tokenizer, {"<OD>": 2.0, "<CAPTION>": 0.25, "<VQA>": 1.5})
    counts = {name: [] for name in collate.rates}
    for seed in range(60):
        batch = collate(PAIRS[:1], np.random.default_rng(seed))
        names = [row.task for row in unpacked(batch)]
        for name, count in counts.items():
            count.append(names.count(name))
    assert set(counts["<OD>"]) == {2} and set(counts["<CAPTION>"]) == {0, 1} and set(counts["<VQA>"]) == {1, 2}
    assert np.mean(counts["<CAPTION>"]) == pytest.approx(0.25, abs=0.15)
    assert np.mean(counts["<VQA>"]) == pytest.approx(1.5, abs=0.2)


def test_nothing_to_ask(toy_tokenizer):
    batch = collator(toy_tokenizer, {"<VQA>": 1.0})([PAIRS[1]], np.random.default_rng(0))
    assert batch.groups == () and batch.pixel_values.shape == (1, 3, 48, 64)


def test_pixels_are_those_of_the_preprocessor(collate):
    batch = collate(PAIRS, np.random.default_rng(0))
    assert torch.equal(batch.pixel_values, collate.preprocessor([image for image, _ in PAIRS]))


# ---- mistakes


def test_too_long_a_row(toy_tokenizer):
    with pytest.raises(ValueError, match="a row of task <OD> has [0-9]+ tokens; the network takes 30: leave such"):
        collator(toy_tokenizer, {"<OD>": 1.0}, max_length=30)(PAIRS, np.random.default_rng(0))


def test_all_rows(toy_tokenizer):
    """Whatever may be drawn is among them, once for each answer; one that is too long is told."""
    several = Annotation(SIZE, captions=("a dog",), more_captions=("the red apple and the cat", "a dog " * 30))
    collate = collator(toy_tokenizer)
    asked = pairs("<CAPTION>", several)
    found = list(collate.all_rows("<CAPTION>", asked, SIZE))
    assert len(found) == 3 and len({len(row.answer) for row in found}) == 3
    assert all(collate.row("<CAPTION>", several, np.random.default_rng(seed)) in found for seed in range(9))
    with pytest.raises(ValueError, match="a row of task <CAPTION> has [0-9]+ tokens; the network takes 40"):
        list(collator(toy_tokenizer, max_length=40).all_rows("<CAPTION>", asked, SIZE))
    assert list(collate.all_rows("<VQA>", pairs("<VQA>", BARE), SIZE)) == []
