import pytest

from florence_lite.answers import Answer, Instance
from florence_lite.tokens import GRAMMARS, IdClass, grammar
from florence_lite.tokens.grammars import Action, State
from tests.tokens.spelling import BOS, CLOSE, END, LOC, OPEN, OTHER, PAD, SEP, TEXT

BOX, QUAD, RINGS = {"box": (0, 0, 1, 1)}, {"quad": (0, 0, 1, 0, 1, 1, 0, 1)}, {"polygons": [[(0, 0), (1, 0), (1, 1)]]}


def walk(name: str, *classes: IdClass) -> tuple[State, list[Action]]:
    """The state after a sequence of id classes and all actions on the way."""
    form, actions = grammar(name), []
    state = form.start
    for id_class in classes:
        state, more = form.step(state, id_class)
        actions += more
    return state, actions


def reachable(name: str) -> set[State]:
    form = grammar(name)
    found, new = set(), {form.start}
    while new:
        found |= new
        new = {form.advance(state, id_class) for state in new for id_class in IdClass} - found
    return found


@pytest.mark.parametrize(
    ("name", "classes", "allowed"),
    [
        ("text", [], {TEXT, END}),
        ("text", [TEXT], {TEXT, END}),
        ("labelled_boxes", [BOS], {TEXT, LOC, END}),
        ("labelled_boxes", [TEXT], {TEXT, LOC}),  # a label needs a box
        ("labelled_boxes", [TEXT, LOC], {LOC}),
        ("labelled_boxes", [TEXT] + [LOC] * 4, {TEXT, LOC, END}),
        ("boxes", [], {LOC, END}),
        ("boxes", [LOC] * 3, {LOC}),
        ("boxes", [LOC] * 4, {LOC, END}),
        ("labelled_quads", [TEXT] + [LOC] * 4, {LOC}),
        ("labelled_quads", [TEXT] + [LOC] * 8, {TEXT, LOC, END}),
        ("labelled_boxes_or_polygons", [TEXT], {TEXT, LOC, OPEN}),
        ("labelled_boxes_or_polygons", [TEXT, OPEN], {LOC}),
        ("labelled_boxes_or_polygons", [TEXT, OPEN] + [LOC] * 6, {LOC, SEP, CLOSE}),
        ("labelled_boxes_or_polygons", [TEXT, OPEN] + [LOC] * 7, {LOC}),  # x without y
        ("labelled_boxes_or_polygons", [TEXT, OPEN] + [LOC] * 6 + [SEP], {LOC}),
        ("labelled_boxes_or_polygons", [TEXT, OPEN] + [LOC] * 8 + [CLOSE], {TEXT, LOC, OPEN, END}),
        ("polygons", [], {LOC, END}),
        ("polygons", [LOC] * 4, {LOC}),
        ("polygons", [LOC] * 6, {LOC, SEP, END}),
        ("polygons", [LOC] * 101, {LOC}),
        ("polygons", [LOC] * 102, {LOC, SEP, END}),
        ("polygons", [LOC] * 6 + [SEP], {LOC}),
        ("region_text", [], {TEXT, LOC, END}),
        ("region_text", [TEXT], {TEXT, LOC, END}),
        ("region_text", [TEXT] + [LOC], {LOC}),
        ("region_text", [TEXT] + [LOC] * 4, {END}),
        ("text", [TEXT, OTHER], {TEXT, END}),  # what was skipped changes nothing
        ("text", [TEXT, END], set()),
        ("text", [END], set()),
        ("text", [END, BOS], {TEXT, END}),  # the decoder's start token
    ],
)
def test_allowed(name, classes, allowed):
    form = grammar(name)
    assert form.allowed(walk(name, *classes)[0]) == allowed


@pytest.mark.parametrize("name", GRAMMARS)
def test_there_are_few_states_and_each_leads_to_the_end_without_a_fault(name):
    form = grammar(name)
    states = reachable(name)
    assert len(states) < 60
    ends = {state for state in states if state.ended}
    while True:
        more = {s for s in states - ends if any(form.advance(s, c) in ends for c in form.allowed(s))}
        if not more:
            break
        ends |= more
    assert ends == states


@pytest.mark.parametrize("name", GRAMMARS)
def test_pads_change_nothing_and_nothing_happens_after_the_end(name):
    form = grammar(name)
    for state in reachable(name):
        after, actions = form.step(state, PAD)
        assert actions == () and form.allowed(after) == form.allowed(state)
        after, _ = form.step(form.advance(state, END), TEXT)
        assert all(form.step(after, id_class) == (after, ()) for id_class in IdClass) == after.ended


@pytest.mark.parametrize("name", GRAMMARS)
def test_being_cut_is_no_fault(name):
    assert not any(Action.FAULT in grammar(name).cut(state) for state in reachable(name))


@pytest.mark.parametrize(
    ("name", "classes", "faults"),
    [
        ("boxes", [OTHER, TEXT, SEP, LOC, LOC, LOC, LOC, END], 1),  # one run
        ("boxes", [TEXT, LOC, TEXT, LOC, LOC, LOC, END], 2),  # two runs, and the box is kept
        ("boxes", [PAD, OTHER, PAD, OTHER, BOS, OTHER, END], 1),
        ("labelled_boxes", [TEXT, END], 1),
        ("polygons", [LOC] * 6 + [SEP, END], 1),  # an empty ring
        ("polygons", [SEP] + [LOC] * 6 + [END], 1),
        ("polygons", [LOC] * 4 + [SEP] + [LOC] * 7 + [END], 2),
        ("labelled_boxes_or_polygons", [TEXT, OPEN, CLOSE, END], 1),
        ("labelled_boxes_or_polygons", [TEXT, OPEN] + [LOC] * 6 + [END], 1),
        ("labelled_boxes_or_polygons", [TEXT, OPEN] + [LOC] * 7 + [OPEN] + [LOC] * 6 + [CLOSE, END], 1),
        ("labelled_boxes_or_polygons", [TEXT, LOC, LOC, OPEN] + [LOC] * 6 + [CLOSE, CLOSE, END], 2),
    ],
)
def test_faults(name, classes, faults):
    assert walk(name, *classes)[1].count(Action.FAULT) == faults


@pytest.mark.parametrize(
    ("name", "instances", "text", "message"),
    [
        ("labelled_boxes", [Instance("A", **QUAD)], "", "'labelled_boxes'.*'quad'.*takes box"),
        ("labelled_boxes", [Instance("A", **BOX), Instance("B", **RINGS)], "", "instance 1.*'polygons'"),
        ("labelled_boxes", [Instance("A")], "", "'label'.*takes box"),
        ("labelled_boxes", [Instance("A", **BOX), Instance(**BOX)], "", "put unlabelled instances first"),
        ("labelled_boxes", [], "words", "'labelled_boxes' takes no text"),
        ("boxes", [Instance("A", **BOX)], "", "'boxes'.*takes no labels"),
        ("labelled_quads", [Instance("A", **BOX)], "", "'labelled_quads'.*takes quad"),
        ("labelled_boxes_or_polygons", [Instance("A", **QUAD)], "", "takes box or polygons"),
        ("polygons", [Instance("A", **RINGS)], "", "'polygons'.*takes no labels"),
        ("polygons", [Instance(**RINGS)] * 2, "", "'polygons' takes one instance, not 2"),
        ("text", [Instance("A", **BOX)], "", "'text'.*takes text and no instances"),
        ("region_text", [Instance("A", **BOX)] * 2, "", "takes one instance"),
        ("region_text", [Instance("A", **RINGS)], "", "takes box or label"),
        ("region_text", [Instance()], "", "says nothing"),
        ("region_text", [Instance("A", **BOX)], "B", "must equal the label 'A'"),
    ],
)
def test_answers_that_a_grammar_cannot_express(name, instances, text, message):
    with pytest.raises(ValueError, match=message):
        grammar(name).check(Answer(text, instances))


def test_unknown_grammars_are_named():
    with pytest.raises(ValueError, match="'xml'; choose from text, labelled_boxes"):
        grammar("xml")
