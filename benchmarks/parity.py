"""The same numbers as transformers' native Florence-2, at real size, from checkpoints in both layouts.

    python benchmarks/parity.py --size base

A native model with random weights is saved by transformers and loaded here; the same network is saved here in the
original layout and loaded again. For each of the 15 Florence-2 prompts the table shows the largest difference of image
features, encoder states and logits (float32), and whether greedy and beam search give the ids of transformers'
`generate` with Florence-2's defaults (three beams, no repeated 3-grams, forced first and last token). For the large
size `--logits-only` leaves the searches out and `--prompts` most of the prompts. Exits with 1 where something differs.
Needs transformers.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from peer import START, environment, generate_native, lively_native
from transformers.modeling_outputs import BaseModelOutput

from florence_lite.cards import tasks
from florence_lite.checkpoint import config_to_json, load_checkpoint, save_checkpoint
from florence_lite.engine import GenerationOptions, generate
from florence_lite.engine.fast import FastModel
from florence_lite.model import FlorenceConfig, FlorenceModel
from florence_lite.tokens import Tokenizer

SIZES = ("nano", "base", "large")
TOLERANCE = 1e-4
INPUTS = {  # what the prompts with an input are asked with
    "text": {"text": "A cat and a dog on a red sofa."},
    "phrase": {"phrases": ["the red sofa"]},
    "phrases": {"phrases": ["cat", "dog"]},
    "region": {"region": (100, 50, 300, 400), "size_wh": (640, 480)},
}


def load_both(native: transformers.PreTrainedModel, config: FlorenceConfig, device: str) -> dict[str, FlorenceModel]:
    """Our network by layout: out of the files of transformers, and out of our own files in the original layout."""
    with tempfile.TemporaryDirectory() as folder:
        native.save_pretrained(Path(folder, "native"))
        values = config_to_json(config)  # transformers does not keep the size of images
        Path(folder, "native", "config.json").write_text(json.dumps(values))
        ours = load_checkpoint(Path(folder, "native"))
        save_checkpoint(ours, Path(folder, "original"), layout="original")
        return {"native": ours.to(device), "original": load_checkpoint(Path(folder, "original"), device=device)}


def prompt_ids(vocab_size: int, tokenizer: str | None) -> dict[str, list[int]]:
    """Ids of the 15 prompts; without a tokenizer's folder, of a tokenizer trained on the prompts themselves."""
    florence2 = [card for card in tasks() if card.name != "<VQA>"]
    prompts = {card.name: card.prompt(**INPUTS.get(card.input, {})) for card in florence2}
    known = Tokenizer.from_file(tokenizer) if tokenizer else Tokenizer.train(prompts.values(), 1500)
    if known.vocabulary.size > vocab_size:
        raise SystemExit(f"the tokenizer has {known.vocabulary.size} ids, the network only {vocab_size}")
    return {name: known.encode_prompt(prompt) for name, prompt in prompts.items()}


@torch.inference_mode()
def compare(
    ours: FlorenceModel, native: transformers.PreTrainedModel, ids: list[int], tokens: int, search: bool
) -> dict:
    """Largest differences for one prompt and a random image, and whether the answers have the same ids."""
    config = ours.config
    width, height = config.image_size_wh
    pixel_values = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    device = ours.embed_tokens.weight.device
    pixel_values = pixel_values.to(device)
    answer = torch.tensor([[START, 0, *ids[1:-1]]], device=device)  # any ids will do
    image = [config.text.vocab_size - 1] * config.image_tokens

    seen = []
    watch = native.model.multi_modal_projector.register_forward_hook(
        lambda module, given, features: seen.append(features)
    )
    asked = torch.tensor([image + ids], device=device)
    theirs = native(input_ids=asked, pixel_values=pixel_values, decoder_input_ids=answer)
    watch.remove()
    features = ours.encode_image(pixel_values)
    states, _ = ours.encode(features, torch.tensor([ids], device=device))
    logits = ours.logits(ours.decode(answer, ours.cross_cache(states)))
    row = {
        "features": difference(features, seen[0]),
        "encoder": difference(states, theirs.encoder_last_hidden_state),
        "logits": difference(logits, theirs.logits),
    }
    for name, beams in (("greedy", 1), ("beam", 3)) if search else ():
        options = GenerationOptions(tokens, beams, no_repeat_ngram_size=3, ban_bos_after_forced=False)
        (got,) = generate(FastModel(ours), states, None, [[START]], options)
        encoded = BaseModelOutput(last_hidden_state=theirs.encoder_last_hidden_state)
        (expected,) = generate_native(native, tokens, beams, encoder_outputs=encoded)
        row[name] = got.ids == expected
    return row


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return (ours - theirs.view_as(ours)).abs().max().item()


def measure(
    config: FlorenceConfig, prompts: dict[str, list[int]], tokens: int, search: bool, seed: int, device: str
) -> list[dict]:
    """One row per layout and prompt."""
    native = lively_native(config, seed)
    rows, both = [], load_both(native, config, device)
    native.to(device)
    for layout, ours in both.items():
        for name, ids in prompts.items():
            rows.append({"layout": layout, "prompt": name, **compare(ours, native, ids, tokens, search)})
            print(as_line(rows[-1]), file=sys.stderr, flush=True)
    return rows


def as_line(row: dict) -> str:
    def shown(value):
        if isinstance(value, bool):
            return "same" if value else "DIFFER"
        return f"{value:.1e}" if isinstance(value, float) else str(value)

    return f"{row['layout']:9}{row['prompt']:38}" + "".join(f"{shown(value):>10}" for value in list(row.values())[2:])


def is_equal(row: dict) -> bool:
    return row["logits"] <= TOLERANCE and row.get("greedy", True) and row.get("beam", True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--tokenizer", help="folder with a Florence-2 tokenizer; without it, one is trained")
    parser.add_argument("--prompts", type=int, default=15, help="how many of the 15 prompts, from the first")
    parser.add_argument("--tokens", type=int, default=24, help="longest answer of the searches")
    parser.add_argument("--logits-only", action="store_true", help="no searches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.backends.cudnn.allow_tf32 = False  # on a GPU, convolutions in float32 too

    config = FlorenceConfig.preset(arguments.size, prompt_side="encoder")
    prompts = dict(list(prompt_ids(config.text.vocab_size, arguments.tokenizer).items())[: arguments.prompts])
    rows = measure(config, prompts, arguments.tokens, not arguments.logits_only, arguments.seed, arguments.device)
    if arguments.json:
        print(json.dumps({**environment(), "rows": rows}, indent=2))
    else:
        columns = list(rows[0])
        print(f"{'layout':9}{'prompt':38}" + "".join(f"{name:>10}" for name in columns[2:]))
        print("\n".join(as_line(row) for row in rows))
    sys.exit(0 if all(map(is_equal, rows)) else 1)


if __name__ == "__main__":
    main()
