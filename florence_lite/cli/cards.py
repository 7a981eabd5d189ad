"""`florence-lite tasks` and `florence-lite checkpoints`: what the cards say."""

from __future__ import annotations


def tasks() -> None:
    """List the tasks: marker, input and what the answer holds."""
    from florence_lite.cards import tasks

    options = {"none": "", "text": "--text", "phrase": "--phrase", "phrases": "--phrase", "region": "--region"}
    for card in tasks():
        print(f"{card.name:35}  {options[card.input]:8}  {card.summary}")


def checkpoints() -> None:
    """List the checkpoints with their licences and measured figures."""
    from florence_lite.cards import checkpoints

    for card in checkpoints():
        width, height = card.image_size_wh
        print(f"{card.name}  ({card.source}, {card.licence}, {width}×{height} pixels, {len(card.tasks)} tasks)")
        print(f"  {card.summary}")
        width = max(map(len, card.metrics), default=0)
        for name, value in card.metrics.items():
            print(f"  {name:{width}}  {value:.4g}")
        if card.protocol:
            print(f"  measured: {card.protocol}")
