"""What limits the data engine on many machines, measured on one: the figures behind `docs/annotate-at-scale.md`.

    python benchmarks/annotate_scale.py --json benchmarks/results/annotate-scale.json

Nothing is answered here but a few pictures, whose rows are written again and again under other ids; how fast images are
answered tells `annotate.py`. Rates are medians of `ROUNDS`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from peer import environment
from pictures import write_files

from florence_lite.annotate import AnnotateConfig, ray_engine
from florence_lite.annotate.annotator import Annotator, read_image
from florence_lite.annotate.parts import Answers, Ids, open_output, part_files, read_ids, stage
from florence_lite.data.sources import list_images

ROUNDS = 5
PICTURES, TASKS = 64, ("<OD>", "<CAPTION>")
LISTED, SHARD = 20_000, 1_000  # images of a listing, of them in a tar or parquet file
PER_PART, PARTS = 256, 60
KNOWN = 10_000_000  # ids


def seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def rate(count: int, work: Callable[[], Any]) -> float:
    return count / statistics.median(seconds(work) for _ in range(ROUNDS))


def listing(folder: Path) -> dict[str, Any]:
    """Images that one process lists in a second, in a folder, in tars and in parquet files, and bytes that travel."""
    content = b"\xff\xd8" + bytes(2**15)
    for number in range(LISTED):
        (folder / "files" / f"{number // SHARD:03}").mkdir(parents=True, exist_ok=True)
        (folder / "files" / f"{number // SHARD:03}" / f"{number:06}.jpg").touch()
    for shard in range(few := 4):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as tar:
            for number in range(SHARD):
                (member := tarfile.TarInfo(f"{number:06}.jpg")).size = len(content)
                tar.addfile(member, io.BytesIO(content))
        rows = {"image": [content[:-8] + number.to_bytes(8) for number in range(SHARD)]}
        pq.write_table(pa.table(rows), folder / f"{shard:03}.parquet", compression="none", row_group_size=100)
    names = list(list_images(str(folder / "files")))
    (folder / "names.txt").write_text("".join(f"{each.name}\n" for each in names))
    batch = names[:PER_PART]
    carried = len(content) * SHARD * few

    def each(source: str) -> Callable[[], None]:
        return lambda: [None for _ in list_images(str(folder / source))]

    return {
        "files_listed_per_s": rate(LISTED, each("files")),
        "lines_listed_per_s": rate(LISTED, each("names.txt")),
        "tar_members_listed_per_s": rate(SHARD * few, each("*.tar")),
        "parquet_bytes_listed_per_s": rate(carried, each("*.parquet")),
        "bytes_of_a_name_on_its_way": len(pickle.dumps(batch)) / len(batch),
    }


def rows(folder: Path) -> Iterator[list[Answers]]:
    """Parts of rows that are alike but for their images, without end."""
    files = write_files(folder, PICTURES)
    config = AnnotateConfig([str(folder)], str(folder / "none"), TASKS)
    answers = list(Annotator(config).answers(map(read_image, list_images(str(folder)))))
    assert len(answers) == len(files)
    chance = random.Random(0)
    while True:
        part = []
        for number in range(PER_PART):
            of_image = answers[number % len(answers)]
            image_id = chance.getrandbits(63)
            part.append(
                Answers([replace(row, image=replace(row.image, image_id=image_id)) for row in of_image.rows], [])
            )
        yield part


def committing(folder: Path) -> dict[str, Any]:
    """Parts that one process stages and commits in a second, and reads ids of at the start."""
    parts = rows(folder / "pictures")
    with open_output(output := folder / "answers", {}) as opened:
        staging, commits, told = [], [], []
        for part in (next(parts) for _ in range(PARTS)):
            begun = time.perf_counter()
            staged = stage(output, part)
            staging.append(time.perf_counter() - begun)
            commits.append(seconds(lambda staged=staged: opened.commit(staged)))
            images = [each.rows[0].image for each in part]
            seen = [ray_engine.Seen(f"{each.source}-{n:06}", each.image_id, False, ()) for n, each in enumerate(images)]
            told.append(len(pickle.dumps(ray_engine.Outcome(staged, seen, ("0" * 16,), 1.0, 0))))
    files = part_files(output)
    os.sync()
    renamed = [folder / f"{number}.renamed" for number in range(200)]
    for each in renamed:
        each.touch()
    return {
        "rows_of_an_image": len(TASKS),
        "bytes_of_an_outcome_per_image": statistics.median(told) / PER_PART,
        "stage_s": statistics.median(staging),
        "commit_s": statistics.median(commits),
        "renames_per_s": len(renamed) / seconds(lambda: [os.replace(each, f"{each}!") for each in renamed]),
        "ids_read_from_parts_per_s": rate(len(files), lambda: [read_ids(file) for file in files]),
    }


def remembering() -> dict[str, Any]:
    """Bytes and time of what is known to be done."""
    numbers = np.unique(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, KNOWN))
    ids = Ids(numbers)
    asked = numbers[:: len(numbers) // 20_000].tolist()
    return {
        "ids": len(ids),
        "bytes_of_an_id": numbers.nbytes / len(ids),
        "ids_looked_up_per_s": rate(len(asked), lambda: [number in ids for number in asked]),
    }


class Idle:
    """A worker that answers at once."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {ray_engine.COLUMN: [pickle.dumps(0) for _ in batch[ray_engine.COLUMN]]}


def streaming(folder: Path, workers: int = 2, batches: int = 2_000) -> dict[str, Any]:
    """Batches that Ray Data hands from the listing through idle workers to the driver in a second, and its memory."""
    config = AnnotateConfig([str(folder / "files")], str(folder / "none"), TASKS)
    with ray_engine._cluster(config, workers) as (ray, _):
        from ray.data import ActorPoolStrategy

        stream = ray.data.read_datasource(
            ray_engine._listing(config, LISTED // batches), override_num_blocks=1, num_cpus=0
        )
        stream = stream.map_batches(Idle, batch_size=1, compute=ActorPoolStrategy(size=workers), num_cpus=1)
        begun, first, memory = time.perf_counter(), 0.0, []
        for number, _ in enumerate(stream.iter_batches(batch_size=None, prefetch_batches=0)):
            first = first or time.perf_counter()
            if number % (batches // 10) == 0:
                memory.append(resident())
        return {
            "first_batch_after_s": first - begun,
            "batches_per_s": batches / (time.perf_counter() - first),
            "driver_megabytes": [round(each / 2**20) for each in memory],
        }


def resident() -> int:
    """Bytes of memory that this process holds."""
    with suppress(FileNotFoundError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="OUT", help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        found = {**listing(folder), **committing(folder), **remembering(), **streaming(folder)}
    for key, value in found.items():
        print(f"{key}: {value:,.4g}" if isinstance(value, float) else f"{key}: {value}")
    if arguments.json:
        told = {**environment(), **found}
        Path(arguments.json).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
