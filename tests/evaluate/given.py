"""Answered prompts and annotated images made by hand."""

import dataclasses

from PIL import Image

from florence_lite.answers import Instance
from florence_lite.data.samples import Sample
from florence_lite.evaluate.metrics import Case
from florence_lite.results import Result
from florence_lite.rules import Pair

SIZE = (100, 80)


def rectangle(x0, y0, x1, y1):
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def found(label, box, score=None):
    return Instance(label, box=box, score=score)


def places(truth=(), answer=(), ignored=()):
    """A case of instances."""
    return Case(Pair(instances=tuple(truth), ignored=tuple(ignored)), Result("<ANY>", SIZE, instances=tuple(answer)))


def words(answer, *texts):
    """A case of an answer in words and the texts that count as right."""
    return Case(Pair(texts=texts), Result("<ANY>", SIZE, text=answer))


@dataclasses.dataclass(frozen=True)
class Named(Sample):
    """A sample whose picture tells a stand-in for `Florence` its name."""

    def load(self):
        picture = super().load()
        picture.info["name"] = self.name
        return picture


def samples(*annotations):
    """Of black pictures called image 0, image 1 …"""
    return [Named(Image.new("RGB", each.size_wh), each, f"image {n}") for n, each in enumerate(annotations)]
