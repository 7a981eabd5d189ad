"""Matching, retrieval, closed answers and infilling of a checkpoint, on scenes that its training never saw.

    python benchmarks/retrieval.py --checkpoint scenes-nano --count 100 --json

* text_r@k, image_r@k: own captions among the k best of all captions, own images among the k best of all images.
* region_r@k: the image and, at an IoU of .5, the place that a phrase means, among the k images of highest presence.
* matching_auroc: true sentences against wrong ones; left out for a checkpoint that was not trained to match.
* yes_no, numbers, classes: questions from closed lists, beside free answers and the best constant one.
* infilling: words in the place of masks, beside a grey picture and the words that are most often right; left out for a
  checkpoint that was not trained to fill in.
"""

import argparse
import json
import sys
import time

from peer import environment

from florence_lite import Florence
from florence_lite.evaluate.closed import closed_questions, infilling
from florence_lite.evaluate.retrieval import matching, region_retrieval, text_retrieval
from florence_lite.scenes import CLASSES, TRAINING_STYLES, Scenes

LISTS = {"yes_no": ("yes", "no"), "numbers": tuple(map(str, range(11))), "classes": tuple(CLASSES)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="scenes-nano")
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=100, help="scenes")
    parser.add_argument("--style", nargs="+", default=TRAINING_STYLES, help="artwork, else that of the training")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    florence = Florence.from_pretrained(arguments.checkpoint)
    size_wh = florence.model.config.image_size_wh
    samples = list(Scenes(arguments.split, tuple(arguments.style), size_wh, length=arguments.count))

    measures = {
        "captions": lambda: text_retrieval(florence, samples),
        "detailed captions": lambda: text_retrieval(florence, samples, "detailed"),
        "regions": lambda: region_retrieval(florence, samples),
        "questions": lambda: closed_questions(florence, samples, LISTS),
        "matching": lambda: matching(florence, samples),
        "infilling": lambda: infilling(florence, samples),
    }
    trained = florence.card.tasks if florence.card else ()
    for name, task in (("matching", "<IMAGE_TEXT_MATCHING>"), ("infilling", "<INFILLING>")):
        if trained and task not in trained:
            measures.pop(name)
    rows = []
    for name, measure in measures.items():
        started = time.perf_counter()
        found = measure()
        metrics = {key: None if value is None else round(value, 4) for key, value in found.metrics.items()}
        seconds = round(time.perf_counter() - started, 1)
        rows.append({"measure": name, "metrics": metrics, "of": "; ".join(found.notes), "seconds": seconds})
        if not arguments.json:
            print(f"{name} ({rows[-1]['of']}; {seconds} s)")
            print("    " + "\n    ".join(f"{key:28} {value}" for key, value in metrics.items()), flush=True)
    if arguments.json:
        print(json.dumps({"command": " ".join(sys.argv), **environment(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
