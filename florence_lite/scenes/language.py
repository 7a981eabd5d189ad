"""Sentences about a scene: captions, phrases, referring expressions and questions, with their truth.

The grammar is small and always the same, so that a small model can learn it.

* Place: the centre of the box in a 3 × 3 grid ("at the top left", "in the center", "on the right" …).
* Size: the root of the box's share of the image; "small" below 0.2, "large" above 0.33, otherwise no word.
* Beside: A is left of B when its centre is at least 0.12 of the shorter side further left and less far off vertically.
* Order: objects from left to right as in `Annotation.objects`; classes in captions in the order of their first object.
* Numbers up to ten are words in captions and digits in answers.

A phrase that is true of an object only just, or of another object almost, is not made: what is unique is so by a
margin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from florence_lite.answers import Box
from florence_lite.data.annotation import Question, ReferringExpression, Stuff, TextLine
from florence_lite.scenes.catalogue import CLASSES, GROUPS, PLURALS, STUFF
from florence_lite.scenes.variety import PLAIN, Variety

PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the center", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
SMALL, LARGE = 0.2, 0.33
MARGIN = 0.12  # of the shorter side: centres closer than this are neither left nor right, above nor below
MUCH_LARGER = 1.4  # ratio of box areas from which one object is called the largest or the smallest
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Words → (axis, sign): the first object's centre lies on that side of the second's."""
EXTREMES = {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "bottommost": (1, 1)}

_TRIES = 5
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(label: str) -> str:
    return PLURALS.get(label, label + "s")


def enumerate_words(items: list[str]) -> str:
    """["x", "y", "z"] → "x, y and z"."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


@dataclass(frozen=True)
class View:
    """Labels and visible boxes (pixels) of a scene's objects, with the geometry that the words stand for.

    variety: of the things that are spoken of and not there.
    """

    labels: tuple[str, ...]
    boxes: tuple[Box, ...]
    size_wh: tuple[int, int]
    variety: Variety = PLAIN

    def having(self, label: str) -> list[int]:
        return [i for i, other in enumerate(self.labels) if other == label]

    def classes(self) -> list[str]:
        return list(dict.fromkeys(self.labels))

    def centre(self, i: int) -> tuple[float, float]:
        x0, y0, x1, y1 = self.boxes[i]
        return (x0 + x1) / 2, (y0 + y1) / 2

    def area(self, i: int) -> float:
        x0, y0, x1, y1 = self.boxes[i]
        return (x1 - x0) * (y1 - y0)

    def cell(self, i: int) -> tuple[int, int]:
        """(row, column) in the 3 × 3 grid."""
        (x, y), (width, height) = self.centre(i), self.size_wh
        return min(int(3 * y / height), 2), min(int(3 * x / width), 2)

    def place(self, i: int) -> str:
        row, column = self.cell(i)
        return PLACES[row][column]

    def size_word(self, i: int) -> str:
        share = (self.area(i) / (self.size_wh[0] * self.size_wh[1])) ** 0.5
        return "small " if share < SMALL else "large " if share > LARGE else ""

    def noun_phrase(self, i: int) -> str:
        """ "a small dog"."""
        return a(self.size_word(i) + self.labels[i])

    def phrase(self, i: int) -> str:
        """ "a small dog at the top left"."""
        return f"{self.noun_phrase(i)} {self.place(i)}"

    def offset(self, i: int, j: int, relation: str) -> tuple[float, float]:
        """How far i lies on that side of j, and how far off to the sides; both in shares of the shorter side."""
        axis, sign = RELATIONS[relation]
        here, there, side = self.centre(i), self.centre(j), min(self.size_wh)
        return sign * (here[axis] - there[axis]) / side, abs(here[1 - axis] - there[1 - axis]) / side

    def is_beside(self, i: int, j: int, relation: str) -> bool:
        along, across = self.offset(i, j, relation)
        return along >= MARGIN and along >= across

    def is_nearly_beside(self, i: int, j: int, relation: str) -> bool:
        """Somebody might say so: on that side at all."""
        return self.offset(i, j, relation)[0] > 0


def lists(view: View) -> tuple[str, str]:
    """The objects by their numbers, and each of them with size and place."""
    counted = []
    for label in view.classes():
        count = len(view.having(label))
        counted.append(a(label) if count == 1 else f"{_NUMBERS[count]} {plural(label)}")
    placed = [view.phrase(i) for i in range(len(view.labels))]
    return enumerate_words(counted) or "nothing", enumerate_words(placed) or "nothing"


def captions(view: View, lines: tuple[TextLine, ...], background: str) -> tuple[str, str, str]:
    """A list of the objects, the same with sizes and places, and a paragraph with background, counts and text."""
    short, detailed = lists(view)
    count = len(view.labels)
    sentences = [
        f"{_capital(background)}.",
        f"There {'is one object' if count == 1 else f'are {_NUMBERS[count]} objects'}: {short}.",
    ]
    sentences += [f"{_capital(view.noun_phrase(i))} is {view.place(i)}." for i in range(count)]
    quoted = enumerate_words([f'"{line.text}"' for line in lines])
    sentences.append(f"The text says {quoted}." if lines else "There is no text.")
    return short, detailed, " ".join(sentences)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def expressions(view: View, rng: np.random.Generator) -> tuple[ReferringExpression, ...]:
    """Phrases that mean one object, several, or none, in this order; one or two of each wording that applies.

    One: "the dog", "the dog at the top left", "the leftmost dog", "the largest dog", "the dog below the car".
    Several: "dog" (every one; also where there is one), "all dogs", "all animals".
    None: "cat", "the cat", "all cats", "all vehicles"; another class at a place that is taken; a place or a side where
    no dog is.
    """
    one = [
        (_by_class(view), 2),
        (_by_place(view), 2),
        (_by_extreme(view), 1),
        (_by_size(view), 1),
        (_by_relation(view), 2),
    ]
    several = [(_bare(view), 2), (_all(view), 1)]
    none = [(_missing(view, rng), 2), (_wrong_class(view, rng), 1), (_wrong_place(view), 2)]
    chosen = []
    for pool, most in one + several + none:
        chosen += [pool[int(k)] for k in rng.permutation(len(pool))[:most]]
    return tuple(chosen)


def _by_class(view: View) -> list[ReferringExpression]:
    return [
        ReferringExpression(f"the {label}", tuple(view.having(label)))
        for label in view.classes()
        if len(view.having(label)) == 1
    ]


def _by_place(view: View) -> list[ReferringExpression]:
    found = []
    for i, label in enumerate(view.labels):
        if sum(_near(view.cell(i), view.cell(j)) for j in view.having(label)) == 1:
            found.append(ReferringExpression(f"the {label} {view.place(i)}", (i,)))
    return found


def _near(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """The same cell or one next to it: too close to tell the two apart by their places alone."""
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= 1


def _by_extreme(view: View) -> list[ReferringExpression]:
    found = []
    for label in view.classes():
        for word, (axis, sign) in EXTREMES.items():
            ranked = sorted(view.having(label), key=lambda i: -sign * view.centre(i)[axis])
            if len(ranked) > 1:
                lead = abs(view.centre(ranked[0])[axis] - view.centre(ranked[1])[axis]) / min(view.size_wh)
                if lead >= MARGIN:
                    found.append(ReferringExpression(f"the {word} {label}", (ranked[0],)))
    return found


def _by_size(view: View) -> list[ReferringExpression]:
    found = []
    for label in view.classes():
        ranked = sorted(view.having(label), key=view.area)
        if len(ranked) > 1:
            if view.area(ranked[-1]) >= MUCH_LARGER * view.area(ranked[-2]):
                found.append(ReferringExpression(f"the largest {label}", (ranked[-1],)))
            if view.area(ranked[1]) >= MUCH_LARGER * view.area(ranked[0]):
                found.append(ReferringExpression(f"the smallest {label}", (ranked[0],)))
    return found


def _by_relation(view: View) -> list[ReferringExpression]:
    found = []
    for j, anchor in enumerate(view.labels):
        if len(view.having(anchor)) > 1:
            continue
        for relation in RELATIONS:
            for label in view.classes():
                possible = [i for i in view.having(label) if i != j and view.is_nearly_beside(i, j, relation)]
                if len(possible) == 1 and view.is_beside(possible[0], j, relation):
                    found.append(ReferringExpression(f"the {label} {relation} the {anchor}", (possible[0],)))
    return found


def _bare(view: View) -> list[ReferringExpression]:
    return [ReferringExpression(label, tuple(view.having(label))) for label in view.classes()]


def _all(view: View) -> list[ReferringExpression]:
    found = [
        ReferringExpression(f"all {plural(label)}", tuple(view.having(label)))
        for label in view.classes()
        if len(view.having(label)) > 1
    ]
    for group, members in GROUPS.items():
        inside = tuple(i for i, label in enumerate(view.labels) if label in members)
        if len(inside) > 1:
            found.append(ReferringExpression(f"all {group}", inside))
    return found


def _stranger(view: View, rng: np.random.Generator) -> str:
    """A class that is not in the scene, or a thing that no scene has."""
    if thing := view.variety.thing(rng):
        return thing
    missing = [label for label in CLASSES if label not in view.labels]
    return missing[int(rng.integers(len(missing)))]


def _missing(view: View, rng: np.random.Generator) -> list[ReferringExpression]:
    phrases = [f"the {_stranger(view, rng)}", _stranger(view, rng), f"all {plural(_stranger(view, rng))}"]
    groups = [group for group, members in GROUPS.items() if not any(label in members for label in view.labels)]
    if groups:
        phrases.append(f"all {groups[int(rng.integers(len(groups)))]}")
    return [ReferringExpression(phrase, kind="random") for phrase in phrases]


def _wrong_class(view: View, rng: np.random.Generator) -> list[ReferringExpression]:
    stranger = _stranger(view, rng)
    phrases = [f"the {stranger} {view.place(i)}" for i in range(len(view.labels))]
    phrases += [f"the {stranger} {relation} the {anchor}" for anchor in view.classes() for relation in RELATIONS]
    return [ReferringExpression(phrase, kind="changed") for phrase in phrases]


def _wrong_place(view: View) -> list[ReferringExpression]:
    phrases = []
    for label in view.classes():
        cells = [view.cell(i) for i in view.having(label)]
        for row, names in enumerate(PLACES):
            phrases += [
                f"the {label} {name}"
                for column, name in enumerate(names)
                if not any(_near((row, column), c) for c in cells)
            ]
        for j, anchor in enumerate(view.labels):
            if anchor == label or len(view.having(anchor)) > 1:
                continue
            for relation in RELATIONS:
                if all(view.offset(i, j, _OPPOSITE[relation])[0] >= MARGIN for i in view.having(label)):
                    phrases.append(f"the {label} {relation} the {anchor}")
    return [ReferringExpression(phrase, kind="changed") for phrase in phrases]


def absent_stuff(stuff: tuple[Stuff, ...], rng: np.random.Generator) -> tuple[ReferringExpression, ...]:
    """The name of one kind of stuff that the scene does not show."""
    missing = [label for label in STUFF if label not in {item.label for item in stuff}]
    return (ReferringExpression(f"the {missing[int(rng.integers(len(missing)))]}", kind="random"),)


def wrong_captions(view: View, right: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """Two sentences that are not true of the scene, short or detailed: one with other objects, one with one mistake: an
    object of another class, at another place, or one object too many. A sentence that leaves one out is true."""
    found = []
    for view_of in (_other_objects, _one_mistake):
        if view.labels:
            for _ in range(_TRIES):
                wrong = lists(view_of(view, rng))[int(rng.integers(2))]
                if wrong not in right:
                    found.append(wrong)
                    break
    return tuple(found)


def _other_objects(view: View, rng: np.random.Generator) -> View:
    """As many objects at the same places, none of a class that is there."""
    return replace(view, labels=tuple(_stranger(view, rng) for _ in view.labels))


def _one_mistake(view: View, rng: np.random.Generator) -> View:
    labels, boxes = list(view.labels), list(view.boxes)
    i, way = int(rng.integers(len(labels))), int(rng.integers(3))
    if way == 0:
        labels[i] = _stranger(view, rng)
    elif way == 1:
        (x0, y0, x1, y1), (width, height) = boxes[i], view.size_wh
        across = rng.random() < 0.5
        boxes[i] = (width - x1, y0, width - x0, y1) if across else (x0, height - y1, x1, height - y0)
    else:
        labels.insert(i, labels[i])
        boxes.insert(i, boxes[i])
    return replace(view, labels=tuple(labels), boxes=tuple(boxes))


def questions(view: View, lines: tuple[TextLine, ...], rng: np.random.Generator) -> tuple[Question, ...]:
    """How many, is there, what is where, what is beside what, the largest, the text: one of each that applies.

    Answers are a number in digits, "yes", "no", a class, the lines of text from top to bottom, or "nothing".
    """
    stranger = _stranger(view, rng)
    present = view.labels[int(rng.integers(len(view.labels)))] if view.labels else stranger
    asked = stranger if rng.random() < 0.2 else present
    kinds = [[Question(f"how many {plural(asked)} are there?", str(len(view.having(asked))))]]
    asked = stranger if rng.random() < 0.5 else present
    kinds.append([Question(f"is there {a(asked)}?", "yes" if asked in view.labels else "no")])
    kinds.append([Question("how many objects are there?", str(len(view.labels)))])
    kinds.append(_what_is_where(view))
    kinds.append(_what_is_beside(view))
    ranked = sorted(range(len(view.labels)), key=view.area)
    if len(ranked) > 1 and view.area(ranked[-1]) >= MUCH_LARGER * view.area(ranked[-2]):
        kinds.append([Question("what is the largest object?", view.labels[ranked[-1]])])
    kinds.append([Question("what does the text say?", " ".join(line.text for line in lines) or "nothing")])
    return tuple(pool[int(rng.integers(len(pool)))] for pool in kinds if pool)


def _what_is_where(view: View) -> list[Question]:
    found = []
    cells = [view.cell(i) for i in range(len(view.labels))]
    for row, names in enumerate(PLACES):
        for column, name in enumerate(names):
            if cells.count((row, column)) == 1:
                found.append(Question(f"what is {name}?", view.labels[cells.index((row, column))]))
    return found


def _what_is_beside(view: View) -> list[Question]:
    found = []
    for j, anchor in enumerate(view.labels):
        if len(view.having(anchor)) > 1:
            continue
        for relation in RELATIONS:
            possible = [i for i in range(len(view.labels)) if i != j and view.is_nearly_beside(i, j, relation)]
            if not possible:
                found.append(Question(f"what is {relation} the {anchor}?", "nothing"))
            elif len(possible) == 1 and view.is_beside(possible[0], j, relation):
                found.append(Question(f"what is {relation} the {anchor}?", view.labels[possible[0]]))
    return found
