"""Which score of an instance ranks boxes best, and where its box should lie: average precision of each candidate.

    python benchmarks/scores_ap.py --scenes 200 --json
    python benchmarks/scores_ap.py --checkpoint runs/bccd/best --data BCCD_Dataset --json

The same greedy answers are scored in every way and measured by COCO's protocol. Noise boxes, by which pix2seq scores,
need a class of their own in the training, which no checkpoint here has, so that score is not among the candidates.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from peer import environment

from florence_lite import Florence, Instance, Prompt
from florence_lite.cards import task as task_card
from florence_lite.data import read_dataset
from florence_lite.evaluate.metrics import Case, metric
from florence_lite.geometry import dequantize
from florence_lite.inference.scores import COORDINATES, TOLERANCE
from florence_lite.rules import pairs
from florence_lite.scenes import Scenes
from florence_lite.scenes.catalogue import DEFAULT_STYLES

MEASURES = {"<OD>": "ap", "<OPEN_VOCABULARY_DETECTION>": "ap_one_class"}
OURS = "P(label) · P(one more) · P(place)"  # the default, of `florence_lite.inference.scores`
WINDOWS = (5, 10, 25, 50)  # bins on either side of the written one over which coordinates are averaged
AVERAGED = {f"{OURS}, coordinates averaged over ±{window} bins": window for window in WINDOWS}
WAYS = (
    "one for all",
    "geometric mean of the probabilities of its ids",
    "mean of the probabilities of its ids",
    "p_cont",
    "p_cont · P(label)^(1/len)",
    "p_cont · P(label)^(1/len) · P(place)",
    "P(one more) · P(label)^(1/len) · P(place)",
    OURS,
    *AVERAGED,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="scenes-nano")
    parser.add_argument("--data", help="folder of a data set with boxes, instead of scenes")
    parser.add_argument("--split", default="test", help="of the data set")
    parser.add_argument("--scenes", type=int, default=200, help="scenes of the validation split")
    parser.add_argument("--style", nargs="+", default=DEFAULT_STYLES, help="artwork of the scenes, else the training's")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    florence = Florence.from_pretrained(arguments.checkpoint, device=arguments.device)
    if florence.model.config.prompt_side != "decoder":
        parser.error("the checkpoint's prompts must go to the decoder, as those of scenes-nano do")
    if arguments.data:
        samples, tasks = read_dataset(arguments.data, split=arguments.split), ["<OD>"]
    else:
        samples, tasks = Scenes("validation", tuple(arguments.style), length=arguments.scenes), list(MEASURES)
    rows = [row for task in tasks for row in measured(florence, samples, task)]
    if arguments.json:
        print(json.dumps({**environment(), "rows": rows}, indent=2))
        return
    for row in rows:
        print(f"{row['task']:30} {row['way']:58} {row['ap']:.4f} {row['ap50']:.4f} {row['ap75']:.4f}")


def measured(florence: Florence, samples: Iterable, task: str) -> Iterator[dict]:
    """For each way to score, the average precision of the same answers."""
    cases: dict[str, list[Case]] = {}
    for sample in samples:
        asked = [pair for pair in pairs(task, sample.annotation) if pair.asked and not pair.fault]
        if not asked:
            continue
        image = florence.encode(sample.load(), keep_image=False)
        for pair in asked:
            prompt = Prompt(task, **pair.inputs)
            least = 0 if task_card(task).input == "none" else None  # guesses included
            result = florence.run(image, prompt, keep_image=False, threshold=least)
            logprobs = distributions(florence, image, prompt, list(result.token_ids))
            for way, instances in candidates(florence, result, logprobs).items():
                cases.setdefault(way, []).append(Case(pair, replace(result, instances=instances)))
    for way, of_way in cases.items():
        found = metric(MEASURES[task]).measure(of_way).metrics
        values = dict(zip(("ap", "ap50", "ap75"), found.values(), strict=True))
        yield {"task": task, "answers": len(of_way), "way": way, **values}


@torch.inference_mode()
def distributions(florence: Florence, image, prompt: Prompt, ids: list[int]) -> np.ndarray:
    """Log-probabilities [T, V] of every id in the place of each of `ids`, under the bare network."""
    answering, model = florence.answering, florence.model
    [request] = answering.requests(answering.ask(prompt, {}), image.size_wh)
    read = torch.tensor([[*request.prompt_ids, *ids[:-1]]])
    hidden = model.decode(read, image.cross_cache(model))[0, -len(ids) :]
    return model.logits(hidden).float().log_softmax(-1).double().numpy()


def candidates(florence: Florence, result, logprobs: np.ndarray) -> dict[str, tuple[Instance, ...]]:
    """The instances of an answer with the scores, and the places, of every way."""
    vocabulary = florence.tokenizer.vocabulary
    ids = np.array(result.token_ids)
    written = logprobs[np.arange(len(ids)), ids] if len(ids) else np.zeros(0)
    of_bins = logprobs[:, vocabulary.loc_first : vocabulary.loc_first + vocabulary.bins]
    found: dict[str, list[Instance]] = {way: [] for way in WAYS}
    label = 0.0  # mean log-probability of the ids of the label that applies
    for item in result.instances:
        start, end = item.tokens
        if item.coords_at > start:
            label = written[start : item.coords_at].mean()
        places = range(item.coords_at, end)
        if item.box is not None:  # as it is written
            item = replace(item, box=placed(of_bins, ids - vocabulary.loc_first, places, 0, result.size_wh))
        some, stop = np.logaddexp.reduce(of_bins[item.coords_at]), logprobs[item.coords_at, vocabulary.eos]
        more = some - np.logaddexp(some, stop)
        sure = COORDINATES * np.mean([within(of_bins[p], ids[p] - vocabulary.loc_first) for p in places])
        values = (
            0.0,
            written[start:end].mean(),
            np.log(np.exp(written[start:end]).mean()),
            more,
            more + label,
            more + label + sure,
            some + label + sure,
        )
        for way, value in zip(WAYS, values, strict=False):
            found[way].append(replace(item, score=float(np.exp(value))))
        found[OURS].append(item)
        for name, window in AVERAGED.items():
            box = item.box and placed(of_bins, ids - vocabulary.loc_first, places, window, result.size_wh)
            found[name].append(replace(item, box=box))
    return {way: tuple(items) for way, items in found.items()}


def within(of_bins: np.ndarray, bin: int) -> float:
    """Log-probability that a coordinate lies within `TOLERANCE` of the written bin, given that it is one."""
    reach = round(TOLERANCE * len(of_bins))
    return np.logaddexp.reduce(of_bins[max(bin - reach, 0) : bin + reach + 1]) - np.logaddexp.reduce(of_bins)


def near(of_bins: np.ndarray, bin: int, window: int) -> float:
    """Mean bin of the distribution, at most `window` bins from the written one."""
    bins = np.arange(max(bin - window, 0), min(bin + window + 1, len(of_bins)))
    weights = np.exp(of_bins[bins] - of_bins[bins].max())
    return float((weights * bins).sum() / weights.sum())


def placed(
    of_bins: np.ndarray, written: np.ndarray, places: range, window: int, size_wh: tuple[int, int]
) -> np.ndarray:
    """The box of four coordinates in pixels, each averaged over `window` bins on either side of the written one."""
    corners = np.array([near(of_bins[place], written[place], window) for place in places]).reshape(2, 2)
    return dequantize(np.sort(corners, axis=0), size_wh, of_bins.shape[1]).ravel()


if __name__ == "__main__":
    main()
