"""Images wherever they lie, listed one by one, each with a name by which it can be read back.

| source | pictures | their names |
|---|---|---|
| a folder | its image files, further down too; of a folder without any, its tars and parquet files | path |
| a pattern | of what matches `photos/**/*.jpg` or `shards-{000..099}.tar` | |
| a list | what a text file (`LISTS`) names, one a line; relative paths lead from its folder | |
| a tar | its members that end like images, as in WebDataset | `PATH.tar!member` |
| a parquet file | the bytes of images, or their paths, in one of its columns | `PATH.parquet!row/column`, or the path |
| `datasets:NAME` | the package loads, from the Hugging Face Hub or a folder | `datasets:NAME!split/row/column` |
| a folder | that `save_to_disk` of `datasets` wrote | the same |

No more than the names in one folder is in memory at a time, and no tar or parquet file as a whole. What cannot be
listed further on is listed with its error: one folder or archive among thousands shall not end a run.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

from florence_lite.data.archives import BROKEN, members, read_member, read_piece
from florence_lite.data.tables import (
    HUGGING_FACE,
    Cell,
    data_set_cell,
    data_set_name,
    data_set_places,
    image_column,
    is_saved,
    open_parquet,
    parquet_cell,
    parquet_cells,
    splits_of,
)
from florence_lite.image_files import is_image_name

LISTS = (".txt", ".lst", ".list")
TARS = (".tar", ".tar.gz", ".tgz")
PARQUET = ".parquet"
SETTLED = 2.0  # seconds after which a change of a file has another time
Sources = str | os.PathLike | Sequence[str | os.PathLike]

_SEQUENCE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WITHIN = re.compile(r"(.*?\.(?:tar|tar\.gz|tgz|parquet))!(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class ListedImage:
    """A picture that a source lists; it can be sent to another process.

    name: by which `read_source` reads it back, always UTF-8.
    tar, offset, size: the file that holds it and where; "" for what lies elsewhere.
    content: its bytes, where listing had to read them.
    error: why it, or what should hold pictures, cannot be read; "" otherwise.
    """

    name: str
    tar: str = ""
    offset: int = 0
    size: int = 0
    content: bytes | None = None
    error: str = ""

    def read(self) -> bytes:
        """The encoded picture; raises as `read_source`."""
        if self.error:
            raise ValueError(self.error)
        if self.content is not None:
            return self.content
        return read_piece(self.tar, self.offset, self.size, self.name) if self.tar else read_source(self.name)

    def stamp(self) -> str | None:
        """Name, size and time of change of the file that is to be read: as long as these are the same, so are the
        bytes. None where reading is no work, or the file was changed just now and may be again within its clock's tick.
        """
        file = self.tar or self.name
        if self.error or self.content is not None or not os.path.isfile(file):
            return None
        status = os.stat(file)
        if status.st_mtime > time.time() - SETTLED:
            return None
        return f"{self.name} {self.offset} {self.size} {status.st_size} {status.st_mtime_ns}"


def list_images(sources: Sources, column: str | None = None) -> Iterator[ListedImage]:
    """The pictures of one or several sources, in the order of their names within each folder.

    column: of parquet files and data sets of Hugging Face, which holds the images; recognised where it is None.

    Raises, at once, FileNotFoundError for a source that is not there and ValueError for one that is of no known kind,
    cannot be opened or has no such column, and where a column is given but no source has columns; at the end,
    ValueError where nothing at all was listed.
    """
    sources = _as_list(sources)
    listed = [_source(each, column) for each in sources]
    if column is not None and not any(map(_has_columns, sources)):
        raise ValueError(
            f"column is {column!r}, but {', '.join(sources)} has no columns, which parquet files and data sets of "
            "Hugging Face have; leave it out, or name such files (of a folder with images no others are read)"
        )
    return _some(chain.from_iterable(listed), sources)


def count_images(sources: Sources, column: str | None = None) -> int:
    """How many pictures `list_images` lists; of parquet files their rows, without reading those. Raises as it does."""
    total = 0
    for source in _as_list(sources):
        if source.startswith(HUGGING_FACE) or is_saved(source):
            total += sum(len(rows) for rows in splits_of(data_set_name(source)).values())
        elif source.lower().endswith(PARQUET) and os.path.isfile(source):
            total += open_parquet(source).metadata.num_rows
        else:
            total += sum(1 for _ in _source(source, column))
    return total


def read_source(name: str) -> bytes:
    """The encoded picture of a name that `list_images` gave.

    A member of a tar is found in an index of it, a row of a parquet file by reading its row group up to there.
    Raises FileNotFoundError where it is not there any more, and ValueError where it cannot be read; both name it.
    """
    if name.startswith(HUGGING_FACE):
        dataset, _, place = name.removeprefix(HUGGING_FACE).rpartition("!")
        return _cell(data_set_cell(dataset, place), name, dataset if os.path.isdir(dataset) else "").read()
    if within := _WITHIN.fullmatch(name):
        file, place = within.groups()
        if not os.path.isfile(file):
            raise FileNotFoundError(f"image {name} cannot be read: there is no file {file}")
        if file.lower().endswith(PARQUET):
            return _cell(parquet_cell(file, place, name), name, os.path.dirname(file)).read()
        return read_member(file, place, name)
    try:
        if os.path.exists(name) and not os.path.isfile(name):
            raise ValueError(f"image {name} is a folder or device, not a file")
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"image {name} does not exist") from None
    except OSError as error:
        raise ValueError(f"image {name} cannot be read: {error.strerror or error}") from error


# ---- kinds of sources ------------------------------------------------------------------------------------------------


def _as_list(sources: Sources) -> list[str]:
    several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not several:
        raise ValueError("there is no source; give a folder, a pattern, a list, tars or parquet files of images")
    return [os.fspath(each) for each in several]


def _some(images: Iterator[ListedImage], sources: Sequence[str]) -> Iterator[ListedImage]:
    """The images; ValueError at the end where there was none."""
    none = True
    for image in images:
        none = False
        yield image
    if none:
        raise ValueError(
            f"source {', '.join(sources)} holds no images: no file that ends like one (.jpg, .png …), no such member "
            "of a tar, no row"
        )


def _source(source: str, column: str | None) -> Iterator[ListedImage]:
    """The images of one source. What is wrong with the source itself is raised here, not while it is listed."""
    if source.startswith(HUGGING_FACE) or is_saved(source):
        name = data_set_name(source)
        return (ListedImage(f"{HUGGING_FACE}{name}!{place}") for place in data_set_places(name, column))
    if os.path.isdir(source):
        folder = os.path.abspath(source)
        try:
            os.scandir(folder).close()
        except OSError as error:
            raise ValueError(f"folder {source} cannot be read: {error.strerror}; give yourself the rights") from None
        return _folder(folder, column)
    if os.path.lexists(source):
        if source.lower().endswith(PARQUET):
            image_column(open_parquet(source), column, source)
        elif source.lower().endswith(LISTS):
            _check_start(source)
            return _list(os.path.abspath(source))
        elif not source.lower().endswith(TARS) and not is_image_name(source):
            raise ValueError(
                f"source {source} is of no known kind; give a folder, an image, a pattern in quotes, a list of paths "
                f"({', '.join(LISTS)}), a tar ({', '.join(TARS)}) or a parquet file ({PARQUET})"
            )
        return _file(os.path.abspath(source), column)
    if _SEQUENCE.search(source) or glob.has_magic(source):
        matching = _matching(source)
        if (first := next(matching, None)) is None:
            raise FileNotFoundError(f"no file matches {source}")
        return chain.from_iterable(_file(os.path.abspath(each), column) for each in chain([first], matching))
    like_name = re.fullmatch(r"[\w-]+(/[\w.-]+)?", source)
    hint = f"; a data set of the Hugging Face Hub is written {HUGGING_FACE}{source}" if like_name else ""
    raise FileNotFoundError(
        f"source {source} does not exist (looked in {os.path.dirname(os.path.abspath(source))}){hint}"
    )


def _has_columns(source: str) -> bool:
    """Whether a source that is there is, or holds, a table in which a column is looked for."""
    if source.startswith(HUGGING_FACE) or is_saved(source):
        return True
    if os.path.isdir(source):
        folder = os.path.abspath(source)
        return not _holds(folder, is_image_name) and _holds(folder, _is_parquet)
    return any(map(_is_parquet, [source] if os.path.lexists(source) else _matching(source)))


def _holds(folder: str, wanted: Callable[[str], bool]) -> bool:
    return any(isinstance(each, str) for each in _walk(folder, wanted, set()))


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(PARQUET)


def _file(path: str, column: str | None) -> Iterator[ListedImage]:
    """What a file of any kind holds; nothing for one of no kind."""
    if not _is_text(path):
        escaped = path.encode(errors="backslashreplace").decode()
        return iter([ListedImage(escaped, error=f"image {escaped} has a name that is no UTF-8; rename it")])
    if path.lower().endswith(TARS):
        return _tar(path)
    if path.lower().endswith(PARQUET):
        return _parquet(path, column)
    return iter([ListedImage(path)] if is_image_name(path) else [])


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _folder(folder: str, column: str | None) -> Iterator[ListedImage]:
    none = True
    for each in _walk(folder, is_image_name, set()):
        none = none and isinstance(each, ListedImage)
        yield from [each] if isinstance(each, ListedImage) else _file(each, column)
    if none:
        for each in _walk(folder, lambda name: name.lower().endswith((*TARS, PARQUET)), set()):
            yield from () if isinstance(each, ListedImage) else _file(each, column)


def _walk(folder: str, wanted: Any, seen: set[tuple[int, int]]) -> Iterator[str | ListedImage]:
    """The paths of wanted files in a folder and those within it, and the folders that cannot be read. Hidden files and
    folders are left out, as is what the data engine wrote. seen: folders that were visited, for links lead in circles.
    """
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            names = sorted((entry.is_dir(), entry.name) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        shown = folder.encode(errors="backslashreplace").decode()
        yield ListedImage(shown, error=f"folder {shown} cannot be read: {error.strerror}")
        return
    if (True, "parts") in names and (False, "run.json") in names:
        return
    for is_folder, name in names:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _walk(path, wanted, seen)
        elif wanted(name):
            yield path


def _matching(pattern: str) -> Iterator[str]:
    """The files that match, sorted within each folder; {000..099} stands for each of the numbers."""
    if sequence := _SEQUENCE.search(pattern):
        first, last = sequence.groups()
        for number in range(int(first), int(last) + 1):
            rest = f"{number:0{len(first)}d}{pattern[sequence.end() :]}"
            yield from _matching(pattern[: sequence.start()] + rest)
    elif not glob.has_magic(pattern):
        if not os.path.isfile(pattern):
            raise FileNotFoundError(f"{pattern} does not exist, which a source names by {{…}}")
        yield pattern
    else:
        for _, files in groupby(glob.iglob(pattern, recursive=True), key=os.path.dirname):
            yield from (file for file in sorted(files) if os.path.isfile(file))


def _check_start(path: str) -> None:
    """ValueError for a list whose first path leads to an image from the working folder, but not from its own."""
    with open(path, "rb") as file:
        first = file.readline().decode("utf-8-sig", errors="replace").strip()
    folder = os.path.dirname(os.path.abspath(path))
    if first and os.path.isfile(first) and not os.path.exists(os.path.join(folder, first)):
        raise ValueError(
            f"list {path}: {first} is there from the working folder, but relative paths of a list lead from the list's "
            f"own folder, {folder}; write absolute paths, or the list where they lead from"
        )


def _list(path: str) -> Iterator[ListedImage]:
    """What the lines of a text file name; a name that is not there is found out when it is read."""
    folder = os.path.dirname(path)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                name = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                error = f"line {number} of {path} is no UTF-8; write the list in it"
                yield ListedImage(f"{path}: line {number}", error=error)
                continue
            if name:
                yield ListedImage(
                    name if name.startswith(HUGGING_FACE) else os.path.normpath(os.path.join(folder, name))
                )


def _tar(path: str) -> Iterator[ListedImage]:
    """The images in a tar, and an error at its end where it is cut short."""
    try:
        for member, content in members(path):
            if is_image_name(member.name) and not os.path.basename(member.name).startswith("."):
                name = f"{path}!{member.name}"
                if not _is_text(name):
                    yield ListedImage(
                        escaped := name.encode(errors="backslashreplace").decode(),
                        error=(f"image {escaped} has a name that is no UTF-8; rename it"),
                    )
                elif content is None:
                    yield ListedImage(name, path, member.offset_data, member.size)
                else:
                    yield ListedImage(name, content=content())
    except BROKEN as error:
        yield ListedImage(path, error=f"tar {path} is damaged or cut short: {error}; copy it again")


def _parquet(path: str, column: str | None) -> Iterator[ListedImage]:
    """The images of a parquet file, and an error where it cannot be read on."""
    place = "its beginning"
    try:
        for place, value in parquet_cells(path, column):
            yield _cell(value, f"{path}!{place}", os.path.dirname(path))
    except (ValueError, OSError) as error:
        yield ListedImage(path, error=f"parquet file {path} cannot be read behind {place}: {error}")


def _cell(value: Cell, name: str, folder: str) -> ListedImage:
    """A picture from the value of a table's cell; paths lead from the folder."""
    if isinstance(value, str):
        return ListedImage(os.path.normpath(os.path.join(folder, value)))
    return ListedImage(name, content=value) if value is not None else ListedImage(name, error=f"image {name} is null")
