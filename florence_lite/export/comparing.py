"""Answers of an exported folder beside those of the checkpoint that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from florence_lite.cards import tasks
from florence_lite.export.runner import Runner
from florence_lite.florence import Florence

# Options of a call that answers like the runner.
GREEDY: dict[str, Any] = {"constrained": False, "num_beams": 1, "do_sample": False}
MOST_IDS = 64  # of an answer that is compared


@dataclass(frozen=True)
class Comparison:
    """answers: that were compared, to every task that needs no input, about every image; other_answers: that have other
    ids. ids: in the answers of the checkpoint; other_ids: that the folder's do not have there, or more in these."""

    images: int
    answers: int
    other_answers: int
    ids: int
    other_ids: int

    def __str__(self) -> str:
        what = f"{self.answers} answers about {self.images} image{'s' if self.images > 1 else ''}"
        if not self.answers:
            return "no answers were compared"
        if not self.other_answers:
            return f"{what} have the same ids as the checkpoint's"
        return (
            f"of {what} {self.other_answers} ({self.other_answers / self.answers:.1%}) are others than the "
            f"checkpoint's, and {self.other_ids} of {self.ids} ids ({self.other_ids / self.ids:.1%})"
        )


def compare(florence: Florence, folder: Path, pictures: Sequence[Image.Image]) -> Comparison:
    """Ask both the same. folder: of an export. pictures: as `load_image` returns them."""
    prompts = [card.name for card in tasks() if card.input == "none"]
    ours = [florence.run(picture, prompts, **GREEDY, max_new_tokens=MOST_IDS) for picture in pictures]
    exported = Runner(folder, torch.get_num_threads()) if pictures else None
    pairs = []
    for picture, results in zip(pictures, ours, strict=True):
        encoded = exported.encode(picture)
        for prompt, result in zip(prompts, results, strict=True):
            [answer] = exported.ask(encoded, prompt, max_new_tokens=MOST_IDS)
            pairs.append((list(result.token_ids), answer.ids))
    return Comparison(
        images=len(pictures),
        answers=len(pairs),
        other_answers=sum(ours != theirs for ours, theirs in pairs),
        ids=sum(len(ours) for ours, _ in pairs),
        other_ids=sum(differing(ours, theirs) for ours, theirs in pairs),
    )


def differing(ids: list[int], others: list[int]) -> int:
    """How many ids of the longer list are not in the other in the same order."""
    blocks = SequenceMatcher(None, ids, others, autojunk=False).get_matching_blocks()
    return max(len(ids), len(others)) - sum(block.size for block in blocks)
