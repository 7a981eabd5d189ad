"""`florence-lite tasks` and `florence-lite checkpoints`: what the cards say."""

from __future__ import annotations

from florence_lite.cli.common import show


def tasks() -> None:
    """List the tasks: marker, input, what the answer holds and the method that asks from Python."""
    from florence_lite.cards import tasks

    options = {"none": "", "text": "--text", "phrase": "--phrase", "phrases": "--phrase", "region": "--region"}
    for card in tasks():
        show(f"{card.name:35}  {options[card.input]:8}  {card.summary} (Florence.{card.method})")


def checkpoints() -> None:
    """List the checkpoints with their licences, measured metrics and how they were trained."""
    from florence_lite.cards import checkpoints

    for card in checkpoints():
        width, height = card.image_size_wh
        show(f"{card.name}  ({card.source}, {card.licence}, {width}×{height} pixels, {len(card.tasks)} tasks)")
        show(f"  {card.summary}")
        width = max(map(len, card.metrics), default=0)
        for name, value in card.metrics.items():
            margin = f" ± {card.margins[name]:.2g}" if name in card.margins else ""
            others = [f"{baseline} {table[name]:.4g}" for baseline, table in card.baselines.items() if name in table]
            show(f"  {name:{width}}  {value:.4g}{margin}" + (f"  ({', '.join(others)})" if others else ""))
        if card.protocol:
            show(f"  measured: {card.protocol}")
        if card.trained_on:
            show(f"  trained on: {card.trained_on}")
        if card.for_photographs:
            show(f"  for photographs: --checkpoint {card.for_photographs}")
        if card.command:
            seed = "" if card.seed is None else f", seed {card.seed}"
            show(f"  trained: {card.command}{seed}{f', on {card.hardware}' if card.hardware else ''}")
        for line in card.notes.strip().splitlines():
            show(f"  {line}")
