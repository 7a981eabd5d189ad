"""WebDataset (https://github.com/webdataset/webdataset): tars of `key.jpg`, `key.json` and, with a caption, `key.txt`.

The JSON is our own schema (`florence_lite.data.readers.jsonl`) without the image's name and says everything; the text
is the first caption, for those that read no more. `SHARD_BYTES` of pictures make a tar, which is readable in order.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from florence_lite.data.archives import forget_members
from florence_lite.data.samples import Dataset
from florence_lite.data.writers.jsonl import annotation_record
from florence_lite.data.writers.output import PARTS, Output

FORMATS = {"webdataset": frozenset(PARTS)}
SHARD_BYTES = 2**28


def write(splits: Mapping[str, Dataset], output: Output) -> None:
    """`shard-000000.tar` and so on, or `train-000000.tar` of a split."""
    output.without_dots = True
    for split, dataset in splits.items():
        with _shards(output.folder, split or "shard") as shards:
            for key, picture, annotation in output.samples(dataset):
                content = picture.read()
                record = json.dumps(annotation_record(annotation), ensure_ascii=False).encode()
                shards.add(f"{key}{picture.ending.lower()}", content, begins=True)
                shards.add(f"{key}.json", record)
                if words := next((each for each in annotation.captions if each), ""):
                    shards.add(f"{key}.txt", words.encode())


class _Shards:
    """The tars of a split, one after the other."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name, self.number, self.bytes = folder, name, 0, 0
        self.tar: tarfile.TarFile | None = None

    def add(self, name: str, content: bytes, begins: bool = False) -> None:
        """A file of a sample. begins: whether it is the first of its sample; only there a new tar may begin."""
        if self.tar is None or (begins and self.bytes >= SHARD_BYTES):
            self.close()
            file = self.folder / f"{self.name}-{self.number:06d}.tar"
            self.tar = tarfile.open(file, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  closed below
            self.number, self.bytes = self.number + 1, 0
        member = tarfile.TarInfo(name)  # of 1970, so that the same data are the same bytes
        member.size = len(content)
        self.tar.addfile(member, io.BytesIO(content))
        forget_members(self.tar)
        self.bytes += len(content)

    def close(self) -> None:
        if self.tar is not None:
            self.tar.close()


@contextmanager
def _shards(folder: Path, name: str) -> Iterator[_Shards]:
    shards = _Shards(folder, name)
    try:
        yield shards
    finally:
        shards.close()
