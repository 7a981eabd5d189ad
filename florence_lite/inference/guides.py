"""Which ids may follow in an answer: its task's grammar, and a closed list of labels, as a `Guide` of the engine.

With a guide an answer has no parse error: coordinates come in fours and eights, the corners of a box in order, points
of a ring in pairs and at least three, a label is followed by what it labels. A guide always allows some id.

A closed list is a trie over the ids of its labels. The labels of a grounding are words of its caption, those of an
open vocabulary the phrases that were asked for; `labels` of a call closes the list of any task that writes words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from florence_lite.cards import TaskCard
from florence_lite.checks import is_list, is_text
from florence_lite.inference.prompts import Prompt
from florence_lite.tokens import Tokenizer
from florence_lite.tokens.grammars import Grammar, Stage, State, grammar
from florence_lite.tokens.vocabulary import IdClass, Vocabulary, check_marks

CONSTRAINED = True  # unless a call says otherwise
GUIDES_KEPT = 256  # of calls with different labels or captions
_WORD = re.compile(r"\w+")
_FRAME = 2  # `<s>` and `</s>`
MASK = "<mask>"
_ROOT, _OUTSIDE = 0, -1  # nodes of a trie; outside is what no label begins with


class Trie:
    """Lists of ids by their beginnings. `children[node]` maps the next id to its node; in `ends` a list may end."""

    def __init__(self):
        self.children: list[dict[int, int]] = [{}]
        self.ends: set[int] = set()

    def add(self, ids: Sequence[int], ends: Iterable[int]) -> None:
        """Add ids of which the first n are a list, for each n of `ends`."""
        node, ends = _ROOT, set(ends)
        for length, token_id in enumerate(ids, 1):
            following = self.children[node].setdefault(token_id, len(self.children))
            if following == len(self.children):
                self.children.append({})
            node = following
            if length in ends:
                self.ends.add(node)

    def step(self, node: int, token_id: int) -> int:
        return _OUTSIDE if node == _OUTSIDE else self.children[node].get(token_id, _OUTSIDE)


def closed_list(tokenizer: Tokenizer, labels: Iterable[str]) -> Trie:
    """The labels as answers write them."""
    trie = Trie()
    for label in labels:
        ids = tokenizer.encode_plain(label)
        trie.add(ids, [len(ids)])
    return trie


def words_of(tokenizer: Tokenizer, caption: str) -> Trie:
    """All runs of whole words of a caption, as they stand in it; words are runs of letters and digits."""
    trie = Trie()
    words = list(_WORD.finditer(caption))
    for number, first in enumerate(words):
        # What begins with a word is encoded as if nothing stood before it, and what follows it changes nothing, as long
        # as ids end where words do.
        ids = tokenizer.encode_plain(caption[first.start() : words[-1].end()])
        word_ends = {len(caption[first.start() : word.end()].encode()) for word in words[number:]}
        length, ends = 0, []
        for count, token_id in enumerate(ids, 1):
            length += len(tokenizer.decode_bytes([token_id]))
            if length in word_ends:
                ends.append(count)
        trie.add(ids[: max(ends, default=0)], ends)
    return trie


class Place(NamedTuple):
    """A position in a guided answer.

    form: in the grammar. node: in the trie of labels, behind the words that were read last. named: there was a label.
    corner: the bins of a box's first corner, as far as it was read.
    """

    form: State
    node: int = _ROOT
    named: bool = False
    corner: tuple[int, ...] = ()


class AnswerGuide:
    """A `Guide` for answers of one grammar.

    labels: what may be said, None for any words. With labels, prose is one of them, and every instance of a list has
    one, its own or (where the grammar shares labels) that of the instance before.
    unlabelled: instances of a list may also have none.
    """

    def __init__(self, vocabulary: Vocabulary, form: Grammar, labels: Trie | None = None, unlabelled: bool = False):
        self._vocabulary, self._form, self._labels, self._unlabelled = vocabulary, form, labels, unlabelled
        self._ranges: dict[Place, tuple[range, ...]] = {}
        self._steps: dict[tuple[State, IdClass], State] = {}
        self._of_class = {
            IdClass.TEXT: (vocabulary.text_ids,),
            IdClass.LOC: (range(vocabulary.loc_first, vocabulary.loc_first + vocabulary.bins),),
            IdClass.SEP: (_one(vocabulary.sep),),
            IdClass.POLY_OPEN: (_one(vocabulary.poly_open),),
            IdClass.POLY_CLOSE: (_one(vocabulary.poly_close),),
            IdClass.END: (_one(vocabulary.eos),),
        }
        self.start = Place(form.start)

    def advance(self, place: Place, token_id: int) -> Place:
        """The place after any id."""
        id_class = self._vocabulary.id_class(token_id)
        step = place.form, id_class
        if step not in self._steps:
            self._steps[step] = self._form.advance(*step)
        form = self._steps[step]
        if id_class is IdClass.TEXT:
            node = _ROOT
            if self._labels is not None:
                before = place.node if place.form.stage is Stage.LABEL else _ROOT  # the root where one is due
                node = self._labels.step(before, token_id)
            return Place(form, node, named=True)
        corner: tuple[int, ...] = ()
        if id_class is IdClass.LOC and form.stage is Stage.GROUP and self._form.group == 4:
            corner = (*place.corner, self._vocabulary.bin(token_id))[:2]
        node = _ROOT if form.stage is Stage.LABEL and not form.labelled else place.node  # a label is due
        return Place(form, node, place.named, corner)

    def allowed(self, place: Place) -> tuple[range, ...]:
        """Ids that may follow; the end of an answer that is over."""
        vocabulary = self._vocabulary
        last = vocabulary.loc_first + vocabulary.bins
        if len(place.corner) == 2:  # x1 is not left of x0, y1 not above y0
            return (range(vocabulary.loc_first + place.corner[place.form.count - 2], last),)
        place = place._replace(corner=())
        if place not in self._ranges:
            ids = [each for id_class in self._form.allowed(place.form) for each in self._of(place, id_class)]
            if place.form.stage is Stage.START:  # no first id is forced: the network may write it itself
                ids.append(_one(vocabulary.bos))
            self._ranges[place] = _joined(ids or [_one(vocabulary.eos)])
        return self._ranges[place]

    def _of(self, place: Place, id_class: IdClass) -> Sequence[range]:
        """The ids of a class that the grammar allows, as far as the list of labels allows them too."""
        ids = self._of_class[id_class]
        if self._labels is None or place.node == _OUTSIDE:
            return ids
        in_label = place.form.stage is Stage.LABEL and place.form.labelled
        whole = in_label and place.node in self._labels.ends
        begins = place.form.stage in (Stage.START, Stage.BETWEEN)
        if id_class is IdClass.TEXT:
            return [_one(token_id) for token_id in self._labels.children[place.node if in_label else _ROOT]]
        if in_label:
            return ids if whole else ()
        if begins and id_class is IdClass.END:
            return () if self._form.prose else ids
        if begins:
            return ids if self._unlabelled or (place.named and self._form.inherits_label) else ()
        return ids


class PartsGuide:
    """A `Guide` for answers of a known number of parts, each guided by `inner`. Its places are pairs: one of `inner`,
    and the number of the part, from 1."""

    def __init__(self, vocabulary: Vocabulary, inner: AnswerGuide, count: int):
        self._vocabulary, self._inner, self._count = vocabulary, inner, count
        self.start = (inner.start, 1)

    def advance(self, place: tuple[Place, int], token_id: int) -> tuple[Place, int]:
        inner, part = place
        return self._inner.advance(inner, token_id), part + (token_id == self._vocabulary.sep)

    def allowed(self, place: tuple[Place, int]) -> tuple[range, ...]:
        """Neither the end before the last part nor a further part behind it."""
        inner, part = place
        excluded = self._vocabulary.eos if part < self._count or not inner.named else self._vocabulary.sep
        kept = []
        for ids in self._inner.allowed(inner):
            below, above = range(ids.start, min(ids.stop, excluded)), range(max(ids.start, excluded + 1), ids.stop)
            kept += [each for each in (below, above) if each]
        return tuple(kept) or (_one(self._vocabulary.eos),)


def _one(token_id: int) -> range:
    return range(token_id, token_id + 1)


def _joined(ranges: Iterable[range]) -> tuple[range, ...]:
    """The same ids in ascending ranges with gaps between them."""
    joined: list[range] = []
    for each in sorted(ranges, key=lambda ids: ids.start):
        if joined and joined[-1].stop == each.start:
            joined[-1] = range(joined[-1].start, each.stop)
        else:
            joined.append(each)
    return tuple(joined)


class Guides:
    """Makes the guides of one tokenizer's answers, equal ones once."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._made = lru_cache(GUIDES_KEPT)(self._make)

    def guide(self, card: TaskCard, prompt: Prompt, options: Mapping[str, Any]) -> AnswerGuide | PartsGuide | None:
        """What guides the answer to a prompt, or None: with constrained=False, with compat=True, and for a free prompt,
        whose answer may have any form.

        options: of the call. Its `labels` close the list of labels; without them the card says whether they are words
        of the caption, or one of the phrases (a single one need not be written out). An infilling has as many
        parts as its prompt has masks.
        """
        inner = self._guide(card, prompt, options)
        if inner is None or not grammar(card.grammar).parts or not (masks := prompt.text.count(MASK)):
            return inner
        return PartsGuide(self._tokenizer.vocabulary, inner, masks)

    def _guide(self, card: TaskCard, prompt: Prompt, options: Mapping[str, Any]) -> AnswerGuide | None:
        labels = options.get("labels")
        if not is_guided(options) or (card.is_free and labels is None):
            return None
        if labels is not None:
            return self._made(card.grammar, tuple(labels), None, False)
        if card.labels == "any":
            return self._made(card.grammar, None, None, False)
        if card.input == "text":
            return self._made(card.grammar, None, prompt.text.strip(), False)
        phrases = (prompt.text,) if prompt.phrases is None else prompt.phrases
        return self._made(card.grammar, tuple(phrase.strip() for phrase in phrases), None, len(phrases) == 1)

    def check_labels(self, card: TaskCard, options: Mapping[str, Any], max_new_tokens: int) -> None:
        """Raise ValueError where the `labels` of a call cannot be those of an answer of at most `max_new_tokens`."""
        labels = options.get("labels")
        if labels is None:
            return
        if not is_list(labels, is_text) or not labels:
            raise ValueError(f"labels is {labels!r}; it must be a list of at least one string with something in it")
        for place, label in enumerate(labels):
            check_marks(f"labels[{place}]", label)
        if not is_guided(options):
            raise ValueError("labels are kept to by constrained=True alone, without compat=True: leave labels out")
        if not grammar(card.grammar).text:
            raise ValueError(f"task {card.name} writes no labels: leave labels out")
        if card.input == "phrases" and card.labels == "input":
            raise ValueError(f"the labels of task {card.name} are its phrases: leave labels out, or ask for them there")
        longest = max(labels, key=lambda label: len(self._tokenizer.encode_plain(label)))
        length = len(self._tokenizer.encode_plain(longest)) + _FRAME
        if length > max_new_tokens:
            raise ValueError(
                f"labels: {longest[:40]!r} takes {length} tokens, an answer has at most {max_new_tokens}: shorten it "
                "or raise max_new_tokens"
            )

    def _make(self, form: str, labels: tuple[str, ...] | None, caption: str | None, unlabelled: bool) -> AnswerGuide:
        trie = None
        if labels is not None:
            trie = closed_list(self._tokenizer, labels)
        elif caption is not None:
            trie = words_of(self._tokenizer, caption)
        return AnswerGuide(self._tokenizer.vocabulary, grammar(form), trie, unlabelled)


def is_guided(options: Mapping[str, Any]) -> bool:
    """Whether a call wants its answers to follow their grammars."""
    return options.get("constrained", CONSTRAINED) and not options.get("compat")
