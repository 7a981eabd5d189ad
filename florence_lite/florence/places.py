"""Where things are: boxes and outlines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import partial
from typing import Any, TypeVar, Unpack, overload

from florence_lite.cards import task
from florence_lite.florence.asking import Asking
from florence_lite.florence.keywords import Options
from florence_lite.images import load_image
from florence_lite.inference import IMAGES_AT_ONCE, EncodedImage, ImageError, Prompt
from florence_lite.inference.answering import OPEN_VOCABULARY, Asked
from florence_lite.inference.chunks import chunks
from florence_lite.inference.domain import UNHEARD
from florence_lite.inference.editing import Inpaint, check_removal, picture_of, removed
from florence_lite.inference.finding import Found, Search, best_of, check_top
from florence_lite.inference.many_images import batches, is_image
from florence_lite.inference.outlining import OF_REGION, Refine, given_box, outline_prompts, outlined
from florence_lite.inference.panoptic import OF_PHRASE, check_phrases, panoptic_of
from florence_lite.inference.tiling import Piece, as_tiling, tiled
from florence_lite.progress import progress_bar
from florence_lite.results import Panoptic, Removal, Result

Answer = TypeVar("Answer")


class Places(Asking):
    """Questions that places answer."""

    @overload
    def detect(self, images: list | tuple, phrases: Sequence[str] | None = None, **options: Any) -> list[Result]: ...
    @overload
    def detect(self, images: Any, phrases: Sequence[str] | None = None, **options: Any) -> Result: ...
    def detect(self, images: Any, phrases: Sequence[str] | None = None, **options: Any) -> Result | list[Result]:
        """Boxes of all objects, or of what any number of `phrases` name.

        Each phrase is asked for on its own, and once if it is given twice: its answer is the same whatever else is
        asked. `Result.presence` has the probability that it means something in the image; one below `threshold` (see
        `run`) brings no instance and stands in `Result.absent`.
        """
        if phrases is None:
            return self.run(images, "<OD>", **options)
        return self.run(images, Prompt(OPEN_VOCABULARY, phrases=phrases), **options)

    @overload
    def segment(
        self,
        images: list | tuple,
        phrase: str | None = None,
        region: Sequence[float] | None = None,
        *,
        phrases: Sequence[str] | None = None,
        refine: Refine | None = None,
        tile: tuple[int, int] | None = None,
        **options: Unpack[Options],
    ) -> list[Result]: ...
    @overload
    def segment(
        self,
        images: Any,
        phrase: str | None = None,
        region: Sequence[float] | None = None,
        *,
        phrases: Sequence[str] | None = None,
        refine: Refine | None = None,
        tile: tuple[int, int] | None = None,
        **options: Unpack[Options],
    ) -> Result: ...
    def segment(
        self,
        images: Any,
        phrase: str | None = None,
        region: Sequence[float] | None = None,
        *,
        phrases: Sequence[str] | None = None,
        refine: Refine | None = None,
        tile: tuple[int, int] | None = None,
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
        tile: as in `run`, but for a region; `refine` gets the picture of a tile then.

        options: as in `run`; `threshold` is about the presence of phrases; of all objects, and of a region, about the
            score of the outline, and what is left out is counted in `Result.dropped`.

        Raises ValueError for other input, for a mask of another size or type, and as `run`.
        """
        if sum(given is not None for given in (phrase, phrases, region)) > 1:
            raise ValueError("segment takes one of phrase, phrases and region, or none of them for all objects")
        if refine is not None and not callable(refine):
            raise ValueError(f"refine is {refine!r}; it must be a function refine(image, box, polygons) → mask")
        keep_image = options.pop("keep_image", True)
        prompt = Prompt(OF_REGION, region=region)
        if region is not None and refine is None:
            return self.run(images, prompt, keep_image=keep_image, tile=tile, **options)
        wanted = phrases if phrase is None else [phrase]
        # What is wrong for every image is told before one is read.
        self._asked(prompt if region is not None else "<OD>", keep_image, options=options)
        if wanted is not None:
            task(OPEN_VOCABULARY).prompt(phrases=wanted)
        if tile is not None:
            found_by = "<OD>" if wanted is None else Prompt(OPEN_VOCABULARY, phrases=wanted)
            asked = self._asked(prompt if region is not None else found_by, keep_image, options=options)
            one = partial(self.segment, phrases=wanted, refine=refine, keep_image=keep_image, **options)
            return self._in_tiles(images, tile, asked, one, keep_image)

        # These say what is there, and nothing of its outline.
        outlining = {name: value for name, value in options.items() if name not in ("threshold", "labels")}

        def of(few: list[Any]) -> list[Result]:
            encoded = self.encode(few, keep_image or refine is not None)
            if region is None:
                found = self.detect(encoded, wanted, keep_image=keep_image, **options)
            else:
                found = [given_box(each, region, keep_image) for each in encoded]
            asked = [self._asked(outline_prompts(each), keep_image, options=outlining) for each in found]
            answers = self._results(list(zip(encoded, asked, strict=True)), outlining, keep_image)
            results = [outlined(*each, refine) for each in zip(found, answers, encoded, strict=True)]
            return [each if each.presence else each.filter(options.get("threshold")) for each in results]

        return _in_batches(images, of)

    def _in_tiles(
        self,
        images: Any,
        tile: tuple[int, int],
        asked: list[Asked],
        answer: Callable[[list[Any]], list[Result]],
        keep_image: bool,
    ) -> Result | list[Result]:
        """What `answer` gives for a few tiles at a time, as an answer about each image; `asked` is what finds it."""

        def of(pieces: Iterator[Piece]) -> Iterator[list[Result]]:
            for few in batches(pieces, IMAGES_AT_ONCE):
                yield from ([result] for result in answer([picture for picture, _ in few]))

        tiling = as_tiling(tile, [each.card for each in asked])
        single = not isinstance(images, list | tuple)
        results: list[Result] = []
        for given in tiled(((image, asked) for image in ([images] if single else images)), tiling, of, keep_image):
            if isinstance(given, ImageError):
                raise given.reason
            results += given
        return results[0] if single else results

    @overload
    def panoptic(
        self,
        images: list | tuple,
        things: Sequence[str] | None = None,
        stuff: Sequence[str] = (),
        *,
        refine: Refine | None = None,
        tile: tuple[int, int] | None = None,
        **options: Unpack[Options],
    ) -> list[Panoptic]: ...
    @overload
    def panoptic(
        self,
        images: Any,
        things: Sequence[str] | None = None,
        stuff: Sequence[str] = (),
        *,
        refine: Refine | None = None,
        tile: tuple[int, int] | None = None,
        **options: Unpack[Options],
    ) -> Panoptic: ...
    def panoptic(
        self,
        images: Any,
        things: Sequence[str] | None = None,
        stuff: Sequence[str] = (),
        *,
        refine: Refine | None = None,
        tile: tuple[int, int] | None = None,
        **options: Any,
    ) -> Panoptic | list[Panoptic]:
        """Which thing or stuff every pixel of an image belongs to.

        images: as in `run`. things: phrases of countable objects, each a segment of its own; None takes everything that
            `<OD>` finds, [] nothing. They are outlined as by `segment`, and `refine` is that of `segment`.
        stuff: phrases such as "the sky", each one segment. Phrases that are absent bring none and stand in
            `Panoptic.absent`.
        tile: as in `segment`, for things; stuff is asked for in the whole image.

        How they are put together: see `florence_lite.inference.panoptic.assemble`. Raises ValueError where both are
        empty or a phrase stands twice, and as `segment`.
        """
        check_phrases(things, stuff)
        keep_image = options.pop("keep_image", True)
        of_stuff = {name: value for name, value in options.items() if name != "labels"}
        asked = self._asked([Prompt(OF_PHRASE, phrases=[phrase]) for phrase in stuff], keep_image, options=of_stuff)

        def of(few: list[Any]) -> list[Panoptic]:
            encoded = self.encode(few, keep_image or refine is not None)
            found = [Result("<OD>", image.size_wh) for image in encoded]
            if things is None or things:
                pictures = encoded if tile is None else few
                found = self.segment(pictures, phrases=things, refine=refine, tile=tile, keep_image=False, **options)
            answers = self._results([(image, asked) for image in encoded], of_stuff, keep_image=False)
            parts = zip(encoded, found, answers, strict=True)
            return [panoptic_of(image, each, stuff, rings, keep_image) for image, each, rings in parts]

        return _in_batches(images, of)

    def remove(
        self, image: Any, phrase: str, inpaint: Inpaint | None = None, dilate: int | None = None, **options: Any
    ) -> Removal:
        """An image without what a phrase names; unchanged, and `Removal.found` False, where the phrase is absent.

        All instances of the phrase are outlined as by `segment`, and their mask grows by `dilate` pixels, or a fiftieth
        of the image's shorter side.

        inpaint: called as inpaint(image, mask) with an RGB picture and bool[H, W]; of the picture that it returns, RGB
            of the same size, the pixels in the mask are taken. All others stay as they are, bit for bit. Without it a
            smooth fill from the colours around.
        options: as in `segment`, `refine` among them.

        Raises ValueError for a list of images, for what `inpaint` may not return, and as `segment`.
        """
        check_removal(image, phrase, inpaint, dilate)
        picture = picture_of(image) if isinstance(image, EncodedImage) else load_image(image)
        encoded = image if isinstance(image, EncodedImage) else picture
        return removed(picture, self.segment(encoded, phrase, **options), inpaint, dilate)

    def find(self, images: Any, phrase: str, top: int = 5, keep_image: bool = True, **options: Any) -> Search:
        """Which images show what a phrase names, and where: the `top` images in which it is most probably present, of
        those in which its presence reaches the threshold; `Search.absent` counts the others: all of them where the
        training did not ask with a word of the phrase (`Result.foreign`).

        images: one, or any iterable of them, a generator too, in constant memory. One that cannot be read is left out
            and stands in `Search.errors`.
        keep_image: whether the results keep their pictures. options: as in `detect`; `threshold` is that of the
            checkpoint's calibration, or else 0.5, unless it is given; 0 ranks all images.

        >>> for found in florence.find(Path("photos").glob("*.jpg"), "a red car"):
        ...     print(found.name, found.presence, found.result.boxes_xyxy)

        Raises ValueError where there are no images, and for a phrase or options that are wrong for every image.
        """
        check_top(top)
        prompt = Prompt(OPEN_VOCABULARY, phrases=[phrase])
        [asked] = self._asked(prompt, keep_image, options=options)
        threshold = self.answering.threshold(options)
        if options.get("threshold") is None and not self.answering.heard(prompt):
            threshold = UNHEARD
        never = {**options, "threshold": 1.0}  # whether it is there, not where

        def presence_in(encoded: list[EncodedImage]) -> list[float]:
            pairs = [(each, request) for each in encoded for request in self.answering.requests(asked, each.size_wh)]
            answers = self.answering.answer(pairs, never, keep_image=False)
            return [next(iter(answer.presence.values())) for answer in answers]

        images = [images] if is_image(images) or not isinstance(images, Iterable) else images
        total = len(images) if isinstance(images, Sized) else None
        with progress_bar(total is None or total > IMAGES_AT_ONCE) as progress:
            bar = progress.add_task("images", total=total)
            best, absent, errors, count = best_of(
                self.encoder,
                images,
                presence_in,
                threshold,
                top,
                keep_image,
                lambda more: progress.advance(bar, more),
            )
        if not count:
            raise ValueError("there are no images; give at least one")
        answers = self.run([each.image for each in best], prompt, keep_image=keep_image, **options)
        found = [
            Found(each.index, each.name, each.presence, answer) for each, answer in zip(best, answers, strict=True)
        ]
        return Search(phrase, tuple(found), count, tuple(errors), absent)

    @overload
    def ground(self, images: list | tuple, caption: str, **options: Any) -> list[Result]: ...
    @overload
    def ground(self, images: Any, caption: str, **options: Any) -> Result: ...
    def ground(self, images: Any, caption: str, **options: Any) -> Result | list[Result]:
        """Boxes of the phrases in a caption."""
        return self.run(images, Prompt("<CAPTION_TO_PHRASE_GROUNDING>", text=caption), **options)


def _in_batches(images: Any, answer: Callable[[list[Any]], list[Answer]]) -> Answer | list[Answer]:
    """What `answer` gives for a few images at a time: for one image one answer, for a list of them a list."""
    if not isinstance(images, list | tuple):
        return answer([images])[0]
    return [each for few in chunks(images, IMAGES_AT_ONCE) for each in answer(list(few))]
