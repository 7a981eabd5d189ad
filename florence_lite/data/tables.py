"""Pictures in the rows of tables: parquet files, and data sets of Hugging Face. No table is in memory as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

HUGGING_FACE = "datasets:"
# What columns of images are called, the likeliest first.
_PICTURES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content")
COLUMNS = (*_PICTURES, "path", "image_path", "file_name", "filename", "file", "filepath")
ROWS_AT_ONCE = 16  # of a parquet file that are in memory
BLOCK = 2**20  # bytes of it that are read at a time

Cell = bytes | str | None
"""The bytes of a picture, its path, or nothing."""

# ---- parquet ---------------------------------------------------------------------------------------------------------


def open_parquet(path: str) -> pq.ParquetFile:
    """ValueError for what is no whole parquet file, and where pyarrow is missing."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise ValueError(f"{path} needs the package pyarrow: pip install 'florence-lite[annotate]'") from None
    try:
        return pq.ParquetFile(path, buffer_size=BLOCK, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is no parquet file, or damaged or cut short ({error}); copy it again") from None


def image_column(file: pq.ParquetFile, column: str | None, path: str) -> str:
    """The column that holds images; ValueError where there is none or it is not clear."""
    import pyarrow as pa

    schema = file.schema_arrow

    def holds_images(kind: pa.DataType) -> bool:
        is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        return (
            is_bytes or pa.types.is_struct(kind) and any(kind.field(n).name == "bytes" for n in range(kind.num_fields))
        )

    def holds_paths(kind: pa.DataType) -> bool:
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)

    there = f"its columns are {', '.join(f'{field.name} ({field.type})' for field in schema)}"
    fitting = [field.name for field in schema if holds_images(field.type)]
    if column is not None:
        if column not in schema.names:
            raise ValueError(f"{path} has no column {column!r}; {there}")
        if column not in fitting and not holds_paths(schema.field(column).type):
            raise ValueError(f"column {column!r} of {path} holds neither bytes nor paths of images; {there}")
        return column
    if len(fitting) != 1:
        among = fitting or [field.name for field in schema if holds_paths(field.type)]
        fitting = [name for name in COLUMNS if name in among][:1]
    if not fitting:
        raise ValueError(f'{path} has no column that is known to hold images; name it with column="…": {there}')
    return fitting[0]


def parquet_cells(path: str, column: str | None) -> Iterator[tuple[str, Cell]]:
    """Place, "row/column", and value of each picture of a parquet file, a few rows of which are in memory.

    Raises ValueError or OSError where it cannot be read on.
    """
    number = 0
    with open_parquet(path) as file:
        column = image_column(file, column, path)
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield f"{number}/{column}", picture_of(value)
                number += 1


def parquet_cell(path: str, place: str, name: str) -> Cell:
    """A value of a parquet file by its place; its row group is read up to there. `name` is what errors call it."""
    number, _, column = place.partition("/")
    with open_parquet(path) as file:
        if not number.isdecimal() or column not in file.schema_arrow.names:
            raise FileNotFoundError(f"image {name} does not exist: the parquet file has no such column or row")
        left = int(number)
        for group in range(file.metadata.num_row_groups):
            if left < (rows := file.metadata.row_group(group).num_rows):
                break
            left -= rows
        else:
            raise FileNotFoundError(f"image {name} does not exist: {path} has {file.metadata.num_rows} rows")
        try:
            for batch in file.iter_batches(ROWS_AT_ONCE, [group], columns=[column]):
                if left < batch.num_rows:
                    return picture_of(batch.column(0)[left].as_py())
                left -= batch.num_rows
        except OSError as error:
            raise ValueError(f"image {name} cannot be read: {error}") from None
    raise ValueError(f"image {name} cannot be read: {path} is damaged")


def picture_of(value: Any) -> Cell:
    """Bytes or path of a picture, from either or from the structure of both that `datasets` writes."""
    if isinstance(value, dict):
        return value["bytes"] if value.get("bytes") is not None else value.get("path")
    return value


# ---- data sets of Hugging Face ---------------------------------------------------------------------------------------


def is_saved(source: str) -> bool:
    """Whether `save_to_disk` of `datasets` wrote the folder."""
    return any(os.path.isfile(os.path.join(source, name)) for name in ("state.json", "dataset_dict.json"))


def data_set_name(source: str) -> str:
    """Of a data set: its id, or the absolute path of its folder."""
    name = source.removeprefix(HUGGING_FACE)
    name = os.path.abspath(name) if os.path.exists(name) else name
    if not name:
        raise ValueError(f"source {source!r} names no data set; write {HUGGING_FACE}NAME")
    return name


@lru_cache(maxsize=2)
def splits_of(name: str) -> dict[str, Any]:
    """The splits of a data set, `datasets.Dataset`s that are mapped from disk."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise ValueError(
            f"{HUGGING_FACE}{name} needs the package datasets: pip install 'florence-lite[train]'"
        ) from None
    try:
        loaded = datasets.load_from_disk(name) if is_saved(name) else datasets.load_dataset(name)
    except Exception as error:  # of the Hub, of builders, of files
        raise ValueError(f"data set {HUGGING_FACE}{name} cannot be loaded: {error}") from None
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"rows": loaded}


@lru_cache(maxsize=8)
def _image_rows(name: str, split: str, column: str | None) -> tuple[Any, str]:
    """A split with nothing but its column of images, undecoded, and the column's name."""
    import datasets

    rows = splits_of(name)[split]
    features = rows.features
    pictures = [each for each, feature in features.items() if isinstance(feature, datasets.Image)]
    if column is None:
        among = pictures or [each for each in COLUMNS if each in features]
        column = next((each for each in COLUMNS if each in among), among[0] if among else None)
    if column not in features:
        problem = "no column that is known to hold images" if column is None else f"no column {column!r}"
        raise ValueError(f"{HUGGING_FACE}{name} has {problem}; its columns are {', '.join(features)}")
    rows = rows.select_columns([column])
    return rows.cast_column(column, datasets.Image(decode=False)) if column in pictures else rows, column


def data_set_places(name: str, column: str | None) -> Iterator[str]:
    """ "split/row/column" of each picture of a data set. Raises ValueError, at once, where it has no such column."""
    columns = {split: _image_rows(name, split, column) for split in splits_of(name)}
    return (f"{split}/{row}/{held}" for split, (rows, held) in columns.items() for row in range(len(rows)))


def data_set_cell(name: str, place: str) -> Cell:
    """A value of a data set by its place. Raises FileNotFoundError where there is none."""
    what = f"image {HUGGING_FACE}{name}!{place}"
    split, _, rest = place.partition("/")
    number, _, column = rest.partition("/")
    if split not in splits_of(name) or not number.isdecimal():
        raise FileNotFoundError(f"{what} does not exist: the data set has no such split or row")
    rows, column = _image_rows(name, split, column)
    if int(number) >= len(rows):
        raise FileNotFoundError(f"{what} does not exist: the split has {len(rows)} rows")
    return picture_of(rows[int(number)][column])
