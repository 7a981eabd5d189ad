"""From a folder of answers to a folder of those worth training on, and of all others with their reasons."""

from __future__ import annotations

import hashlib
import importlib.util
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
from florence_lite.files import read_json_object, refuse_long_name
from florence_lite.refine.config import RefineConfig
from florence_lite.refine.corrections import Corrections, read_corrections
from florence_lite.refine.duplicates import Duplicates
from florence_lite.refine.judged import ImageRows, JudgedRow
from florence_lite.refine.near import TO_CHECK, NearThreshold, write_sheet
from florence_lite.refine.report import Report, StageCounts
from florence_lite.refine.stage import Stage
from florence_lite.refine.store import RowStore, parts_of, write_part

DROPPED, REPORT, HASHES = "dropped", "report.json", "hashes.parquet"
MADE_BY = "florence-lite refine"
PARTIAL, REPLACED = ".refining", ".replaced"  # endings of the output until it is whole, and of its predecessor
IMAGES_AT_ONCE = 256  # that a stage which looks ahead is shown
_HASHES = ("image_id", "hash")

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

    The same rows give the same rows, in the same order, whatever parts they lie in. Some thousand rows at a time are in
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
    unchanged = [] if corrections is None else _told_unchanged(Path(corrections), (folder, to))
    with written_as_a_whole(to) as partial:
        scratch = partial / "scratch"
        (scratch / "buckets").mkdir(parents=True)
        store = RowStore(folder, scratch / "buckets")
        stages = config.make(store.found)
        if corrected is not None:
            stages.insert(0, Corrections(corrected))
        report = Report(str(folder), str(to), stages=[StageCounts(each.NAME, _settings(each)) for each in stages])
        hashes = _read_hashes(to / HASHES)
        for each in stages:
            if isinstance(each, Duplicates):
                each.hashes = hashes
        _look_ahead(store, stages, progress)
        near = NearThreshold(stages, config.sheet)
        _judge_all(store, stages, config.empty_are_negatives, report, near, partial, progress)
        for each, counts in zip(stages, report.stages, strict=True):
            counts.told = each.told()
        report.unmatched = corrected.unmatched if corrected else []
        report.notes += unchanged
        if found := near.found():
            report.sheet = len(found)
            report.notes += write_sheet(found, partial, scratch / "near", to)
        if hashes:
            _write_hashes(hashes, partial / HASHES)
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
        for before in stages[:number]:
            before.begin()
        for images in store.buckets():
            for some in _some(images, IMAGES_AT_ONCE):
                for image in some:
                    for before in stages[:number]:
                        before.judge(image)
                stage.observe(some)
                done += sum(len(image.rows) for image in some)
                if progress:
                    progress(f"{stage.NAME}: looking at all images", done, store.rows)
        stage.settle()


def _judge_all(
    store: RowStore,
    stages: Sequence[Stage],
    empty_are_negatives: bool,
    report: Report,
    near: NearThreshold,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Judge every image and write what becomes of it."""
    import pyarrow as pa

    done = 0
    for stage in stages:
        stage.begin()
    for images in store.buckets():
        kept, dropped = [], []
        for image in images:
            done += len(image.rows)
            _judge(image, stages, report)
            for row in image.standing:
                _look_at_empty(row, image, empty_are_negatives, report)
                kept.append(row.kept_record())
            dropped += [record for row in image.rows for record in row.dropped_records()]
            near.offer(image)
            if progress:
                progress("filtering", done, store.rows)
        write_part(folder / PARTS, kept)
        write_part(folder / DROPPED, dropped, [("reason", pa.string()), ("instance", pa.int32())])


def _judge(image: ImageRows, stages: Sequence[Stage], report: Report) -> None:
    """All stages judge an image; the report counts what each does."""
    read = len(image.rows)
    report.read.add(image)
    for stage, counts in zip(stages, report.stages, strict=True):
        stage.judge(image)
        counts.left.add(image)
    report.kept.add(image)
    report.added += len(image.rows) - read
    of_stage = {counts.name: counts for counts in report.stages}
    for drop in (drop for row in image.rows for drop in row.drops):
        counts = of_stage[drop.stage]
        counts.kinds[drop.kind] = counts.kinds.get(drop.kind, 0) + 1
        if drop.place is None:
            counts.rows += 1
        else:
            counts.instances += 1


def _look_at_empty(row: JudgedRow, image: ImageRows, believed: bool, report: Report) -> None:
    """Count an answer that says nothing, and mark it as verified where it is to be believed."""
    result = row.row.result
    if result is None or row.text or row.left:
        return
    emptied = bool(row.drops) or result.dropped > 0
    doubted = any(other.row.result for other in image.rows if other.question == row.question)  # a result says something
    row.verified = row.verified or (believed and not (emptied or doubted or result.foreign))
    report.empty["verified" if row.verified else "unverified"] += 1
    report.empty["emptied"] += emptied and not row.verified


def _some(images: Sequence[ImageRows], count: int) -> Iterator[Sequence[ImageRows]]:
    return (images[first : first + count] for first in range(0, len(images), count))


# ---- files beside the rows -------------------------------------------------------------------------------------------


def _settings(stage: Stage) -> dict[str, Any]:
    return asdict(stage) if is_dataclass(stage) else {}


def _read_hashes(file: Path) -> dict[int, int]:
    """Image → perceptual hash, of an earlier run."""
    import pyarrow.parquet as pq

    if not file.is_file():
        return {}
    table = pq.read_table(file)
    return {image: hash % 2**64 for image, hash in zip(*(table[name].to_pylist() for name in _HASHES), strict=True)}


def _write_hashes(hashes: dict[int, int], file: Path) -> None:
    """As signed numbers, which all readers of parquet know."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = sorted(hashes)
    signed = [hashes[image] - (hashes[image] >> 63 << 64) for image in images]
    pq.write_table(pa.table(dict(zip(_HASHES, (images, signed), strict=True))), file)


def _write_records(folder: Path, report: Report, config: RefineConfig, store: RowStore) -> None:
    """`report.json`, by which the folder is known as one of ours, and `run.json`, for readers."""
    told = {"made_by": MADE_BY, "florence_lite": __version__, "to_check": _digest(folder / TO_CHECK)}
    told |= {"config": asdict(config)} | report.to_dict()
    write_durably(folder / REPORT, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    opinions = [{"checkpoint": checkpoint, "tag": tag} for checkpoint, tag in store.found.order]
    run = {"florence_lite": __version__, "schema": SCHEMA_VERSION, "refined": report.source, "opinions": opinions}
    write_durably(folder / RUN, json.dumps(run, indent=2, ensure_ascii=False) + "\n")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _told_unchanged(corrections: Path, folders: Sequence[Path]) -> list[str]:
    """A line where corrections are what refine wrote to be corrected, as the reports beside them or in `folders` tell;
    else none."""
    reports = {folder / REPORT for folder in (Path(os.path.abspath(corrections)).parent, *folders)}
    known = {_report(file).get("to_check") for file in reports}
    if not (digest := _digest(corrections)) or digest not in known:
        return []
    return [
        f"warning: nothing in {corrections} was changed since refine wrote it; the model's answers in it count as a "
        "person's"
    ]


def _report(file: Path) -> dict[str, Any]:
    return read_json_object(file, largest=2**26) if file.is_file() else {}


# ---- the output as a whole -------------------------------------------------------------------------------------------


def _check_packages() -> None:
    for module in ("pyarrow", "filelock", "imagehash"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"refining needs the package {module}: pip install 'florence-lite[annotate]'", name=module
            )


def _check_output(folder: Path, to: Path, corrections: str | os.PathLike | None) -> None:
    """Raises ValueError where the output would overwrite anything but an output, or has too long a name."""
    refuse_long_name(to)
    if to == folder or to in folder.parents or folder in to.parents:
        raise ValueError(f"the output {to} must be another folder than {folder}, neither around it nor in it")
    if to.exists() and not to.is_dir():
        raise ValueError(f"the output {to} is a file; name a folder")
    if not to.is_dir() or not any(to.iterdir()):
        return
    report = _report(to / REPORT)
    if report.get("made_by") != MADE_BY:
        raise ValueError(f"the output {to} holds something else than what refine writes; name a new folder")
    if corrections is not None and to in Path(os.path.abspath(corrections)).parents:
        raise ValueError(
            f"the corrections {corrections} lie in the output {to}, which is replaced; copy them out of it"
        )
    if (to / TO_CHECK).is_file() and _digest(to / TO_CHECK) != report.get("to_check"):
        raise ValueError(f"{to / TO_CHECK} has been edited, and the output is replaced; move the file out of it")


@contextmanager
def written_as_a_whole(to: Path) -> Iterator[Path]:
    """An empty folder beside `to`, which takes its place at the end of the block; if the block fails, nothing does.

    What a killed block has left behind is cleared away, or put back where it was about to be replaced. Raises
    ValueError where another process is writing.
    """
    from filelock import FileLock, Timeout

    partial, replaced = to.with_name(to.name + PARTIAL), to.with_name(to.name + REPLACED)
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(to.with_name(f".{to.name}.lock"), timeout=0.5) as lock:
            if replaced.is_dir() and not to.is_dir():
                replaced.rename(to)
            for left in (partial, replaced):
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir()
            try:
                yield partial
                _keep_on_disk(partial)
                if to.is_dir():
                    to.rename(replaced)
                partial.rename(to)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(replaced, ignore_errors=True)
                os.unlink(lock.lock_file)
    except Timeout:
        raise ValueError(f"another refine is writing {to}; wait for its end, or name another folder") from None


def _keep_on_disk(folder: Path) -> None:
    """Have the disk keep all files of a folder."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
