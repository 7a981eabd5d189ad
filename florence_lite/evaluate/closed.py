"""How well a checkpoint answers from closed lists, and fills in words, beside what needs no picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import Image

from florence_lite.answers import same_label
from florence_lite.data.samples import Sample
from florence_lite.evaluate.metrics import words
from florence_lite.evaluate.metrics.measurement import Case, Measurement, share
from florence_lite.florence import Florence
from florence_lite.inference import Prompt
from florence_lite.inference.infilling import INFILLING
from florence_lite.results import Result
from florence_lite.rules import Pair, pairs

QUESTIONS = "<VQA>"
COMMON_LISTS = {"yes_no": ("yes", "no"), "numbers": tuple(map(str, range(11)))}
MOST_OTHERS = 1000  # as in Antol et al. 2015, arXiv:1505.00468
BLANK = (128, 128, 128)  # a picture that shows nothing


def closed_questions(florence: Florence, samples: Sequence[Sample], lists: Mapping[str, Sequence[str]]) -> Measurement:
    """Questions whose true answer is in one of `lists` (name → answers), each asked with the first list that has it;
    the others are counted.

    For each list: NAME_accuracy, answers that are true; NAME_open_accuracy, the same where the checkpoint may write
    anything; NAME_constant, the accuracy of the best answer that is always the same; NAME_out_of_list, answers outside
    of the list, which must be 0, and NAME_open_out_of_list. None where no question has an answer of the list.
    """
    known = {name: {same_label(answer) for answer in answers} for name, answers in lists.items()}
    found: dict[str, list[tuple[set[str], str, str]]] = {name: [] for name in lists}  # true answers, closed, open
    results: list[Result] = []
    unlisted = 0
    for sample in samples:
        asked: dict[str, list[Pair]] = {}
        for pair in pairs(QUESTIONS, sample.annotation):
            true = _answers(pair)
            name = next((name for name in lists if true & known[name]), None)
            if pair.asked and name:
                asked.setdefault(name, []).append(pair)
            unlisted += pair.asked and not name
        image = florence.encode(sample.load(), keep_image=False) if asked else None
        for name, of_list in asked.items():
            prompts = [Prompt(QUESTIONS, **pair.inputs) for pair in of_list]
            closed = florence.run(image, prompts, keep_image=False, choices=lists[name])
            free = florence.run(image, prompts, keep_image=False)
            results += [*closed, *free]
            found[name] += [
                (_answers(pair), same_label(one.text), same_label(other.text))
                for pair, one, other in zip(of_list, closed, free, strict=True)
            ]
    metrics = {}
    for name, cases in found.items():
        for way, place in (("", 1), ("_open", 2)):
            right = sum(case[place] in case[0] for case in cases)
            outside = sum(case[place] not in known[name] for case in cases)
            metrics[f"{name}{way}_accuracy"] = share(right, len(cases))
            metrics[f"{name}{way}_out_of_list"] = share(outside, len(cases))
        constant = Counter(answer for true, _, _ in cases for answer in true & known[name])
        metrics[f"{name}_constant"] = share(max(constant.values(), default=0), len(cases))
    counts = ", ".join(f"{len(cases)} of {name}" for name, cases in found.items())
    notes = (counts, *([f"{unlisted} with answers of no list are left out"] if unlisted else []))
    return Measurement.of_results(metrics, notes, sum(map(len, found.values())), results)


def lists_of(samples: Sequence[Sample]) -> dict[str, tuple[str, ...]]:
    """Closed lists for the questions about some samples: yes and no, the numbers to 10, and "others", the commonest
    other answers, at most 1000, the commonest first; without it where there are fewer than two."""
    common = {answer for answers in COMMON_LISTS.values() for answer in answers}
    written: dict[str, str] = {}  # as it stands where it stands first
    others: Counter[str] = Counter()
    for sample in samples:
        for pair in pairs(QUESTIONS, sample.annotation):
            if not _answers(pair) & common:
                for text in pair.texts:
                    written.setdefault(same_label(text), text.strip())
                others.update(_answers(pair) - {""})
    found = tuple(written[answer] for answer, _ in others.most_common(MOST_OTHERS))
    return COMMON_LISTS | ({"others": found} if len(found) > 1 else {})


def infilling(florence: Florence, samples: Sequence[Sample], each: int = 4) -> Measurement:
    """infilling: share of the masks that get their own words, save for capitals and space; infilling_blank: the same
    with a grey picture in the place of the image; infilling_constant: with the words that are most often right.

    each: sentences of an image, the same number apart, of all that the task's rule makes.
    """
    cases: list[Case] = []
    blank: list[Case] = []
    for sample in samples:
        asked = [pair for pair in pairs(INFILLING, sample.annotation) if pair.asked]
        asked = asked[:: max(1, len(asked) // each)][:each]
        if not asked:
            continue
        prompts = [Prompt(INFILLING, **pair.inputs) for pair in asked]
        nothing = Image.new("RGB", sample.annotation.size_wh, BLANK)
        for picture, answered in ((sample.load(), cases), (nothing, blank)):
            results = florence.run(picture, prompts, keep_image=False)
            answered += [Case(pair, result) for pair, result in zip(asked, results, strict=True)]
    true = Counter(same_label(item.label) for case in cases for item in case.truth.instances)
    metrics = {
        "infilling": words.infilling(cases).metrics["infilling"],
        "infilling_blank": words.infilling(blank).metrics["infilling"],
        "infilling_constant": share(max(true.values(), default=0), true.total()),
    }
    of_all = [case.result for case in (*cases, *blank)]
    return Measurement.of_results(metrics, (f"{true.total()} masks",), len(cases), of_all)


def _answers(pair: Pair) -> set[str]:
    return {same_label(text) for text in pair.texts}
