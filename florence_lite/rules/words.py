"""The text in an image. An image whose list of lines is incomplete is not asked for all of its text.

Text that cannot be read is no part of an answer; evaluation does not count it as wrong to find.
"""

from collections.abc import Iterator

from florence_lite.answers import Instance
from florence_lite.data.annotation import Annotation
from florence_lite.rules.pair import Pair
from florence_lite.rules.regions import inside


def text(annotation: Annotation) -> Iterator[Pair]:
    """All lines as one string."""
    if "lines" in annotation.exhaustive:
        yield Pair(texts=(" ".join(line.text for line in annotation.lines),))


def lines(annotation: Annotation) -> Iterator[Pair]:
    """Every line with its quadrilateral."""
    if "lines" in annotation.exhaustive:
        read, ignored = (
            tuple(Instance(line.text, quad=line.quad) for line in each)
            for each in (annotation.lines, annotation.ignored_lines)
        )
        yield Pair(instances=read, ignored=ignored)


def regions(annotation: Annotation) -> Iterator[Pair]:
    """The box round each line and its text."""
    for line in annotation.lines:
        bounds = Instance(quad=line.quad).bounds
        yield Pair({"region": inside(bounds, annotation.size_wh)}, texts=(line.text,))
