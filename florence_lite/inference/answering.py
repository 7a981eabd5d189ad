"""Prompts about encoded images → results: prompt ids in, answers decoded, scored and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from florence_lite.answers import Answer, Instance
from florence_lite.cards import Calibration, CheckpointCard, TaskCard, own_rule
from florence_lite.cards import task as task_card
from florence_lite.cards.checkpoint_card import QUESTION
from florence_lite.cards.task_card import region_corners
from florence_lite.checks import hint, is_number
from florence_lite.engine import GenerationOptions, check_ids
from florence_lite.inference.batching import MEMORY
from florence_lite.inference.choices import check_choices, probabilities
from florence_lite.inference.continuous import decode
from florence_lite.inference.decoding import Decoded, Decoding, Row
from florence_lite.inference.domain import Domain, is_foreign, least_score
from florence_lite.inference.encoded import EncodedImage
from florence_lite.inference.guides import Guides
from florence_lite.inference.infilling import check_masked, filled, takes_masks
from florence_lite.inference.likelihoods import Likelihoods
from florence_lite.inference.prompts import Prompt, check_room
from florence_lite.inference.scores import average_boxes, score_instances, score_words
from florence_lite.model import FlorenceModel
from florence_lite.results import Result
from florence_lite.tokens import Codec, Tokenizer, check_marks, grammar

OF_A_CALL = ("prompts", "text", "phrases", "region", "keep_image", "tile", "detail", "what", "regions")  # and more
SWITCHES = ("compat", "constrained", "general_phrases")  # options of a call that are no fields of `GenerationOptions`
NO_DECODING = (*SWITCHES, "labels", "threshold", "choices")  # such options in all
OPEN_VOCABULARY = "<OPEN_VOCABULARY_DETECTION>"


class Asked(NamedTuple):
    """A prompt with the card of its task. apart: whether its phrases are asked for one at a time."""

    card: TaskCard
    prompt: Prompt
    apart: bool = True


@dataclass(frozen=True)
class Request:
    """What goes to the network for a prompt, once the size of the image is known.

    prompt: what is asked, of several phrases those that this request is about. sentence: the same as it is sent.
    phrase: the phrase that is asked for where it is the only one, else "".
    """

    card: TaskCard
    prompt: Prompt
    sentence: str
    prompt_ids: list[int]
    phrase: str


class Answering:
    """Answers requests with one network. card, decoding, domain, calibration, memory: as in `Florence`."""

    def __init__(
        self,
        model: FlorenceModel,
        tokenizer: Tokenizer,
        card: CheckpointCard | None,
        decoding: Mapping[str, Any],
        domain: Domain | None = None,
        calibration: Calibration | None = None,
        memory: int = MEMORY,
    ):
        self.model, self.tokenizer, self.card, self.defaults, self.domain = model, tokenizer, card, decoding, domain
        self.calibration = calibration or Calibration()
        self.codec = Codec(tokenizer)
        self.guides = Guides(tokenizer)
        self._silent = {tokenizer.vocabulary.bos, tokenizer.vocabulary.eos}  # an answer of these alone says nothing
        self._known: WeakKeyDictionary[EncodedImage, bool] = WeakKeyDictionary()
        self.decoding = Decoding(model, tokenizer.vocabulary, memory)
        self.likelihoods = Likelihoods(self.decoding, tokenizer)

    def ask(self, prompt: Prompt, options: Mapping[str, Any]) -> Asked:
        """The prompt with its card. What can be refused before there is an image is refused here, by a ValueError."""
        card = task_card(prompt.task)
        if self.card is not None:
            self.card.check_task(QUESTION if card.is_free else card.name)
        generation = self.generation_options(card, prefix_length=1, options=options)
        self.guides.check_labels(card, options, generation.max_new_tokens)
        check_choices(card, options)
        if card.input != "region" or prompt.region is None:
            card.prompt(prompt.text, prompt.phrases, prompt.region)
            if takes_masks(card):
                check_masked(prompt.text)
            if own_rule(card.name) is None:  # a task of one's own may give marks a meaning
                for place, phrase in enumerate(prompt.phrases or ()):
                    check_marks(f"task {card.name}: phrases[{place}]", phrase, card.input_marks)
        else:  # whether it lies in the image is known later
            region_corners(card.name, prompt.region)
        # The decoder side was trained on single phrases; on the encoder's, others join them.
        joint = options.get("compat", False) and self.model.config.prompt_side == "encoder"
        return Asked(card, prompt, apart=card.input == "phrases" and not joint)

    def requests(self, asked: Asked, size_wh: tuple[int, int]) -> list[Request]:
        """What goes to the network about an image of this size. Raises ValueError for a region outside of it.

        Usually it is one request. Phrases are asked for one at a time, so that the answer to one does not depend on the
        others, and a phrase that is given twice is asked for once; all of them share the encoded image.
        """
        card, prompt = asked.card, asked.prompt
        groups = [prompt.phrases]
        if prompt.phrases is not None and asked.apart:
            groups = [[phrase] for phrase in dict.fromkeys(phrase.strip() for phrase in prompt.phrases)]
        requests = []
        for phrases in groups:
            sentence = card.prompt(prompt.text, phrases, prompt.region, size_wh, self.model.config.bins)
            single = phrases[0] if phrases is not None and len(phrases) == 1 else prompt.text
            phrase = (single or "").strip() if card.input in ("phrase", "phrases") else ""
            ids = self.tokenizer.encode_prompt(sentence)
            requests.append(Request(card, replace(prompt, phrases=phrases), sentence, ids, phrase))
        return requests

    def answer(
        self, pairs: Sequence[tuple[EncodedImage, Request]], options: Mapping[str, Any], keep_image: bool = True
    ) -> list[Result]:
        """One Result per image and request, in order. keep_image: whether results keep the pictures.

        Raises ValueError for a prompt that is too long for the network.
        """
        if options.get("choices") is not None:
            return self._choose(pairs, options, keep_image)
        decoded = decode(self.decoding, self.rows(pairs, options))
        return [
            self.result(request, image, each, keep_image, options)
            for (image, request), each in zip(pairs, decoded, strict=True)
        ]

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
                    foreign=not self.heard(request.prompt)
                    or is_foreign(self.card, partial(self._knows, image), answer, score),
                    score=score,
                    choices=shares,
                    image=image.image if keep_image else None,
                )
            )
        return results

    def first_id(self, card: TaskCard, options: Mapping[str, Any]) -> int | None:
        """The id that every answer is forced to begin with, None where there is none."""
        return self.generation_options(card, 1, {"compat": options.get("compat", False)}).forced_bos

    def log_odds(self, image: EncodedImage, phrases: Sequence[str], task: str = OPEN_VOCABULARY) -> dict[str, float]:
        """Of each phrase, whether it means something in an image (`inference.presence`); nothing is decoded."""
        asked = self.ask(Prompt(task, phrases=phrases), {})
        requests = self.requests(asked, image.size_wh)
        rows = self.rows([(image, request) for request in requests], {})
        decoded = decode(self.decoding, [row._replace(is_present=lambda log_odds: False) for row in rows])
        return {request.phrase: each.log_odds for request, each in zip(requests, decoded, strict=True)}

    def is_present(self, options: Mapping[str, Any]) -> Callable[[float], bool]:
        """Whether a phrase of given log-odds is answered."""
        threshold = self.threshold(options)
        return lambda log_odds: self.calibration.presence(log_odds) >= threshold

    def threshold(self, options: Mapping[str, Any]) -> float:
        """The presence from which a phrase is answered: that of the call, or of the calibration."""
        return self.calibration.threshold if options.get("threshold") is None else options["threshold"]

    def rows(self, pairs: Sequence[tuple[EncodedImage, Request]], options: Mapping[str, Any]) -> list[Row]:
        """What the network is asked, one row for each image and request. Raises as `answer`."""
        known: dict[tuple[str, int], GenerationOptions] = {}
        return [self._row(image, request, options, known) for image, request in pairs]

    def _row(
        self,
        image: EncodedImage,
        request: Request,
        options: Mapping[str, Any],
        known: dict[tuple[str, int], GenerationOptions],
    ) -> Row:
        """known: options by task and length of the prefix; those of this row are added."""
        card, ids, config = request.card, request.prompt_ids, self.model.config
        room = config.text.positions
        if config.prompt_side == "encoder":
            room -= config.image_tokens
        check_room(f"task {card.name}: the prompt", request.sentence, len(ids), room)
        prefix = len(ids) if config.prompt_side == "decoder" else 1
        if (card.name, prefix) not in known:
            known[card.name, prefix] = self.generation_options(card, prefix, options)
        generation, label_ids = known[card.name, prefix], None
        drawn = options.get("compat") or generation.do_sample  # then the ids are as they come
        if request.phrase and card.scoring == "instance" and (not drawn or options.get("threshold") is not None):
            named = config.prompt_side == "encoder" and grammar(card.grammar).text
            label_ids = self.tokenizer.encode_plain(request.phrase) if named else []
        make_guide = partial(self.guides.guide, card, request.prompt, options)
        return Row(image, ids, generation, self.ids(options), label_ids, self.is_present(options), make_guide)

    def result(
        self,
        request: Request,
        encoded: EncodedImage,
        decoded: Decoded,
        keep_image: bool,
        options: Mapping[str, Any],
    ) -> Result:
        """What the ids of an answer say, with scores. keep_image: whether it keeps the picture."""
        threshold, general_phrases = options.get("threshold"), options.get("general_phrases", not options.get("compat"))
        generated, scores = decoded.generated, decoded.scores
        token_logprobs = scores.token_logprobs.double().numpy()
        size_wh, card = encoded.size_wh, request.card
        presence = None if decoded.log_odds is None else self.calibration.presence(decoded.log_odds)
        # The end token of a truncated answer was put there by the limit: to the reader the ids just stop.
        ids = generated.ids[:-1] if generated.truncated else generated.ids
        answer = Answer()
        if any(token not in self._silent for token in ids):
            answer = self.codec.parse(ids, card.grammar, size_wh)
        answer = replace(answer, truncated=generated.truncated)
        if takes_masks(card):
            answer = filled(answer, request.prompt.text)
        if card.scoring == "instance":
            locations, within = scores.location_logprobs.double().numpy(), scores.tolerance_logprobs.double().numpy()
            scored = score_instances(answer.instances, token_logprobs, locations, within, presence)
            if not options.get("compat"):
                bins = self.tokenizer.vocabulary.bins
                scored = average_boxes(scored, scores.mean_bins.double().numpy(), size_wh, bins)
            answer = replace(answer, instances=scored)
        if card.input == "phrases" and request.phrase:
            answer = _with_label(answer, request.phrase)
        whole = None
        if card.scoring == "text":
            whole = score_words(token_logprobs[self._words(answer, ids)])
            answer = replace(answer, instances=tuple(replace(item, score=whole) for item in answer.instances))
        heard = self.heard(request.prompt)
        foreign = not heard or is_foreign(self.card, partial(self._knows, encoded), answer, whole)
        least = threshold if presence is None else None
        # What is asked for by its phrase may be there where the picture is known, however unsure its place.
        may_be_guess = card.input == "none" or (presence is not None and not (heard and self._knows(encoded)))
        if threshold is None and foreign and may_be_guess and not options.get("compat"):
            least = least_score(self._knows(encoded), heard)
        kept = answer.instances
        if not general_phrases:
            kept = tuple(item for item in kept if item.label.strip() not in card.general_phrases)
        if least is not None:
            kept = tuple(item for item in kept if item.bounds is None or item.score is None or item.score >= least)
        absent = presence is not None and not self.is_present(options)(decoded.log_odds)
        absent |= presence is not None and least is not None and not kept  # all of it was guessed
        return Result.from_answer(
            card.name,
            size_wh,
            replace(answer, instances=kept),
            dropped=len(answer.instances) - len(kept),
            foreign=foreign,
            score=whole,
            presence={} if presence is None else {request.phrase: presence},
            absent=(request.phrase,) if absent else (),
            token_ids=tuple(generated.ids),
            token_logprobs=tuple(token_logprobs.tolist()),
            image=encoded.image if keep_image else None,
        )

    def heard(self, prompt: Prompt) -> bool:
        """Whether the training asked with all words of a prompt, as far as the checkpoint's card tells."""
        if self.card is None:
            return True
        texts = [prompt.task] if task_card(prompt.task).is_free else [prompt.text, *(prompt.phrases or ())]
        return not self.card.unknown_words(prompt.task, *texts)

    def _knows(self, image: EncodedImage) -> bool:
        """Whether the vision tower knows such pictures; found out once for all prompts about an image."""
        if image not in self._known:
            self._known[image] = self.domain is None or self.domain.holds(image.features)
        return self._known[image]

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

    def generation_options(self, card: TaskCard, prefix_length: int, options: Mapping[str, Any]) -> GenerationOptions:
        """The task's defaults, replaced by the checkpoint's, replaced by the caller's; never more tokens than fit."""
        known = [*GenerationOptions.__dataclass_fields__, *NO_DECODING]
        for name in options:
            if name in OF_A_CALL:
                raise ValueError(f"unknown option {name!r}: it belongs to other calls than this")
            if name not in known:
                raise ValueError(
                    f"unknown option {name!r}; {hint(name, [*known, *OF_A_CALL])}decoding options are "
                    f"{', '.join(sorted(known))}"
                )
        for name in SWITCHES:
            if not isinstance(options.get(name, False), bool):
                raise ValueError(f"{name} is {options[name]!r}; it must be True or False")
        threshold = options.get("threshold")
        if threshold is not None and not (is_number(threshold) and 0 <= threshold <= 1):
            raise ValueError(f"threshold is {threshold!r}; it must be a number from 0 to 1")
        asked = {name: value for name, value in options.items() if name not in NO_DECODING}
        vocabulary = self.tokenizer.vocabulary
        values: dict[str, Any] = {"forced_bos": vocabulary.bos, "eos": vocabulary.eos, "pad": vocabulary.pad}
        if options.get("compat"):  # the others force a first id only where the files name one
            values |= {"forced_bos": None, "ban_bos_after_forced": False, "early_stopping": False, **self.defaults}
        else:
            values |= {"num_beams": card.num_beams, "no_repeat_ngram_size": card.no_repeat_ngram_size, **self.defaults}
            if not card.no_repeat_ngram_size:
                values["no_repeat_ngram_size"] = 0
        values["max_new_tokens"] = card.max_new_tokens
        values |= self.card.decoding if self.card else {}
        # What only makes sense with sampling, or only without, follows what is asked for.
        sampled = asked.get("do_sample", values.get("do_sample", False))
        for name in ("num_beams",) if sampled else ("temperature", "top_k", "top_p"):
            values.pop(name, None)
        generation = GenerationOptions(**values | asked)
        check_ids(generation, self.ids(options))
        room = self.model.config.text.positions + 1 - prefix_length  # the last id of an answer is never read
        return replace(generation, max_new_tokens=min(generation.max_new_tokens, room))


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
    instances: list[Instance] = []
    token_ids: list[int] = []
    token_logprobs: list[float] = []
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
        presence={phrase: presence for part in parts for phrase, presence in part.presence.items()},
        absent=tuple(phrase for part in parts for phrase in part.absent),
        token_ids=tuple(token_ids),
        token_logprobs=tuple(token_logprobs) if measured else None,
    )
