"""Rows of ids in lanes, the tensors that the decoder reads.

Where the prompts go to the decoder, all rows of an image share what the encoder made of it, and stand behind each other
in a few lanes. Where they go to the encoder, it runs once for each row, and each has a lane of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from florence_lite.train.rows import Row

LENGTHS = (1, 1.25, 1.5, 2)  # of lanes, as multiples of the longest row
IGNORED = -100  # label of positions that carry no loss: prompt, padding

Lane = list[tuple[str, Row]]
"""Rows that stand behind each other, with the markers of their tasks."""


@dataclass(frozen=True)
class RowGroup:
    """Rows of ids in lanes, L for each image; a lane holds one row, or several behind each other.

    input_ids, labels: int64 [B, L, T] of the decoder; `labels[..., t]` is the token that follows `input_ids[..., t]`,
        or `IGNORED`.
    tasks: markers of the rows. places: int64 [M], where in the flattened labels those that carry loss stand: all of the
        first task, then all of the second, and so on. sizes: how many each task has. A GPU would have to be waited for
        to find them.
    positions: int64 [B, L, T], place of each token in its row; None where no lane has more than one row.
    prompt_ids: int64 [B, L, P], padded on the right, for a network whose prompt goes to the encoder; None where it
        stands in `input_ids`.
    """

    input_ids: Tensor
    labels: Tensor
    tasks: tuple[str, ...]
    places: Tensor
    sizes: tuple[int, ...]
    positions: Tensor | None = None
    prompt_ids: Tensor | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> RowGroup:
        """With all tensors elsewhere."""
        return replace(self, **{name: move(each) for name, each in vars(self).items() if isinstance(each, Tensor)})


def packed_rows(tasks: Sequence[str], rows: Sequence[Sequence[Row | None]], pad: int) -> tuple[RowGroup, ...]:
    """One group, the rows of an image behind each other in lanes; none if there is no row.

    Lanes are as long as the longest row or up to twice as long, whatever leaves the least padding.

    tasks: markers. rows: of each image one for each task, None where it tells nothing of it. pad: id of padding.
    """
    longest = max((row.length for of_image in rows for row in of_image if row), default=0)
    if not longest:
        return ()
    present = [_present(tasks, of_image) for of_image in rows]
    ways = [[_packed(lane, int(times * longest)) for lane in present] for times in LENGTHS]
    return (_group(min(ways, key=_size), pad),)


def rows_by_length(tasks: Sequence[str], rows: Sequence[Sequence[Row | None]], pad: int) -> tuple[RowGroup, ...]:
    """Groups of rows of similar length, each row in a lane of its own; arguments as in `packed_rows`.

    A group ends where the rows of the next task are over half as long again as those of its first.
    """
    longest = [max((row.length for row in column if row), default=0) for column in zip(*rows, strict=True)]
    groups: list[list[int]] = []
    for column in sorted((column for column, length in enumerate(longest) if length), key=longest.__getitem__):
        if groups and longest[column] <= 1.5 * longest[groups[-1][0]]:
            groups[-1].append(column)
        else:
            groups.append([column])
    return tuple(
        _group([[_present([tasks[n]], [of_image[n]]) for n in columns] for of_image in rows], pad, with_prompts=True)
        for columns in groups
    )


def _present(tasks: Sequence[str], rows: Sequence[Row | None]) -> Lane:
    return [(task, row) for task, row in zip(tasks, rows, strict=True) if row]


def _packed(rows: Lane, length: int) -> list[Lane]:
    """The longest first, each in the first lane with room for it."""
    lanes: list[Lane] = []
    room: list[int] = []
    for task, row in sorted(rows, key=lambda each: -each[1].length):
        number = next((n for n, left in enumerate(room) if left >= row.length), len(lanes))
        if number == len(lanes):
            lanes.append([])
            room.append(length)
        lanes[number].append((task, row))
        room[number] -= row.length
    return lanes


def _shape(images: Sequence[Sequence[Lane]]) -> tuple[int, int]:
    """How many lanes the images need, and how long ones."""
    lengths = [[sum(row.length for _, row in lane) for lane in lanes] for lanes in images]
    return max(map(len, lengths)), max(length for each in lengths for length in each)


def _size(images: Sequence[Sequence[Lane]]) -> int:
    return math.prod(_shape(images))


def _group(images: Sequence[Sequence[Lane]], pad: int, with_prompts: bool = False) -> RowGroup:
    """The lanes of the images as tensors."""
    every = [lane for lanes in images for lane in lanes]
    lanes_each, length = _shape(images)
    input_ids = torch.full((len(images), lanes_each, length), pad)
    labels, positions = torch.full_like(input_ids, IGNORED), torch.zeros_like(input_ids)
    longest = max(len(row.prompt) for lane in every for _, row in lane) if with_prompts else 0
    prompt_ids = torch.full((len(images), lanes_each, longest), pad)
    numbers = torch.arange(input_ids.numel()).view_as(input_ids)
    places: dict[str, list[Tensor]] = {}  # task → those of its rows
    for image, lanes in enumerate(images):
        for number, lane in enumerate(lanes):
            begin = 0
            for task, row in lane:
                ids, end = torch.tensor(row.start + row.answer), begin + row.length
                answer = slice(begin + len(row.start) - 1, end)
                input_ids[image, number, begin:end] = ids[:-1]
                labels[image, number, answer] = ids[len(row.start) :]
                positions[image, number, begin:end] = torch.arange(row.length)
                if with_prompts:
                    prompt_ids[image, number, : len(row.prompt)] = torch.tensor(row.prompt)
                places.setdefault(task, []).append(numbers[image, number, answer])
                begin = end
    of_tasks = {task: torch.cat(each) for task, each in places.items()}
    return RowGroup(
        input_ids,
        labels,
        tasks=tuple(of_tasks),
        places=torch.cat(list(of_tasks.values())),
        sizes=tuple(map(len, of_tasks.values())),
        positions=positions if any(len(lane) > 1 for lane in every) else None,
        prompt_ids=prompt_ids if with_prompts else None,
    )
