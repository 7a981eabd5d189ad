"""What a call returns.

result     Result: an answer with its scores, as arrays, as JSON, in a notebook
panoptic   Panoptic: which segment each pixel belongs to
removal    Removal: an image without what a phrase names
ranking    Ranking: images against texts
pictures   an answer drawn on its image
handover   the same answer in the terms of COCO, YOLO, LabelMe and of other libraries
"""

from florence_lite.results.panoptic import Panoptic, Segment
from florence_lite.results.ranking import Ranking
from florence_lite.results.removal import Removal
from florence_lite.results.result import Result

__all__ = ["Panoptic", "Ranking", "Removal", "Result", "Segment"]
