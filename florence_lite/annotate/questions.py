"""What is asked about an image, and by which number everybody knows that it was answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from florence_lite.annotate.config import AnnotateConfig, CheckpointConfig, TaskConfig
from florence_lite.answers import Box, Instance
from florence_lite.cards import task as task_card
from florence_lite.data.rows import Query, int64_of
from florence_lite.florence import Florence
from florence_lite.geometry import dequantize
from florence_lite.results import Result
from florence_lite.tokens import Vocabulary
from florence_lite.train.digests import update_with_tensors


@dataclass(frozen=True)
class Question:
    """A task that one of the checkpoints is asked about every image; it can be sent to another process.

    checkpoint: place in the configuration's list. query: as rows have it; without its input where that comes from the
    answer to `parent`, the place of another question. options: of the call.
    """

    checkpoint: int
    query: Query
    parent: int | None = None
    lineage: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def done_id(self, image_id: int) -> int:
        """int64 by which it is known that all of the question's rows about an image are there: the row's own id, or
        where it has as many rows as its parent's answer has parts, a mark that stands beside the rows."""
        if self.parent is None:
            return self.query.row_id(image_id)
        query = self.query
        parts = ["of", image_id, self.lineage, query.task, query.revision, query.decoding, query.tag]
        return int64_of(json.dumps(parts, ensure_ascii=False).encode())

    def queries(self, answer: Result, vocabulary: Vocabulary) -> list[Query]:
        """The question about each part of its parent's answer, in order and none twice."""
        takes = task_card(self.query.task).input
        labels = list(dict.fromkeys(label for item in answer.instances if (label := item.label.strip())))
        words = answer.text.strip()
        inputs: list[dict[str, Any]]
        if takes == "region":
            boxes = [_written_box(item, answer, vocabulary) for item in answer.instances]
            inputs = [{"region": box} for box in boxes if box is not None and box[0] < box[2] and box[1] < box[3]]
        elif takes == "text":
            inputs = [{"text": words}] if words else []
        elif takes == "phrases":
            phrases = labels or ([words] if words else [])
            inputs = [{"phrases": tuple(phrases)}] if phrases else []
        else:
            inputs = [{"phrases": (phrase,)} for phrase in labels or ([words] if words else [])]
        return list(dict.fromkeys(replace(self.query, **each) for each in inputs))


def questions_of(config: AnnotateConfig, revisions: Sequence[str]) -> tuple[Question, ...]:
    """All that is asked about an image: of each checkpoint all tasks, parents before those that need their answers.

    revisions: of the checkpoints, what `revision_of` returns for each.
    Raises ValueError where two checkpoints turn out to be the same one asked the same.
    """
    questions: list[Question] = []
    for number, (checkpoint, revision) in enumerate(zip(config.checkpoints, revisions, strict=True)):
        first = len(questions)
        for task in config.tasks:
            questions.append(_question(number, checkpoint, revision, task, questions, first))
    seen: dict[int, Question] = {}
    for each in questions:
        other = seen.setdefault(each.done_id(0), each)
        if other is not each:
            raise ValueError(
                f"checkpoints {other.query.checkpoint!r} and {each.query.checkpoint!r} have the same weights and are "
                'asked the same; for a second opinion give one of them another decoding, or a tag (tag = "second")'
            )
    return tuple(questions)


def _question(
    number: int, checkpoint: CheckpointConfig, revision: str, task: TaskConfig, questions: list[Question], first: int
) -> Question:
    options = checkpoint.options(task)
    decoding = dict(options) if checkpoint.precision == "fp32" else options | {"precision": checkpoint.precision}
    query = Query(
        task.task,
        checkpoint.checkpoint,
        revision,
        task.text,
        task.phrases,
        None if task.region is None else cast(Box, tuple(float(side) for side in task.region)),
        json.dumps(decoding, sort_keys=True, ensure_ascii=False),
        checkpoint.tag,
    )
    if task.of is None:
        return Question(number, query, None, (query.task, query.text, query.phrases, query.region), options)
    parent = next(n for n in range(first, len(questions)) if questions[n].query.task == task.of)
    lineage = (questions[parent].lineage, questions[parent].query.decoding, query.task)
    return Question(number, query, parent, lineage, options)


def revision_of(florence: Florence) -> str:
    """A digest of all that decides what a checkpoint answers: weights as numbers, whatever type and device they have,
    tokenizer, preparation of images, decoding defaults and calibration."""
    settings = [florence.decoding, repr(florence.calibration)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode())
    digest.update(florence.tokenizer.to_json().encode())
    digest.update(repr(florence.preprocessor.to_settings()).encode())
    for name, tensor in sorted(florence.model.state_dict().items()):
        update_with_tensors(digest, {name: tensor.float()})
    return digest.hexdigest()[:16]


def _written_box(item: Instance, answer: Result, vocabulary: Vocabulary) -> Box | None:
    """x0 y0 x1 y1 of an instance as the ids of the answer say it, None without coordinates.

    The mean that an answer makes of a box differs in its last digits with what else is in the batch. A question has
    the same box, and its row the same id, whenever it is asked.
    """
    if item.box is None or item.coords_at is None:
        return item.bounds
    ids = answer.token_ids[item.coords_at : item.tokens[1]]
    bins = [vocabulary.bin(each) for each in ids if vocabulary.is_loc(each)]
    if len(bins) != 4:
        return item.bounds
    corners = np.sort(np.reshape(bins, (2, 2)), axis=0)
    (x0, y0), (x1, y1) = dequantize(corners, answer.size_wh, vocabulary.bins).tolist()
    return x0, y0, x1, y1
