"""Small random models whose answers differ from row to row and end at different lengths."""

import torch

from florence_lite.model import FlorenceConfig, FlorenceModel
from tests.model.native import TINY

EOS = 2


def enliven(model: FlorenceModel, seed: int, eos_gain: float | None) -> None:
    """Make `model` heed the last id and the image, and give it an end token that is likely.

    eos_gain: what the end token's logit gains on average; None: it is 0 always, which never is among the best.
    """
    generator = torch.Generator().manual_seed(seed)
    vocab_size, d_model = model.embed_tokens.weight.shape
    with torch.no_grad():
        model.embed_tokens.weight.copy_(0.3 * torch.randn(vocab_size, d_model, generator=generator))
        for layer in model.decoder.layers:
            layer.cross_attention.out_proj.weight *= 6
        ids = torch.randint(4, vocab_size, (16, 20), generator=generator)
        states = torch.randn(16, 9, d_model, generator=generator)
        usual = model.decode(ids, model.cross_cache(states)).mean((0, 1))
        if eos_gain is None:
            model.embed_tokens.weight[EOS] = 0
        else:
            model.embed_tokens.weight[EOS] += eos_gain * usual / usual.norm() ** 2


def lively_model(config: FlorenceConfig = TINY, seed: int = 2, eos_gain: float | None = 7.0) -> FlorenceModel:
    """A random model in evaluation mode."""
    torch.manual_seed(seed)
    model = FlorenceModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # whatever the network's own start is
            noise = 0.054 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    enliven(model, seed, eos_gain)
    return model


def random_states(model: FlorenceModel, images: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(encoder_hidden_states [B, 9, D], encoder_mask [B, 9] with padding in the first image)."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(images, 9, model.config.text.d_model, generator=generator)
    mask = torch.ones(images, 9, dtype=torch.bool)
    mask[0, 6:] = False
    return states, mask
