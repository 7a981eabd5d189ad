"""Where does `scenes-nano` end? What its figures on usual scenes do not show, measured apart.

    python benchmarks/unfamiliar.py --count 300

On scenes of the test split: words that no training wrote, in the place of those it wrote; numbers by how many there
are; captions that are right word for word; yes to questions and to sentences about things of which no training spoke.
Of these the result says so (`Result.foreign`), by the words that the card lists; phrases with such words get no box.
"""

import argparse
import json
from collections import defaultdict
from typing import Any
from unittest.mock import patch

import numpy as np
from peer import environment

from florence_lite import Florence
from florence_lite.cards import checkpoint as checkpoint_card
from florence_lite.evaluate import evaluate
from florence_lite.rules import pairs
from florence_lite.scenes import Scenes, lettering
from florence_lite.scenes.language import a, plural
from florence_lite.scenes.variety import PLAIN, Variety

_OTHER_WORDS = """
    ham egg pan cup hat bag pen map box jar barn mill bay cape cliff coast creek forest meadow desert garage
    tower castle bridge harbor museum office kitchen market hospital bakery station airport theater police
    doctor farmer singer dancer paris london berlin madrid monday friday august october silver purple orange
    copper velvet cotton pepper butter honey onion garlic salmon chicken turkey noodle cookie candle mirror
    pillow blanket basket hammer ladder engine wheel
"""
OTHER_WORDS = tuple(_OTHER_WORDS.split())
"""Common words of two to eight letters that no scene of the training writes."""
OTHER_THINGS = (
    "person",
    "shoe",
    "tiger",
    "table",
    "bottle",
    "knife",
    "sofa",
    "mouse",
    "spoon",
    "truck",
)
"""Things of which no scene of the training has any, and no prompt speaks."""
CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
MOST = 4  # from which numbers are taken together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="scenes")
    arguments = parser.parse_args()
    florence = Florence.from_pretrained("scenes-nano")
    found: dict[str, Any] = {"words": words(florence, arguments.count), **answers(florence, arguments.count)}
    found |= {**environment(), "sha256": checkpoint_card("scenes-nano").sha256["model.safetensors"]}
    print(json.dumps(found, indent=1))


def words(florence: Florence, count: int) -> dict[str, float]:
    """Of words that the training wrote, and of others in their place, by the metrics of `<OCR>`: F1, and the share of
    characters that are wrong."""
    found = {}
    for name, written in (("known", lettering.WORDS), ("others", OTHER_WORDS)):
        with patch.object(lettering, "WORDS", written), patch.object(lettering, "choose_text", one_word):
            report = evaluate(florence, list(Scenes("test", length=count)), ["<OCR>"])
        figures = report.metrics["<OCR>"]
        found |= {name: round(figures["word_f1"], 4), f"{name}, CER": round(figures["cer"], 4)}
    return found


def one_word(rng: np.random.Generator, variety: Variety = PLAIN) -> str:
    """In the place of `choose_text`, which writes numbers too."""
    text = lettering.WORDS[int(rng.integers(len(lettering.WORDS)))]
    return (text.upper(), text, text.capitalize())[int(rng.integers(3))]


def answers(florence: Florence, count: int) -> dict[str, dict[str, float]]:
    """Shares of the answers that are right, and of those about other things that are yes."""
    counted: dict[str, list[bool]] = defaultdict(list)
    captions: dict[str, list[bool]] = defaultdict(list)
    yes: dict[str, list[bool]] = defaultdict(list)
    for number, sample in enumerate(Scenes("test", length=count)):
        image, truth = florence.encode(sample.load()), sample.annotation
        labels = [item.label for item in truth.objects]
        for label in dict.fromkeys(labels):
            there = labels.count(label)
            said = florence.ask(image, f"how many {plural(label)} are there?").text
            counted[f"{there}" if there < MOST else f"{MOST} and more"].append(said == str(there))
        for task in CAPTIONS:
            captions[task].append(florence.run(image, task).text in pairs(task, truth)[0].texts)
        thing = OTHER_THINGS[number % len(OTHER_THINGS)]
        yes["is there …?"].append(florence.ask(image, f"is there {a(thing)}?").text == "yes")
        sentence = florence.run(image, "<IMAGE_TEXT_MATCHING>", text=a(thing))
        yes["<IMAGE_TEXT_MATCHING>"].append(sentence.text == "yes")
        boxes = florence.detect(image, [f"the {thing}"])
        yes["a box for a phrase"].append(bool(len(boxes)))
        yes["a box for a phrase, threshold=0.5"].append(
            bool(len(florence.detect(image, [f"the {thing}"], threshold=0.5)))
        )
    return {
        "numbers right": _shares(counted),
        "captions right as a whole": _shares(captions),
        "yes to things unheard of": _shares(yes),
    }


def _shares(of: dict[str, list[bool]]) -> dict[str, float]:
    return {name: round(sum(each) / len(each), 4) for name, each in sorted(of.items())}


if __name__ == "__main__":
    main()
