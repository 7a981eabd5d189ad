"""The rows of a batch one by one, however they are packed into lanes."""

from collections.abc import Iterator
from typing import NamedTuple

from florence_lite.train.collate import Batch
from florence_lite.train.lanes import IGNORED


class Unpacked(NamedTuple):
    """Ids and labels of a row, padding aside where rows stand behind each other."""

    task: str
    image: int
    input_ids: list[int]
    labels: list[int]


def unpacked(batch: Batch) -> Iterator[Unpacked]:
    """Every row that has labels, image by image."""
    for group in batch.groups:
        of_tasks = zip(group.tasks, group.places.split(group.sizes), strict=True)
        tasks = {place: task for task, places in of_tasks for place in places.tolist()}
        images, lanes, length = group.labels.shape
        for image in range(images):
            for lane in range(lanes):
                ids, labels = group.input_ids[image, lane].tolist(), group.labels[image, lane].tolist()
                positions = list(range(length)) if group.positions is None else group.positions[image, lane].tolist()
                begin = 0
                while begin < length:
                    end = begin + 1
                    while end < length and positions[end] == end - begin:
                        end += 1
                    told = [place for place in range(begin, end) if labels[place] != IGNORED]
                    if told:
                        task = tasks[(image * lanes + lane) * length + told[0]]
                        yield Unpacked(task, image, ids[begin:end], labels[begin:end])
                    begin = end
