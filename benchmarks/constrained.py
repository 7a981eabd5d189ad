"""What guides of grammars do to answers and to the time they take, against the same decoding without them.

    python benchmarks/constrained.py scenes --count 40 --json
    python benchmarks/constrained.py speed --tokens 32 --json

The embedded checkpoint on scenes of the validation split: metrics and parse errors of each task, greedy and drawn at
random, and the median time of an answer, both ways in turn on every image. Then the time of decoding `--tokens` ids
in a base network with random weights, whose output layer has 51,289 rows: answers of boxes, where most steps need the
rows of the locations alone, and prose, where all words may follow.
"""

import argparse
import json
import statistics
import time

import torch
from peer import EOS, START, environment

from florence_lite import Florence, Prompt
from florence_lite.engine import GenerationOptions, generate
from florence_lite.evaluate.metrics import Case, metric
from florence_lite.inference.guides import AnswerGuide
from florence_lite.model import FlorenceConfig, FlorenceModel
from florence_lite.rules import pairs
from florence_lite.scenes import Scenes
from florence_lite.scenes.catalogue import CLASSES, DEFAULT_STYLES
from florence_lite.tokens import grammar
from florence_lite.tokens.vocabulary import Vocabulary

TASKS = {
    "<OD>": ("ap",),
    "<OPEN_VOCABULARY_DETECTION>": ("acc@0.5", "absent_rejected"),
    "<CAPTION_TO_PHRASE_GROUNDING>": ("recall@1",),
    "<REFERRING_EXPRESSION_SEGMENTATION>": ("miou",),
}
WAYS = {"free": {"constrained": False}, "guided": {}, "closed list": {"labels": list(CLASSES)}}
DRAWN = {"do_sample": True, "seed": 0}
MOST = 3  # prompts of a task about an image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("scenes", "speed"))
    parser.add_argument("--checkpoint", default="scenes-nano")
    parser.add_argument("--count", type=int, default=200, help="scenes")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer of the base network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="base", help="of the network with random weights")
    parser.add_argument("--style", nargs="+", default=DEFAULT_STYLES, help="artwork of the scenes, else the training's")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    florence = Florence.from_pretrained(arguments.checkpoint, device=arguments.device)
    if arguments.part == "scenes":
        samples = Scenes("validation", tuple(arguments.style), length=arguments.count)
        rows = [row for task in TASKS for row in on_scenes(florence, samples, task)]
    else:
        rows = on_random_weights(florence, arguments.size, arguments.tokens, arguments.rounds)
    if arguments.json:
        print(json.dumps({**environment(), "rows": rows}, indent=2))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


def on_scenes(florence: Florence, samples: Scenes, task: str) -> list[dict]:
    """For greedy and drawn answers and each way, the metrics of a task, its faults and the time of an answer."""
    ways = {name: options for name, options in WAYS.items() if task == "<OD>" or "labels" not in options}
    cases: dict[tuple[str, str], list[Case]] = {}
    times: dict[tuple[str, str], list[float]] = {}
    for sample in samples:
        asked = [pair for pair in pairs(task, sample.annotation) if pair.asked and not pair.fault][:MOST]
        image = florence.encode(sample.load(), keep_image=False) if asked else None
        for pair in asked:
            for decoding, more in (("greedy", {}), ("drawn", DRAWN)):
                for way, options in ways.items():
                    began = time.perf_counter()
                    result = florence.run(image, Prompt(task, **pair.inputs), keep_image=False, **more, **options)
                    times.setdefault((decoding, way), []).append(time.perf_counter() - began)
                    cases.setdefault((decoding, way), []).append(Case(pair, result))
    rows = []
    for (decoding, way), of_way in cases.items():
        found = {name: value for each in TASKS[task] for name, value in metric(each).measure(of_way).metrics.items()}
        rows.append(
            {
                "task": task,
                "decoding": decoding,
                "way": way,
                "answers": len(of_way),
                **{name: None if value is None else round(value, 4) for name, value in found.items()},
                "parse_errors": sum(case.result.parse_errors for case in of_way),
                "ms": round(1000 * statistics.median(times[decoding, way]), 1),
            }
        )
    return rows


def on_random_weights(florence: Florence, size: str, tokens: int, rounds: int) -> list[dict]:
    """Median seconds of decoding and of the rows' ratios, boxes and prose, with and without a guide."""
    config = FlorenceConfig.preset(size)
    torch.manual_seed(0)
    model = FlorenceModel(config).eval().to(florence.device)
    with torch.no_grad():
        model.embed_tokens.weight[EOS] = 0  # its logit is 0: never among the best of thousands
    vocabulary = florence.tokenizer.vocabulary
    if size == "base":  # where the published vocabulary has its ids
        vocabulary = Vocabulary(
            loc_first=50269,
            bins=1000,
            sep=51279,
            poly_open=51286,
            poly_close=51287,
            and_=51288,
            size=51289,
        )
    states = torch.randn(1, config.image_tokens, config.text.d_model).to(florence.device)
    rows = []
    for name in ("boxes", "labelled_boxes", "text"):
        for num_beams in (1, 3):
            guide = AnswerGuide(vocabulary, grammar(name))
            ways = {"free": None, "guided": guide}
            times: dict[str, list[float]] = {way: [] for way in ways}
            for number in range(rounds + 1):
                for way, each in ways.items():
                    options = GenerationOptions(tokens, num_beams, guide=each)
                    began = time.perf_counter()
                    generate(model, states, None, [[START]], options, vocab_size=vocabulary.size)
                    if number:  # the first is the warm-up
                        times[way].append(time.perf_counter() - began)
            ratios = [free / guided for free, guided in zip(*times.values(), strict=True)]
            seconds = {f"{way}_s": round(statistics.median(of_way), 3) for way, of_way in times.items()}
            rows.append({"grammar": name, "beams": num_beams, **seconds, "ratio": round(statistics.median(ratios), 2)})
    return rows


if __name__ == "__main__":
    main()
