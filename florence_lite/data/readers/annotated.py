"""Answers of a checkpoint as annotations: a folder with `parts/*.parquet`, as `annotate` and `refine` write it.

Each row answers one question about one image (`florence_lite.data.rows`); `known` puts all answers about an image
together. Of several answers to the same question one counts: a person's, else the opinion that the run names first. The
images stay where they are; their names lead there, in or out of the folder.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from florence_lite.data.readers.files import choose_split
from florence_lite.data.readers.frames import ImageFrame, frame_of
from florence_lite.data.readers.known import Known
from florence_lite.data.readers.records import ProblemLog, finished
from florence_lite.data.rows import AnswerRow, ImageSource, from_record, int64_of, schema
from florence_lite.data.samples import Dataset
from florence_lite.data.sources import read_source
from florence_lite.files import read_json_object
from florence_lite.image_files import ImageSizes, image_sizes

NAME = "annotated"
LOOKS_FOR = "parts/*.parquet of annotate or refine"
ENDINGS, DEPTH = (".parquet",), 1
WITHIN = "!"  # between a file and the picture in it, in the names of `florence_lite.data.sources`
PARTS, RUN = "parts", "run.json"


def accepts(file: Path) -> bool:
    """Whether a file looks like one of this format."""
    return file.parent.name == PARTS


def read(files: Sequence[Path], root: Path, split: str | None, outside: bool = False) -> Dataset:
    """The data set that the files tell; see `florence_lite.data.read_dataset`. `outside` changes nothing: the images of
    such a folder always lie elsewhere."""
    folder = root.parent if root.name == PARTS else root
    log = ProblemLog(folder)
    sources, counts = _images(files)
    common = _common(sources.values())
    images_of = Counter(sources.values())
    wanted = set(images_of)
    if split is not None:
        places = [Path(source) for source in sorted(wanted)]
        wanted = set(map(str, choose_split(places, split, Path(common or "/"), "image", folders=True)))
    rows = []
    classes: dict[str, None] = {}
    for image_id, answers in _answers(files, counts, log, opinions_of(folder)):
        if (source := sources[image_id]) not in wanted:
            continue
        if images_of[source] > 1 and _is_replaced(image_id, source):
            log.add(folder, source, "image changed", "answers about what the file held before are left out")
        elif frame := _frame(answers[0].image, source, log, folder):
            rows.append((source, Known(frame).annotation(answers), source.removeprefix(f"{common}{os.sep}")))
            asked = (row.query.phrases or () for row in answers if row.query.task == "<OPEN_VOCABULARY_DETECTION>")
            classes |= dict.fromkeys(chain.from_iterable(asked))  # also those that no image shows
    rows.sort(key=lambda row: row[0])
    classes |= dict.fromkeys(item.label for _, annotation, _ in rows for item in annotation.objects if item.label)
    kept = _Pictures(tuple(source for source, _, _ in rows))
    return finished(rows, log, NAME, [f"{len(files)} parts, answers about {len(sources)} images"], classes, kept)


@dataclass(frozen=True)
class _Pictures(Sequence):
    """Files of images, or the bytes of those that lie in other files, read one at a time."""

    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Path | bytes:  # type: ignore[override]  # no slices: `Dataset` makes them
        source = self.sources[index]
        return Path(source) if _is_file(source) else read_source(source)


# ---- rows of one image -----------------------------------------------------------------------------------------------


def _images(files: Sequence[Path]) -> tuple[dict[int, str], Counter[int]]:
    """Of each image, by its id: the first source of it, and how many rows are about it."""
    sources: dict[int, str] = {}
    counts: Counter[int] = Counter()
    for file in files:
        for record in _records(file, ["image_id", "source"]):
            sources.setdefault(record["image_id"], record["source"])
            counts[record["image_id"]] += 1
    return sources, counts


def _answers(
    files: Sequence[Path], counts: Counter[int], log: ProblemLog, opinions: Sequence[tuple[str, str]]
) -> Iterator[tuple[int, list[AnswerRow]]]:
    """Each image with the answers about it, one to each question, as soon as all of its rows were read: those of an
    image are seldom in more than one part. What went wrong is reported. counts: of rows that are still to come."""
    waiting: dict[int, dict[tuple, AnswerRow]] = defaultdict(dict)
    seen: set[int] = set()
    for file in files:
        for record in _records(file):
            number = record["image_id"]
            counts[number] -= 1
            if record["id"] not in seen:  # parts may be copies of each other's rows
                seen.add(record["id"])
                _add(waiting[number], from_record(record), file, log, opinions)
            if not counts[number] and (found := waiting.pop(number, None)):
                yield number, list(found.values())


def _add(
    known: dict[tuple, AnswerRow], row: AnswerRow, file: Path, log: ProblemLog, opinions: Sequence[tuple[str, str]]
) -> None:
    """Put a row with those about the same image, unless there is a better one about the same question."""
    query, source = row.query, row.image.source
    question = (query.task, query.text, query.phrases, query.region)
    if row.result is None:
        return log.add(file, source, "no answer", f"{query.task}: {row.error}")
    if question in known:
        row, other = sorted((known[question], row), key=lambda each: _rank(each, opinions))
        said = f"{query.task}: that of {_who(row)} counts, not that of {_who(other)}"
        log.add(file, source, "another opinion left out", said)
    known[question] = row


def _records(file: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a part as dicts. Raises ValueError for a file that is none, ModuleNotFoundError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        remedy = "pip install 'florence-lite[annotate]'"
        raise ModuleNotFoundError(f"the package pyarrow is missing; {remedy}", name="pyarrow") from None
    try:
        with pq.ParquetFile(file) as part:
            if missing := sorted(set(schema().names) - set(part.schema_arrow.names) - {"verified"}):
                raise ValueError(f"it has no columns {', '.join(missing)}")
            for batch in part.iter_batches(1024, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file} is no part of annotate or refine: {error}") from None


def opinions_of(folder: Path) -> tuple[tuple[str, str], ...]:
    """Checkpoint and tag of the opinions that were asked for, the first first; () where nothing says it.

    Raises ValueError for a record of the run that is none.
    """
    file = folder / RUN
    run = read_json_object(file) if file.is_file() else {}
    try:
        listed = run.get("opinions") or [each for asked in run.get("asked", ()) for each in asked["checkpoints"]]
        return tuple(dict.fromkeys((each["checkpoint"], each["tag"]) for each in listed))
    except (TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{file} does not tell which checkpoints were asked, as annotate and refine write it"
        ) from None


def _rank(answer: AnswerRow, opinions: Sequence[tuple[str, str]]) -> tuple:
    """Smaller is better: a person's word, then the order of the run, then the untagged, then the one with the least
    said of decoding, then the surer."""
    query, result = answer.query, answer.result
    named = (query.checkpoint, query.tag)
    place = opinions.index(named) if named in opinions else len(opinions)
    scores = [item.score for item in result.instances if item.score is not None]
    sure = result.score if result.score is not None else sum(scores) / max(1, len(scores))
    said = len(query.decoding)
    return not answer.verified, place, query.tag, said, -sure, query.checkpoint, query.revision, query.decoding


def _who(answer: AnswerRow) -> str:
    query = answer.query
    return query.checkpoint + (f" ({query.tag})" if query.tag else "")


def _is_file(source: str) -> bool:
    """Whether an image is a file of its own, rather than a part of one."""
    return WITHIN not in source or os.path.isfile(source)


def _is_replaced(image_id: int, source: str) -> bool:
    """Whether a file holds another picture than the one that answers are about."""
    try:
        return os.path.isfile(source) and int64_of(read_source(source)) != image_id
    except ValueError:
        return False  # the frame tells


def _common(sources: Iterable[str]) -> str:
    """The folder that holds all images, "" where there is none."""
    folders = [os.path.dirname(source) for source in sources]
    return os.path.commonpath(folders) if folders and all(map(os.path.isabs, folders)) else ""


def _frame(image: ImageSource, source: str, log: ProblemLog, folder: Path) -> ImageFrame | None:
    """The frame of the image, None, reported, for one that is not there. Only files of their own are looked at; what
    lies in others is taken to be as it was."""
    sizes = ImageSizes(image.size_wh, image.size_wh)
    if not _is_file(source):
        within = [source[:at] for at, character in enumerate(source) if character == WITHIN]
        if os.path.isabs(source) and not any(map(os.path.isfile, within)):
            return log.add(folder, source, "image missing", f"there is no file {within[0]}")
    else:
        try:
            sizes = image_sizes(source)
        except FileNotFoundError as error:
            return log.add(folder, source, "image missing", str(error))
        except (ValueError, OSError) as error:
            return log.add(folder, source, "image unreadable", str(error))
        if sizes.upright == image.size_wh and os.path.getsize(source) != image.bytes:
            log.add(folder, source, "image changed", "the file has other bytes than when it was asked about")
    frame = frame_of(sizes, image.size_wh, log, folder, source)
    return frame and replace(frame, from_shares=True)
