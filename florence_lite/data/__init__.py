"""Annotated images: the schema of what is known of them, readers and writers of data sets, what turns and crops them.

annotation   the schema: what is known about one image        readers   files of data sets → Dataset
samples      Sample and Dataset: images with annotations      writers   Dataset → files of data sets
rows         answers of a checkpoint as rows of a table       augment   images and annotations turned and cropped
sources      images wherever they lie, by their names
"""

from florence_lite.data.annotation import (
    Annotation,
    ObjectAnnotation,
    Question,
    ReferringExpression,
    Region,
    TextLine,
)
from florence_lite.data.readers import from_columns, read_dataset
from florence_lite.data.samples import Dataset, Problem, Sample
from florence_lite.data.writers import Written, to_jsonl, write_dataset

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
    "Written",
    "from_columns",
    "read_dataset",
    "to_jsonl",
    "write_dataset",
]
