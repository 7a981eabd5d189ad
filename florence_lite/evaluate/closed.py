"""How well a checkpoint answers from closed lists, and fills in words, beside what needs no picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import Image

from florence_lite.data.samples import Sample
from florence_lite.evaluate.metrics.measurement import Measurement, same_label, share
from florence_lite.florence import Florence
from florence_lite.inference import Prompt
from florence_lite.inference.infilling import INFILLING
from florence_lite.rules import pairs

QUESTIONS = "<VQA>"
BLANK = (128, 128, 128)  # a picture that shows nothing


def closed_questions(florence: Florence, samples: Sequence[Sample], lists: Mapping[str, Sequence[str]]) -> Measurement:
    """Questions whose true answer is in one of `lists` (name → answers), each asked with the first list that has it.

    For each list: NAME_accuracy, answers that are true; NAME_open_accuracy, the same where the checkpoint may write
    anything; NAME_constant, the accuracy of the best answer that is always the same; NAME_out_of_list, answers outside
    of the list, which must be 0, and NAME_open_out_of_list. None where no question has an answer of the list.
    """
    known = {name: {same_label(answer) for answer in answers} for name, answers in lists.items()}
    found: dict[str, list[tuple[set[str], str, str]]] = {name: [] for name in lists}  # true answers, closed, open
    for sample in samples:
        asked = []
        for pair in pairs(QUESTIONS, sample.annotation):
            true = {same_label(text) for text in pair.texts}
            name = next((name for name in lists if true & known[name]), None)
            if pair.asked and name is not None:
                asked.append((name, true, pair.inputs["text"]))
        encoded = florence.encode(sample.load(), keep_image=False) if asked else None
        for name, true, question in asked:
            closed = florence.ask(encoded, question, choices=lists[name], keep_image=False).text
            found[name].append((true, closed, florence.ask(encoded, question, keep_image=False).text))
    metrics = {}
    for name, cases in found.items():
        constant = Counter(answer for true, _, _ in cases for answer in true & known[name]).most_common(1)
        said = {"": [same_label(closed) for _, closed, _ in cases], "_open": [same_label(each) for *_, each in cases]}
        for way, answers in said.items():
            right = sum(answer in true for answer, (true, *_) in zip(answers, cases, strict=True))
            metrics[f"{name}{way}_accuracy"] = share(right, len(cases))
            metrics[f"{name}{way}_out_of_list"] = share(sum(each not in known[name] for each in answers), len(cases))
        metrics[f"{name}_constant"] = share(constant[0][1] if constant else 0, len(cases))
    counts = ", ".join(f"{len(cases)} of {name}" for name, cases in found.items())
    return Measurement(metrics, (f"questions: {counts}",))


def infilling(florence: Florence, samples: Sequence[Sample], each: int = 4) -> Measurement:
    """infilling: share of the masks that get their own words, save for capitals and space; infilling_blank: the same
    with a grey picture in the place of the image; infilling_constant: with the words that are most often right.

    each: sentences of an image, the same number apart, of all that the task's rule makes.
    """
    right = blank = 0
    true: list[str] = []
    for sample in samples:
        asked = [pair for pair in pairs(INFILLING, sample.annotation) if pair.asked]
        asked = asked[:: max(1, len(asked) // each)][:each]
        if not asked:
            continue
        prompts = [Prompt(INFILLING, **pair.inputs) for pair in asked]
        answers = florence.run(sample.load(), prompts, keep_image=False)
        without = florence.run(Image.new("RGB", sample.annotation.size_wh, BLANK), prompts, keep_image=False)
        for pair, seen, unseen in zip(asked, answers, without, strict=True):
            wanted = [same_label(item.label) for item in pair.instances]
            true += wanted
            right += _matches(wanted, [same_label(item.label) for item in seen.instances])
            blank += _matches(wanted, [same_label(item.label) for item in unseen.instances])
    constant = max(Counter(true).values(), default=0)
    metrics = {"infilling": right, "infilling_blank": blank, "infilling_constant": constant}
    return Measurement({name: share(count, len(true)) for name, count in metrics.items()}, (f"{len(true)} masks",))


def _matches(wanted: list[str], given: list[str]) -> int:
    return sum(one == other for one, other in zip(wanted, given, strict=False))
