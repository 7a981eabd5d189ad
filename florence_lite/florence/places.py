"""Where things are: boxes and outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from florence_lite.cards import task
from florence_lite.florence.asking import Asking
from florence_lite.inference import Prompt
from florence_lite.inference.answering import joined
from florence_lite.results import Result

OPEN_VOCABULARY = "<OPEN_VOCABULARY_DETECTION>"


class Places(Asking):
    """Questions that places answer."""

    def detect(self, images: Any, phrases: Sequence[str] | None = None, **options: Any) -> Result | list[Result]:
        """Boxes of all objects, or of what `phrases` name; each phrase is asked for on its own, and one that is absent
        brings no instance."""
        if phrases is None:
            return self.run(images, "<OD>", **options)
        task(OPEN_VOCABULARY).prompt(phrases=phrases)  # whether they are phrases at all
        prompts = [Prompt(OPEN_VOCABULARY, phrases=[phrase]) for phrase in phrases]
        if not isinstance(images, list | tuple):
            return joined(self.run(images, prompts, **options))
        keep_image = options.pop("keep_image", True)
        asked = self._asked(prompts, keep_image, options=options)
        return [joined(results) for results in self._results([(each, asked) for each in images], options, keep_image)]

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
