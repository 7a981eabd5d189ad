"""A page of unseen scenes with the answers drawn: the first ones as they come, and the worst of many.

    python benchmarks/gallery.py --output gallery
    python benchmarks/gallery.py --checkpoint runs/mine/checkpoint --count 400 --output gallery

The worst are those of the first `--count` scenes of the test split whose boxes have the lowest F1; among equals, those
whose words are read worst. So nobody chooses what is shown. Each scene stands there with its boxes, with an outline of
each phrase, and with what is said and read beside what is true. `index.html` in the folder is the page.
"""

from __future__ import annotations

import argparse
import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from peer import environment

from florence_lite import Florence, Result
from florence_lite.data import Sample
from florence_lite.evaluate.metrics import Case, metric
from florence_lite.progress import progress_bar
from florence_lite.rules import pairs
from florence_lite.scenes import DEFAULT_STYLES, LICENCES, Scenes

CAPTION, WORDS, BOXES = "<DETAILED_CAPTION>", "<OCR>", "<OD>"
STYLE = (
    "body{font:15px/1.4 sans-serif;margin:24px;max-width:1400px}section{display:flex;gap:16px;margin:20px 0}"
    "img{width:380px;height:auto}dt{font-weight:bold}dd{margin:0 0 8px}"
)


@dataclass(frozen=True)
class Shown:
    """A scene and its answers by task. f1: of its boxes; read: 1 minus the errors in its words."""

    number: int
    sample: Sample
    answers: dict[str, Result]
    f1: float
    read: float


def look(florence: Florence, number: int, sample: Sample) -> Shown:
    image = florence.encode(sample.load())
    answers = {task: florence.run(image, task) for task in (BOXES, CAPTION, WORDS)}
    truth = {task: next(iter(pairs(task, sample.annotation))) for task in (BOXES, WORDS)}
    cases = {task: [Case(pair, answers[task])] for task, pair in truth.items()}
    errors = metric("cer").measure(cases[WORDS]).metrics["cer"] if truth[WORDS].asked else 0.0
    f1 = metric("box_f1").measure(cases[BOXES]).metrics["box_f1"]
    return Shown(number, sample, answers, 1.0 if f1 is None else f1, 1 - (errors or 0))


def section(florence: Florence, shown: Shown, folder: Path) -> str:
    """The scene as HTML; its pictures are written into the folder."""
    annotation, boxes = shown.sample.annotation, shown.answers[BOXES]
    phrases = list(dict.fromkeys(item.phrase for item in annotation.expressions if item.objects))
    outlines = florence.segment(shown.sample.load(), phrases=phrases)
    names = {}
    for kind, result in (("boxes", boxes), ("outlines", outlines)):
        names[kind] = f"{shown.number:04}-{kind}.png"
        result.draw(shown.sample.load()).save(folder / names[kind])
    true = {
        CAPTION: annotation.captions[1],
        WORDS: " / ".join(line.text for line in annotation.lines) or "no words",
    }
    said = "".join(
        f"<dt>{html.escape(task)}</dt><dd>{html.escape(shown.answers[task].text or '–')}</dd>"
        f"<dt>true</dt><dd>{html.escape(true[task])}</dd>"
        for task in (CAPTION, WORDS)
    )
    pictures = "".join(f'<img src="{name}" alt="{kind}">' for kind, name in names.items())
    return (
        f"<section>{pictures}<dl><dt>scene {shown.number}, F1 of boxes {shown.f1:.2f}, words read {shown.read:.2f}"
        f"</dt><dd></dd>{said}</dl></section>"
    )


def page(florence: Florence, groups: dict[str, Sequence[Shown]], styles: Sequence[str], folder: Path) -> str:
    parts = [f"<h1>{html.escape(florence.name)}</h1>"]
    for title, scenes in groups.items():
        parts += [f"<h2>{title}</h2>", *(section(florence, shown, folder) for shown in scenes)]
    credits = "; ".join(f"{style}: {LICENCES[style]}" for style in styles)
    head = f'<meta charset="utf-8"><title>gallery</title><style>{STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}<p>Artwork: {credits}</p></body></html>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="scenes-nano", help="name of a card, folder or Hub id")
    parser.add_argument("--count", type=int, default=200, help="scenes to choose the worst from")
    parser.add_argument("--each", type=int, default=12, help="first scenes, and worst scenes, on the page")
    parser.add_argument("--style", nargs="+", default=DEFAULT_STYLES, help="artwork of the scenes")
    parser.add_argument("--output", default="gallery", help="folder to write")
    arguments = parser.parse_args()
    florence = Florence.from_pretrained(arguments.checkpoint)
    samples = islice(Scenes("test", tuple(arguments.style), florence.model.config.image_size_wh), arguments.count)
    looked = []
    with progress_bar(True) as progress:
        bar = progress.add_task("scenes", total=arguments.count)
        for number, sample in enumerate(samples):
            looked.append(look(florence, number, sample))
            progress.advance(bar)
    first, rest = looked[: arguments.each], looked[arguments.each :]
    worst = sorted(rest, key=lambda shown: (shown.f1, shown.read))[: arguments.each]
    (folder := Path(arguments.output)).mkdir(parents=True, exist_ok=True)
    groups = {"The first scenes": first, f"The worst of {arguments.count} by the F1 of their boxes": worst}
    (folder / "index.html").write_text(page(florence, groups, arguments.style, folder), encoding="utf-8")
    print(f"{folder / 'index.html'}: {len(first)} first and {len(worst)} worst scenes; {environment()['machine']}")


if __name__ == "__main__":
    main()
