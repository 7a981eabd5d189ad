"""The network by itself: sizes, caches, padding, shared images, gradients. Equality with the reference: test_parity."""

import dataclasses

import pytest
import torch

from florence_lite.model import FlorenceModel, SelfCache
from florence_lite.model.davit import ChannelAttention, DropPath
from florence_lite.model.transformer import causal_mask
from tests.tiny import tiny_config

CONFIG = tiny_config(vocab_size=60)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = FlorenceModel(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # livelier than the start of training, so that mistakes show
            parameter += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def features(model):
    return model.encode_image(images(2))


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def random_ids(rows: int, length: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(4, 60, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size_wh", [(64, 48), (48, 64), (70, 41), (9, 9)])
def test_grid_is_what_the_convolutions_make(model, size_wh):
    config = dataclasses.replace(CONFIG, image_size_wh=size_wh)
    width, height = size_wh
    tokens = model.encode_image(torch.zeros(1, 3, height, width))
    assert tokens.shape == (1, config.image_tokens, config.text.d_model)


def test_channel_attention_does_not_leave_the_range_of_float16():
    """As many positions as the first stage has at 768 pixels: the sum of their products is 72,000, more than 65,504."""
    attention = ChannelAttention(dim=8, groups=2).requires_grad_(False)
    attention.qkv.weight[:] = torch.eye(8).repeat(3, 1)
    attention.qkv.bias.zero_()
    x = torch.full((1, 192, 192, 8), 1.4) * torch.tensor([1.0, -1.0, 1.0, 0.5, 1.0, 1.0, -0.5, 0.0])
    expected = attention(x)
    assert torch.allclose(attention.half()(x.half()).float(), expected, atol=5e-3)


# ---- image tokens


def test_first_token_is_the_mean(model):
    x = torch.randn(1, 6, 8, 32, generator=torch.Generator().manual_seed(0))
    plain = FlorenceModel(CONFIG).eval().requires_grad_(False).projector
    for table in (plain.row_embeddings, plain.column_embeddings):
        table.weight.zero_()
    tokens = plain(x)
    grid = x + plain.frame_positions[0]
    assert torch.allclose(tokens[:, 0], plain.norm(plain.projection(grid.mean((1, 2)))), **TOLERANCE)
    assert torch.allclose(tokens[:, 1 + 8 + 3], plain.norm(plain.projection(grid[:, 1, 3])), **TOLERANCE)


def test_images_of_a_batch_do_not_mix(model, features):
    for row, image in zip(features, images(2), strict=True):
        assert torch.allclose(model.encode_image(image[None])[0], row, **TOLERANCE)
    assert not torch.allclose(features[0], features[1], atol=0.01)


def test_drop_path():
    x = torch.ones(1000, 2, 3)
    drop = DropPath(0.25)
    torch.manual_seed(0)
    dropped = drop(x)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all()  # whole samples
    assert dropped.mean() == pytest.approx(1, abs=0.1)
    assert torch.equal(drop.eval()(x), x)


# ---- encoder


def test_padding_of_prompts_changes_nothing(model, features):
    prompts = random_ids(2, 7)
    mask = torch.arange(7) < torch.tensor([4, 7])[:, None]
    states, encoder_mask = model.encode(features, prompts, mask)
    short, _ = model.encode(features[:1], prompts[:1, :4])
    assert encoder_mask.shape == states.shape[:2]
    assert encoder_mask.sum(1).tolist() == [CONFIG.image_tokens + 4, CONFIG.image_tokens + 7]
    assert torch.allclose(states[0, : CONFIG.image_tokens + 4], short[0], **TOLERANCE)
    answers = random_ids(2, 5)
    padded = model.decode(answers, model.cross_cache(states), encoder_mask)
    alone = model.decode(answers[:1], model.cross_cache(short))
    assert torch.allclose(padded[:1], alone, **TOLERANCE)
    unmasked = model.decode(answers, model.cross_cache(states))
    assert not torch.allclose(unmasked[:1], alone, atol=1e-3)  # the mask matters


def test_without_prompt_only_the_image_is_encoded(model, features):
    states, mask = model.encode(features)
    assert states.shape == features.shape and mask is None


def test_too_long_a_prompt(model, features):
    room = CONFIG.text.positions - CONFIG.image_tokens
    assert model.encode(features, random_ids(2, room))[0].shape[1] == CONFIG.text.positions
    with pytest.raises(ValueError, match=f"the prompt has {room + 1} tokens; .* room for {room}: shorten the prompt"):
        model.encode(features, random_ids(2, room + 1))


# ---- decoder


@pytest.fixture(scope="module")
def cross(model, features):
    return model.cross_cache(model.encode(features)[0])


def test_decoder_looks_back_only(model, cross):
    ids = random_ids(2, 8)
    changed = ids.clone()
    changed[:, 5] = (ids[:, 5] - 3) % 50 + 4
    one, other = model.decode(ids, cross), model.decode(changed, cross)
    assert torch.allclose(one[:, :5], other[:, :5], **TOLERANCE)
    assert ((one - other)[:, 5:].abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("parts", [[1] * 9, [4, 5], [5, 1, 1, 1, 1], [1, 3, 5], [9]])
def test_cache_equals_no_cache(model, cross, parts):
    ids = random_ids(2, 9)
    whole = model.decode(ids, cross)
    cache = model.self_cache(2, 9)
    pieces = [model.decode(part, cross, self_cache=cache) for part in ids.split(parts, dim=1)]
    assert torch.allclose(torch.cat(pieces, 1), whole, **TOLERANCE)
    assert cache.length == 9


def test_left_padding_changes_nothing(model, cross):
    """Prefixes of 3 and 6 ids, one call and then one id at a time."""
    lengths, longest, steps = torch.tensor([3, 6]), 6, 4
    padding = longest - lengths
    ids = random_ids(2, longest + steps)
    place = torch.arange(longest + steps)
    mask = place >= padding[:, None]
    positions = (place - padding[:, None]).clamp(min=0)
    cache = model.self_cache(2, longest + steps)
    pieces = [model.decode(ids[:, :longest], cross, None, cache, positions[:, :longest], mask[:, :longest])]
    for t in range(longest, longest + steps):
        pieces.append(model.decode(ids[:, t : t + 1], cross, None, cache, positions[:, t : t + 1], mask[:, : t + 1]))
    padded = torch.cat(pieces, 1)
    assert padded.isfinite().all()
    for row in range(2):
        alone = model.decode(ids[row : row + 1, padding[row] :], cross.select(torch.tensor([row])))
        assert torch.allclose(padded[row, padding[row] :], alone[0], **TOLERANCE)


def test_rows_share_their_image(model, features, cross):
    """Three rows per image in one call equal rows with an image each."""
    ids = random_ids(6, 7)
    together = model.decode(ids, cross)
    repeated = model.cross_cache(model.encode(features.repeat_interleave(3, 0))[0])
    assert torch.allclose(together, model.decode(ids, repeated), **TOLERANCE)
    cache = model.self_cache(6, 7)
    cached = [model.decode(ids[:, t : t + 1], cross, self_cache=cache) for t in range(7)]
    assert torch.allclose(torch.cat(cached, 1), together, **TOLERANCE)


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [3, 3, 1, 0], [2, 0], [0, 1, 1, 2, 3, 3]])
def test_reordered_cache(model, cross, order):
    """Beams: row i goes on from what row order[i] has read."""
    ids, index = random_ids(4, 5), torch.tensor(order)
    image = torch.tensor([0])
    cache = model.self_cache(4, 6)
    model.decode(ids, cross.select(image), self_cache=cache)
    cache.reorder(index)
    following = random_ids(len(order), 1, seed=5)
    got = model.decode(following, cross.select(image), self_cache=cache)
    expected = model.decode(torch.cat([ids[index], following], 1), cross.select(image))[:, -1:]
    assert torch.allclose(got, expected, **TOLERANCE)


def test_full_cache():
    cache = SelfCache(1, 1, 1, 3, 2, torch.float32, torch.device("cpu"))
    cache.append(0, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    cache.length += 2
    with pytest.raises(ValueError, match="the self-attention cache holds 3 positions, 4 are needed"):
        cache.append(0, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))


def test_causal_mask():
    mask = causal_mask(1, 2, torch.tensor([[False, True, True], [True, True, True]]), torch.device("cpu"))
    assert mask[:, 0].tolist() == [
        [[False, True, False], [False, True, True]],
        [[True, True, False], [True, True, True]],
    ]
    padded = causal_mask(0, 2, torch.tensor([[False, True]]), torch.device("cpu"))
    assert padded[0, 0].tolist() == [[True, False], [False, True]]  # a padded query still sees itself


def test_logits_share_the_embeddings(model):
    hidden = torch.randn(2, 3, 32)
    assert torch.allclose(model.logits(hidden), torch.nn.functional.linear(hidden, model.embed_tokens.weight))


# ---- training


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_gradients_reach_every_parameter(side):
    torch.manual_seed(0)
    model = FlorenceModel(CONFIG).train()
    tokens = random_ids(2, 6)
    states, mask = model.encode(model.encode_image(images(2)), tokens if side == "encoder" else None)
    logits = model.logits(model.decode(tokens, model.cross_cache(states), mask))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), random_ids(2, 6, seed=3).flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias of all keys adds the same to every weight before the softmax: its gradient is zero by nature.
        assert parameter.grad.abs().max() > 0 or name.endswith("k_proj.bias"), name
