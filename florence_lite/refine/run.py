"""From a folder of answers to a folder of those worth training on, and of all others with their reasons."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from florence_lite import __version__
from florence_lite.annotate.parts import write_durably
from florence_lite.data.readers.annotated import PARTS, RUN
from florence_lite.data.rows import SCHEMA_VERSION
from florence_lite.files import read_json_object
from florence_lite.refine.config import RefineConfig
from florence_lite.refine.corrections import Corrections, read_corrections
from florence_lite.refine.duplicates import Duplicates, known_hashes
from florence_lite.refine.judged import ImageRows
from florence_lite.refine.near import TO_CHECK, NearThreshold, write_sheet
from florence_lite.refine.report import Report, StageCounts
from florence_lite.refine.stage import Stage
from florence_lite.refine.store import RowStore, parts_of, write_part

DROPPED, REPORT, HASHES = "dropped", "report.json", "hashes.parquet"
PARTIAL = ".refining"  # what the output is called until it is whole

Progress = Callable[[str, int, int], None]


def refine(
    folder: str | os.PathLike,
    to: str | os.PathLike,
    config: RefineConfig | None = None,
    corrections: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Report:
    """Filter the answers in a folder, and write what is kept and what is dropped into another one.

    folder: what `annotate` wrote, or an earlier `refine`. to: is written as a whole or not at all; an earlier output of
        this function is replaced, anything else refused. It holds
            parts/       what is kept, in the schema of `florence_lite.data.rows`; `read_dataset` reads it
            dropped/     what is not: the same columns, `reason`, and `instance`, the place of an instance in its row's
                         answer, null where the row was dropped. Both together are what was read
            report.json  all counts
            near.html, near.png, to_check.jsonl   what is near a threshold, to look at and to correct
            hashes.parquet   perceptual hashes of the images, for the next time
    corrections: what `read_dataset` reads; in its images it wins over the model, and no stage judges.
    progress: called with what is being done, and of how many images how many are.

    The same rows give the same rows, in the same order, whatever parts they lie in. Rows of 20,000 at a time are in
    memory, and of all images a few numbers.

    Raises FileNotFoundError and ValueError for folders, settings and corrections that are wrong, and
    ModuleNotFoundError, with the remedy, where a package of the extra `annotate` is missing.
    """
    folder, to = Path(os.path.abspath(folder)), Path(os.path.abspath(to))
    config = config or RefineConfig()
    _check_packages()
    parts_of(folder)
    _check_output(folder, to, corrections)
    corrected = None if corrections is None else read_corrections(corrections, folder)
    with _written_as_a_whole(to) as partial:
        scratch = partial / "scratch"
        (scratch / "buckets").mkdir(parents=True)
        store = RowStore(folder, scratch / "buckets")
        stages = config.make(store.found)
        if corrected is not None:
            stages.insert(0, Corrections(corrected))
        report = Report(str(folder), str(to), stages=[StageCounts(each.NAME, _settings(each)) for each in stages])
        for each in stages:
            if isinstance(each, Duplicates):
                each.hashes.update(_read_hashes(to / HASHES))
        _look_ahead(store, stages, progress)
        near = NearThreshold(stages, config.sheet)
        _judge_all(store, stages, config, report, near, partial, progress)
        for each, counts in zip(stages, report.stages, strict=True):
            counts.told = each.told()
        report.unmatched = corrected.unmatched if corrected else []
        if found := near.found():
            report.sheet = len(found)
            report.notes += write_sheet(found, partial, scratch / "near", to)
        _write_hashes(stages, partial / HASHES)
        shutil.rmtree(scratch)
        _write_records(partial, report, config, store)
    return report


# ---- passes over the rows --------------------------------------------------------------------------------------------


def _look_ahead(store: RowStore, stages: Sequence[Stage], progress: Progress | None) -> None:
    """Show all images to each stage that must have seen them, as those before it leave them."""
    for number, stage in enumerate(stages):
        if not stage.looks_ahead:
            continue
        done = 0
        for images in store.buckets():
            for image in images:
                for before in stages[:number]:
                    before.judge(image)
            for some in _some(images, 64):
                if isinstance(stage, Duplicates):
                    stage.look_at(some)
                for image in some:
                    stage.observe(image)
                done += len(some)
                if progress:
                    progress(f"looking for {stage.NAME}" if isinstance(stage, Duplicates) else stage.NAME, done, store.images)
        stage.settle()


def _judge_all(
    store: RowStore,
    stages: Sequence[Stage],
    config: RefineConfig,
    report: Report,
    near: NearThreshold,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Judge every image and write what becomes of it."""
    import pyarrow as pa

    done = 0
    for images in store.buckets():
        kept, dropped = [], []
        for image in images:
            report.read.add(image)
            _judge(image, stages, report)
            for row in image.standing:
                _count_empty(row, image, config.empty_are_negatives, report)
            kept += [row.kept_record() for row in image.standing]
            dropped += [record for row in image.rows for record in row.dropped_records()]
            report.kept.add(image)
            report.added += sum(row.is_of_person and row.record["id"] not in image.read for row in image.rows)
            near.offer(image)
        write_part(folder / PARTS, kept)
        write_part(folder / DROPPED, dropped, [("reason", pa.string()), ("instance", pa.int32())])
        done += len(images)
        if progress:
            progress("filtering", done, store.images)
