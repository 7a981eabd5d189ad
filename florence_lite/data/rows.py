"""Answers of a checkpoint as rows of a table: one for each image and question, in parquet files of one schema.

A row is a `Result` with what was asked, about which image, and by whom. What writes rows and what filters them share
this schema; `florence_lite.data.read_dataset` makes annotations of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from florence_lite.answers import Box, Instance
from florence_lite.geometry import mask_to_rle, rasterize
from florence_lite.results import Result

if TYPE_CHECKING:
    import pyarrow as pa


SCHEMA_VERSION = 1  # of the columns and their meaning; folders of another one are not written to


@dataclass(frozen=True)
class ImageSource:
    """Where an image came from.

    image_id: int64, from the SHA-256 of the file's bytes: the same picture has the same number wherever it lies.
    source: path of the file; of a picture in a tar or parquet file that file's path and the place in it, as
        `florence_lite.data.sources` writes and reads it.
    size_wh: width and height of the upright picture in pixels; (0, 0) where it could not be read.
    bytes: of the encoded picture.
    """

    image_id: int
    source: str
    size_wh: tuple[int, int]
    bytes: int


@dataclass(frozen=True)
class Query:
    """What is asked about every image, by whom and how.

    task: marker of a task card, or a free prompt. text, phrases, region: its input, None where it takes none.
    checkpoint: as it was named; revision: what tells its weights apart, a digest or a commit.
    decoding: options that differ from the card's, as JSON with sorted keys; "{}" for none.
    tag: tells a second opinion of the same checkpoint from the first; "" for the only one.
    """

    task: str
    checkpoint: str
    revision: str
    text: str | None = None
    phrases: tuple[str, ...] | None = None
    region: Box | None = None
    decoding: str = "{}"
    tag: str = ""

    def row_id(self, image_id: int) -> int:
        """int64 identity of the answer about an image: who is asked the same again has the same row.

        The checkpoint counts by its revision: under another name it is the same.
        """
        parts = [image_id, self.task, self.text, self.phrases, self.region, self.revision, self.decoding, self.tag]
        return int64_of(json.dumps(parts, ensure_ascii=False).encode())


@dataclass(frozen=True)
class AnswerRow:
    """An answer, or why there is none.

    result: without its picture and ids; None where error says why.
    seconds: share of the run's time.
    verified: it is known to be right and to name all that was asked for, because a person corrected it or said that
        empty answers are to be believed. Only then does an answer without instances say that there are none.
    """

    image: ImageSource
    query: Query
    result: Result | None
    seconds: float = 0.0
    error: str = ""
    verified: bool = False

    @property
    def id(self) -> int:
        return self.query.row_id(self.image.image_id)


def int64_of(content: bytes) -> int:
    """The first eight bytes of the SHA-256 of some content, as a signed number."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)


def schema() -> pa.Schema:
    """The columns of a row. Coordinates are pixels of the upright picture; what does not apply is null.

    | column | type | |
    |---|---|---|
    | id | int64 | image, task and inputs, checkpoint and decoding: the identity of the row |
    | image_id | int64 | from the SHA-256 of the encoded picture |
    | source, width, height, bytes | string, int32, int32, int64 | `ImageSource` |
    | task, text_input, phrases, region | string, string, list, list | `Query` |
    | text, score | string, double | `Result` |
    | instances | list of structs | label, score, box [4], quad [8], polygons (rings of x, y, x, y, …), rle |
    | presence, choices | maps of string to double | `Result` |
    | absent | list of strings | `Result` |
    | parse_errors, truncated, dropped, foreign | int32, bool, int32, bool | `Result` |
    | seconds | double | `AnswerRow` |
    | error | string | why there is no answer; "" where there is one |
    | verified | bool | `AnswerRow`; null as false, as in rows written before there was the column |
    | checkpoint, revision, decoding, tag | string | `Query` |

    rle: COCO's run lengths, {"size": [height, width], "counts": […]}, of a shape of several rings, which its lists of
    polygons cannot say.
    """
    import pyarrow as pa

    number, word = pa.float64(), pa.string()
    rle = pa.struct([(name, pa.list_(pa.int32())) for name in ("size", "counts")])
    places = [("box", pa.list_(number)), ("quad", pa.list_(number)), ("polygons", pa.list_(pa.list_(number)))]
    instance = pa.struct([("label", word), ("score", number), *places, ("rle", rle)])
    return pa.schema(
        [
            ("id", pa.int64()),
            ("image_id", pa.int64()),
            ("source", word),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("bytes", pa.int64()),
            ("task", word),
            ("text_input", word),
            ("phrases", pa.list_(word)),
            ("region", pa.list_(number)),
            ("text", word),
            ("score", number),
            ("instances", pa.list_(instance)),
            ("presence", pa.map_(word, number)),
            ("choices", pa.map_(word, number)),
            ("absent", pa.list_(word)),
            ("parse_errors", pa.int32()),
            ("truncated", pa.bool_()),
            ("dropped", pa.int32()),
            ("foreign", pa.bool_()),
            ("seconds", number),
            ("error", word),
            ("verified", pa.bool_()),
            ("checkpoint", word),
            ("revision", word),
            ("decoding", word),
            ("tag", word),
        ]
    )


def to_record(row: AnswerRow) -> dict[str, Any]:
    """A row as the columns of `schema`."""
    image, query, result = row.image, row.query, row.result
    width, height = image.size_wh
    record = {
        "id": row.id,
        "image_id": image.image_id,
        "source": image.source,
        "width": width,
        "height": height,
        "bytes": image.bytes,
        "task": query.task,
        "text_input": query.text,
        "phrases": None if query.phrases is None else list(query.phrases),
        "region": None if query.region is None else list(query.region),
        "seconds": row.seconds,
        "error": row.error,
        "verified": row.verified,
        "checkpoint": query.checkpoint,
        "revision": query.revision,
        "decoding": query.decoding,
        "tag": query.tag,
    }
    if result is None:
        return record
    return record | {
        "text": result.text,
        "score": result.score,
        "instances": [_instance_record(item, result.size_wh) for item in result.instances],
        "presence": list(result.presence.items()),
        "choices": list(result.choices.items()),
        "absent": list(result.absent),
        "parse_errors": result.parse_errors,
        "truncated": result.truncated,
        "dropped": result.dropped,
        "foreign": result.foreign,
    }


def from_record(record: Mapping[str, Any]) -> AnswerRow:
    """A row from the columns of `schema`, as pyarrow's `to_pylist` gives them.

    Raises KeyError for a missing column and ValueError for coordinates or scores that cannot be.
    """
    size_wh = (record["width"], record["height"])
    image = ImageSource(record["image_id"], record["source"], size_wh, record["bytes"])
    query = Query(
        record["task"],
        record["checkpoint"],
        record["revision"],
        record["text_input"],
        None if record["phrases"] is None else tuple(record["phrases"]),
        None if record["region"] is None else tuple(record["region"]),
        record["decoding"],
        record["tag"],
    )
    result = None
    if not record["error"]:
        result = Result(
            record["task"],
            size_wh,
            record["text"],
            tuple(_instance(item) for item in record["instances"]),
            record["parse_errors"],
            record["truncated"],
            record["dropped"],
            record["foreign"],
            record["score"],
            dict(record["choices"]),
            dict(record["presence"]),
            tuple(record["absent"]),
        )
    return AnswerRow(image, query, result, record["seconds"], record["error"], bool(record.get("verified")))


def _instance_record(item: Instance, size_wh: tuple[int, int]) -> dict[str, Any]:
    rings = [[number for point in ring for number in point] for ring in item.polygons]
    return {
        "label": item.label,
        "score": item.score,
        "box": None if item.box is None else list(item.box),
        "quad": None if item.quad is None else list(item.quad),
        "polygons": rings or None,
        "rle": mask_to_rle(rasterize(item.polygons, size_wh)) if len(rings) > 1 else None,
    }


def _instance(record: Mapping[str, Any]) -> Instance:
    rings = record["polygons"] or ()
    polygons = tuple(tuple(zip(ring[0::2], ring[1::2], strict=True)) for ring in rings)
    return Instance(record["label"], record["box"], record["quad"], polygons, record["score"])
