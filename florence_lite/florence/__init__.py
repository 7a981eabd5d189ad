"""Class `Florence`: the one place where all parts meet.

`loading` makes it and saves it; `asking` has the general calls; `places` and `words` have a method for each kind of
question, which tells the general calls what to ask and puts their answers together.
"""

from florence_lite.florence.loading import DEFAULT_CHECKPOINT
from florence_lite.florence.places import Places
from florence_lite.florence.words import Words

__all__ = ["DEFAULT_CHECKPOINT", "Florence"]


class Florence(Places, Words):
    """A network with its tokenizer and cards.

    >>> florence = Florence.from_pretrained("scenes-nano")
    >>> result = florence.run("photo.jpg", "<OD>")
    >>> result.labels, result.scores, result.boxes_xyxy
    """
