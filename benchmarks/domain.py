"""What pictures the embedded checkpoint knows: fits `domain.safetensors`, or measures how well it tells foreign ones.

    python benchmarks/domain.py PHOTOGRAPHS --json           # share of pictures and of answers that count as foreign
    python benchmarks/domain.py PHOTOGRAPHS --fit FOLDER     # write the file anew; the card needs its sha256

Fitted on scenes of the training split, the limit set by scenes of the validation split; measured on scenes of the test
split, in the artwork styles of the training and in one that it never saw, and on the pictures of the folder.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pictures import pictures_in
from torch import Tensor

from florence_lite import Florence
from florence_lite.inference.domain import Domain
from florence_lite.scenes import DEFAULT_STYLES, HELD_OUT_STYLES, Scenes

TRAINING, HELD_OUT = 1600, 1000
DETECTION = "<OD>"
TASKS = (DETECTION, "<REGION_PROPOSAL>", "<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures that the checkpoint knows nothing about")
    parser.add_argument("--count", type=int, default=200, help="at most so many pictures, and as many scenes")
    parser.add_argument("--other-style", default=HELD_OUT_STYLES[0], help="artwork that training never saw")
    parser.add_argument("--style", nargs="+", default=DEFAULT_STYLES, help="artwork of the training")
    parser.add_argument("--fit", type=Path, metavar="FOLDER", help="fit first, and write the file into this folder")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    florence = Florence.from_pretrained("scenes-nano", device=arguments.device)
    styles = tuple(arguments.style)
    if arguments.fit:
        known = (scenes("train", TRAINING, styles), scenes("validation", HELD_OUT, styles))
        fitted = Domain.fit(*(features(florence, pictures) for pictures in known))
        print(f"written: {fitted.write(arguments.fit)}", file=sys.stderr)
        florence.answering.domain = fitted
    files = pictures_in(arguments.folder)
    kinds = {
        "scenes": scenes("test", arguments.count, styles),
        "scenes in artwork of another style": scenes("test", arguments.count, (arguments.other_style,)),
        "pictures of the folder": files[: arguments.count],
    }
    found = {name: measured(florence, list(pictures)) for name, pictures in kinds.items()}
    print(
        json.dumps(found, indent=1) if arguments.json else "\n".join(f"{name}: {each}" for name, each in found.items())
    )


def scenes(split: str, count: int, styles: tuple[str, ...]) -> Iterator[Any]:
    return (sample.load() for sample in islice(iter(Scenes(split, styles, length=count)), count))


def features(florence: Florence, pictures: Iterable[Any]) -> Iterator[Tensor]:
    pictures = iter(pictures)
    while few := list(islice(pictures, 8)):
        yield from (encoded.features for encoded in florence.encode(few, keep_image=False))


def measured(florence: Florence, pictures: list[Any]) -> dict[str, float]:
    """Share of the pictures that count as foreign, and of the answers about them; "named": of the pictures in which a
    plain `<OD>` names anything."""
    outside = [not florence.answering.domain.holds(each) for each in features(florence, pictures)]
    told: dict[str, list[bool]] = {"picture": outside}
    for task in TASKS:
        results = list(florence.run_each(pictures, task, keep_image=False))
        told[task] = [result.foreign for result in results]
        if task == DETECTION:
            told["named"] = [bool(result.instances) for result in results]
    return {name: round(sum(each) / len(each), 3) for name, each in told.items()}


if __name__ == "__main__":
    main()
