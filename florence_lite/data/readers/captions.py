"""A text beside each picture, `a.jpg` and `a.txt` (or `a.caption`).

So do trainers of adapters for image generators have it. The text is the image's caption; lines are put together. Texts
that begin like the labels of another format are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from florence_lite.data.readers.files import IMAGE_ENDINGS, beginning, choose_split, files_below
from florence_lite.data.readers.images import Images
from florence_lite.data.readers.records import ProblemLog, finished
from florence_lite.data.samples import Dataset
from florence_lite.files import read_text

NAME = "captions"
LOOKS_FOR = ".txt files of words, each called like the image beside it"
ENDINGS, DEPTH = (".txt", ".caption"), 3
_ENDINGS = tuple(ending for each in IMAGE_ENDINGS for ending in (each, each.upper()))


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    return _is_prose(beginning(file, 4096)) and _image(file) is not None


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`."""
    log = ProblemLog(root)
    images = Images(root, log)
    rows, captioned = [], set()
    files = choose_split(files, split, root, "text file", folders=True)
    for file in files:
        path = _image(file)
        frame = images.frame(path, None, file, path.name)
        if path in captioned:
            log.add(file, path.name, "another opinion left out", "it has a text of another ending; that counts")
        elif frame is not None:
            try:
                words = " ".join(read_text(file).split())
            except ValueError as error:
                log.add(file, path.name, "record left out", str(error))
                continue
            rows.append((path, frame.annotation((), captions=(words,)), log.name(path)))
            captioned.add(path)
    folders = {file.parent for file in files}
    bare = [
        path for folder in sorted(folders) for path in files_below(folder, IMAGE_ENDINGS, 0) if path not in captioned
    ]
    if bare:
        said = f"{len(bare)} images without a text, such as {bare[0].name}; left out"
        log.add(root, "images", "images without captions", said)
    return finished(rows, log, NAME, [f"{len(files)} texts beside images"])


def _image(file: Path) -> Path | None:
    """The picture beside a text, or None."""
    places = (file.with_name(file.stem + ending) for ending in _ENDINGS)
    return next((path for path in places if path.is_file()), None)


def _is_prose(text: str) -> bool:
    """Whether a text is words, rather than numbers of places or JSON."""
    words = text.replace(",", " ").replace("\t", " ").split()
    numbers = [word for word in words[:5] if _is_number(word)]
    return bool(words) and len(numbers) < 4 and not text.lstrip().startswith(("{", "[", "<?xml"))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
