"""How often is a phrase rejected that means nothing in the image, by what is wrong with it?

    python benchmarks/absent.py PHOTOGRAPHS --count 300 --json

On scenes of the test split phrases are made wrong in one thing, from another kind of object to a place next to the
right one. The last are harder than those of training and of the card, which are wrong by a margin. Phrases about
photographs name kinds that the checkpoint knows; a few are right, for some of the photographs show such things.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peer import environment
from pictures import pictures_in

from florence_lite import Florence
from florence_lite.cards import checkpoint as checkpoint_card
from florence_lite.data.annotation import Annotation
from florence_lite.scenes import CLASSES, Scenes
from florence_lite.scenes.language import PLACES, View

TASK = "<OPEN_VOCABULARY_DETECTION>"
KINDS = {  # what is wrong with a phrase
    "present": "nothing: it is there",
    "kind": "the kind",
    "kind_at_place": "the kind, at a place that is taken",
    "far_place": "the place, which is not next to the right one",
    "near_place": "the place, which is next to the right one",
}
ASKED = 8  # phrases about a photograph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="photographs, which may be left out")
    parser.add_argument("--count", type=int, default=300, help="scenes, and at most as many photographs")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    files = pictures_in(arguments.folder) if arguments.folder else []
    florence = Florence.from_pretrained("scenes-nano")
    accepted: dict[str, list[bool]] = defaultdict(list)
    for number, sample in enumerate(Scenes("test", length=arguments.count)):
        asked = list(phrases(sample.annotation, np.random.default_rng(number)))
        boxed = boxes(florence, sample.load(), [phrase for _, phrase in asked])
        for kind, phrase in asked:
            accepted[kind].append(boxed[phrase])
    found: dict[str, Any] = {
        "phrases": {kind: len(accepted[kind]) for kind in KINDS},
        "accepted": {kind: round(sum(accepted[kind]) / len(accepted[kind]), 4) for kind in KINDS if accepted[kind]},
    }
    if files:
        named = []
        for number, file in enumerate(files[: arguments.count]):
            kinds = np.random.default_rng(number).choice(CLASSES, ASKED, replace=False)
            named.append(boxes(florence, file, [f"the {kind}" for kind in kinds]))
        found["photographs"] = {  # shares of the photographs and of the phrases about them
            "any_of_8_phrases": round(sum(any(each.values()) for each in named) / len(named), 4),
            "phrases": round(sum(sum(each.values()) for each in named) / (ASKED * len(named)), 4),
        }
    found |= {**environment(), "sha256": checkpoint_card("scenes-nano").sha256["model.safetensors"]}
    print(json.dumps(found, indent=1) if arguments.json else _lines(found))


def phrases(truth: Annotation, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Which of `KINDS`, and a phrase: at most one of each about one object, alone of its class."""
    view = View(tuple(each.label for each in truth.objects), tuple(each.box for each in truth.objects), truth.size_wh)
    alone = [i for i, label in enumerate(view.labels) if len(view.having(label)) == 1]
    if not alone:
        return
    i = alone[int(rng.integers(len(alone)))]
    label, (row, column) = view.labels[i], view.cell(i)
    missing = [each for each in CLASSES if each not in view.labels]
    stranger = missing[int(rng.integers(len(missing)))]
    yield "present", f"the {label} {view.place(i)}"
    yield "kind", f"the {stranger}"
    yield "kind_at_place", f"the {stranger} {view.place(i)}"
    cells = {(r, c): max(abs(r - row), abs(c - column)) for r in range(3) for c in range(3)}
    for kind, far in (("far_place", 2), ("near_place", 1)):
        others = [cell for cell, distance in cells.items() if distance == far]
        if others:
            r, c = others[int(rng.integers(len(others)))]
            yield kind, f"the {label} {PLACES[r][c]}"


def boxes(florence: Florence, image: object, asked: list[str]) -> dict[str, bool]:
    """Whether each of the phrases gets a box."""
    if not asked:
        return {}
    result = florence.run(image, TASK, phrases=asked)
    labels = {instance.label for instance in result.instances}
    return {phrase: phrase in labels for phrase in asked}


def _lines(found: dict) -> str:
    rows = [
        f"wrong is {what}: {found['accepted'][kind]:.3f} of {found['phrases'][kind]} accepted"
        for kind, what in KINDS.items()
        if kind in found["accepted"]
    ]
    return "\n".join(rows + [f"photographs, {what}: {value}" for what, value in found.get("photographs", {}).items()])


if __name__ == "__main__":
    main()
