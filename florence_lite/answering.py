"""Requests about encoded images → results: prompt ids in, answers decoded, scored and read.

`Florence` turns what a user asks into requests; here they become batches of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from florence_lite.cards import CheckpointCard, TaskCard
from florence_lite.engine import GenerationOptions, generate, score
from florence_lite.model import FlorenceModel
from florence_lite.results import Answer, Result
from florence_lite.scoring import NEAR, score_instances, score_text
from florence_lite.tokens import Codec, Tokenizer

SWITCHES = ("compat", "general_phrases")  # options of a call that are no fields of `GenerationOptions`


@dataclass(frozen=True)
class Prompt:
    """A task with its input, for calls that mix tasks whose inputs differ.

    task: a marker such as "<OD>" or a free sentence. text, phrases, region: what the task takes, see `Florence.run`.
    """

    task: str
    text: str | None = None
    phrases: Sequence[str] | None = None
    region: Sequence[float] | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """An encoded image, made by `Florence.encode` and accepted wherever an image is by the `Florence` that made it.

    image: RGB. features: float [N, D], what the vision tower sees.
    hidden_states: float [N, D], the encoder's output where the prompt goes to the decoder; None where it goes to the
        encoder, which then runs once per prompt.
    """

    image: Image.Image = field(repr=False)
    features: Tensor = field(repr=False)
    hidden_states: Tensor | None = field(repr=False)

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.image.size


@dataclass(frozen=True)
class Request:
    """One prompt about one scene, ready to run. order: its place among the results."""

    order: int
    scene: Scene
    card: TaskCard
    prompt_ids: list[int]
    only_phrase: str


class Answering:
    """Answers requests with one network. card, decoding: as in `Florence`."""

    def __init__(
        self, model: FlorenceModel, tokenizer: Tokenizer, card: CheckpointCard | None, decoding: Mapping[str, Any]
    ):
        self.model, self.tokenizer, self.card, self.decoding = model, tokenizer, card, decoding
        self.codec = Codec(tokenizer)

    def requests(self, order: int, scene: Scene, card: TaskCard, prompt: Prompt) -> list[Request]:
        """Usually one. A network whose prompts go to the decoder is asked for one phrase at a time: all of them share
        the encoded image."""
        split = card.input == "phrases" and self.model.config.prompt_side == "decoder" and prompt.phrases is not None
        groups = [[phrase] for phrase in prompt.phrases] if split and len(prompt.phrases) > 1 else [prompt.phrases]
        requests = []
        for phrases in groups:
            sentence = card.prompt(prompt.text, phrases, prompt.region, scene.size_wh, self.model.config.bins)
            single = phrases[0] if phrases is not None and len(phrases) == 1 else prompt.text
            only_phrase = (single or "").strip() if card.input == "phrases" else ""
            requests.append(Request(order, scene, card, self.tokenizer.encode_prompt(sentence), only_phrase))
        return requests

    def answer(self, requests: list[Request], decoding: dict) -> list[Result]:
        """One Result per request, in order."""
        if self.model.config.prompt_side == "encoder":
            return self._decode(requests, *self._encode_prompts(requests), decoding)
        # Requests about one scene share its keys and values; the network takes equally many for every image of a call.
        by_scene: dict[int, list[int]] = {}
        for number, request in enumerate(requests):
            by_scene.setdefault(id(request.scene), []).append(number)
        by_count: dict[int, list[list[int]]] = {}
        for numbers in by_scene.values():
            by_count.setdefault(len(numbers), []).append(numbers)
        results: dict[int, Result] = {}
        for groups in by_count.values():
            states = torch.stack([requests[numbers[0]].scene.hidden_states for numbers in groups])
            order = [number for numbers in groups for number in numbers]
            answered = self._decode([requests[number] for number in order], states, None, decoding)
            results |= dict(zip(order, answered, strict=True))
        return [results[number] for number in range(len(requests))]

    def _encode_prompts(self, requests: list[Request]) -> tuple[Tensor, Tensor | None]:
        """Encoder states [R, S, D] and mask of image tokens with the prompt behind them, padded on the right."""
        lengths = [len(request.prompt_ids) for request in requests]
        pad = self.tokenizer.vocabulary.pad
        padded = [request.prompt_ids + [pad] * (max(lengths) - len(request.prompt_ids)) for request in requests]
        device = self.model.embed_tokens.weight.device
        prompt_ids = torch.tensor(padded, device=device)
        mask = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]
        features = torch.stack([request.scene.features for request in requests])
        return self.model.encode(features, prompt_ids, None if mask.all() else mask)

    def _decode(self, requests: list[Request], states: Tensor, mask: Tensor | None, decoding: dict) -> list[Result]:
        """Generate, score and read the answers to requests whose images stand together in `states`."""
        start = self.tokenizer.vocabulary.eos  # Florence's decoder starts from </s>, which also ends a prompt
        on_decoder = self.model.config.prompt_side == "decoder"
        prefixes = [request.prompt_ids if on_decoder else [start] for request in requests]
        options = [self.options(r.card, len(p), decoding) for r, p in zip(requests, prefixes, strict=True)]
        cross = self.model.cross_cache(states)
        size = self.tokenizer.vocabulary.size
        answers = generate(
            self.model, states, mask, prefixes, options, cross, vocab_size=None if decoding.get("compat") else size
        )
        ids, near = [answer.ids for answer in answers], round(NEAR * len(self._locations))
        scores = score(self.model, states, mask, prefixes, ids, self._locations, near, cross, vocab_size=size)
        general = decoding.get("general_phrases", not decoding.get("compat"))
        return [self._result(*each, general) for each in zip(requests, answers, scores, strict=True)]

    def _result(self, request: Request, generated, scores, general_phrases: bool) -> Result:
        token_logprobs = scores.token_logprobs.double().numpy()
        size_wh, card = request.scene.size_wh, request.card
        # The end token of a truncated answer was put there by the limit: to the reader the ids just stop.
        ids = generated.ids[:-1] if generated.truncated else generated.ids
        answer = replace(self.codec.parse(ids, card.grammar, size_wh), truncated=generated.truncated)
        if card.scoring == "instance":
            locations, near = (part.double().numpy() for part in (scores.location_logprobs, scores.near_logprobs))
            answer = replace(answer, instances=score_instances(answer.instances, token_logprobs, locations, near))
        if request.only_phrase:
            answer = _with_label(answer, request.only_phrase)
        whole = None
        if card.scoring == "text":
            # The forced first id says nothing about the answer.
            first = int(ids[:1] == [self.tokenizer.vocabulary.bos])
            whole = score_text(token_logprobs[first : len(ids)])
            answer = replace(answer, instances=tuple(replace(item, score=whole) for item in answer.instances))
        kept = answer.instances
        if not general_phrases:
            kept = tuple(item for item in kept if item.label.strip() not in card.general_phrases)
        return Result.from_answer(
            card.name,
            size_wh,
            replace(answer, instances=kept),
            dropped=len(answer.instances) - len(kept),
            score=whole,
            token_ids=tuple(generated.ids),
            token_logprobs=tuple(token_logprobs.tolist()),
            image=request.scene.image,
        )

    @property
    def _locations(self) -> range:
        """Ids of the coordinates."""
        vocabulary = self.tokenizer.vocabulary
        return range(vocabulary.loc_first, vocabulary.loc_first + vocabulary.bins)

    def options(self, card: TaskCard, prefix_length: int, decoding: dict) -> GenerationOptions:
        """The task's defaults, replaced by the checkpoint's, replaced by the caller's; never more tokens than fit."""
        known = [*GenerationOptions.__dataclass_fields__, *SWITCHES]
        if unknown := sorted(set(decoding) - set(known)):
            raise ValueError(f"unknown decoding option {unknown}; known ones are {sorted(known)}")
        for name in SWITCHES:
            if not isinstance(decoding.get(name, False), bool):
                raise ValueError(f"{name} is {decoding[name]!r}; it must be True or False")
        asked = {name: value for name, value in decoding.items() if name not in SWITCHES}
        vocabulary = self.tokenizer.vocabulary
        values = {"forced_bos": vocabulary.bos, "eos": vocabulary.eos, "pad": vocabulary.pad}
        if decoding.get("compat"):
            values |= {"ban_bos_after_forced": False, "early_stopping": False} | self.decoding
        else:
            values |= {name: getattr(card, name) for name in ("num_beams", "no_repeat_ngram_size")} | self.decoding
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
        options = GenerationOptions(**values | asked)
        positions = self.model.config.text.positions
        room = positions + 1 - prefix_length  # the last id of an answer is never read
        if room < 1:
            raise ValueError(
                f"the prompt of task {card.name} has {prefix_length} tokens; the network takes {positions}: shorten it"
            )
        return replace(options, max_new_tokens=min(options.max_new_tokens, room))


def _with_label(answer: Answer, phrase: str) -> Answer:
    """Boxes that came without words, because one phrase was asked for, are called by that phrase."""
    return replace(
        answer, instances=tuple(item if item.label else replace(item, label=phrase) for item in answer.instances)
    )


def joined(parts: list[Result]) -> Result:
    """Answers to several phrases about one image as one; positions in the ids move along."""
    if len(parts) == 1:
        return parts[0]
    instances, token_ids, token_logprobs = [], (), ()
    for part in parts:
        offset = len(token_ids)
        for item in part.instances:
            start, end = item.tokens
            coords_at = None if item.coords_at is None else item.coords_at + offset
            instances.append(replace(item, tokens=(start + offset, end + offset), coords_at=coords_at))
        token_ids += part.token_ids
        token_logprobs += part.token_logprobs
    return replace(
        parts[0],
        text="",
        instances=tuple(instances),
        malformed=sum(part.malformed for part in parts),
        dropped=sum(part.dropped for part in parts),
        truncated=any(part.truncated for part in parts),
        token_ids=token_ids,
        token_logprobs=token_logprobs,
    )
