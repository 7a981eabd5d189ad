"""Prompts about encoded images → results: prompt ids in, answers decoded, scored and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from florence_lite.answers import Answer
from florence_lite.cards import CheckpointCard, TaskCard
from florence_lite.cards import task as task_card
from florence_lite.cards.task_card import region_corners
from florence_lite.checks import hint
from florence_lite.engine import Generated, GenerationOptions, Scores, check_ids, generate, score
from florence_lite.inference.choices import check_choices, probabilities
from florence_lite.inference.chunks import chunks
from florence_lite.inference.domain import Domain, is_foreign
from florence_lite.inference.encoded import EncodedImage
from florence_lite.inference.guides import Guides
from florence_lite.inference.likelihoods import Likelihoods
from florence_lite.inference.prompts import Prompt
from florence_lite.inference.scores import TOLERANCE, score_instances, score_words
from florence_lite.model import CrossCache, FlorenceModel
from florence_lite.results import Result
from florence_lite.tokens import Codec, Tokenizer

PROMPTS_AT_ONCE = 8  # prompts that are answered together, fewer where they have so many beams
BEAMS_AT_ONCE = 64  # that there would be more than this in all
OF_A_CALL = ("prompts", "text", "phrases", "region", "keep_image", "detail", "what", "regions")  # what else it takes
SWITCHES = ("compat", "constrained", "general_phrases")  # options of a call that are no fields of `GenerationOptions`
NO_DECODING = (*SWITCHES, "labels", "choices")  # such options in all


class Asked(NamedTuple):
    """A prompt with the card of its task."""

    card: TaskCard
    prompt: Prompt


@dataclass(frozen=True)
class Request:
    """What goes to the network for a prompt, once the size of the image is known.

    prompt: what is asked, of several phrases those that this request is about.
    only_phrase: the phrase that is asked for where it is the only one, else "".
    """

    card: TaskCard
    prompt: Prompt
    prompt_ids: list[int]
    only_phrase: str


class Answering:
    """Answers requests with one network. card, decoding, domain: as in `Florence`."""

    def __init__(
        self,
        model: FlorenceModel,
        tokenizer: Tokenizer,
        card: CheckpointCard | None,
        decoding: Mapping[str, Any],
        domain: Domain | None = None,
    ):
        self.model, self.tokenizer, self.card, self.defaults, self.domain = model, tokenizer, card, decoding, domain
        self.codec = Codec(tokenizer)
        self.guides = Guides(tokenizer)
        self.likelihoods = Likelihoods(model, tokenizer)

    def ask(self, prompt: Prompt, options: Mapping[str, Any]) -> Asked:
        """The prompt with its card. What can be refused before there is an image is refused here, by a ValueError."""
        card = task_card(prompt.task)
        generation = self.generation_options(card, prefix_length=1, options=options)
        self.guides.check_labels(card, options, generation.max_new_tokens)
        check_choices(card, options)
        if card.input != "region" or prompt.region is None:
            card.prompt(prompt.text, prompt.phrases, prompt.region)
        else:  # whether it lies in the image is known later
            region_corners(card.name, prompt.region)
        return Asked(card, prompt)

    def requests(self, asked: Asked, size_wh: tuple[int, int]) -> list[Request]:
        """What goes to the network about an image of this size. Raises ValueError for a region outside of it.

        Usually it is one request. A network whose prompts go to the decoder is asked for one phrase at a time: all of
        them share the encoded image.
        """
        card, prompt = asked
        split = card.input == "phrases" and self.model.config.prompt_side == "decoder" and prompt.phrases is not None
        groups = [[phrase] for phrase in prompt.phrases] if split and len(prompt.phrases) > 1 else [prompt.phrases]
        requests = []
        for phrases in groups:
            sentence = card.prompt(prompt.text, phrases, prompt.region, size_wh, self.model.config.bins)
            single = phrases[0] if phrases is not None and len(phrases) == 1 else prompt.text
            only_phrase = (single or "").strip() if card.input == "phrases" else ""
            ids = self.tokenizer.encode_prompt(sentence)
            requests.append(Request(card, replace(prompt, phrases=phrases), ids, only_phrase))
        return requests

    @torch.inference_mode()
    def answer(
        self, pairs: Sequence[tuple[EncodedImage, Request]], options: Mapping[str, Any], keep_image: bool = True
    ) -> list[Result]:
        """One Result per image and request, in order. keep_image: whether results keep the pictures.

        Raises ValueError for a prompt that is too long for the network.
        """
        if options.get("choices") is not None:
            return self._choose(pairs, options, keep_image)
        images, requests = [image for image, _ in pairs], [request for _, request in pairs]
        results: dict[int, Result] = {}
        beams = max((self.generation_options(each.card, 1, options).num_beams for each in requests), default=1)
        for groups in self._calls(images, max(1, min(PROMPTS_AT_ONCE, BEAMS_AT_ONCE // beams))):
            order = [number for numbers in groups for number in numbers]
            chosen = [requests[number] for number in order]
            if self.model.config.prompt_side == "encoder":
                states, mask = self.encode_prompts([images[number] for number in order], chosen)
                cross = self.model.cross_cache(states)
            else:
                of_groups = [images[numbers[0]] for numbers in groups]
                states, mask = torch.stack([image.hidden_states for image in of_groups]), None
                cross = _together([image.cross_cache(self.model) for image in of_groups])
            decoded = self._decode(chosen, states, mask, cross, options)
            for number, (generated, scores) in zip(order, decoded, strict=True):
                answered = (requests[number], images[number], generated, scores)
                results[number] = self.result(*answered, keep_image, options)
        return [results[number] for number in range(len(pairs))]

    def _choose(
        self, pairs: Sequence[tuple[EncodedImage, Request]], options: Mapping[str, Any], keep_image: bool
    ) -> list[Result]:
        """`answer` from the closed list `choices`."""
        asked = [(image, request.prompt_ids) for image, request in pairs]
        first = self.first_id(pairs[0][1].card, options) if pairs else None
        results = []
        for (image, request), shares in zip(
            pairs, probabilities(self.likelihoods, asked, options["choices"], first), strict=True
        ):
            text = max(shares, key=shares.__getitem__)
            answer, score = Answer(text), min(shares[text], 1.0)
            results.append(
                Result.from_answer(
                    request.card.name,
                    image.size_wh,
                    answer,
                    foreign=is_foreign(self.card, self.domain, image.features, answer, score),
                    score=score,
                    choices=shares,
                    image=image.image if keep_image else None,
                )
            )
        return results

    def first_id(self, card: TaskCard, options: Mapping[str, Any]) -> int | None:
        """The id that every answer is forced to begin with, None where there is none."""
        return self.generation_options(card, 1, {"compat": options.get("compat", False)}).forced_bos

    def _calls(self, images: Sequence[EncodedImage], at_once: int) -> Iterator[list[list[int]]]:
        """Which pairs go through the network together, at most `at_once`: their places, one list per row of keys and
        values.

        A prompt that goes to the encoder has keys and values of its own. Where it goes to the decoder, the prompts
        about an image share the image's; the network takes equally many prompts for every image of a call.
        """
        if self.model.config.prompt_side == "encoder":
            groups = [[number] for number in range(len(images))]
        else:
            by_image: dict[int, list[int]] = {}
            for number, image in enumerate(images):
                by_image.setdefault(id(image), []).append(number)
            groups = [part for numbers in by_image.values() for part in chunks(numbers, at_once)]
        by_count: dict[int, list[list[int]]] = {}
        for numbers in groups:
            by_count.setdefault(len(numbers), []).append(numbers)
        for count, of_count in by_count.items():
            yield from chunks(of_count, max(1, at_once // count))

    def encode_prompts(
        self, images: Sequence[EncodedImage], requests: Sequence[Request]
    ) -> tuple[Tensor, Tensor | None]:
        """Encoder states [R, S, D] and mask of image tokens with the prompt behind them, padded on the right."""
        lengths = [len(request.prompt_ids) for request in requests]
        pad = self.tokenizer.vocabulary.pad
        padded = [request.prompt_ids + [pad] * (max(lengths) - len(request.prompt_ids)) for request in requests]
        device = self.model.embed_tokens.weight.device
        prompt_ids = torch.tensor(padded, device=device)
        mask = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
        features = torch.stack([image.features for image in images])
        return self.model.encode(features, prompt_ids, None if mask.all() else mask)

    def _decode(
        self,
        requests: Sequence[Request],
        states: Tensor,
        mask: Tensor | None,
        cross: CrossCache,
        options: Mapping[str, Any],
    ) -> list[tuple[Generated, Scores]]:
        """Generate and score the answers to requests whose images stand together in `states` and `cross`."""
        prefixes, chosen, size = self.prefixes(requests), self.options_of(requests, options), self.ids(options)
        answers = generate(self.model, states, mask, prefixes, chosen, cross, vocab_size=size)
        ids, (locations, tolerance) = [answer.ids for answer in answers], self.located
        scores = score(self.model, states, mask, prefixes, ids, locations, tolerance, cross, vocab_size=size)
        return list(zip(answers, scores, strict=True))

    def prefixes(self, requests: Sequence[Request]) -> list[list[int]]:
        """The ids that answers stand behind."""
        start = self.tokenizer.vocabulary.eos  # Florence's decoder starts from </s>, which also ends a prompt
        on_decoder = self.model.config.prompt_side == "decoder"
        return [request.prompt_ids if on_decoder else [start] for request in requests]

    def options_of(self, requests: Sequence[Request], options: Mapping[str, Any]) -> list[GenerationOptions]:
        """How each request is decoded, with its guide."""
        return [
            self.generation_options(r.card, len(p), {"guide": self.guides.guide(r.card, r.prompt, options), **options})
            for r, p in zip(requests, self.prefixes(requests), strict=True)
        ]

    def result(
        self,
        request: Request,
        encoded: EncodedImage,
        generated: Generated,
        scores: Scores,
        keep_image: bool,
        options: Mapping[str, Any],
    ) -> Result:
        """What the ids of an answer say, with scores. keep_image: whether it keeps the picture."""
        general_phrases = options.get("general_phrases", not options.get("compat"))
        token_logprobs = scores.token_logprobs.double().numpy()
        size_wh, card = encoded.size_wh, request.card
        # The end token of a truncated answer was put there by the limit: to the reader the ids just stop.
        ids = generated.ids[:-1] if generated.truncated else generated.ids
        answer = replace(self.codec.parse(ids, card.grammar, size_wh), truncated=generated.truncated)
        if card.scoring == "instance":
            locations, within = scores.location_logprobs.double().numpy(), scores.tolerance_logprobs.double().numpy()
            answer = replace(answer, instances=score_instances(answer.instances, token_logprobs, locations, within))
        if request.only_phrase:
            answer = _with_label(answer, request.only_phrase)
        whole = None
        if card.scoring == "text":
            whole = score_words(token_logprobs[self._words(answer, ids)])
            answer = replace(answer, instances=tuple(replace(item, score=whole) for item in answer.instances))
        kept = answer.instances
        if not general_phrases:
            kept = tuple(item for item in kept if item.label.strip() not in card.general_phrases)
        return Result.from_answer(
            card.name,
            size_wh,
            replace(answer, instances=kept),
            dropped=len(answer.instances) - len(kept),
            foreign=is_foreign(self.card, self.domain, encoded.features, answer, whole),
            score=whole,
            token_ids=tuple(generated.ids),
            token_logprobs=tuple(token_logprobs.tolist()),
            image=encoded.image if keep_image else None,
        )

    def _words(self, answer: Answer, ids: list[int]) -> list[int]:
        """Where in its ids an answer's own words stand, with the end that follows prose; [] where it says nothing.

        The coordinates of a region that an answer repeats tell nothing of its words, nor does the forced first id.
        """
        if answer.instances:
            spans = [(*item.tokens, item.coords_at) for item in answer.instances if item.tokens is not None]
            return [place for start, end, at in spans for place in range(start, end if at is None else at)]
        first = int(ids[:1] == [self.tokenizer.vocabulary.bos])
        return list(range(first, len(ids))) if answer.text else []

    def ids(self, options: Mapping[str, Any]) -> int:
        """How many ids take part: with `compat` also those that have a row in the network's table but no token."""
        return self.model.config.text.vocab_size if options.get("compat") else self.tokenizer.vocabulary.size

    @property
    def located(self) -> tuple[range, int]:
        """Ids of the coordinates, and how many bins apart they may be to count as one place."""
        return self._locations, round(TOLERANCE * len(self._locations))

    @property
    def _locations(self) -> range:
        """Ids of the coordinates."""
        vocabulary = self.tokenizer.vocabulary
        return range(vocabulary.loc_first, vocabulary.loc_first + vocabulary.bins)

    def generation_options(self, card: TaskCard, prefix_length: int, options: Mapping[str, Any]) -> GenerationOptions:
        """The task's defaults, replaced by the checkpoint's, replaced by the caller's; never more tokens than fit."""
        known = [*GenerationOptions.__dataclass_fields__, *NO_DECODING]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"unknown option {name!r}; {hint(name, [*known, *OF_A_CALL])}decoding options are "
                    f"{', '.join(sorted(known))}"
                )
        for name in SWITCHES:
            if not isinstance(options.get(name, False), bool):
                raise ValueError(f"{name} is {options[name]!r}; it must be True or False")
        asked = {name: value for name, value in options.items() if name not in NO_DECODING}
        vocabulary = self.tokenizer.vocabulary
        values = {"forced_bos": vocabulary.bos, "eos": vocabulary.eos, "pad": vocabulary.pad}
        if options.get("compat"):  # the others force a first id only where the files name one
            values |= {"forced_bos": None, "ban_bos_after_forced": False, "early_stopping": False} | self.defaults
        else:
            values |= {name: getattr(card, name) for name in ("num_beams", "no_repeat_ngram_size")} | self.defaults
            if not card.no_repeat_ngram_size:
                values["no_repeat_ngram_size"] = 0
            # Whether there is what a phrase means at all is decided by the end against all coordinates.
            values["coordinates"] = self._locations if card.input in ("phrase", "phrases") else None
        values["max_new_tokens"] = card.max_new_tokens
        values |= self.card.decoding if self.card else {}
        # What only makes sense with sampling, or only without, follows what is asked for.
        sampled = asked.get("do_sample", values.get("do_sample", False))
        for name in ("num_beams",) if sampled else ("temperature", "top_k", "top_p"):
            values.pop(name, None)
        generation = GenerationOptions(**values | asked)
        check_ids(generation, self.ids(options))
        positions = self.model.config.text.positions
        room = positions + 1 - prefix_length  # the last id of an answer is never read
        if room < 1:
            raise ValueError(
                f"the prompt of task {card.name} has {prefix_length} tokens; the network takes {positions}: shorten it"
            )
        return replace(generation, max_new_tokens=min(generation.max_new_tokens, room))


def _together(caches: Sequence[CrossCache]) -> CrossCache:
    """The keys and values of several images as those of a batch; of a single one, without a copy."""
    if len(caches) == 1:
        return caches[0]
    layers = range(len(caches[0].keys))
    return CrossCache(
        tuple(torch.cat([cache.keys[layer] for cache in caches]) for layer in layers),
        tuple(torch.cat([cache.values[layer] for cache in caches]) for layer in layers),
    )


def _with_label(answer: Answer, phrase: str) -> Answer:
    """Boxes that came without words, because one phrase was asked for, are called by that phrase."""
    return replace(
        answer, instances=tuple(item if item.label else replace(item, label=phrase) for item in answer.instances)
    )


def joined(parts: list[Result]) -> Result:
    """Answers to several prompts about one image as one: instances in a row, whose positions in the ids move along,
    words in a line for each answer, and the score of the least sure."""
    if len(parts) == 1:
        return parts[0]
    texts, scores = [part.text for part in parts], [part.score for part in parts if part.score is not None]
    instances, token_ids, token_logprobs = [], (), ()
    measured = all(part.token_logprobs is not None for part in parts)
    for part in parts:
        offset = len(token_ids)
        for item in part.instances:
            tokens = None if item.tokens is None else (item.tokens[0] + offset, item.tokens[1] + offset)
            coords_at = None if item.coords_at is None else item.coords_at + offset
            instances.append(replace(item, tokens=tokens, coords_at=coords_at))
        token_ids += part.token_ids
        token_logprobs += part.token_logprobs or ()
    return replace(
        parts[0],
        text="\n".join(texts) if any(texts) else "",
        score=min(scores, default=None),
        instances=tuple(instances),
        parse_errors=sum(part.parse_errors for part in parts),
        dropped=sum(part.dropped for part in parts),
        foreign=all(part.foreign for part in ([part for part in parts if part.instances] or parts)),
        truncated=any(part.truncated for part in parts),
        token_ids=token_ids,
        token_logprobs=token_logprobs if measured else None,
    )
