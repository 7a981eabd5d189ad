"""Captions, text that was read, short answers and labels against true words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest

from florence_lite.answers import same_label
from florence_lite.evaluate.metrics.ignored import in_ignored
from florence_lite.evaluate.metrics.measurement import Case, Measurement, f1_metrics, needed, share
from florence_lite.rules.mentions import mention_pattern

ANLS_LEAST = 0.5  # similarity up to which an answer is wrong rather than misread
VQA_ENOUGH = 3  # annotators that must agree with an answer for full marks

_ENDINGS = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))(?!\w)")
_TOKEN = re.compile(r"n't|'(?:s|m|d|re|ve|ll)(?!\w)|(?:[a-z]\.){2,}|\w+(?:[-'&/]\w+|[.,:]\d+)*")
_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}


def caption_tokens(text: str) -> list[str]:
    """Words of a caption in small letters without punctuation; contractions and possessives are words ("do n't").

    Stands in for the Penn Treebank tokenizer of the COCO caption evaluation, which needs Java: of 3,732 captions of
    COCO's validation images, all but 3, with slips such as "the street.A bus", give the same words.
    """
    return _TOKEN.findall(_ENDINGS.sub(r" \1", text.lower().replace("’", "'")))


def cider(cases: Sequence[Case]) -> Measurement:
    """cider: CIDEr-D, 0 to 10 (papers show it times 100), by `pycocoevalcap` on our own tokens.

    Source: Vedantam et al. 2015, arXiv:1411.5726. A word counts by how few of the images have it in their references:
    at least two images are needed, and metrics over different images cannot be compared.
    """
    module = needed("pycocoevalcap.cider.cider")
    references, answers = _tokenized(cases)
    if len(references) < 2:
        return Measurement({"cider": None}, ("CIDEr needs captions of at least two images",) if cases else ())
    return Measurement({"cider": float(module.Cider().compute_score(references, answers)[0])})


def bleu(cases: Sequence[Case]) -> Measurement:
    """bleu1, bleu4: corpus BLEU of up to one and four words in a row, 0 to 1, by `sacrebleu` on our own tokens.

    Source: Papineni et al. 2002, doi:10.3115/1073083.1073135, without smoothing: bleu4 is 0 where no four words in a
    row are right. The reference closest in length sets the penalty, the shorter of two as close.
    """
    module = needed("sacrebleu.metrics")
    references, answers = _tokenized(cases)
    if not references:
        return Measurement({"bleu1": None, "bleu4": None})
    streams = list(zip_longest(*references.values()))  # the first reference of each image, the second …, None if none
    plain = module.BLEU(tokenize="none", smooth_method="none", force=True)  # force: no warning that these are tokens
    score = plain.corpus_score([answer for (answer,) in answers.values()], streams)
    return Measurement({"bleu1": score.bp * score.precisions[0] / 100, "bleu4": score.score / 100})


def character_errors(cases: Sequence[Case]) -> Measurement:
    """cer: edits (characters put in, left out or exchanged) per true character, all texts together, by `jiwer`.

    Capitals count, runs of space and line ends are one space; it can exceed 1.
    """
    return _errors(cases, "cer")


def word_errors(cases: Sequence[Case]) -> Measurement:
    """wer: the same per true word."""
    return _errors(cases, "wer")


def anls(cases: Sequence[Case]) -> Measurement:
    """anls: mean over the questions of the best similarity with a true answer, 0 unless it is above 0.5.

    Similarity is 1 minus the edit distance (by `rapidfuzz`, which `jiwer` brings) per character of the longer text,
    without capitals. Source: Biten et al. 2019, arXiv:1905.13648, equation 1.
    """
    similarity = needed("rapidfuzz.distance").Levenshtein.normalized_similarity

    def score(answer: str, texts: Sequence[str]) -> float:
        best = max(similarity(same_label(answer), same_label(text)) for text in texts)
        return best if best > ANLS_LEAST else 0.0

    return _mean(cases, "anls", score)


def vqa_accuracy(cases: Sequence[Case]) -> Measurement:
    """vqa_accuracy: mean over the questions of min(1, annotators with the same answer / 3), averaged over leaving out
    each annotator in turn; a question with 3 answers or fewer has no annotators to leave out, and any of them is right.

    Answers are compared in their `short_form`. Source: Antol et al. 2015, arXiv:1505.00468, and
    https://visualqa.org/evaluation.html.
    """

    def score(answer: str, texts: Sequence[str]) -> float:
        agree = sum(short_form(text) == short_form(answer) for text in texts)
        if len(texts) <= VQA_ENOUGH:
            return float(agree > 0)
        with_one_left_out = agree * min(1, (agree - 1) / VQA_ENOUGH) if agree else 0
        return (with_one_left_out + (len(texts) - agree) * min(1, agree / VQA_ENOUGH)) / len(texts)

    return _mean(cases, "vqa_accuracy", score)


def accuracy(cases: Sequence[Case]) -> Measurement:
    """accuracy: share of the answers that equal a true one, save for capitals and space."""
    return _mean(
        cases, "accuracy", lambda answer, texts: float(same_label(answer) in {same_label(text) for text in texts})
    )


def infilling(cases: Sequence[Case]) -> Measurement:
    """infilling: share of the masks of a sentence that get their own words, save for capitals and space. The first part
    of an answer belongs to the first mask, and so on; further parts count for nothing."""
    right = true = 0
    for case in cases:
        parts = zip(case.truth.instances, case.result.instances, strict=False)
        right += sum(same_label(wanted.label) == same_label(given.label) for wanted, given in parts)
        true += len(case.truth.instances)
    return Measurement({"infilling": share(right, true)})


def object_f1(cases: Sequence[Case]) -> Measurement:
    """object_precision, object_recall, object_f1: kinds of objects that sentences name, against those in the image; one
    minus the precision is the share that is made up. Objects are the labels of all images, as they stand or in a
    regular plural; how many of them there are does not count.

    Source: Rohrbach et al. 2018, arXiv:1809.02156 (CHAIR), with the labels of the data set in the place of COCO's.
    """
    known = [case for case in cases if case.truth.objects]
    labels = {same_label(label) for case in known for label in case.truth.objects}
    patterns = {label: mention_pattern(label) for label in labels}
    right = given = true = 0
    for case in known:
        said = same_label(_answer(case))
        named = {label for label, pattern in patterns.items() if pattern.search(said)}
        shown = {same_label(label) for label in case.truth.objects}
        right, given, true = right + len(named & shown), given + len(named), true + len(shown)
    return Measurement(f1_metrics("object", right, given, true))


def word_f1(cases: Sequence[Case]) -> Measurement:
    """word_precision, word_recall, word_f1: words that are read as they stand, capitals included, in any order; a word
    that stands there twice counts twice."""
    right = given = true = 0
    for case in cases:
        read, written = (Counter(text.split()) for text in (_answer(case), _true_text(case)))
        right, given, true = right + (read & written).total(), given + read.total(), true + written.total()
    return Measurement(f1_metrics("word", right, given, true))


def label_f1(cases: Sequence[Case]) -> Measurement:
    """label_precision, label_recall, label_f1: labels of the answers that are true of their image, wherever they are;
    a label that is true twice counts twice. Labels are equal save for capitals and space. More of a label than are true
    count for nothing where some of it is ignored."""
    right = given = true = 0
    for case in cases:
        answered = Counter(same_label(item.label) for item in case.result.instances)
        wanted = Counter(same_label(item.label) for item in case.truth.instances)
        right += (answered & wanted).total()
        ignored = {same_label(item.label) for item in case.truth.ignored}
        surplus = answered - wanted
        given -= sum(count for label, count in surplus.items() if label in ignored or "" in ignored)
        given, true = given + answered.total(), true + wanted.total()
    return Measurement(f1_metrics("label", right, given, true))


def short_form(answer: str) -> str:
    """A short answer without capitals, articles and punctuation, small numbers as digits ("The two dogs." → "2 dogs").

    The rules of the VQA evaluation, save for its list of misspelt contractions.
    """
    bare = re.sub(r"(?<!\d)[.,:]|[.,:](?!\d)", " ", answer.casefold()).replace("'", "")
    words = re.sub(r"[^\w\s.,:]", " ", bare).split()
    return " ".join(_DIGITS.get(word, word) for word in words if word not in _ARTICLES)


def _answer(case: Case) -> str:
    """The words of an answer: its text, or the labels of its instances in their order, without those that lie in text
    which cannot be read."""
    instances = case.result.instances
    lost = in_ignored(instances, case.truth.ignored)
    return case.result.text or " ".join(item.label for item, out in zip(instances, lost, strict=True) if not out)


def _true_text(case: Case) -> str:
    """What stands in the image: the true text, or the labels of the true instances."""
    return " ".join((case.truth.texts or (" ".join(item.label for item in case.truth.instances),))[0].split())


def _tokenized(cases: Sequence[Case]) -> tuple[dict, dict]:
    """References and answers by number, as the caption libraries take them: words joined by spaces."""
    references = [[" ".join(caption_tokens(text)) for text in case.truth.texts] for case in cases]
    kept = [number for number, texts in enumerate(references) if any(texts)]
    answers = {number: [" ".join(caption_tokens(_answer(cases[number])))] for number in kept}
    return {number: [text for text in references[number] if text] for number in kept}, answers


def _errors(cases: Sequence[Case], name: str) -> Measurement:
    """Error rate over all texts; what is written where there is no true text counts as put in."""
    jiwer = needed("jiwer")
    truths = [_true_text(case) for case in cases]
    if not any(truths):
        return Measurement({name: None}, ("no truth has text",) if cases else ())
    return Measurement({name: float(getattr(jiwer, name)(truths, [" ".join(_answer(case).split()) for case in cases]))})


def _mean(cases: Sequence[Case], name: str, score: Callable[[str, Sequence[str]], float]) -> Measurement:
    scores = [score(_answer(case), case.truth.texts) for case in cases if case.truth.texts]
    return Measurement({name: share(sum(scores), len(scores))})
