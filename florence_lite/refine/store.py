"""Rows of a folder of parts, brought together image by image, and parts written of what is left; all in bounded memory.

Rows of an image may lie in any parts. They are first sorted into buckets by the image's number, which is as good as
random, so that each bucket fits into memory; the order of what is written depends on the rows alone, not on the parts
that they came in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from florence_lite.annotate.parts import part_name
from florence_lite.data.readers.annotated import PARTS, opinions_of
from florence_lite.data.rows import schema
from florence_lite.refine.judged import PERSON, ImageRows, JudgedRow, Opinion
from florence_lite.refine.stage import Found

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 8_000  # that are in memory together, as far as `MOST_BUCKETS` allows
MOST_BUCKETS = 256  # files that are open together
_OPINION = list(Opinion._fields)


class RowStore:
    """All rows of a folder that `annotate` or `refine` wrote, image by image, as often as they are asked for.

    folder: with `parts/*.parquet`. scratch: an empty folder for the buckets. found: what the rows hold; rows: how many
    there are.

    Raises FileNotFoundError where there is no such folder, ValueError where it holds no parts or rows, or parts of
    something else.
    """

    def __init__(self, folder: Path, scratch: Path):
        parts = parts_of(folder)
        self.found = Found(order=opinions_of(folder))
        self.rows = 0
        self._scratch = scratch
        self._bits = _bits(parts)
        self._sort(parts)
        if not self.rows:
            raise ValueError(f"{folder}: its {len(parts)} parts hold no rows; annotate some images first")

    def buckets(self) -> Iterator[list[ImageRows]]:
        """The images, some at a time, by their numbers."""
        import pyarrow as pa

        for file in sorted(self._scratch.iterdir()):
            with pa.OSFile(os.fspath(file)) as stream:
                records = pa.ipc.open_stream(stream).read_all().to_pylist()
            records.sort(key=lambda record: (record["image_id"], record["id"]))
            groups = groupby(records, key=lambda record: record["image_id"])
            yield [ImageRows([JudgedRow(record) for record in group]) for _, group in groups]

    def _sort(self, parts: list[Path]) -> None:
        """Write the rows into a file for each bucket, some thousand at a time."""
        import pyarrow as pa

        writers: dict[int, Any] = {}
        try:
            for table in _tables(_batches(parts), ROWS_AT_ONCE):
                self.rows += len(table)
                self._count(table)
                bucket = pa.array([_bucket(number, self._bits) for number in table["image_id"].to_pylist()], pa.int32())
                for number in bucket.unique().to_pylist():
                    if number not in writers:
                        writers[number] = pa.ipc.new_stream(
                            os.fspath(self._scratch / f"{number:04d}.arrow"), table.schema
                        )
                    writers[number].write_table(table.filter(pa.compute.equal(bucket, number)))
        finally:
            for writer in writers.values():
                writer.close()

    def _count(self, table: pa.Table) -> None:
        counts = table.group_by(["task", *_OPINION]).aggregate([("id", "count")])
        for each in counts.to_pylist():
            opinion = Opinion(*(each[name] for name in _OPINION))
            if opinion.checkpoint != PERSON:
                self.found.add(each["task"], opinion, each["id_count"])


def parts_of(folder: Path) -> list[Path]:
    """The files of rows in a folder. Raises FileNotFoundError or ValueError where there are none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; name the one that annotate wrote")
    parts = sorted((folder / PARTS).glob("*.parquet"))
    if not parts:
        raise ValueError(f"{folder} holds no {PARTS}/*.parquet, so it is no folder that annotate wrote")
    return parts


def image_columns(folder: Path) -> Iterator[dict[str, Any]]:
    """image_id, source, width and height of all rows, without the rest."""
    for batch in _batches(parts_of(folder), ["image_id", "source", "width", "height"]):
        yield from batch.to_pylist()


def write_part(folder: Path, records: list[dict[str, Any]], extra: Iterable[tuple[str, Any]] = ()) -> None:
    """A part of some rows, called by a digest of their ids as `annotate` does it; none where there are none. extra:
    columns beside the schema's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not records:
        return
    columns = schema()
    for name, kind in extra:
        columns = columns.append(pa.field(name, kind))
    numbers = [each["id"] for each in records] + [each["instance"] for each in records if each.get("instance")]
    name = part_name(np.array(numbers, np.int64), np.array([], np.int64))
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records, columns), folder / f"{name}.parquet", compression="zstd")


def _batches(parts: list[Path], columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of all parts in the columns of the schema. Raises ValueError, naming it, for a file that is no part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = pa.schema([schema().field(name) for name in columns or schema().names])
    for part in parts:
        try:
            with pq.ParquetFile(part) as file:
                if missing := set(wanted.names) - set(file.schema_arrow.names) - {"verified"}:
                    raise ValueError(f"it has no column {', '.join(sorted(missing))}")
                there = [name for name in wanted.names if name in file.schema_arrow.names]
                for batch in file.iter_batches(1024, columns=there):
                    columns_of = (
                        batch[field.name] if field.name in there else pa.nulls(len(batch)) for field in wanted
                    )
                    arrays = [column.cast(field.type) for column, field in zip(columns_of, wanted, strict=True)]
                    yield pa.RecordBatch.from_arrays(arrays, schema=wanted)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise ValueError(f"{part} is no part of annotate or refine: {error}; annotate it again") from None


def _tables(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The batches put together to at least so many rows."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= rows:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _bits(parts: list[Path]) -> int:
    """How many of the first bits of an image's number tell its bucket."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    for part in parts:
        try:
            rows += pq.read_metadata(part).num_rows
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{part} is no part of annotate or refine: {error}; annotate it again") from None
    bits = 0
    while rows >> bits > ROWS_AT_ONCE and 1 << bits < MOST_BUCKETS:
        bits += 1
    return bits


def _bucket(image_id: int, bits: int) -> int:
    """The place of a number among 2**bits equal ranges of int64."""
    return (image_id + (1 << 63)) >> (64 - bits)
