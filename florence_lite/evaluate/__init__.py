"""Measuring a checkpoint on a data set: `evaluate` asks everything that the data can check and gives a `Report`.

report    questions asked, answers held against the truth, metrics        metrics    one measure each, by name
panoptic  maps of things and stuff held against the truth
retrieval texts against images, phrases against places             closed     closed questions, words for masks
negatives phrases and sentences that are not true of an image
"""

from florence_lite.evaluate.panoptic import evaluate_panoptic
from florence_lite.evaluate.report import Report, evaluate
from florence_lite.evaluate.retrieval import evaluate_retrieval

__all__ = ["Report", "evaluate", "evaluate_panoptic", "evaluate_retrieval"]
