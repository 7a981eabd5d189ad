"""Where things are: boxes and outlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from florence_lite.cards import task
from florence_lite.florence.asking import Asking
from florence_lite.inference import IMAGES_AT_ONCE, Prompt
from florence_lite.inference.answering import joined
from florence_lite.inference.chunks import chunks
from florence_lite.inference.outlining import OF_REGION, Refine, given_box, outline_prompts, outlined
from florence_lite.results import Result

OPEN_VOCABULARY = "<OPEN_VOCABULARY_DETECTION>"
Found = TypeVar("Found")


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
        self,
        images: Any,
        phrase: str | None = None,
        region: Sequence[float] | None = None,
        *,
        phrases: Sequence[str] | None = None,
        refine: Refine | None = None,
        **options: Any,
    ) -> Result | list[Result]:
        """Outlines of all objects, of what a phrase or several phrases name, or of what is in a region.

        Objects are looked for as by `detect`, and each box is asked for its outline: one instance per object, none for
        a phrase that is absent. A hole is a further ring. Scores and outlines that cannot be read: see
        `florence_lite.inference.outlining.outlined`.

        images: as in `run`. region: (x0, y0, x1, y1) in pixels. At most one of phrase, phrases and region is given.
        refine: called for every object as refine(image, box, polygons), with the RGB picture, the box and the rings in
            pixels of the picture, [] where none could be read; the mask bool[H, W] that it returns becomes the outline.
            Of an image of more than 16 megapixels it gets the smaller picture that results are drawn on.

        Raises ValueError for other input, for a mask of another size or type, and as `run`.
        """
        if sum(given is not None for given in (phrase, phrases, region)) > 1:
            raise ValueError("segment takes one of phrase, phrases and region, or none of them for all objects")
        if refine is not None and not callable(refine):
            raise ValueError(f"refine is {refine!r}; it must be a function refine(image, box, polygons) → mask")
        keep_image = options.pop("keep_image", True)
        prompt = Prompt(OF_REGION, region=region)
        if region is not None and refine is None:
            return self.run(images, prompt, keep_image=keep_image, **options)
        wanted = phrases if phrase is None else [phrase]
        # What is wrong for every image is told before one is read.
        self._asked(prompt if region is not None else "<OD>", keep_image, options=options)
        if wanted is not None:
            task(OPEN_VOCABULARY).prompt(phrases=wanted)

        def of(few: list[Any]) -> list[Result]:
            encoded = self.encode(few, keep_image or refine is not None)
            if region is None:
                found = self.detect(encoded, wanted, keep_image=keep_image, **options)
            else:
                found = [given_box(each, region, keep_image) for each in encoded]
            asked = [self._asked(outline_prompts(each), keep_image, options=options) for each in found]
            answers = self._results(list(zip(encoded, asked, strict=True)), options, keep_image)
            return [outlined(*each, refine) for each in zip(found, answers, encoded, strict=True)]

        return _in_batches(images, of)

    def ground(self, images: Any, caption: str, **options: Any) -> Result | list[Result]:
        """Boxes of the phrases in a caption."""
        return self.run(images, Prompt("<CAPTION_TO_PHRASE_GROUNDING>", text=caption), **options)


def _in_batches(images: Any, answer: Callable[[list[Any]], list[Found]]) -> Found | list[Found]:
    """What `answer` gives for a few images at a time: for one image one answer, for a list of them a list."""
    if not isinstance(images, list | tuple):
        return answer([images])[0]
    return [each for few in chunks(images, IMAGES_AT_ONCE) for each in answer(list(few))]
