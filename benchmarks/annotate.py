"""How many images the data engine annotates in a second: a plain loop, the embedded engine, Ray with 1 and 2 workers.

    python benchmarks/annotate.py --json benchmarks/results/annotate.json

All sides answer the same tasks about the same files with the same checkpoint and write the same rows into parquet files
of the same schema. The plain loop is what a user would write: `florence.run` of each file with all tasks, which encodes
it once, and one file of rows at the end. The others are `florence_lite.annotate.annotate`, which also commits parts,
looks for repeated images and could be killed at any moment.

The files are generated (`pictures.py`), or those of `--source`. They are worked on in rounds; sides take turns with
each round, after one for warming up, which Ray, whose workers begin anew each time, does not need. A rate is of images
from the first that is read until the last row is on the disk: loading the checkpoint and starting workers come before
and are told apart. Shown are medians of the rounds' rates and of their ratios. The rows must be the same every time but
for `seconds` and the last digits of numbers, for answers are made in batches; or the script ends with a message.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from inference import median_ratio
from peer import environment
from pictures import write_files

from florence_lite.annotate import AnnotateConfig, annotate
from florence_lite.annotate.annotator import Annotator, read_image
from florence_lite.annotate.parts import Answers, open_output, part_files, stage
from florence_lite.data.rows import AnswerRow, ImageSource
from florence_lite.data.sources import list_images

LOOP, EMBEDDED = "plain loop", "embedded"
CLOSE = 1e-3  # share by which numbers may differ

Side = Callable[[AnnotateConfig], float]  # writes the rows and returns the seconds from the first image to the last row


def plain_loop(config: AnnotateConfig) -> Side:
    """`florence.run` of each file, and one write at the end."""
    annotator = Annotator(config)
    [florence], questions = annotator.florences, annotator.questions

    def run(config: AnnotateConfig) -> float:
        with open_output(config.output, config.asked()) as output:
            begun, rows = time.perf_counter(), []
            for image in map(read_image, list_images(config.source)):
                results = florence.run(image.content, [each.query.task for each in questions], keep_image=False)
                source = ImageSource(image.image_id, image.name, results[0].size_wh, len(image.content))
                for each, result in zip(questions, results, strict=True):
                    rows.append(AnswerRow(source, each.query, result))
            output.commit(stage(output.folder, [Answers(rows, [])]))
            return time.perf_counter() - begun

    return run


def engine(name: str, workers: int = 1) -> Side:
    def run(config: AnnotateConfig) -> float:
        return annotate(config, name, workers, tell=lambda line: None).seconds

    return run


def sides_of(config: AnnotateConfig) -> dict[str, Side]:
    sides = {LOOP: plain_loop(config), EMBEDDED: engine("embedded")}
    if importlib.util.find_spec("ray") is not None:
        sides |= {"ray, 1 worker": engine("ray", 1), "ray, 2 workers": engine("ray", 2)}
    return sides


def rows_of(folder: str) -> dict[int, dict[str, Any]]:
    """Rows by their id, without what may differ."""
    rows = [row for file in part_files(folder) for row in pq.read_table(file).to_pylist()]
    found = {row.pop("id"): row for row in rows}
    assert len(found) == len(rows), f"{folder} has a row twice"
    for row in rows:
        row.pop("seconds")
    return found


def are_close(one: Any, other: Any) -> bool:
    """Whether two values are the same but for the last digits of their numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= CLOSE * max(1.0, abs(one))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(are_close(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(are_close, one, other))
    return one == other


def measure(files: Sequence[Path], tasks: Sequence[str], rounds: int, sides: Sequence[str]) -> dict[str, Any]:
    """Rates of each side, and the ratios of the others to the first of them."""
    rates: dict[str, list[float]] = {}
    starts: dict[str, list[float]] = {}
    different, rows, size = {}, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        config = AnnotateConfig([str(files[0])], folder + "/none", tasks)
        there = sides_of(config)
        ways = {name: there[name] for name in sides if name in there}
        warms_up = any(not name.startswith("ray") for name in ways)
        share = len(files) // (rounds + warms_up)
        for number in range(1 - warms_up, rounds + 1):
            (lists := Path(folder) / f"{number}.txt").write_text(
                "".join(f"{file}\n" for file in files[(number - 1 + warms_up) * share :][:share])
            )
            expected = None
            for name, way in list(ways.items())[:: 1 if number % 2 else -1]:
                asked = AnnotateConfig([str(lists)], f"{folder}/{number} {name}", tasks)
                begun = time.perf_counter()
                seconds = way(asked)
                if number:
                    rates.setdefault(name, []).append(share / seconds)
                    starts.setdefault(name, []).append(time.perf_counter() - begun - seconds)
                found = rows_of(asked.output)
                size += bool(number) * sum(file.stat().st_size for file in part_files(asked.output))
                expected = expected or found
                if found.keys() != expected.keys():
                    sys.exit(f"{name} has other rows than {next(iter(ways))}")
                unlike = sum(not are_close(row, expected[number]) for number, row in found.items())
                different[name] = different.get(name, 0) + unlike
                rows += bool(number) * len(found)
    if any(different.values()):
        sys.exit(f"rows differ: {different}")
    first, *others = ways
    return {
        "images": share * rounds,
        "tasks": list(tasks),
        "rows": rows // len(ways),
        "bytes_of_parts_per_image": size / len(ways) / (share * rounds),
        "images_a_second": {name: statistics.median(each) for name, each in rates.items()},
        "rounds": rates,
        "ratios": {name: median_ratio(rates[name], rates[first]) for name in others},
        "before_the_first_image_s": {name: statistics.median(each) for name, each in starts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="folder of pictures; generated ones without it")
    parser.add_argument("--images", type=int, default=360, help="at most so many, those for warming up included")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=["<OD>", "<CAPTION>"])
    parser.add_argument(
        "--sides", nargs="+", default=[LOOP, EMBEDDED, "ray, 1 worker", "ray, 2 workers"], metavar="SIDE"
    )
    parser.add_argument("--json", metavar="OUT", help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.source:
            files = [Path(image.name) for image in list_images(arguments.source)][: arguments.images]
        else:
            files = write_files(Path(folder), arguments.images)
        found = measure(files, arguments.tasks, arguments.rounds, arguments.sides)
    for name, rate in found["images_a_second"].items():
        ratio = f", {found['ratios'][name]:.2f} × {arguments.sides[0]}" if name in found["ratios"] else ""
        print(f"{name}: {rate:.1f} images/s{ratio}")
    if arguments.json:
        told = {**environment(), **found}
        Path(arguments.json).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
