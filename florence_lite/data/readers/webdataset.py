"""WebDataset: tars in which the files of a sample have one name, `key.jpg`, `key.json`, `key.txt`.

The JSON is our own schema (`florence_lite.data.readers.jsonl`), or tells a "caption"; a text is a caption. Source:
https://github.com/webdataset/webdataset. Pictures stay in their tars and are read one at a time.
"""

from __future__ import annotations

import itertools
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florence_lite.data.annotation import Annotation
from florence_lite.data.archives import forget_members
from florence_lite.data.readers import jsonl
from florence_lite.data.readers.files import IMAGE_ENDINGS, choose_split
from florence_lite.data.readers.frames import ImageFrame, frame_of
from florence_lite.data.readers.records import ProblemLog, Unclear, finished, label_of, size_of
from florence_lite.data.samples import Dataset
from florence_lite.image_files import image_sizes

NAME = "webdataset"
LOOKS_FOR = ".tar files of key.jpg beside key.json or key.txt"
ENDINGS, DEPTH = (".tar",), 1
_TEXTS = (".json", ".txt", ".caption")
_FIRST = 10  # files of a tar that are looked at to tell its format
_LONGEST = 2**24  # bytes of a text


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    names: list[str] = []
    with suppress(tarfile.TarError, OSError), tarfile.open(file, "r:") as tar:  # one that is cut short may be one, too
        for member in itertools.islice(tar, _FIRST):
            names.append(member.name.lower())
    keys = {ending: {_key(name)[0] for name in names if _key(name)[1] == ending} for ending in _TEXTS}
    images = {_key(name)[0] for name in names if name.endswith(IMAGE_ENDINGS)}
    return any(images & found for found in keys.values())


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    rows: list[tuple] = []
    places, described = [], []
    for file in choose_split(files, split, root, "tar"):
        before = len(rows)
        for entry in _entries(file, log):
            if row := _row(entry, file, log):
                places.append((file, *entry.image))
                rows.append((None, *row))
        described.append(f"{log.name(file)}: {len(rows) - before} images")
    return finished(rows, log, NAME, described, images=_Pictures(tuple(places)))


@dataclass
class _Entry:
    """The files of one sample. image: offset and size of the picture in the tar; header: its content, for its size."""

    key: str
    image: tuple[int, int] | None = None
    content: bytes = b""
    texts: dict[str, bytes] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def _entries(file: Path, log: ProblemLog) -> Iterator[_Entry]:
    """The samples of a tar in their order: files of one name that stand side by side. One of a name that is there
    before, and what cannot be read, is reported."""
    entry, seen = None, set()
    try:
        with tarfile.open(file, "r:") as tar:
            while (member := tar.next()) is not None:
                forget_members(tar)
                if not member.isfile() or os.path.basename(member.name).startswith("."):
                    continue
                key, ending = _key(member.name)
                if entry is None or entry.key != key:
                    if entry is not None:
                        yield entry
                    if key in seen:
                        log.add(file, key, "files of a sample apart", "they must stand side by side in the tar")
                    seen.add(key)
                    entry = _Entry(key)
                if ending.endswith(IMAGE_ENDINGS) and entry.image is None:
                    entry.image, entry.content = (member.offset_data, member.size), tar.extractfile(member).read()
                elif ending in _TEXTS and member.size <= _LONGEST:
                    entry.texts[ending] = tar.extractfile(member).read()
                else:
                    entry.others.append(ending)
            tar.fileobj.seek(tar.offset)
            if any(block := tar.fileobj.read(tarfile.BLOCKSIZE)) or not block:  # tarfile stops at damage in silence
                raise tarfile.ReadError("what follows is damaged, or there is no mark at its end")
    except (tarfile.TarError, OSError) as error:
        entry = log.add(file, "tar", "tar damaged or cut short", f"{error}; its last sample is left out; copy it again")
    if entry is not None:
        yield entry


def _key(name: str) -> tuple[str, str]:
    """What files of a sample share of their names, up to the first dot behind the folder; and their ending."""
    folder, base = os.path.split(name)
    stem, dot, ending = base.partition(".")
    return os.path.join(folder, stem), (dot + ending).lower()


def _row(entry: _Entry, file: Path, log: ProblemLog) -> tuple[Annotation, str] | None:
    if entry.image is None:
        there = ", ".join([*entry.texts, *entry.others])
        return log.add(file, entry.key, "image missing", f"it has no picture, only {there}")
    try:
        sizes = image_sizes(entry.content)
    except (ValueError, OSError) as error:
        return log.add(file, entry.key, "image unreadable", str(error))
    if entry.others:
        log.add(file, entry.key, "file passed over", f"{', '.join(entry.others)} is not read")
    try:
        texts = {ending: _decoded(content) for ending, content in entry.texts.items()}
        record = _record(texts[".json"]) if ".json" in texts else {}
        size = record.get("size_wh")
        declared = size_of(*size) if isinstance(size, list) and len(size) == 2 else None
        frame = frame_of(sizes, declared, log, file, entry.key)
        return None if frame is None else (_annotation(record, texts, frame), entry.key)
    except Unclear as error:
        return log.add(file, entry.key, "record left out", str(error))


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unclear(f"a text of it is no UTF-8 ({error})") from None


def _record(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unclear(f"its JSON is none: {error}") from None
    if not isinstance(record, dict):
        raise Unclear(f"its JSON is a {type(record).__name__}, not an object")
    return record


def _annotation(record: dict[str, Any], texts: dict[str, str], frame: ImageFrame) -> Annotation:
    """What our own schema says; of another, and of a text, the caption."""
    if set(record) & jsonl.SAYS:
        return jsonl.annotation_of(record, frame)
    caption = label_of(record.get("caption")) or label_of(texts.get(".txt")) or label_of(texts.get(".caption"))
    return frame.annotation((), captions=(caption,) if caption else ())


@dataclass(frozen=True)
class _Pictures(Sequence):
    """The bytes of pictures in tars, read one at a time. places: file, offset and size of each."""

    places: tuple[tuple[Path, int, int], ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # no slices: `Dataset` makes them
        file, offset, size = self.places[index]
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)
