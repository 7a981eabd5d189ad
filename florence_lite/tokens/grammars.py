"""The forms an answer can have, as small state machines over id classes: here alone is said what may follow what.

The parser and the stream execute `Grammar.step`, the serializer asks `Grammar.check` and `Grammar.repeats_label`,
constrained decoding asks `Grammar.allowed`. A machine works on `IdClass`es, so one serves every vocabulary.

Rules common to all grammars:

- `<s>` and `<pad>` mean nothing wherever they stand; everything after `</s>` is ignored. `</s><s>` at the very
  beginning is the decoder's start token and the first id of the answer, not the end.
- Ids that have no place where they stand are skipped; a run of them is one fault.
- Coordinates cut short by something else are dropped, which is one fault. So is a label that is followed by no
  coordinates.
- A polygon keeps its whole points: of an odd number of coordinates the last is dropped, a ring of fewer than 3
  points is dropped, a missing `</poly>` is supplied; each is one fault.
- Where the ids stop without `</s>`, the unfinished end is no fault (`Answer.truncated` says it): whole points of a
  polygon and words of prose are kept, anything else unfinished is dropped.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from florence_lite.answers import Answer
from florence_lite.tokens.vocabulary import IdClass

_MIN_RING = 6  # coordinates of a triangle


class Stage(enum.Enum):
    """Where in an answer a state stands."""

    START = "nothing was read"
    DOUBT = "only </s> was read: the decoder's start token if <s> follows, else the end"
    BETWEEN = "between items"
    LABEL = "in words"
    GROUP = "in the coordinates of a box or quad"
    RINGS = "in a polygon"
    DONE = "nothing but the end may follow"
    END = "after the end"


class State(NamedTuple):
    """An immutable position in an answer; `Grammar.start` is the first.

    count: coordinates read of the box, quad or ring; for a ring 6 stands for 6, 8, 10 … and 7 for 7, 9, 11 …
    ringed: the polygon has a whole ring already.
    labelled: words were read: before these coordinates, or in the label in hand.
    skipping: the id before had no place.
    """

    stage: Stage
    count: int = 0  # type: ignore[assignment]  # hides the method of tuples, which nobody calls here
    ringed: bool = False
    labelled: bool = False
    skipping: bool = False

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self.stage in (Stage.END, Stage.DOUBT)


class Action(enum.Enum):
    """What an id means for whoever builds the answer; one id may mean several, in order."""

    NEW_LABEL = "words begin; those before no longer apply"
    TEXT = "the id belongs to the words"
    LOC = "the id is the next coordinate"
    OPEN = "a polygon opens with this id"
    CLOSE = "a polygon closes with this id"
    RING = "the coordinates in hand are a whole ring (an odd last one does not count)"
    DROP_RING = "forget the coordinates in hand"
    DROP = "forget the coordinates and rings in hand"
    ITEM = "the instance in hand is whole"
    FAULT = "count one parse error"


Actions = tuple[Action, ...]


@dataclass(frozen=True)
class Grammar:
    """One form of answer.

    text: words may occur; without coordinates they are the whole answer.
    group: coordinates of one box (4) or quad (8), 0 where there are neither.
    polygons: the answer is one polygon, `<sep>` between its rings.
    brackets: `<poly>` rings `</poly>` may stand where a box may.
    single: words, then one box, then the end.
    inherits_label: coordinates without words of their own belong to the words before them.
    repeats_label: equal labels in succession are each written out, as Florence-2 does for phrases and text lines.
    parts: several words or phrases, `<sep>` between them; each is an instance of its own.
    """

    name: str
    text: bool = True
    group: int = 0
    polygons: bool = False
    brackets: bool = False
    single: bool = False
    inherits_label: bool = False
    repeats_label: bool = True
    parts: bool = False

    @property
    def start(self) -> State:
        """The state before the first id."""
        return State(Stage.START)

    @property
    def prose(self) -> bool:
        """Whether `Answer.text` holds the words."""
        return self.text and (self.single or not self.group) and not self.parts

    @property
    def places(self) -> bool:
        """Whether its instances have boxes, quads or outlines."""
        return bool(self.group or self.polygons or self.brackets)

    def step(self, state: State, id_class: IdClass) -> tuple[State, Actions]:
        """The state after an id of the given class and what that id means. Never raises."""
        stage = state.stage
        if stage is Stage.END:
            return state, ()
        if stage is Stage.DOUBT:
            return State(Stage.BETWEEN if id_class is IdClass.BOS else Stage.END), ()
        if id_class is IdClass.END:
            return State(Stage.DOUBT if stage is Stage.START else Stage.END), self._end(state)
        if stage is Stage.START:
            state = State(Stage.BETWEEN)
        if id_class is IdClass.BOS or id_class is IdClass.PAD:
            return state, ()
        following = self._follow(state, id_class)
        if following is None:
            return state._replace(skipping=True), () if state.skipping else (Action.FAULT,)
        return following

    def advance(self, state: State, id_class: IdClass) -> State:
        """The state after an id of the given class."""
        return self.step(state, id_class)[0]

    def allowed(self, state: State) -> frozenset[IdClass]:
        """The classes of which an id may follow without a fault, `<s>` and `<pad>` aside; none after the end."""
        if state.ended:
            return frozenset()
        clean = state._replace(skipping=False)
        return frozenset(c for c in _WRITTEN if Action.FAULT not in self.step(clean, c)[1])

    def cut(self, state: State) -> Actions:
        """What remains to be done where the ids stop in this state without `</s>`."""
        return () if state.ended or self.parts else tuple(a for a in self._end(state) if a is not Action.FAULT)

    def check(self, answer: Answer) -> None:
        """Raise ValueError, naming this grammar, where it cannot express an answer."""
        kinds = self._kinds()
        previous = ""
        for number, instance in enumerate(answer.instances):
            where = f"grammar {self.name!r}, instance {number} ({instance.label!r})"
            if instance.kind not in kinds:
                taken = " or ".join(kinds) or "text and no instances"
                raise ValueError(f"{where} is of kind {instance.kind!r}; the grammar takes {taken}")
            if instance.kind == "label" and not instance.label:
                raise ValueError(f"{where} says nothing; give it a label or a box, or leave it out")
            if instance.label and not self.text:
                raise ValueError(f"{where}: the grammar takes no labels; leave the label empty")
            if self.inherits_label and previous and not instance.label:
                raise ValueError(
                    f"{where}: without a label it would read as another {previous!r}; put unlabelled instances first"
                )
            previous = instance.label
        if (self.single or self.polygons) and len(answer.instances) > 1:
            raise ValueError(f"grammar {self.name!r} takes one instance, not {len(answer.instances)}")
        if answer.text and not self.prose:
            raise ValueError(f"grammar {self.name!r} takes no text, only instances; got {answer.text[:40]!r}")
        if answer.text and answer.instances and answer.text != answer.instances[0].label:
            label = answer.instances[0].label
            raise ValueError(f"grammar {self.name!r}: text {answer.text[:40]!r} must equal the label {label[:40]!r}")

    def _kinds(self) -> tuple[str, ...]:
        kinds = {0: (), 4: ("box",), 8: ("quad",)}[self.group]
        return kinds + ("polygons",) * (self.polygons or self.brackets) + ("label",) * (self.single or self.parts)

    def _follow(self, state: State, id_class: IdClass) -> tuple[State, Actions] | None:
        """`step` for the classes that make up items; None where the id has no place."""
        stage = state.stage
        if stage is Stage.DONE:
            return None
        if id_class is IdClass.TEXT:
            return self._follow_text(state)
        if id_class is IdClass.LOC:
            return self._follow_loc(state)
        if id_class is IdClass.SEP and self.parts and stage is Stage.LABEL and state.labelled:
            return State(Stage.LABEL), (Action.ITEM,)
        if id_class is IdClass.SEP and stage is Stage.RINGS:
            whole, faults = _ring(state)
            kept = Action.RING if whole else Action.DROP_RING
            return State(Stage.RINGS, ringed=state.ringed or whole), (kept, *faults)
        if id_class is IdClass.POLY_OPEN and self.brackets:
            return State(Stage.RINGS), (*self._leave(state), Action.OPEN)
        if id_class is IdClass.POLY_CLOSE and self.brackets and stage is Stage.RINGS:
            return State(Stage.BETWEEN), (Action.CLOSE, *_polygon(state, closed=True))
        return None

    def _follow_text(self, state: State) -> tuple[State, Actions] | None:
        if not self.text or (self.single and state.stage is Stage.GROUP):
            return None
        following = State(Stage.LABEL, labelled=True)
        if state.stage is Stage.LABEL and state.labelled:
            return following, (Action.TEXT,)
        return following, (*self._leave(state), Action.NEW_LABEL, Action.TEXT)

    def _follow_loc(self, state: State) -> tuple[State, Actions] | None:
        if self.polygons or state.stage is Stage.RINGS:
            count = state.count + 1 if state.count <= _MIN_RING else _MIN_RING
            return State(Stage.RINGS, count, state.ringed), (Action.LOC,)
        if not self.group:
            return None
        count = state.count + 1
        if count < self.group:
            return State(Stage.GROUP, count, labelled=state.labelled), (Action.LOC,)
        return State(Stage.DONE if self.single else Stage.BETWEEN), (Action.LOC, Action.ITEM)

    def _leave(self, state: State) -> Actions:
        """What becomes of unfinished coordinates when a new item begins."""
        if state.stage is Stage.GROUP:
            return Action.DROP, Action.FAULT
        return _polygon(state, closed=False) if state.stage is Stage.RINGS else ()

    def _end(self, state: State) -> Actions:
        """What becomes of unfinished things at the end of the answer."""
        if state.stage is Stage.LABEL and not self.prose:
            return (Action.ITEM,) if self.parts and state.labelled else (Action.FAULT,)
        if state.stage is Stage.RINGS:
            return _polygon(state, closed=self.polygons)
        unfinished = self._leave(state)
        return (*unfinished, Action.ITEM) if self.single and state.labelled else unfinished


def _ring(state: State) -> tuple[bool, Actions]:
    """Whether the ring in hand has three points, and its fault, if any."""
    whole = state.count >= _MIN_RING
    return whole, () if whole and state.count % 2 == 0 else (Action.FAULT,)


def _polygon(state: State, closed: bool) -> Actions:
    """The end of a polygon, by its closing mark (`closed`) or without it; at most one fault."""
    whole, faults = _ring(state)
    kept = (Action.RING if whole else Action.DROP_RING, Action.ITEM) if whole or state.ringed else (Action.DROP,)
    return *kept, *(faults if closed else (Action.FAULT,))


_WRITTEN = (IdClass.TEXT, IdClass.LOC, IdClass.SEP, IdClass.POLY_OPEN, IdClass.POLY_CLOSE, IdClass.END)

GRAMMARS: dict[str, Grammar] = {
    grammar.name: grammar
    for grammar in (
        Grammar("text"),
        Grammar("labelled_boxes", group=4, inherits_label=True, repeats_label=False),
        Grammar("boxes", text=False, group=4),
        Grammar("labelled_quads", group=8),
        Grammar("labelled_boxes_or_polygons", group=4, brackets=True, inherits_label=True),
        Grammar("polygons", text=False, polygons=True),
        Grammar("region_text", group=4, single=True),
        Grammar("parts", parts=True),
    )
}


def grammar(name: str) -> Grammar:
    """The grammar of a name; ValueError, naming the valid ones, for any other."""
    if name not in GRAMMARS:
        raise ValueError(f"unknown grammar {name!r}; choose from {', '.join(GRAMMARS)}")
    return GRAMMARS[name]
