"""Class `Florence`: images and prompts in, parsed and scored results out. The one place where all parts meet."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from florence_lite.answering import Answering, Prompt, Request, Scene, joined
from florence_lite.cards import CheckpointCard, TaskCard
from florence_lite.cards import task as task_card
from florence_lite.checkpoint import (
    adapter_base,
    find_checkpoint,
    is_adapter,
    load_adapter,
    load_checkpoint,
    read_decoding,
    read_preprocessor,
    save_checkpoint,
    write_companions,
)
from florence_lite.images import load_image
from florence_lite.model import FlorenceModel
from florence_lite.preprocess import Preprocessor
from florence_lite.progress import progress_bar
from florence_lite.results import Result
from florence_lite.tokens import Tokenizer

DEFAULT_CHECKPOINT = "scenes-nano"
IMAGES_AT_ONCE = 8  # images that go through the network together
CAPTIONS = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "paragraph": "<MORE_DETAILED_CAPTION>"}
DESCRIPTIONS = {"category": "<REGION_TO_CATEGORY>", "description": "<REGION_TO_DESCRIPTION>", "text": "<REGION_TO_OCR>"}


class Florence:
    """A network with its tokenizer and cards.

    >>> florence = Florence.from_pretrained("scenes-nano")
    >>> result = florence.run("photo.jpg", "<OD>")
    >>> result.labels, result.scores, result.boxes_xyxy
    """

    def __init__(
        self,
        model: FlorenceModel,
        tokenizer: Tokenizer,
        card: CheckpointCard | None = None,
        preprocessor: Preprocessor | None = None,
        decoding: Mapping[str, Any] | None = None,
    ):
        """card: of the checkpoint, if it has one.

        preprocessor: makes images ready; without one, with the statistics of the card, or else Florence-2's.
        decoding: the checkpoint's own defaults, fields of `GenerationOptions`; they replace those of the task cards,
        save that lengths are the tasks' and that the n-gram rule holds for prose only. Those of the card come last.
        Raises ValueError where the parts do not belong together.
        """
        if tokenizer.vocabulary.bins != model.config.bins:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocabulary.bins} location tokens, the network {model.config.bins} bins: "
                "take both from the same checkpoint"
            )
        if tokenizer.vocabulary.size > model.config.text.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocabulary.size} ids, the network only {model.config.text.vocab_size}: "
                "take both from the same checkpoint"
            )
        if preprocessor and preprocessor.size_wh != model.config.image_size_wh:
            raise ValueError(
                f"the preprocessor makes images of {preprocessor.size_wh}, the network takes "
                f"{model.config.image_size_wh}: take both from the same checkpoint"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.card = card
        statistics = {"mean": card.mean, "std": card.std} if card else {}
        self.preprocessor = preprocessor or Preprocessor(model.config.image_size_wh, **statistics)
        self.decoding = dict(decoding or {})
        self.answering = Answering(self.model, tokenizer, card, self.decoding)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike = DEFAULT_CHECKPOINT,
        dtype: torch.dtype | str = "auto",
        device: str | torch.device = "cpu",
        revision: str | None = None,
        subfolder: str | None = None,
        adapter: str | os.PathLike | None = None,
    ) -> Florence:
        """Load an embedded checkpoint, a local folder, or a repository of the Hugging Face Hub.

        name: a checkpoint card's name ("scenes-nano"), a folder or a Hub id ("microsoft/Florence-2-base") of either
            layout, Microsoft's or transformers'; or a LoRA adapter, which is merged into the checkpoint that it names.
        dtype: torch.float32, torch.bfloat16 or torch.float16, or its name; "auto" takes that of the files, but float32
            for float16 files on the CPU.
        revision: branch, tag or commit of a Hub repository. subfolder: of the repository or folder.
        adapter: folder or Hub id of a LoRA adapter to merge into the checkpoint `name`.

        Raises FileNotFoundError if there is no such checkpoint, ValueError if its files are damaged or do not fit
        together, and what `florence_lite.checkpoint.hub.download` raises.
        """
        folder, card = find_checkpoint(name, revision, subfolder)
        adapters = [find_checkpoint(adapter).folder] if adapter is not None else []
        if is_adapter(folder):
            if (base := adapter_base(folder)) is None:
                raise ValueError(f"adapter {str(name)!r} names no base: call from_pretrained(BASE, adapter=…)")
            adapters.insert(0, folder)
            folder, card = find_checkpoint(base.name, base.revision)
        model = load_checkpoint(folder, dtype, device)
        for each in adapters:
            model = load_adapter(model, each)
        # A fine-tune may bring a tokenizer of its own.
        with_tokenizer = next((each for each in reversed(adapters) if (each / "tokenizer.json").is_file()), folder)
        is_embedded = card is not None and card.source == "embedded"  # then the card says how images are prepared
        preprocessor = None if is_embedded else read_preprocessor(folder, model.config.image_size_wh)
        return cls(model, Tokenizer.from_file(with_tokenizer), card, preprocessor, read_decoding(folder))

    def save_pretrained(
        self, folder: str | os.PathLike, layout: str = "native", dtype: torch.dtype | None = None
    ) -> None:
        """Write the checkpoint with its tokenizer, image processor and decoding settings into `folder`.

        layout: "native" for transformers' own class, "original" for Microsoft's code; `from_pretrained` reads both.
        dtype: of the weights; as they are without one. Raises ValueError for what the layout cannot express.
        """
        write_companions(folder, self.tokenizer, self.preprocessor, self.model.config, self.decoding, layout)
        save_checkpoint(self.model, folder, dtype, layout, self.tokenizer.image_id, self.decoding)

    def push_to_hub(
        self,
        repository: str,
        layout: str = "native",
        dtype: torch.dtype | None = None,
        private: bool | None = None,
        commit_message: str | None = None,
    ) -> str:
        """`save_pretrained` into a repository of the Hugging Face Hub, "org/name", made if it does not exist.

        private: whether a repository made here is; the Hub's default without it. Returns the commit's address.
        Raises what `florence_lite.checkpoint.hub.upload` raises.
        """
        from florence_lite.checkpoint.hub import upload

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, layout, dtype)
            return upload(folder, repository, private, commit_message)

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    # ---- the two general calls ---------------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode(self, images: Any) -> Scene | list[Scene]:
        """Run the vision tower once, for any number of prompts later.

        images: a path, PIL image or array (see `load_image`), or a list of them; a Scene stays what it is.
        Returns a Scene, or a list of them. Raises as `load_image` does.
        """
        if not isinstance(images, list | tuple):
            return self.encode([images])[0]
        pictures = [load_image(image) for image in images if not isinstance(image, Scene)]
        fresh: list[Scene] = []
        for first in range(0, len(pictures), IMAGES_AT_ONCE):
            part = pictures[first : first + IMAGES_AT_ONCE]
            pixel_values = self.preprocessor(part).to(self.device, self.model.embed_tokens.weight.dtype)
            features = self.model.encode_image(pixel_values)
            hidden = [None] * len(part)
            if self.model.config.prompt_side == "decoder":
                hidden = self.model.encode(features)[0]
            fresh += [Scene(*each) for each in zip(part, features, hidden, strict=True)]
        remaining = iter(fresh)
        return [image if isinstance(image, Scene) else next(remaining) for image in images]

    @torch.inference_mode()
    def run(
        self,
        images: Any,
        prompts: str | Prompt | Sequence[str | Prompt],
        *,
        text: str | None = None,
        phrases: Sequence[str] | None = None,
        region: Sequence[float] | None = None,
        **decoding: Any,
    ) -> Result | list[Result]:
        """Answer prompts about images.

        images: an image, path, array or `Scene`, or a list of them.
        prompts: a task marker ("<OD>"; `florence_lite.tasks()` lists them), a free sentence or a `Prompt`, or a list.
            One image and a list of prompts: every prompt about that image. A list of images and one prompt: that prompt
            about every image. Two lists: pair by pair, of equal length. The answers equal those of single calls.
        text, phrases, region: the input of the task, for prompts given as strings: a caption or question; a list of
            phrases; (x0, y0, x1, y1) in pixels.
        decoding: fields of `GenerationOptions` that replace the defaults, such as num_beams=3, max_new_tokens=64,
            do_sample=True, seed=0. No answer grows longer than the network's table of positions. compat=True decodes
            as transformers (for the original layout, as Microsoft's code) does with the checkpoint's own settings, id
            for id: the n-gram rule holds for every task, the first token may come again, rows of the vocabulary that
            have no token too. general_phrases=False leaves phrases such as "it" and "the image" out of a grounding, as
            both do; compat=True includes it. `Result.dropped` counts them.

        Returns a Result, or a list of them if a list was given. Raises ValueError for an unknown task, for input that
        is missing, superfluous or outside the image, for images that cannot be read and for prompts that are too long.
        """
        if not isinstance(prompts, str | Prompt | list | tuple):
            raise ValueError(
                f"prompts is {prompts!r}; it must be a task marker, a sentence, a Prompt or a list of them"
            )
        one_image, one_prompt = not isinstance(images, list | tuple), isinstance(prompts, str | Prompt)
        prompt_list = [prompts] if one_prompt else list(prompts)
        if any(value is not None for value in (text, phrases, region)) and not any(
            isinstance(prompt, str) for prompt in prompt_list
        ):
            raise ValueError("text, phrases and region belong to prompts given as strings; a Prompt carries its own")
        prompt_list = [p if isinstance(p, Prompt) else Prompt(p, text, phrases, region) for p in prompt_list]
        if not one_image and one_prompt:
            prompt_list *= len(images)
        if not one_image and len(images) != len(prompt_list):
            raise ValueError(
                f"{len(images)} images and {len(prompt_list)} prompts do not pair up: give lists of equal length, "
                "or one image or one prompt for all"
            )
        cards = [self._card(prompt, decoding) for prompt in prompt_list]
        image_list = [self.encode(images)] * len(prompt_list) if one_image else images
        results = self._run_pairs(image_list, cards, prompt_list, decoding)
        return results[0] if one_image and one_prompt else results

    # ---- one method per kind of question -----------------------------------------------------------------------------

    def detect(self, images: Any, phrases: Sequence[str] | None = None, **decoding: Any) -> Result | list[Result]:
        """Boxes of all objects, or of what `phrases` name; each phrase is asked for on its own, and one that is absent
        brings no instance."""
        if phrases is None:
            return self.run(images, "<OD>", **decoding)
        if isinstance(phrases, str) or not phrases:
            raise ValueError(f"phrases is {phrases!r}; it must be a list with at least one phrase")
        prompts = [Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=[phrase]) for phrase in phrases]
        if not isinstance(images, list | tuple):
            return joined(self.run(images, prompts, **decoding))
        results: list[Result] = []
        for first in range(0, len(images), IMAGES_AT_ONCE):  # few at a time: encoded images are large
            scenes = self.encode(images[first : first + IMAGES_AT_ONCE])
            answers = self.run([scene for scene in scenes for _ in phrases], prompts * len(scenes), **decoding)
            results += [joined(answers[n : n + len(phrases)]) for n in range(0, len(answers), len(phrases))]
        return results

    def segment(
        self, images: Any, phrase: str | None = None, region: Sequence[float] | None = None, **decoding: Any
    ) -> Result | list[Result]:
        """Outline of what a phrase or a region names."""
        if (phrase is None) == (region is None):
            raise ValueError("segment needs either a phrase or a region, (x0, y0, x1, y1) in pixels")
        if region is not None:
            return self.run(images, "<REGION_TO_SEGMENTATION>", region=region, **decoding)
        return self.run(images, "<REFERRING_EXPRESSION_SEGMENTATION>", phrases=[phrase], **decoding)

    def ground(self, images: Any, caption: str, **decoding: Any) -> Result | list[Result]:
        """Boxes of the phrases in a caption."""
        return self.run(images, "<CAPTION_TO_PHRASE_GROUNDING>", text=caption, **decoding)

    def caption(self, images: Any, detail: str = "short", **decoding: Any) -> Result | list[Result]:
        """A caption; detail: "short", "detailed" or "paragraph"."""
        return self.run(images, _choice("detail", detail, CAPTIONS), **decoding)

    def ocr(self, images: Any, regions: bool = True, **decoding: Any) -> Result | list[Result]:
        """The text in an image: its lines with quads, or with regions=False plain text."""
        return self.run(images, "<OCR_WITH_REGION>" if regions else "<OCR>", **decoding)

    def describe(
        self, images: Any, region: Sequence[float] | None = None, what: str = "description", **decoding: Any
    ) -> Result | list[Result]:
        """What is in a region; what: "description", "category" or "text". Without a region: all objects, described."""
        task = _choice("what", what, DESCRIPTIONS)
        if region is not None:
            return self.run(images, task, region=region, **decoding)
        if what != "description":
            raise ValueError(f"what is {what!r}, which needs a region, (x0, y0, x1, y1) in pixels")
        return self.run(images, "<DENSE_REGION_CAPTION>", **decoding)

    def ask(self, images: Any, question: str, **decoding: Any) -> Result | list[Result]:
        """A short answer to a question."""
        return self.run(images, "<VQA>", text=question, **decoding)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _card(self, prompt: Prompt, decoding: dict) -> TaskCard:
        """The card of a prompt's task. What can be refused before an image is encoded is refused here."""
        card = task_card(prompt.task)
        self.answering.options(card, prefix_length=1, decoding=decoding)
        if card.input != "region" or prompt.region is None:  # whether a region fits depends on its image
            card.prompt(prompt.text, prompt.phrases, prompt.region)
        return card

    def _run_pairs(
        self, images: Sequence, cards: list[TaskCard], prompts: list[Prompt], decoding: dict
    ) -> list[Result]:
        """One Result per image, card and prompt; a batch at a time."""
        results: list[Result] = []
        with progress_bar(len(images) > IMAGES_AT_ONCE) as progress:
            bar = progress.add_task("answers", total=len(images))
            for first in range(0, len(images), IMAGES_AT_ONCE):
                batch = slice(first, first + IMAGES_AT_ONCE)
                scenes = self.encode(images[batch])
                requests: list[Request] = []
                for order, (scene, card, prompt) in enumerate(zip(scenes, cards[batch], prompts[batch], strict=True)):
                    requests += self.answering.requests(order, scene, card, prompt)
                answered = self.answering.answer(requests, decoding)
                for order in range(len(scenes)):
                    parts = [r for request, r in zip(requests, answered, strict=True) if request.order == order]
                    results.append(joined(parts))
                progress.advance(bar, len(scenes))
        return results


def _choice(name: str, value: str, choices: dict[str, str]) -> str:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
    return choices[value]
