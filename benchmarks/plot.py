"""A picture of what `inference.py` found: how many times as fast as each other library, row by row.

    python benchmarks/plot.py results/inference-base.json results/inference-base.png

Needs matplotlib, which the extra `eval` brings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

SHOWN = {"transformers": "#4c72b0", "onnxruntime": "#dd8452", "openvino": "#55a868"}
ROW = 0.55  # inches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("found", help="what inference.py --json wrote")
    parser.add_argument("picture", help="file to write, .png or .svg")
    arguments = parser.parse_args()
    found = json.loads(Path(arguments.found).read_text())
    runs = found if isinstance(found, list) else [found]  # some rows each
    told, rows = runs[0], [row for run in runs for row in run["rows"] if row["ratios"]]
    figure, axes = plt.subplots(figsize=(8, ROW * len(rows) + 1.2), layout="constrained")
    for number, (name, colour) in enumerate(SHOWN.items()):
        places = [place for place, row in enumerate(rows) if name in row["ratios"]]
        if not places:
            continue
        ratios = [rows[place]["ratios"][name] for place in places]
        bars = axes.barh([place + 0.27 * (number - 1) for place in places], ratios, 0.25, color=colour, label=name)
        axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=2, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["work"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"times as fast as … · {told['size']}, {told['machine']}", fontsize=8)
    axes.legend(loc="lower right", fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
