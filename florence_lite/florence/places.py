"""Where things are: boxes and outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from florence_lite.florence.asking import Asking
from florence_lite.inference import Prompt
from florence_lite.results import Result

OPEN_VOCABULARY = "<OPEN_VOCABULARY_DETECTION>"


class Places(Asking):
    """Questions that places answer."""

    def detect(self, images: Any, phrases: Sequence[str] | None = None, **options: Any) -> Result | list[Result]:
        """Boxes of all objects, or of what any number of `phrases` name.

        Each phrase is asked for on its own, and once if it is given twice: its answer is the same whatever else is
        asked. `Result.presence` has the probability that it means something in the image; one below `threshold` (see
        `run`) brings no instance and stands in `Result.absent`.
        """
        if phrases is None:
            return self.run(images, "<OD>", **options)
        return self.run(images, Prompt(OPEN_VOCABULARY, phrases=phrases), **options)

    def segment(
        self, images: Any, phrase: str | None = None, region: Sequence[float] | None = None, **options: Any
    ) -> Result | list[Result]:
        """Outline of what a phrase or a region names."""
        if (phrase is None) == (region is None):
            raise ValueError("segment needs either a phrase or a region, (x0, y0, x1, y1) in pixels")
        if region is not None:
            return self.run(images, Prompt("<REGION_TO_SEGMENTATION>", region=region), **options)
        return self.run(images, Prompt("<REFERRING_EXPRESSION_SEGMENTATION>", phrases=[phrase]), **options)

    def ground(self, images: Any, caption: str, **options: Any) -> Result | list[Result]:
        """Boxes of the phrases in a caption."""
        return self.run(images, Prompt("<CAPTION_TO_PHRASE_GROUNDING>", text=caption), **options)
