"""What is said about an image: captions, text, answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from florence_lite.florence.asking import Asking
from florence_lite.inference import Prompt
from florence_lite.results import Result

CAPTIONS = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "paragraph": "<MORE_DETAILED_CAPTION>"}
DESCRIPTIONS = {"category": "<REGION_TO_CATEGORY>", "description": "<REGION_TO_DESCRIPTION>", "text": "<REGION_TO_OCR>"}


class Words(Asking):
    """Questions that words answer."""

    def caption(self, images: Any, detail: str = "short", **options: Any) -> Result | list[Result]:
        """A caption; detail: "short", "detailed" or "paragraph"."""
        return self.run(images, _choice("detail", detail, CAPTIONS), **options)

    def ocr(self, images: Any, regions: bool = True, **options: Any) -> Result | list[Result]:
        """The text in an image: its lines with quads, or with regions=False plain text."""
        return self.run(images, "<OCR_WITH_REGION>" if regions else "<OCR>", **options)

    def describe(
        self, images: Any, region: Sequence[float] | None = None, what: str = "description", **options: Any
    ) -> Result | list[Result]:
        """What is in a region; what: "description", "category" or "text". Without a region: all objects, described."""
        marker = _choice("what", what, DESCRIPTIONS)
        if region is not None:
            return self.run(images, Prompt(marker, region=region), **options)
        if what != "description":
            raise ValueError(f"what is {what!r}, which needs a region, (x0, y0, x1, y1) in pixels")
        return self.run(images, "<DENSE_REGION_CAPTION>", **options)

    def ask(self, images: Any, question: str, **options: Any) -> Result | list[Result]:
        """A short answer to a question."""
        return self.run(images, Prompt("<VQA>", text=question), **options)


def _choice(name: str, value: str, choices: dict[str, str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
    return choices[value]
