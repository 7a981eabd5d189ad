"""Outlines on scenes of the test split: two ways of referring segmentation, scores of outlines, panoptic maps, removal.

    python benchmarks/segmentation.py --count 100 --json
    python benchmarks/segmentation.py --checkpoint runs/mine/checkpoint --count 100

Referring: every phrase about an image is asked directly (`<REFERRING_EXPRESSION_SEGMENTATION>`: one answer with all
rings), and by `Florence.segment`, which finds boxes and outlines each; the boxes themselves are the baseline.
Everything: mask AP of `segment` without phrases, with the score of the box, of the outline and with their product.
Removal: of objects that a phrase alone means, how often the phrase is found before and after, with its mean presence;
by the outlines of the checkpoint, and by the true ones, given through `refine`.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from peer import environment

from florence_lite import Florence, Instance, Prompt, Result
from florence_lite.data import Sample
from florence_lite.evaluate import evaluate_panoptic
from florence_lite.evaluate.metrics import Case, metric
from florence_lite.geometry import rasterize
from florence_lite.inference import EncodedImage
from florence_lite.inference.outlining import OF_REGION
from florence_lite.inference.panoptic import OF_PHRASE
from florence_lite.rules import Pair, pairs
from florence_lite.scenes import DEFAULT_STYLES, Scenes

REMOVED = 2  # phrases of a scene whose object is removed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="scenes-nano", help="name of a card, folder or Hub id")
    parser.add_argument("--count", type=int, default=100, help="scenes")
    parser.add_argument("--style", nargs="+", default=DEFAULT_STYLES, help="artwork of the scenes")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    florence = Florence.from_pretrained(arguments.checkpoint, device=arguments.device)
    scenes = Scenes("test", tuple(arguments.style), florence.model.config.image_size_wh, arguments.count)
    samples = list(islice(scenes, arguments.count))
    encoded = [florence.encode(sample.load()) for sample in samples]
    found = {
        "referring": referring(florence, samples, encoded),
        "everything": everything(florence, samples, encoded),
        "panoptic": dict(evaluate_panoptic(florence, samples).metrics),
        "removal": {
            "by its own outlines": removal(florence, samples, encoded, refined=False),
            "by true outlines": removal(florence, samples, encoded, refined=True),
        },
    }
    shown = {**environment(), "checkpoint": arguments.checkpoint, "scenes": len(samples), **rounded(found)}
    print(json.dumps(shown, indent=1) if arguments.json else "\n".join(f"{key}: {each}" for key, each in shown.items()))


def referring(florence: Florence, samples: Sequence[Sample], encoded: Sequence[EncodedImage]) -> dict:
    """miou, ciou and the share of absent phrases that bring nothing, of things and of stuff; seconds for a phrase."""
    cases, seconds, phrases = defaultdict(list), defaultdict(float), 0
    for sample, image in zip(samples, encoded, strict=True):
        asked = [pair for pair in pairs(OF_PHRASE, sample.annotation) if pair.asked]
        names = {f"the {item.label}" for item in sample.annotation.stuff}
        phrases += len(asked)
        texts = [pair.inputs["text"] for pair in asked]
        start = time.perf_counter()
        direct = florence.run(image, [Prompt(OF_PHRASE, text=text) for text in texts])
        seconds["direct"] += time.perf_counter() - start
        start = time.perf_counter()
        together = florence.segment(image, phrases=list(dict.fromkeys(texts)))
        seconds["boxes, then outlines"] += time.perf_counter() - start
        boxes = florence.detect(image, phrases=list(dict.fromkeys(texts)))
        for pair, answer in zip(asked, direct, strict=True):
            text = pair.inputs["text"]
            ways = {
                "direct": answer,
                "boxes, then outlines": of_label(together, text),
                "boxes alone": of_label(boxes, text),
            }
            kind = "stuff" if text in names else "things"
            for way, result in ways.items():
                cases[way, kind].append(Case(pair, result))
    rows = defaultdict(dict)
    for (way, kind), each in cases.items():
        rows[way][kind] = dict(metric("miou").measure(each).metrics)
        if kind == "things":
            rows[way][kind] |= metric("absent_rejected").measure(each).metrics
    for way, spent in seconds.items():
        rows[way]["ms_per_phrase"] = 1000 * spent / phrases
    return {"phrases": phrases, **rows}


def everything(florence: Florence, samples: Sequence[Sample], encoded: Sequence[EncodedImage]) -> dict:
    """Mask AP by three scores, and how many boxes got no outline."""
    cases, boxes_left, objects = defaultdict(list), 0, 0
    for sample, image in zip(samples, encoded, strict=True):
        truth = Pair(instances=[Instance(item.label, polygons=item.polygons) for item in sample.annotation.objects])
        boxes = florence.detect(image)
        outlines = florence.segment(image)
        boxes_left += sum(item.kind == "box" for item in outlines.instances)
        objects += len(outlines.instances)
        scored = [
            (item, box.score, item.score / box.score if item.polygons else box.score)
            for item, box in zip(outlines.instances, boxes.instances, strict=True)
        ]
        for name, items in {
            "boxes alone": boxes.instances,
            "score of the box": [replace(item, score=box) for item, box, _ in scored],
            "score of the outline": [replace(item, score=min(1.0, outline)) for item, _, outline in scored],
            "product": outlines.instances,
        }.items():
            cases[name].append(Case(truth, replace(outlines, instances=tuple(items))))
    return {
        "instances": objects,
        "without an outline": boxes_left,
        **{name: dict(metric("mask_ap").measure(each).metrics) for name, each in cases.items()},
    }


def removal(florence: Florence, samples: Sequence[Sample], encoded: Sequence[EncodedImage], refined: bool) -> dict:
    """Phrases that mean one object, before and after it is removed, and how much of the object was painted over."""
    before, after, covered = [], [], []
    for sample, image in zip(samples, encoded, strict=True):
        alone = [each for each in sample.annotation.expressions if len(each.objects) == 1]
        for expression in alone[:REMOVED]:
            [number] = expression.objects
            mask = rasterize(sample.annotation.objects[number].polygons, image.size_wh)
            refine = (lambda *_, mask=mask: mask) if refined else None
            gone = florence.remove(image, expression.phrase, refine=refine)
            if gone.found:
                covered.append(float((mask & gone.mask).sum() / mask.sum()))
                before.append(florence.detect(image, [expression.phrase]))
                after.append(florence.detect(gone.image, [expression.phrase]))
    return {
        "removed": len(before),
        "share of the object painted over": mean(covered),
        "found": {"before": mean([len(each) > 0 for each in before]), "after": mean([len(each) > 0 for each in after])},
        "presence": {"before": mean(list(map(presence, before))), "after": mean(list(map(presence, after)))},
    }


def mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def of_label(result: Result, label: str) -> Result:
    kept = tuple(item for item in result.instances if item.label == label)
    return replace(result, task=OF_REGION, instances=kept)


def presence(result: Result) -> float:
    """Of the only phrase."""
    [value] = result.presence.values()
    return value


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
