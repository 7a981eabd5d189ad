"""The general calls: images and prompts in, parsed and scored results out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from florence_lite.answers import Instance
from florence_lite.florence.keywords import Keywords
from florence_lite.florence.loading import Loaded
from florence_lite.inference import IMAGES_AT_ONCE, EncodedImage, ImageError, Prompt
from florence_lite.inference.answering import Asked
from florence_lite.inference.many_images import answer_each, batches, is_image
from florence_lite.inference.prompts import as_prompts, check_places
from florence_lite.inference.streaming import stream
from florence_lite.inference.tiling import as_tiling, tiled
from florence_lite.progress import progress_bar
from florence_lite.results import Result


class Asking(Loaded):
    """The calls that ask anything; see `Florence`."""

    @overload
    def encode(self, images: list | tuple, keep_image: bool = True) -> list[EncodedImage]: ...
    @overload
    def encode(self, images: Any, keep_image: bool = True) -> EncodedImage: ...
    def encode(self, images: Any, keep_image: bool = True) -> EncodedImage | list[EncodedImage]:
        """Run the vision tower once, for any number of prompts later.

        images: a path, PIL image or array (see `load_image`), or a list of them; an EncodedImage stays what it is.
        keep_image: whether the encoded image keeps its picture, which results need to be drawn; a smaller copy of a
            picture of more than 16 megapixels.

        Returns an EncodedImage, or a list of them. Raises as `load_image` does, and ValueError for an image that
        another checkpoint encoded.
        """
        if not isinstance(images, list | tuple):
            return self.encode([images], keep_image)[0]
        return self.encoder.encode([self.encoder.open(image, keep_image) for image in images])

    @overload
    def run(
        self, images: list | tuple, prompts: str | Prompt | Sequence[str | Prompt], **more: Unpack[Keywords]
    ) -> list[Result]: ...
    @overload
    def run(self, images: Any, prompts: str | Prompt, **more: Unpack[Keywords]) -> Result: ...
    @overload
    def run(self, images: Any, prompts: Sequence[str | Prompt], **more: Unpack[Keywords]) -> list[Result]: ...
    def run(
        self,
        images: Any,
        prompts: str | Prompt | Sequence[str | Prompt],
        *,
        text: str | None = None,
        phrases: Sequence[str] | None = None,
        region: Sequence[float] | None = None,
        keep_image: bool = True,
        tile: tuple[int, int] | None = None,
        **options: Any,
    ) -> Result | list[Result]:
        """Answer prompts about images.

        images: an image, path, array or `EncodedImage`, or a list of them.
        prompts: a task marker ("<OD>"; `florence_lite.tasks()` lists them), a free sentence or a `Prompt`, or a list.
            One image and a list of prompts: every prompt about that image. A list of images and one prompt: that prompt
            about every image. Two lists: pair by pair, of equal length. The answers equal those of single calls.
        text, phrases, region: the input of the task, for prompts given as strings: a caption or question; a list of
            phrases, each of which is asked for on its own (with compat=True and a prompt for the encoder, all at once);
            (x0, y0, x1, y1) in pixels.
        keep_image: whether results keep their pictures, to be drawn: 36 MB for a photo of 12 megapixels, and of
            larger ones a smaller copy.
        tile: (size, overlap) in pixels, for tasks whose answer lists places: an image that is larger than size × size
            is cut into square tiles, each asked like an image of its own, and the answers are made one; see
            `florence_lite.inference.merging.merged`. Things and lines of text up to the overlap are seen whole in a
            tile; what a border cuts is put together, and the whole image is asked once for what is larger. A threshold
            holds in every tile.
        options: fields of `GenerationOptions` that replace the defaults, such as num_beams=3, max_new_tokens=64,
            do_sample=True, seed=0. No answer grows longer than the network's table of positions. compat=True decodes
            as transformers (for the original layout, as Microsoft's code) does with the checkpoint's own settings, id
            for id: the n-gram rule holds for every task, the first token may come again, rows of the vocabulary that
            have no token too. general_phrases=False leaves phrases such as "it" and "the image" out of a grounding, as
            both do; compat=True includes it. `Result.dropped` counts them. threshold, from 0 to 1: of phrases, the
            presence from which one is answered with at least one instance, where others come back empty
            (`Result.presence` has all of them); without it, what the checkpoint's calibration says, or else 0.5,
            and guesses about a picture that the checkpoint does not know (`Result.foreign`) are left out. Of other
            tasks, the score below which boxes and outlines are left out, and counted in `Result.dropped`; refused
            where no task that is asked answers with any.
            With compat=True or do_sample=True, presence is only asked where a threshold is given.
            labels=["dog", "cat"] closes the list of what a task that writes words may say. Every answer has the form of
            its task, and a grounding says words of its caption, an open vocabulary its phrases; constrained=False, and
            compat=True, let the network write whatever it likes.

        Returns a Result, or a list of them if a list was given. Raises ValueError for an unknown task, for input that
        is missing, superfluous or outside the image, for images that cannot be read and for prompts that are too long.
        One image that cannot be read ends the call; `run_each` goes on.
        """
        asked = self._asked(prompts, keep_image, text, phrases, region, options=options)
        one_prompt = isinstance(prompts, str | Prompt)
        if not isinstance(images, list | tuple):
            [results] = self._results([(images, asked)], options, keep_image, tile)
            return results[0] if one_prompt else results
        if one_prompt:
            asked *= len(images)
        if len(images) != len(asked):
            raise ValueError(
                f"{len(images)} images and {len(asked)} prompts do not pair up: give lists of equal length, "
                "or one image or one prompt for all"
            )
        questions = [(image, [each]) for image, each in zip(images, asked, strict=True)]
        return [results[0] for results in self._results(questions, options, keep_image, tile)]

    @overload
    def run_each(  # type: ignore[overload-overlap]  # a str is a sequence of strs
        self, images: Iterable[Any], prompts: str | Prompt, **more: Unpack[Keywords]
    ) -> Iterator[Result | ImageError]: ...
    @overload
    def run_each(
        self, images: Iterable[Any], prompts: Sequence[str | Prompt], **more: Unpack[Keywords]
    ) -> Iterator[list[Result] | ImageError]: ...
    def run_each(
        self,
        images: Iterable[Any],
        prompts: str | Prompt | Sequence[str | Prompt],
        *,
        text: str | None = None,
        phrases: Sequence[str] | None = None,
        region: Sequence[float] | None = None,
        keep_image: bool = False,
        tile: tuple[int, int] | None = None,
        **options: Any,
    ) -> Iterator[Result | list[Result] | ImageError]:
        """Answer prompts about any number of images, one after the other; nothing is kept of those that are done.

        images: any iterable of what `run` takes as an image, a generator too. An image is loaded when there is room for
            it: 32 at most are on their way at a time, and 16 (of encoded ones, 32) are taken, if there are as many,
            before the first is answered. Where pictures come one by one, as from a camera, `run` answers each at once.
        prompts: one, or a list of prompts that are all asked about every image.
        keep_image: whether results keep their pictures.
        text, phrases, region, tile, options: as in `run`.

        Yields, for each image in order, a Result, or a list of them if a list of prompts was given. In the place of all
        answers about an image that cannot be read, or does not hold a region that is asked about, stands an
        `ImageError`, an exception that was not raised:

        >>> for path, answer in zip(paths, florence.run_each(paths, "<OD>")):
        ...     print(path, answer if isinstance(answer, Exception) else answer.labels)

        Raises ValueError at once for a prompt that is wrong for every image and for `images` that are one image; for a
        prompt that is too long for the network, when the first images are answered.
        """
        if is_image(images) or not isinstance(images, Iterable):
            raise ValueError(
                f"images is one {type(images).__name__}; run_each takes a list or another iterable, run takes one"
            )
        asked = self._asked(prompts, keep_image, text, phrases, region, options=options)
        answers = self._answers(((image, asked) for image in images), asked, options, keep_image, tile)
        return map(_only, answers) if isinstance(prompts, str | Prompt) else answers

    def stream(
        self,
        image: Any,
        prompt: str | Prompt,
        *,
        text: str | None = None,
        phrases: Sequence[str] | None = None,
        region: Sequence[float] | None = None,
        keep_image: bool = True,
        **options: Any,
    ) -> Generator[str | Instance | Result, None, None]:
        """Answer one prompt about one image, bit by bit; arguments as in `run`.

        Yields pieces of the answer's words as they are written (of captions, answers and descriptions, not of labels),
        every instance with its score as soon as it is whole, and at last the `Result`, which is that of `run`. Beams
        say something once all of them agree. A generator that is closed stops the work:

        >>> for event in florence.stream(image, "<OD>"):
        ...     if isinstance(event, Instance) and event.label == "dog":
        ...         break

        Raises as `run`, before the first of them is asked for.
        """
        if isinstance(image, list | tuple):
            raise ValueError("stream answers about one image, not a list: call it for each, or run for all")
        [asked] = self._asked([prompt], keep_image, text, phrases, region, options=options)
        encoded = self.encode(image, keep_image)
        return stream(self.answering, encoded, self.answering.requests(asked, encoded.size_wh), options, keep_image)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _asked(
        self,
        prompts: str | Prompt | Sequence[str | Prompt],
        keep_image: bool,
        text: str | None = None,
        phrases: Sequence[str] | None = None,
        region: Sequence[float] | None = None,
        *,
        options: Mapping[str, Any],
    ) -> list[Asked]:
        if not isinstance(keep_image, bool):
            raise ValueError(f"keep_image is {keep_image!r}; it must be True or False")
        asked = [self.answering.ask(prompt, options) for prompt in as_prompts(prompts, text, phrases, region)]
        if options.get("threshold") is not None:
            check_places("threshold=…", [each.card for each in asked])
        return asked

    def _answers(
        self,
        questions: Iterable[tuple[Any, Sequence[Asked]]],
        asked: Iterable[Asked],
        options: Mapping[str, Any],
        keep_image: bool,
        tile: tuple[int, int] | None,
    ) -> Iterator[list[Result] | ImageError]:
        """What `answer_each` yields, of images in tiles what `tiled` yields. asked: all that the questions ask."""
        if tile is None:
            return answer_each(self.encoder, self.answering, questions, options, keep_image)
        tiling = as_tiling(tile, [each.card for each in asked])
        return tiled(
            questions,
            tiling,
            lambda pieces: answer_each(self.encoder, self.answering, pieces, options, keep_image),
            keep_image,
        )

    def _results(
        self,
        questions: Sequence[tuple[Any, Sequence[Asked]]],
        options: Mapping[str, Any],
        keep_image: bool,
        tile: tuple[int, int] | None = None,
    ) -> list[list[Result]]:
        """For each image, the results of what is asked about it. Raises what is wrong with the first bad image."""
        results: list[list[Result]] = []
        asked = [each for _, of_image in questions for each in of_image]
        with progress_bar(len(questions) > IMAGES_AT_ONCE) as progress:
            bar = progress.add_task("images", total=len(questions))
            for answer in self._answers(questions, asked, options, keep_image, tile):
                if isinstance(answer, ImageError):
                    raise answer.reason
                results.append(answer)
                progress.advance(bar)
        return results

    def _of_images(self, images: Any, work: Callable[[list[EncodedImage]], NDArray[np.float64]]) -> NDArray[np.float64]:
        """The rows that `work` finds for encoded images, one for each: a few images at a time, none of which is kept.

        images: one, or any iterable of them. Raises ValueError where there are none, and what is wrong with a bad one.
        """
        images = [images] if is_image(images) or not isinstance(images, Iterable) else images
        rows = []
        with progress_bar(isinstance(images, Sized) and len(images) > IMAGES_AT_ONCE) as progress:
            bar = progress.add_task("images", total=len(images) if isinstance(images, Sized) else None)
            for few in batches(images, IMAGES_AT_ONCE):
                rows.append(work(self.encoder.encode([self.encoder.open(each, keep_image=False) for each in few])))
                progress.advance(bar, len(few))
        if not rows:
            raise ValueError("there are no images; give at least one")
        return np.concatenate(rows)


def _only(answer: list[Result] | ImageError) -> Result | ImageError:
    return answer if isinstance(answer, ImageError) else answer[0]
