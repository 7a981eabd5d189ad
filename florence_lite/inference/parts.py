"""Whether the parts of a checkpoint belong together."""

from __future__ import annotations

from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceConfig
from florence_lite.tokens import Tokenizer

_REMEDY = "take both from the same checkpoint"


def check_parts(config: FlorenceConfig, tokenizer: Tokenizer, preprocessor: Preprocessor | None = None) -> None:
    """Raises ValueError, with both numbers, where tokenizer or preprocessing do not fit the network."""
    vocabulary = tokenizer.vocabulary
    if vocabulary.bins != config.bins:
        raise ValueError(
            f"the tokenizer has {vocabulary.bins} location tokens, the network {config.bins} bins: {_REMEDY}"
        )
    if vocabulary.size > config.text.vocab_size:
        raise ValueError(
            f"the tokenizer has {vocabulary.size} ids, the network only {config.text.vocab_size}: {_REMEDY}"
        )
    if preprocessor and preprocessor.size_wh != config.image_size_wh:
        raise ValueError(
            f"the preprocessor makes images of {preprocessor.size_wh}, the network takes {config.image_size_wh}: "
            f"{_REMEDY}"
        )
