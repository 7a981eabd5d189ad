"""Rows of ids: a prompt, and what the decoder reads and is to write about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from florence_lite.answers import Answer
from florence_lite.cards import task as task_card
from florence_lite.model import FlorenceConfig
from florence_lite.rules import Pair, thinned
from florence_lite.tokens import Codec, Tokenizer


class Row(NamedTuple):
    """Ids of one question.

    prompt: `<s> prompt </s>`. start: what the decoder is given before the answer, the opening `<s>` included. answer:
    with the end token; one that was shortened has none, for the network must not learn to stop there.
    """

    prompt: list[int]
    start: list[int]
    answer: list[int]
    shortened: bool = False

    @property
    def length(self) -> int:
        """What the decoder reads: all but the last token."""
        return len(self.start) + len(self.answer) - 1


@dataclass(frozen=True)
class RowWriter:
    """Writes rows for a network, and knows which of them it has positions for.

    With a decoder-side prompt the decoder gets `<s> prompt </s> <s> answer </s>`; with an encoder-side one the encoder
    gets `<s> prompt </s>` and the decoder `</s> <s> answer </s>`, every label in it, as Florence-2 writes answers. A
    decoder that was given one phrase need not repeat it.

    positions: of the network's table. image_tokens: that stand before an encoder-side prompt. bins: per axis.
    """

    codec: Codec
    positions: int
    image_tokens: int
    prompt_side: str
    bins: int

    @classmethod
    def of(cls, config: FlorenceConfig, tokenizer: Tokenizer) -> RowWriter:
        """For the network of a configuration."""
        return cls(Codec(tokenizer), config.text.positions, config.image_tokens, config.prompt_side, config.bins)

    def write(
        self, task: str, pair: Pair, target: Answer, size_wh: tuple[int, int], instances: int | None = None
    ) -> Row:
        """The row of a prompt and of an answer to it, however long.

        size_wh: of the image, in pixels. instances: how many of the answer's are written, in a shortened row.
        """
        card, vocabulary = task_card(task), self.codec.vocabulary
        prompt = self.codec.tokenizer.encode_prompt(card.prompt(**pair.inputs, size_wh=size_wh, bins=self.bins))
        start = [*(prompt if self.prompt_side == "decoder" else [vocabulary.eos]), vocabulary.bos]
        kept = replace(target, instances=target.instances[:instances])
        if self.prompt_side == "decoder":
            kept = _unnamed(kept, pair)
        answer = self.codec.serialize(thinned(kept, size_wh), card.grammar, size_wh)
        if instances is None:
            return Row(prompt, start, [*answer, vocabulary.eos])
        return Row(prompt, start, answer, shortened=True)

    def prompt_fits(self, row: Row) -> bool:
        """Whether the encoder has positions for the prompt behind the image."""
        return self.prompt_side == "decoder" or self.image_tokens + len(row.prompt) <= self.positions

    def fits(self, row: Row) -> bool:
        """Whether the network has positions for the prompt and for the answer with an end."""
        return self.prompt_fits(row) and len(row.start) + len(row.answer) + row.shortened <= self.positions


def _unnamed(answer: Answer, pair: Pair) -> Answer:
    """The answer without its labels where all are the one phrase that its prompt asks for."""
    phrases = [phrase.strip() for phrase in pair.inputs.get("phrases", ())]
    if len(phrases) != 1 or any(item.label != phrases[0] for item in answer.instances):
        return answer
    return replace(answer, instances=tuple(replace(item, label="") for item in answer.instances))
