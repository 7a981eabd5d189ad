"""Folders of answers for tests, written as `annotate` writes them."""

from pathlib import Path

import numpy as np
from PIL import Image

from florence_lite.answers import Instance
from florence_lite.data.rows import AnswerRow, ImageSource, Query, int64_of, to_record
from florence_lite.refine.judged import ImageRows, JudgedRow
from florence_lite.refine.store import write_part
from florence_lite.results import Result

SIZE = (100, 80)


def picture(folder: Path, name: str, seed: int, size_wh: tuple[int, int] = SIZE) -> ImageSource:
    """A photo of coarse random patches, in a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size_wh, Image.Resampling.BICUBIC).save(path)
    content = path.read_bytes()
    return ImageSource(int64_of(content), str(path), size_wh, len(content))


def nowhere(name: str = "/photos/a.jpg") -> ImageSource:
    """A photo that is not there, for stages that look at none."""
    return ImageSource(int64_of(name.encode()), name, SIZE, 9)


def query(task: str = "<OD>", checkpoint: str = "teacher", tag: str = "", **more) -> Query:
    return Query(task, checkpoint, f"revision of {checkpoint}", tag=tag, **more)


def listed(image: ImageSource, *instances: Instance, ask: Query | None = None, **more) -> AnswerRow:
    """An answer that lists instances."""
    ask = ask or query()
    return AnswerRow(image, ask, Result(ask.task, image.size_wh, "", instances, **more), 0.01)


def said(image: ImageSource, words: str, task: str = "<CAPTION>", score: float | None = 0.9, **more) -> AnswerRow:
    """An answer in words; `more` are inputs of the question."""
    ask = query(task, **more)
    items = (Instance(words, box=ask.region, score=score),) if ask.region else ()
    return AnswerRow(image, ask, Result(task, image.size_wh, words, items, score=score), 0.01)


def failed(image: ImageSource, error: str = "it is no image", ask: Query | None = None) -> AnswerRow:
    return AnswerRow(ImageSource(image.image_id, image.source, (0, 0), image.bytes), ask or query(), None, 0.0, error)


def item(label: str, box=(10, 10, 50, 40), score: float | None = 0.9) -> Instance:
    return Instance(label, box=box, score=score)


def write_answers(folder: Path, rows: list[AnswerRow], per_part: int = 1000) -> Path:
    """A folder with parts of so many rows."""
    for first in range(0, len(rows), per_part):
        write_part(folder / "parts", [to_record(row) for row in rows[first : first + per_part]])
    return folder


def judged(stage, *rows: AnswerRow) -> list[JudgedRow]:
    """The rows of one image after a stage."""
    image = ImageRows([JudgedRow.of(row) for row in rows])
    stage.judge(image)
    return image.rows


def left(row: JudgedRow) -> list[str] | None:
    """Labels of what is left of a row; None where it was dropped as a whole."""
    return None if row.is_out else [item.label for item in row.left.values()]


def reasons(*rows: JudgedRow) -> list[str]:
    return [drop.reason for row in rows for drop in row.drops]
