"""Annotated images: the schema of what is known about them, the readers of data sets, and what turns and crops them.

annotation   the schema: what is known about one image        readers   files of data sets → Dataset
samples      Sample and Dataset: images with annotations      augment   images and annotations turned and cropped
"""

from florence_lite.data.annotation import (
    Annotation,
    ObjectAnnotation,
    Question,
    ReferringExpression,
    Region,
    TextLine,
)
from florence_lite.data.readers import from_columns, read_dataset, to_jsonl
from florence_lite.data.samples import Dataset, Problem, Sample

__all__ = [
    "Annotation",
    "Dataset",
    "ObjectAnnotation",
    "Problem",
    "Question",
    "ReferringExpression",
    "Region",
    "Sample",
    "TextLine",
    "from_columns",
    "read_dataset",
    "to_jsonl",
]
