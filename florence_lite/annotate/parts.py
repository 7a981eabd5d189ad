"""The folder of answers: parquet files that are there whole or not at all, and every row in one of them.

    run.json      what was asked, and the version of the schema
    parts/        files of rows, `<digest of their ids>.parquet`; whoever reads the answers reads these
    staging/      files that are not committed yet; emptied when a run begins, and when it is done
    damaged/      files of `parts/` that a run found cut short; their images are asked again
    lock          held by the one process that commits

Writing has two phases. Any process may `stage` rows: write them into `staging/` and have the disk keep them. The one
that holds the lock `commit`s them: moves the file into `parts/`, after it has left out rows that are there already. So
a worker that was thought dead cannot add anything, and whatever is killed, at any moment, `parts/` is whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from florence_lite import __version__
from florence_lite.data.rows import SCHEMA_VERSION, AnswerRow, schema, to_record
from florence_lite.files import read_json_object, refuse_long_name

if TYPE_CHECKING:
    import pyarrow as pa

RECORD, PARTS, STAGING, DAMAGED, LOCK = "run.json", "parts", "staging", "damaged", "lock"
LOCK_WAIT = 6.0  # seconds; what a killed run has left behind may hold the lock for a moment
# In the metadata of a part: marks of questions that have any number of rows, and which pictures files were.
MARKS, FILES = b"florence_lite.done", b"florence_lite.files"
AT_MOST_NEW = 2**16  # numbers that `Ids` keeps unsorted


class Answers(NamedTuple):
    """All that a run adds about one image.

    rows: in the order of the questions. marks: int64 numbers of questions that have any number of rows
    (`Question.done_id`) and are answered with these. file: an int64 number of the file as it was when it was read
    (`annotator.file_key`), and the image_id; None where there is no such number.
    """

    rows: list[AnswerRow]
    marks: list[int]
    file: tuple[int, int] | None = None


class Staged(NamedTuple):
    """A file in `staging/`. path: of it. rows: in it."""

    path: str
    rows: int


class Damage(NamedTuple):
    """A part that could not be read. path: where it was moved. reason: what is wrong with it."""

    path: Path
    reason: str


class Ids:
    """A set of int64 numbers in eight bytes each. Numbers that are sorted and come once are taken without a copy."""

    def __init__(self, numbers: NDArray[np.int64] | None = None):
        numbers = np.empty(0, np.int64) if numbers is None else numbers
        self._sorted = numbers if (numbers[1:] > numbers[:-1]).all() else np.unique(numbers)
        self._new: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new)

    def __contains__(self, number: Any) -> bool:
        if number in self._new:
            return True
        place = int(np.searchsorted(self._sorted, np.int64(number)))
        return place < len(self._sorted) and int(self._sorted[place]) == number

    def numbers(self) -> NDArray[np.int64]:
        """All of them, int64 [N], sorted."""
        if self._new:
            self._sorted = np.union1d(self._sorted, np.fromiter(self._new, np.int64, len(self._new)))
            self._new = set()
        return self._sorted

    def add(self, number: int) -> bool:
        """Whether it was not there yet."""
        if number in self:
            return False
        self._new.add(number)
        if len(self._new) > max(AT_MOST_NEW, len(self._sorted) // 8):
            self.numbers()
        return True


class Files:
    """Which picture each file was when it was read, in 16 bytes a file. pairs: int64 [N, 2], as `Answers.file`."""

    def __init__(self, pairs: NDArray[np.int64]):
        self._keys, first = np.unique(pairs[:, 0], return_index=True)
        self._images = pairs[first, 1]

    def image_id(self, key: int) -> int | None:
        place = int(np.searchsorted(self._keys, np.int64(key)))
        return int(self._images[place]) if place < len(self._keys) and self._keys[place] == key else None


class _Part(NamedTuple):
    """What a part tells without its answers. ids: int64 [N]; marks: int64 [M]; files: int64 [F, 2]; failed: int64 [E],
    images with an error."""

    ids: NDArray[np.int64]
    marks: NDArray[np.int64]
    files: NDArray[np.int64]
    failed: NDArray[np.int64]


# ---- phase one: any process ------------------------------------------------------------------------------------------


def stage(folder: str | os.PathLike, answers: Iterable[Answers]) -> Staged:
    """Write rows into `staging/` of an output folder; when this returns, the disk has them.

    Raises OSError, which says how to go on, where the disk is full; then nothing is left in `staging/`.
    """
    import pyarrow as pa

    answers = list(answers)
    rows = [row for each in answers for row in each.rows]
    table = pa.Table.from_pylist([to_record(row) for row in rows], schema())
    marks = np.array([mark for each in answers for mark in each.marks], np.int64)
    files = np.array([each.file for each in answers if each.file is not None], np.int64).reshape(-1, 2)
    return _staged(Path(folder), table, marks, files)


def _staged(folder: Path, table: pa.Table, marks: NDArray[np.int64], files: NDArray[np.int64]) -> Staged:
    metadata = {
        name: base64.b64encode(numbers.astype("<i8").tobytes())
        for name, numbers in ((MARKS, marks), (FILES, files))
        if len(numbers)
    }
    path = folder / STAGING / f"{part_name(table['id'].to_numpy(), marks)}.{uuid.uuid4().hex[:8]}.parquet"
    with telling(folder):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                _write_table(table.replace_schema_metadata(metadata or None), file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return Staged(str(path), table.num_rows)


def _write_table(table: pa.Table, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def part_name(ids: NDArray[np.int64], marks: NDArray[np.int64]) -> str:
    """Of the part with these rows and marks, in whatever order: 32 hexadecimal digits."""
    digest = hashlib.sha256(np.sort(ids).astype("<i8").tobytes())
    digest.update(np.sort(marks).astype("<i8").tobytes())
    return digest.hexdigest()[:32]


# ---- phase two: the process that holds the lock ----------------------------------------------------------------------


class Output:
    """An output folder in use by this process; made by `open_output`.

    done: ids of all rows and marks in `parts/`. files: that were read before this run. rows: how many there are.
    failed: images that had an error before this run. damaged: parts that were found damaged and moved away.
    news: what is asked beside what was asked before, as a line for people; "" where nothing is.
    """

    def __init__(
        self, folder: Path, done: Ids, files: Files, rows: int, failed: int, damaged: Sequence[Damage], news: str
    ):
        self.folder, self.done, self.files, self.rows, self.failed = folder, done, files, rows, failed
        self.damaged, self.news = tuple(damaged), news

    def sweep(self) -> None:
        """Empty `staging/`, once all is committed: what a worker staged before it died, another has done again."""
        _empty(self.folder / STAGING)

    def commit(self, staged: Staged) -> int:
        """Make staged rows part of the answers; returns how many are new.

        Rows that are there already, as when a worker was started twice for the same images, are left out. Committing a
        file a second time changes nothing.
        """
        path = Path(staged.path)
        if not path.is_file():
            return 0
        ids, marks = read_ids(path)
        known = np.fromiter((int(each) in self.done for each in ids), bool, len(ids))
        known_marks = np.fromiter((int(each) in self.done for each in marks), bool, len(marks))
        if (known.all() and known_marks.all()) or not len(ids) + len(marks):
            path.unlink()
            return 0
        if known.any() or known_marks.any() or len(np.unique(ids)) < len(ids):
            path = self._without(path, known, marks[~known_marks])
            ids, marks = read_ids(path)
        target = self.folder / PARTS / f"{part_name(ids, marks)}.parquet"
        with telling(self.folder):
            os.replace(path, target)
            _sync(target.parent)
        for each in (*ids.tolist(), *marks.tolist()):
            self.done.add(each)
        self.rows += len(ids)
        return len(ids)

    def _without(self, path: Path, known: NDArray[np.bool_], marks: NDArray[np.int64]) -> Path:
        """The file staged anew without the rows that are known and those that it has twice."""
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        _, first = np.unique(table["id"].to_numpy(), return_index=True)
        keep = np.zeros(len(known), bool)
        keep[first] = True
        anew = _staged(self.folder, table.filter(keep & ~known), marks, _read_part(path).files)
        path.unlink()
        return Path(anew.path)


@contextmanager
def open_output(folder: str | os.PathLike, asked: Mapping[str, Any]) -> Iterator[Output]:
    """Work in an output folder, alone, in a `with` statement.

    asked: what this run asks, as JSON has it, for the record.

    What is in `staging/` goes; parts that are damaged are moved to `damaged/`, and their rows are no longer done.
    Raises ValueError where another run works in the folder, where it is something else, and where its rows are of
    another version of the schema; OSError, which says how to go on, where it cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = Path(os.path.abspath(folder))
    refuse_long_name(folder, spare=0)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output {folder} is a file; it must be a folder, which is made if it is not there")
    if folder.is_dir() and not (folder / RECORD).is_file() and (others := _foreign(folder)):
        raise ValueError(f"output {folder} holds other things ({others[0]}) and no {RECORD}; give an empty folder")
    with telling(folder):
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        (folder / STAGING).mkdir(exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOCK_WAIT)
    except Timeout:
        raise ValueError(
            f"another run is working in {str(folder)!r}: wait for its end, or give this one another output"
        ) from None
    try:
        with telling(folder):
            news = _record(folder, asked)
            _empty(folder / STAGING)
        yield Output(folder, *_read_parts(folder), news)
    finally:
        lock.release()


def _empty(folder: Path) -> None:
    for left in folder.iterdir():
        left.unlink(missing_ok=True)


def part_files(folder: str | os.PathLike) -> list[Path]:
    """The committed files of an output folder, by name."""
    return sorted((Path(folder) / PARTS).glob("*.parquet"))


def read_ids(file: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ids of the rows of a part, and its marks. Raises ValueError where it is cut short or no such file."""
    return _read_part(file)[:2]


def _read_part(file: Path) -> _Part:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as part:
            if not part.schema_arrow.equals(schema()):
                raise ValueError("it has other columns than rows of answers")
            metadata = part.schema_arrow.metadata or {}
            marks, files = (np.frombuffer(base64.b64decode(metadata.get(name, b"")), "<i8") for name in (MARKS, FILES))
            rows = part.read(["id", "image_id", "error"])
            failed = np.unique(rows.filter(pc.not_equal(rows["error"], ""))["image_id"].to_numpy())
            return _Part(rows["id"].to_numpy(), marks, files.reshape(-1, 2), failed)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is damaged or cut short: {error}") from None


def _read_parts(folder: Path) -> tuple[Ids, Files, int, int, list[Damage]]:
    """What is done, which files were read, in how many rows, how many images have errors; damaged parts are moved
    away."""
    done, files, rows, damaged = [np.empty(0, np.int64)], [np.empty((0, 2), np.int64)], 0, []
    failed = [np.empty(0, np.int64)]
    for file in part_files(folder):
        try:
            part = _read_part(file)
            if part_name(part.ids, part.marks) != file.stem:
                raise ValueError("its rows are not those that its name tells")
        except ValueError as error:
            (folder / DAMAGED).mkdir(exist_ok=True)
            os.replace(file, target := folder / DAMAGED / file.name)
            damaged.append(Damage(target, str(error)))
            continue
        done += [part.ids, part.marks]
        files.append(part.files)
        failed.append(part.failed)
        rows += len(part.ids)
    failures = len(np.unique(np.concatenate(failed)))
    return Ids(np.concatenate(done)), Files(np.concatenate(files)), rows, failures, damaged


def _record(folder: Path, asked: Mapping[str, Any]) -> str:
    """Write what is asked into the record beside what was asked before. Returns what is new, as a line for people."""
    file = folder / RECORD
    before: list[Any] = []
    if file.is_file():
        record = read_json_object(file)
        if record.get("schema") != SCHEMA_VERSION or not isinstance(record.get("asked"), list):
            raise ValueError(
                f"{file} tells of rows of schema {record.get('schema')!r}; this version writes {SCHEMA_VERSION}: give "
                "another output"
            )
        before = record["asked"]
    if asked in before:
        return ""
    record = {"florence_lite": __version__, "schema": SCHEMA_VERSION, "asked": [*before, asked]}
    write_durably(file, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return f"{folder} holds answers to another run; those to this one are added" if before else ""


def _foreign(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name not in (PARTS, STAGING, DAMAGED, LOCK))


def write_durably(file: Path, text: str) -> None:
    """Write a text file in place of its predecessor at once, and have the disk keep it."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)
    _sync(file.parent)


def _sync(folder: Path) -> None:
    """Have the disk keep the names in a folder, where the system can be told so."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def telling(folder: Path) -> Iterator[None]:
    """An OSError of writing says how to go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"output {folder} cannot be written: {reason}; what is in {PARTS}/ is whole: make room and give the same "
            "command again",
        ) from error
