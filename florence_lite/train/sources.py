"""Where fine-tuning batches come from: data sets, drawn in a fixed endless order, mixed by their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils import data as torch_data

from florence_lite.data import read_dataset
from florence_lite.data.annotation import Annotation
from florence_lite.data.augment import Augmentation, Turn, can_turn, turned
from florence_lite.data.samples import Dataset, Sample, kinds_listed, summary_lines
from florence_lite.evaluate.negatives import Negatives, asks_untrue, why_none
from florence_lite.rules import needed, pairs
from florence_lite.train.collate import Batch, TaskCollator
from florence_lite.train.config import DataConfig, FineTuneConfig
from florence_lite.train.features import Features

_UNMIRRORED = (
    "are never mirrored, for they show text, or what is said about them may tell left from right (of English texts, "
    'language = "en" lets it be known)'
)
MOST_NAMED = 10  # things of a kind that are named one by one; the others are counted

Generator = Callable[..., Sequence[Sample]]
"""Called with a split ("train") and `size_wh=` (the network's image size in pixels), it gives samples without end."""


def read_source(data: DataConfig, size_wh: tuple[int, int], generators: Mapping[str, Generator]) -> Sequence[Sample]:
    """The samples of a data set; ValueError for one without images."""
    if data.path in generators:
        return generators[data.path](data.split or "train", size_wh=size_wh)
    dataset = read_dataset(data.path, data.format, data.split, data.columns, data.outside)
    if not len(dataset):
        raise ValueError(f"data set {data.path!r} has no images{f' in split {data.split!r}' if data.split else ''}")
    return dataset


class Drawn(NamedTuple):
    """An image, or what a tower saw in it, [N, D]; what is known about it; name → reason of the images that were
    passed over because they cannot be read."""

    image: Image.Image | Tensor
    annotation: Annotation
    unreadable: Mapping[str, str]


class Source:
    """Samples, what is asked about them, and how often.

    language: of the texts about them, as in `DataConfig`.
    negatives: adds phrases that are not true of an image; None to add none.
    features: what a frozen tower saw in them; None to give the images themselves.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        collate: TaskCollator,
        weight: float,
        language: str | None = None,
        negatives: Negatives | None = None,
    ):
        self.samples: Any = samples  # a `Dataset`, or, `endless`, such as have a length and items only
        self.collate, self.weight, self.language = collate, weight, language
        self.negatives = negatives
        self.features: Features | None = None
        self._needed: dict[int, Annotation] = {}

    @property
    def endless(self) -> bool:
        """Whether the samples are generated without end, no two alike; their answers are known to be short enough."""
        return not isinstance(self.samples, Dataset)

    def checked(self, flips: float = 0.0) -> list[str]:
        """What training is done on, and what it leaves out of all that may be drawn, as lines for people: what reading
        left out, tasks of which nothing is known, objects of answers that are too long for the network, prompts that
        cannot be asked, negatives that there are none of, and, where a share `flips` is to be mirrored, images that
        never are.

        Raises ValueError for the first answer that is too long and must not be shortened, where no row is left, and
        where no image can be read.
        """
        if self.endless:
            return [f"generated, {', '.join(self.collate.rates)}"]
        self.draw(0, np.random.default_rng(0), 0, Augmentation())
        shortened, faults = Counter[str](), []
        images = dict.fromkeys(self.collate.rates, 0)  # that teach something of a task
        for annotation, name in zip(self.samples.annotations, self.samples.names, strict=True):
            for task in self.collate.rates:
                found = pairs(task, annotation)
                faults += [f"image {name}: {pair.fault}" for pair in found if pair.fault]
                try:
                    rows = list(self.collate.all_rows(task, found, annotation.size_wh))
                except ValueError as error:
                    raise ValueError(f"image {name}: {error}") from None
                images[task] += bool(rows)
                shortened[task] += sum(row.shortened for row in rows)
        if not any(images.values()):
            why = f"; {len(faults)} prompts cannot be asked, the first: {faults[0]}" if faults else ""
            where = "; ".join(self.samples.files)
            raise ValueError(
                f"data set {where} teaches nothing about {', '.join(images)}{why}; `florence-lite data check` tells "
                "which tasks the data are for"
            )
        summary = self.samples.summary()
        left_out = kinds_listed(summary["problems"])
        kept = self.mirrored().count(False) if flips else 0
        return [
            *summary_lines(summary),
            *([f"left out or repaired: {left_out}"] if left_out else []),
            "images that teach " + ", ".join(f"{task}: {count}" for task, count in images.items()),
            *(f"warning: no image says anything about {task}: it is not taught" for task, n in images.items() if not n),
            *(
                f"{count} answers of {task} are too long: they lose their last objects"
                for task, count in shortened.items()
                if count
            ),
            *([f"{kept} of {len(self.samples)} images {_UNMIRRORED}"] if kept else []),
            *self._idle_negatives([task for task, count in images.items() if count]),
            *few(faults, "prompts are left out, for they cannot be asked"),
        ]

    def _idle_negatives(self, taught: Sequence[str]) -> list[str]:
        """For which of the tasks that are taught the share of what is not true of an image does nothing, and why."""
        if self.negatives is None:
            return []
        share = f"warning: negatives = {self.collate.negatives:g} does nothing"
        asking = [task for task in taught if asks_untrue(task)]
        if not asking:
            return [f"{share}: none of {', '.join(taught)} asks for phrases or sentences"]
        reasons = {task: why_none(task, self.samples) for task in asking}
        return [f"{share} for {task}: {why}" for task, why in reasons.items() if why]

    def augmentation(self, config: FineTuneConfig) -> Augmentation:
        """How a run changes these samples."""
        return Augmentation(config.flips, config.upright, config.crops, self.language)

    def mirrored(self) -> list[bool]:
        """Of every sample, whether its image may be mirrored."""
        numbers = range(len(self.samples))
        return [can_turn(self.annotation(number), Turn.FLIP_LEFT_RIGHT, self.language) for number in numbers]

    def annotation(self, number: int) -> Annotation:
        """What the tasks need to know about a sample: words that they do not use shall not keep an image as it is."""
        if number not in self._needed:
            self._needed[number] = needed(self.samples.annotations[number], self.collate.rates)
        return self._needed[number]

    def draw(self, number: int, rng: np.random.Generator, seed: int, augment: Augmentation) -> Drawn:
        """Sample `number` of an endless order in which every epoch has each sample once, changed by chance.

        The next of its epoch that can be read stands in for one that cannot. Raises ValueError where none can.
        """
        epoch, place = divmod(number, len(self.samples))
        if self.endless:
            sample = self.samples[place]
            known = sample.annotation if augment.changes_nothing else needed(sample.annotation, self.collate.rates)
            return Drawn(*augment(sample.load(), known, rng), {})
        order = epoch_order(len(self.samples), seed, epoch)
        unreadable: dict[str, str] = {}
        for further in range(len(order)):
            index = int(order[(place + further) % len(order)])
            try:
                image, known = self._seen(index, rng, augment)
            except (ValueError, OSError) as error:
                unreadable[self.samples.names[index]] = str(error)
                continue
            if self.negatives:
                known = self.negatives(known, rng, self.annotation(index))
            return Drawn(image, known, unreadable)
        raise ValueError(self._none(unreadable))

    def _seen(
        self, index: int, rng: np.random.Generator, augment: Augmentation
    ) -> tuple[Image.Image | Tensor, Annotation]:
        """A sample changed by chance; raises, before chance is asked, ValueError or OSError for one that cannot be
        read."""
        if self.features is None:
            return augment(self.samples[index].load(), self.annotation(index), rng)
        views, annotation = self.features.of(index), self.annotation(index)
        _, turn = augment.draw(rng)
        if turn is None or not can_turn(annotation, turn, augment.language):
            return views[0], annotation
        return views[1], turned(annotation, turn, augment.language)

    def _none(self, unreadable: Mapping[str, str]) -> str:
        where, (name, reason) = "; ".join(self.samples.files), next(iter(unreadable.items()))
        return f"data set {where}: none of {len(unreadable)} images can be read; {name}: {reason}"


def few(each: Sequence[str], what: str) -> list[str]:
    """How many there are of something, and the first of them, as lines for people; [] where there is none."""
    if not each:
        return []
    more = [f"  … and {len(each) - MOST_NAMED} more"] if len(each) > MOST_NAMED else []
    return [f"{len(each)} {what}:", *(f"  {item}" for item in each[:MOST_NAMED]), *more]


@lru_cache(maxsize=4)
def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch's samples, int64 [length]."""
    return np.random.default_rng([seed, epoch]).permutation(length)


class MixedBatches(torch_data.Dataset):
    """Item i is the part of batch number `first + i` that falls to this process, as one or several smaller batches.

    Batch number n of a run always has the same samples and rows, however many processes share it. It comes from one
    source, so that its images are asked the same tasks.

    parts: numbers of the images of each smaller batch, within the batch.
    """

    def __init__(self, config: FineTuneConfig, sources: Sequence[Source], first: int, parts: Sequence[range]):
        self.config, self.sources, self.first, self.parts = config, sources, first, parts
        weights = np.array([source.weight for source in sources], dtype=float)
        chosen = np.random.default_rng([config.seed, 0]).choice(len(sources), config.steps, p=weights / weights.sum())
        counts = [count() for _ in sources]
        self.plan = [(int(source), next(counts[source])) for source in chosen]  # (source, batches of it before)

    def __len__(self) -> int:
        return self.config.steps - self.first

    def __getitem__(self, index: int) -> list[Batch]:
        step = self.first + index
        number, before = self.plan[step]
        return [self._batch(step, self.sources[number], before * self.config.batch, part) for part in self.parts]

    def _batch(self, step: int, source: Source, start: int, part: range) -> Batch:
        seed, augment = self.config.seed, source.augmentation(self.config)
        drawn = [
            source.draw(start + place, np.random.default_rng([seed, 1, step, place]), seed, augment) for place in part
        ]
        examples = [(each.image, each.annotation) for each in drawn]
        batch = source.collate(examples, np.random.default_rng([seed, 2, step]), part.start)
        unreadable = {name: reason for each in drawn for name, reason in each.unreadable.items()}
        return replace(batch, unreadable=unreadable) if unreadable else batch
