"""Answers ↔ ids: `serialize` makes training targets, `parse` and `stream` read what a model says.

Regions of prompts are written here too, so that coordinates become bins in one place.

Reading works on ids and never on text, so a label may hold anything: `<`, newlines, any script, even "<loc_5>" typed
out. Labels and captions are kept byte for byte, spaces included: Florence-2 writes its answers without a space round
the locations (`car<loc_53>…`), and stripping would make a label that begins with a space come back as another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from florence_lite.answers import Answer, Box, Instance
from florence_lite.geometry import dequantize, quantize
from florence_lite.tokens.grammars import Action, Grammar, grammar
from florence_lite.tokens.tokenizer import Tokenizer


def region_markup(box: Box, size_wh: tuple[int, int], bins: int) -> str:
    """A box, x0 y0 x1 y1 in pixels, as prompts say it: `<loc_…>` four times, with the bins that answers have."""
    return "".join(f"<loc_{bin}>" for bin in _bins(box, size_wh, bins))


def _bins(points_px: Iterable, size_wh: tuple[int, int], bins: int) -> list[int]:
    """The bins of points, x y x y …; coordinates outside the image go to its border."""
    return quantize(np.asarray(points_px, dtype=np.float64).reshape(-1, 2), size_wh, bins).ravel().tolist()


class Codec:
    """Serialises and parses the answers of one tokenizer. Coordinates are pixels outside, bins inside."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.vocabulary = tokenizer.vocabulary

    def serialize(self, answer: Answer, grammar: str, size_wh: tuple[int, int]) -> list[int]:
        """The ids that say an answer, without `<s>` and `</s>`; what the answer says about faults is not written.

        grammar: a name of `GRAMMARS`. size_wh: the image in pixels; coordinates outside it go to its border.
        Raises ValueError where the grammar cannot express the answer.
        """
        form = _find(grammar)
        form.check(answer)
        if not answer.instances:
            return self._text_ids(answer.text)
        ids: list[int] = []
        previous = None
        for number, instance in enumerate(answer.instances):
            ids += [self.vocabulary.sep] if form.parts and number else []
            if form.repeats_label or instance.label != previous:
                ids += self._text_ids(instance.label)
            previous = instance.label
            ids += self._shape_ids(instance, form, size_wh)
        return ids

    def parse(self, ids: Iterable[int], grammar: str, size_wh: tuple[int, int]) -> Answer:
        """What a sequence of ids says; any integers are taken, and nothing but a wrong grammar or size raises.

        ids: with or without `<s>`, `</s>`, padding and the decoder's start token. size_wh: the image in pixels.
        Of a box whose corners are in the wrong order the corners are ordered, and it counts as a parse error.
        The other faults are listed in `florence_lite.tokens.grammars`.
        """
        stream = self.stream(grammar, size_wh)
        for token_id in ids:
            stream.push(int(token_id))
        return stream.finish()

    def stream(self, grammar: str, size_wh: tuple[int, int]) -> AnswerStream:
        """A reader that takes one id at a time and comes to the same answer as `parse`."""
        return AnswerStream(self.tokenizer, _find(grammar), size_wh)

    def _text_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode_plain(text)

    def _shape_ids(self, instance: Instance, form: Grammar, size_wh: tuple[int, int]) -> list[int]:
        if instance.kind == "label":
            return []
        if instance.kind != "polygons":
            return self._loc_ids(instance.box or instance.quad, size_wh)
        ids: list[int] = []
        for number, ring in enumerate(instance.polygons):
            ids += [self.vocabulary.sep] if number else []
            ids += self._loc_ids(ring, size_wh)
        return [self.vocabulary.poly_open, *ids, self.vocabulary.poly_close] if form.brackets else ids

    def _loc_ids(self, points_px: Iterable, size_wh: tuple[int, int]) -> list[int]:
        bins = _bins(points_px, size_wh, self.vocabulary.bins)
        return [self.vocabulary.loc_first + bin for bin in bins]


class AnswerStream:
    """Reads an answer id by id. Made by `Codec.stream`."""

    # The coordinates in hand, see `_forget`.
    _bins: list[int]
    _rings: list[tuple[tuple[float, float], ...]]
    _coords_at: int | None

    def __init__(self, tokenizer: Tokenizer, form: Grammar, size_wh: tuple[int, int]):
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.vocabulary
        self._form = form
        self._state = form.start
        bins = np.arange(self._vocabulary.bins)
        centres = dequantize(np.stack([bins, bins], axis=1), size_wh, len(bins))
        self._centre_x, self._centre_y = centres.T.tolist()
        self._position = 0
        self._instances: list[Instance] = []
        self._parse_errors = 0
        self._answer: Answer | None = None
        self._text: list[int] = []  # ids of the words that apply
        self._label = ""
        self._label_at: int | None = None  # where these words begin, until an instance has taken them
        self._end = 0  # position after the last id of the instance in hand
        self._forget()

    def push(self, token_id: int) -> tuple[Instance, ...]:
        """Take the next id; returns the instances that it completes (none or one). Ids after `finish` are ignored."""
        position = self._position
        self._position += 1
        if self._answer is not None:
            return ()
        self._state, actions = self._form.step(self._state, self._vocabulary.id_class(token_id))
        return self._act(actions, token_id, position) if actions else ()

    def finish(self) -> Answer:
        """The answer read so far, the last instance included where the ids stopped inside it and enough of it is
        whole.
        """
        if self._answer is None:
            self._act(self._form.cut(self._state), None, self._position)
            text = self._tokenizer.decode(self._text) if self._form.prose else ""
            self._answer = Answer(text, tuple(self._instances), self._parse_errors, truncated=not self._state.ended)
        return self._answer

    def _act(self, actions: tuple[Action, ...], token_id: int | None, position: int) -> tuple[Instance, ...]:
        finished: tuple[Instance, ...] = ()
        for action in actions:
            if action is Action.TEXT:
                self._text.append(token_id)
                self._end = position + 1
            elif action is Action.LOC:
                if self._coords_at is None:
                    self._coords_at = position
                self._bins.append(self._vocabulary.bin(token_id))
                self._end = position + 1
            elif action is Action.NEW_LABEL:
                self._text, self._label, self._label_at = [], "", position
            elif action is Action.OPEN:
                self._coords_at = position
            elif action is Action.CLOSE:
                self._end = position + 1
            elif action is Action.RING:
                points = self._points()
                self._rings.append(tuple(zip(points[0::2], points[1::2], strict=False)))
                self._bins = []
            elif action is Action.DROP_RING:
                self._bins = []
            elif action is Action.DROP:
                self._end = position if self._coords_at is None else self._coords_at
                self._forget()
            elif action is Action.ITEM:
                finished = (self._instance(),)
                self._instances += finished
                self._forget()
            else:
                assert action is Action.FAULT
                self._parse_errors += 1
        return finished

    def _forget(self) -> None:
        """No coordinates are in hand."""
        self._bins = []
        self._rings = []
        self._coords_at = None

    def _points(self) -> list[float]:
        """The coordinates in hand in pixels: x y x y …"""
        return [(self._centre_y if i % 2 else self._centre_x)[bin] for i, bin in enumerate(self._bins)]

    def _instance(self) -> Instance:
        if self._label_at is not None:
            self._label = self._tokenizer.decode(self._text)
        start = self._coords_at if self._label_at is None else self._label_at
        place: dict[str, Any] = {"tokens": (start, self._end), "coords_at": self._coords_at}
        label = self._label
        self._label_at = None
        if not self._form.inherits_label:
            self._label = ""
        if self._rings:
            return Instance(label, polygons=tuple(self._rings), **place)
        if not self._bins:
            return Instance(label, **place)
        numbers: Any = self._points()
        if len(numbers) == 8:
            return Instance(label, quad=numbers, **place)
        x0, y0, x1, y1 = numbers
        self._parse_errors += x1 < x0 or y1 < y0
        return Instance(label, box=(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), **place)


_find = grammar  # the methods above call their argument "grammar"
