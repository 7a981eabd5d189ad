"""Task cards: how a prompt is built, how its answer is read and which rule tells its truth.

task("<CAPTION>").prompt()                                        "What does the image describe?"
task("<OPEN_VOCABULARY_DETECTION>").prompt(phrases=["a", "b"])    "Locate a<and>b in the image."
task("What colour is the car?").prompt()                          a free prompt: the sentence itself
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence_lite.cards.registry import Registry, read_card
from florence_lite.checks import check_choice, check_list, check_text, check_whole, is_text
from florence_lite.tokens.codec import region_markup
from florence_lite.tokens.grammars import GRAMMARS

INPUTS = {  # what a template's {input} stands for: the arguments of a call that may fill it
    "none": (),
    "text": ("text",),
    "phrase": ("phrases", "text"),
    "phrases": ("phrases", "text"),
    "region": ("region",),
}
SCORINGS = ("instance", "text", "none")
LABELS = ("any", "input")  # what an answer may call things
ORDERS = ("given", "left to right")  # of the instances of an answer

_MARKER = re.compile(r"<[^<>\s]+>")
_HOW_TO_GIVE = {  # messages name arguments like this alone, so that the command can put its options in their place
    "text": 'text="…"',
    "phrases": 'phrases=["…"]',
    "region": "region=(x0, y0, x1, y1) in pixels",
}


@dataclass(frozen=True)
class TaskCard:
    """One prompt: the sentence that is sent and the way its answer is read, decoded and scored.

    name: the marker users type, such as "<OD>". It is not sent to the model. A free prompt's name is its sentence.
    summary: what the answer holds, in a few words.
    template: the sentence, byte for byte, with one `{input}` where `input` is not "none". A free prompt may hold any.
    input: what `{input}` stands for, a key of `INPUTS`: "none", "text" (a caption, a question), "phrase" (one),
        "phrases" (one or more, joined with `<and>`) or "region" (a box, sent as four `<loc_…>`).
    grammar: form of the answer, a name of `florence_lite.tokens.grammars.GRAMMARS`.
    max_new_tokens, num_beams, no_repeat_ngram_size: decoding defaults. Beams are 1, which is fastest and measures the
        same probabilities it decodes by; Florence-2's own default is 3. Only prose bans repeated n-grams (0 = no ban):
        in a list the ban would forbid the second instance of any longer label.
    labels: what the instances of an answer may be called: "any" words, or those of the "input": runs of whole words of
        a caption, or one of the phrases.
    order: of the instances in a training target: "given" (as the annotation has them) or "left to right" (by left edge,
        then top edge), which leaves a small network less to guess.
    scoring: "instance" (each instance from its own tokens), "text" (the answer as a whole) or "none".
    method: the method of `Florence` that runs this task ("run" runs all of them).
    rule: name of the rule that tells the truth about an image, such as "captions.short"; see `florence_lite.rules`. ""
        where there is none, or where a function is registered with the card; without either a task answers, but can
        neither be trained nor measured.
    metrics: names of the measures that suit the answer.
    general_phrases: labels that point at nothing in particular, such as "it" and "the image"; a call may have them left
        out of the answer.
    input_marks: marks that the input may hold, such as "<mask>"; others would be read as something else than words.

    Raises ValueError naming the field, its value and the valid choices.
    """

    name: str
    summary: str
    template: str
    grammar: str
    input: str = "none"
    max_new_tokens: int = 1024
    num_beams: int = 1
    no_repeat_ngram_size: int = 0
    labels: str = "any"
    order: str = "given"
    scoring: str = "none"
    method: str = "run"
    rule: str = ""
    metrics: tuple[str, ...] = ()
    general_phrases: tuple[str, ...] = ()
    input_marks: tuple[str, ...] = ()

    def __post_init__(self):
        check_text(self, "name", "summary", "template", "method")
        if not self.is_free and not _MARKER.fullmatch(self.name):
            raise ValueError(f'name = {self.name!r} must be a marker in angle brackets, such as "<OD>"')
        check_choice(self, "input", INPUTS)
        check_choice(self, "grammar", GRAMMARS)
        check_choice(self, "labels", LABELS)
        if self.labels == "input" and (self.input in ("none", "region") or not GRAMMARS[self.grammar].text):
            raise ValueError(
                f"labels = 'input' needs an input of words and a grammar that takes labels; here input is "
                f"{self.input!r} and grammar is {self.grammar!r}"
            )
        check_choice(self, "order", ORDERS)
        check_choice(self, "scoring", SCORINGS)
        slots = self.template.count("{input}")
        if slots != (self.input != "none") and not (self.is_free and self.input == "none"):
            raise ValueError(
                f"template = {self.template!r} has {slots} {{input}}; "
                f"it must hold exactly one, or none where input is 'none' (here input is {self.input!r})"
            )
        check_whole(self, 1, "max_new_tokens", "num_beams")
        check_whole(self, 0, "no_repeat_ngram_size")
        if self.rule != "":
            check_text(self, "rule")
        check_list(self, "metrics", is_text)
        check_list(self, "general_phrases", is_text)
        check_list(self, "input_marks", is_text)

    @property
    def is_free(self) -> bool:
        """Whether it is a free prompt, whose answer may have any form."""
        return self.name == self.template and not _MARKER.fullmatch(self.name)

    def prompt(
        self,
        text: str | None = None,
        phrases: Sequence[str] | None = None,
        region: Sequence[float] | None = None,
        size_wh: tuple[int, int] | None = None,
        bins: int = 1000,
    ) -> str:
        """The sentence to send.

        text: caption or question, or the phrase of a task that takes phrases. Surrounding space is removed.
        phrases: a list of phrases; exactly one where the card's input is "phrase".
        region: x0, y0, x1, y1 in pixels of the image, inside it, x0 < x1 and y0 < y1; needs `size_wh`.
        size_wh: (width, height) of the image; bins: number of coordinate bins of the checkpoint.

        Raises ValueError for input that is missing, superfluous, empty or outside the image.
        """
        candidates = {"text": text, "phrases": phrases, "region": region}
        given = [name for name, value in candidates.items() if value is not None]
        accepted = INPUTS[self.input]
        for name in given:
            if name not in accepted:
                wanted = f"takes {_HOW_TO_GIVE[accepted[0]]}" if accepted else "takes no input"
                others = ", ".join(card.name for card in tasks() if name in INPUTS[card.input])
                raise ValueError(
                    f"task {self.name} {wanted}, but {_HOW_TO_GIVE[name]} was given; tasks that take it: {others}"
                )
        if not accepted:
            return self.template
        if len(given) != 1:
            both = " and ".join(_HOW_TO_GIVE[name] for name in given)
            fault = f"both {both} were given" if given else "nothing was given"
            raise ValueError(f"task {self.name} needs {_HOW_TO_GIVE[accepted[0]]}, but {fault}")

        if region is not None:
            filling = _region(self.name, region, size_wh, bins)
        elif phrases is not None:
            filling = self._joined(phrases)
        else:
            filling = _stripped(self.name, "text", text)
        return self.template.replace("{input}", filling)

    def _joined(self, phrases: Sequence[str]) -> str:
        if isinstance(phrases, str) or not isinstance(phrases, Sequence):
            example = f", such as phrases=[{phrases!r}]" if isinstance(phrases, str) else ""
            raise ValueError(f"task {self.name}: phrases={phrases!r} must be a list of strings{example}")
        if not phrases:
            raise ValueError(f"task {self.name}: phrases=[] is empty; give at least one phrase")
        if self.input == "phrase" and len(phrases) > 1:
            raise ValueError(f"task {self.name} takes one phrase at a time, but {len(phrases)} were given")
        stripped = [_stripped(self.name, f"phrases[{i}]", phrase) for i, phrase in enumerate(phrases)]
        for i, phrase in enumerate(stripped):
            if "<and>" in phrase:
                raise ValueError(
                    f"task {self.name}: phrases[{i}]={phrase!r} must be one phrase; give what <and> joins as several"
                )
        return "<and>".join(stripped)


TASKS = Registry("task", TaskCard)
_OWN_RULES: dict[str, Callable] = {}  # task name → the function that was registered with it


def task(name: str) -> TaskCard:
    """The task card called `name`, or the card of a free prompt where `name` is a plain sentence.

    A sentence may begin with a marker that is no task here ("<DocVQA>What is the total?"), as some fine-tunes expect.
    Raises ValueError for an unknown marker, for a known task's name written otherwise ("od") and for a marker with its
    input behind it ("<OD>car").
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a task is a marker or a sentence, not {name!r}; {TASKS.choices()}")
    if name in TASKS.by_name:
        return TASKS.by_name[name]
    bare_names = {known.strip("<>").casefold() for known in TASKS.by_name}
    if _MARKER.fullmatch(name.strip()) or name.strip(" \t\r\n<>").casefold() in bare_names:
        raise TASKS.unknown(name)
    marker = _MARKER.match(name.strip())
    if marker and marker[0] in TASKS.by_name:
        card = TASKS.by_name[marker[0]]
        how = _HOW_TO_GIVE[INPUTS[card.input][0]] if card.input != "none" else "no input"
        raise ValueError(f"prompt {name!r}: {card.name} goes alone, with {how} beside it")
    return TaskCard(name, "the answer to a free prompt", template=name, grammar="text", scoring="text")


def tasks() -> tuple[TaskCard, ...]:
    """All task cards: those of `tasks/`, then those registered at run time."""
    return tuple(TASKS.by_name.values())


def register_task(card: TaskCard | str | Path, rule: Callable | None = None) -> TaskCard:
    """Add a task, given as a card or as the path of its TOML file, and return its card.

    rule: a function that tells the truth of this task, from an `Annotation` to all its `florence_lite.rules.Pair`s;
        for a card that names no rule of the library.

    Raises ValueError where the name is taken or is no marker, the file does not describe a task, or there are two
    rules; FileNotFoundError where there is no such file.
    """
    if not isinstance(card, TaskCard):
        card = read_card(TaskCard, Path(card))
    if not _MARKER.fullmatch(card.name):
        raise ValueError(f'task {card.name!r} must be called by a marker in angle brackets, such as "<OD>"')
    if rule is not None and card.rule:
        raise ValueError(f"task {card.name}: its card names the rule {card.rule!r}; give no function beside it")
    if rule is not None and not callable(rule):
        raise ValueError(f"task {card.name}: rule is {rule!r}; give a function, or name a rule in the card")
    TASKS.add(card)
    if rule is not None:
        _OWN_RULES[card.name] = rule
    return card


def own_rule(name: str) -> Callable | None:
    """The function that was registered with the task called `name`, or None."""
    return _OWN_RULES.get(name)


def _region(task_name: str, region: Sequence[float], size_wh: tuple[int, int] | None, bins: int) -> str:
    """The checked region as a prompt says it."""
    if size_wh is None:
        raise ValueError(f"task {task_name}: a region needs size_wh, the (width, height) of its image")
    x0, y0, x1, y1 = region_corners(task_name, region)
    width, height = size_wh
    if x1 > width or y1 > height:
        raise ValueError(
            f"task {task_name}: region=({x0:g}, {y0:g}, {x1:g}, {y1:g}) must lie in the image of {width}×{height} "
            "pixels"
        )
    return region_markup((x0, y0, x1, y1), size_wh, bins)


def region_corners(task_name: str, region: Sequence[float]) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1 of a region, in pixels. Raises ValueError for one that fits in no image."""
    try:
        x0, y0, x1, y1 = (float(value) for value in region)
    except (TypeError, ValueError):
        raise ValueError(f"task {task_name}: region={region!r} must be (x0, y0, x1, y1) in pixels") from None
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise ValueError(
            f"task {task_name}: region=({x0:g}, {y0:g}, {x1:g}, {y1:g}) must have 0 <= x0 < x1 and 0 <= y0 < y1, in "
            "pixels of the image"
        )
    return x0, y0, x1, y1


def _stripped(task_name: str, what: str, text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        several = what == "text" and isinstance(text, list | tuple) and bool(text)
        remedy = f"; ask several with run(image, [Prompt({task_name!r}, text={text[0]!r}), …])" if several else ""
        raise ValueError(f"task {task_name}: {what}={text!r} must be a string with something in it{remedy}")
    return text.strip()
