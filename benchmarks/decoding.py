"""Decoding speed against transformers' native Florence-2 with the same random weights.

    python benchmarks/decoding.py --size base

Both sides start from the same encoded image and decode the same number of ids, greedily and with three beams, under the
n-gram rule of Florence-2's defaults; the ids must be equal. Rounds alternate between the two sides. The table shows
medians, and the ratio is the median of the rounds' ratios. Needs transformers.
"""

import argparse
import json
import statistics
import sys
import time

import torch
import transformers
from peer import EOS, START, build_native, environment, generate_native
from transformers.modeling_outputs import BaseModelOutput

from florence_lite.checkpoint import load_tensors
from florence_lite.engine import GenerationOptions, generate
from florence_lite.engine.fast import FastModel
from florence_lite.model import FlorenceConfig, FlorenceModel

PRESETS = {"tiny": "nano", "base": "base"}
PROMPT_TOKENS = 10


def build(config: FlorenceConfig, seed: int) -> tuple[FlorenceModel, transformers.PreTrainedModel]:
    """Both models with the same random weights and an end token that never comes."""
    native = build_native(config, seed)
    with torch.no_grad():
        native.get_input_embeddings().weight[EOS] = 0  # Its logit is 0: never among the best of thousands.
    ours = FlorenceModel(config).eval()
    load_tensors(ours, native.state_dict().items(), source="random weights")
    return ours, native


def measure(config: FlorenceConfig, batch: int, tokens: int, rounds: int, seed: int) -> list[dict]:
    """One row per way of decoding: median seconds of both sides, and their ratio."""
    ours, native = build(config, seed)
    fast = FastModel(ours)  # as `Florence` asks it
    states = torch.randn(batch, config.image_tokens + PROMPT_TOKENS, config.text.d_model)
    rows = []
    for name, num_beams in (("greedy", 1), ("beam 3", 3)):
        options = GenerationOptions(tokens, num_beams, no_repeat_ngram_size=3, ban_bos_after_forced=False)

        def run_ours(options=options):
            return [answer.ids for answer in generate(fast, states, None, [[START]] * batch, options)]

        def run_native(num_beams=num_beams):
            return generate_native(native, tokens, num_beams, encoder_outputs=BaseModelOutput(last_hidden_state=states))

        if run_ours() != run_native():  # also the warm-up
            raise SystemExit(f"{name}: the two sides give different ids")
        times = {run_ours: [], run_native: []}
        for _ in range(rounds):
            for run, taken in times.items():
                begin = time.perf_counter()
                run()
                taken.append(time.perf_counter() - begin)
        ratios = [theirs / mine for mine, theirs in zip(times[run_ours], times[run_native], strict=True)]
        rows.append(
            {
                "decoding": name,
                "florence_lite_s": statistics.median(times[run_ours]),
                "transformers_s": statistics.median(times[run_native]),
                "ratio": statistics.median(ratios),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=PRESETS, default="tiny")
    parser.add_argument("--batch", type=int, default=1, help="images")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()

    config = FlorenceConfig.preset(PRESETS[arguments.size])
    rows = measure(config, arguments.batch, arguments.tokens, arguments.rounds, arguments.seed)
    if arguments.json:
        print(json.dumps({"command": " ".join(sys.argv), **environment(), "rows": rows}, indent=2))
        return
    print(f"{arguments.size}, batch {arguments.batch}, {arguments.tokens} ids, median of {arguments.rounds} rounds")
    print(f"{'':10} {'florence-lite':>14} {'transformers':>14} {'ratio':>7}")
    for row in rows:
        print(
            f"{row['decoding']:10} {row['florence_lite_s'] * 1000:11.0f} ms {row['transformers_s'] * 1000:11.0f} ms "
            f"{row['ratio']:6.2f}x"
        )


if __name__ == "__main__":
    main()
