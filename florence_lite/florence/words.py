"""What is said about an image: captions, text, answers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from florence_lite.cards import task
from florence_lite.florence.asking import Asking
from florence_lite.inference import Prompt
from florence_lite.inference.infilling import INFILLING
from florence_lite.inference.retrieval import (
    MATCHING,
    NO,
    PRIOR_WEIGHT,
    YES,
    check_matching,
    check_prior_weight,
    check_texts,
    probability,
    ranking_scores,
)
from florence_lite.results import Ranking, Result

CAPTIONS = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "paragraph": "<MORE_DETAILED_CAPTION>"}
DESCRIPTIONS = {"category": "<REGION_TO_CATEGORY>", "description": "<REGION_TO_DESCRIPTION>", "text": "<REGION_TO_OCR>"}


class Words(Asking):
    """Questions that words answer."""

    @overload
    def caption(self, images: list | tuple, detail: str = "short", **options: Any) -> list[Result]: ...
    @overload
    def caption(self, images: Any, detail: str = "short", **options: Any) -> Result: ...
    def caption(self, images: Any, detail: str = "short", **options: Any) -> Result | list[Result]:
        """A caption; detail: "short", "detailed" or "paragraph"."""
        return self.run(images, _choice("detail", detail, CAPTIONS), **options)

    @overload
    def ocr(self, images: list | tuple, regions: bool = True, **options: Any) -> list[Result]: ...
    @overload
    def ocr(self, images: Any, regions: bool = True, **options: Any) -> Result: ...
    def ocr(self, images: Any, regions: bool = True, **options: Any) -> Result | list[Result]:
        """The text in an image: its lines with quads, or with regions=False plain text."""
        return self.run(images, "<OCR_WITH_REGION>" if regions else "<OCR>", **options)

    @overload
    def describe(
        self, images: list | tuple, region: Sequence[float] | None = None, what: str = "description", **options: Any
    ) -> list[Result]: ...
    @overload
    def describe(
        self, images: Any, region: Sequence[float] | None = None, what: str = "description", **options: Any
    ) -> Result: ...
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

    @overload
    def ask(
        self, images: list | tuple, question: str, choices: Sequence[str] | None = None, **options: Any
    ) -> list[Result]: ...
    @overload
    def ask(self, images: Any, question: str, choices: Sequence[str] | None = None, **options: Any) -> Result: ...
    def ask(
        self, images: Any, question: str, choices: Sequence[str] | None = None, **options: Any
    ) -> Result | list[Result]:
        """A short answer to a question.

        choices: the only answers there can be, such as ["yes", "no"]. `Result.text` is then the likeliest of them,
            `Result.score` its probability and `Result.choices` that of each.

        >>> florence.ask(image, "is there a dog?", choices=["yes", "no"]).choices
        """
        more: dict[str, Any] = {} if choices is None else {"choices": choices}
        return self.run(images, Prompt("<VQA>", text=question), **more, **options)

    @overload
    def infill(self, images: list | tuple, text: str, **options: Any) -> list[Result]: ...
    @overload
    def infill(self, images: Any, text: str, **options: Any) -> Result: ...
    def infill(self, images: Any, text: str, **options: Any) -> Result | list[Result]:
        """What `text` lacks in the place of each `<mask>`, given the image.

        `Result.text` is the whole sentence; its instances are the words of each mask, in order, with their scores. With
        constrained=False there may be more or fewer of them than masks: see `florence_lite.inference.infilling.filled`.

        >>> florence.infill(image, "a <mask> on the grass").text

        Raises ValueError for a text without a mask or with other marks, and as `run`.
        """
        return self.run(images, Prompt(INFILLING, text=text), **options)

    def match(self, images: Any, texts: Sequence[str]) -> NDArray[np.float64]:
        """The probability that each text is true of each image, float64 [images, texts]: "yes" against "no" as the
        answer to `<IMAGE_TEXT_MATCHING>`, each pair for itself.

        images: one, or any iterable of them, a generator too. Memory does not grow with their number, nor with that of
            the texts, but for the result.

        For a checkpoint that was trained on that task; `rank` works with every other. Warns of words that its training
        did not ask with, as its card says. Raises ValueError for one that
        was not, where there are no images or texts, and as `encode` for an image that cannot be read.
        """
        card, texts = task(MATCHING), check_texts(texts)
        check_matching(self.card, self.name)
        if self.card is not None and (unknown := self.card.unknown_words(MATCHING, *texts)):
            warnings.warn(self.card.note(unknown), stacklevel=2)
        first = self.answering.first_id(card, {})
        prompts = [self.tokenizer.encode_prompt(card.prompt(text)) for text in texts]
        likelihoods = self.answering.likelihoods
        return probability(self._of_images(images, lambda few: likelihoods.odds(few, prompts, YES, NO, first)))

    def rank(
        self,
        images: Any,
        texts: Sequence[str],
        detail: str = "short",
        background: Any = None,
        prior_weight: float = PRIOR_WEIGHT,
    ) -> Ranking:
        """Which texts suit which images, both ways, by how likely the network finds each text as a caption of each
        image, compared with how likely it is whatever the image.

        images: one, or any iterable of them, a generator too. Memory does not grow with their number, nor with that of
            the texts, but for the scores.
        detail: which caption the texts are taken for, as in `caption`.
        background: other images that say how likely a text is anyway; without them, `images` do, of which there must
            then be at least two.
        prior_weight: how much that counts (α of `ranking_scores`), 0 for not at all. The default is the best on 100
            validation scenes with `scenes-nano` after its first training: of an image's own text among 100, R@1 of
            short captions is .94 with it, .91 without and .81 with 1; that of detailed captions behind "detailed" is
            1.00, behind "short" .94.

        Raises ValueError where there are no images or texts, for a single image without a background, and as `encode`
        for an image that cannot be read.
        """
        card, texts = task(_choice("detail", detail, CAPTIONS)), check_texts(texts)
        check_prior_weight(prior_weight)
        first, likelihoods = self.answering.first_id(card, {}), self.answering.likelihoods
        prompt_ids = self.tokenizer.encode_prompt(card.prompt())

        def of(some: Any) -> NDArray[np.float64]:
            return self._of_images(some, lambda few: likelihoods.of_texts(few, prompt_ids, texts, first))

        found = of(images)
        anyway = found if background is None else of(background)
        if len(anyway) < 2 and background is None and prior_weight:
            raise ValueError(
                "one image does not tell how likely a text is anyway: give more images, others as background=[…], or "
                "prior_weight=0"
            )
        lengths = [len(likelihoods.ids(text)) for text in texts]
        return Ranking(tuple(texts), ranking_scores(found, anyway, lengths, prior_weight), found)


def _choice(name: str, value: str, choices: dict[str, str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
    return choices[value]
