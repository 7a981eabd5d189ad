"""What answers lose in bfloat16 and int8: the embedded checkpoint's metrics in each precision, and how many answers
change.

    python benchmarks/precision.py --count 200 --json results/precision.json

All precisions answer the same prompts about the same generated test scenes, which need the artwork of the extra
`scenes`. How fast they are is measured by `inference.py`; that a network of this size gains little in time says nothing
about one of Florence-2's. Needs transformers, whose version is told with the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from peer import environment

from florence_lite import Florence
from florence_lite.engine.fast.precision import PRECISIONS
from florence_lite.scenes import Scenes
from florence_lite.scenes.catalogue import DEFAULT_STYLES
from florence_lite.scenes.measure import evaluate_scenes

SHOWN = {
    "<OD>": ("ap", "ap50"),
    "<OPEN_VOCABULARY_DETECTION>": ("acc@0.5", "presence_auroc"),
    "<REFERRING_EXPRESSION_SEGMENTATION>": ("miou",),
    "<CAPTION>": ("cider",),
    "<OCR>": ("cer",),
}
SAME = ("<OD>", "<CAPTION>", "<OCR>")  # asked of every scene without other words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="scenes-nano")
    parser.add_argument("--count", type=int, default=200, help="test scenes, from the first")
    parser.add_argument("--json", metavar="OUT", help="file to write")
    arguments = parser.parse_args()
    told = {**environment(), "rows": []}
    exact: list[list[int]] = []
    for precision in PRECISIONS:
        florence = Florence.from_pretrained(arguments.checkpoint, precision=precision)
        metrics = evaluate_scenes(florence, "test", arguments.count, tasks=list(SHOWN)).named_metrics()
        answers = answers_of(florence, arguments.count)
        exact = exact or answers
        row = {
            "precision": precision,
            "equal_answers": sum(map(list.__eq__, answers, exact)) / len(exact),
            **{f"{task}/{name}": metrics[f"{task}/{name}"] for task, names in SHOWN.items() for name in names},
        }
        told["rows"].append(row)
        print(", ".join(f"{name} {value if isinstance(value, str) else f'{value:.4f}'}" for name, value in row.items()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(told, indent=2) + "\n")


def answers_of(florence: Florence, count: int) -> list[list[int]]:
    """The ids of the answers to `SAME` about each scene."""
    scenes = Scenes("test", DEFAULT_STYLES, florence.model.config.image_size_wh, length=count)
    return [
        list(result.token_ids)
        for scene in scenes
        for result in florence.run(scene.load(), list(SAME), keep_image=False)
    ]


if __name__ == "__main__":
    main()
