"""Speed of a training step against transformers' native Florence-2 with the same random weights.

    python benchmarks/training.py --size base

Both sides get the same pixel values, prompt and answers, and make whole steps: forward, backward, clipping of the
gradients, AdamW, zeroing. Before the clock starts their losses must agree, and in fp32 gradients of the text side and of
the tower too. Modes:

    full     all weights learn
    frozen   the tower and its projector are frozen and run in every step, on both sides
    cached   frozen on both sides; ours gets the features that the tower gave once, transformers has no such thing

In bf16 both sides compute under autocast, with weights in float32. Ours is what `florence-lite train` runs:
`AnswerTrainer` and, on the CPU, the settings of `florence_lite.train.cpu`. One of them, `keep_freed_memory`, holds for
the process, so transformers gains by it as well. No dropout on either side. The answers have no location tokens, for
which our loss would be another one. Rounds alternate between the two sides. The table shows medians, and the ratio is
the median of the rounds' ratios. Needs transformers 5.14, before which native Florence-2 shifted the labels twice.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import transformers
from peer import EOS, START, build_native, environment
from torch import Tensor, nn

from florence_lite.checkpoint import load_tensors
from florence_lite.checkpoint.layouts import NATIVE
from florence_lite.data.collate import IGNORED, Batch, RowGroup
from florence_lite.model import FlorenceConfig, FlorenceModel
from florence_lite.train.cpu import attention_by_products, keep_freed_memory
from florence_lite.train.trainer import AnswerTrainer

MODES = ("full", "frozen", "cached")
PRECISIONS = ("fp32", "bf16")
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
GRADIENT_TOLERANCE = 1e-3
COMPARED = (  # our names of parameters whose gradients are compared
    "embed_tokens.weight",
    "encoder.layers.0.ffn.fc1.weight",
    "decoder.layers.0.cross_attention.q_proj.weight",
    "vision.stages.1.blocks.0.spatial.attention.qkv.weight",
    "vision.stages.0.embed.conv.weight",
)
PAD, PROMPT_TOKENS = 1, 13  # as many as `<OD>` has
LOCATIONS = 1020  # the last ids of Florence-2's vocabulary: locations and marks


class Side:
    """One of the two competitors: its loss as a function of nothing, and the steps that lower it."""

    def __init__(self, module: nn.Module, loss: Callable[[], Tensor]):
        self.loss = loss
        self.learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=1e-6)

    def gradients(self) -> float:
        loss = self.loss()
        loss.backward()
        return loss.item()

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def answers(config: FlorenceConfig, batch: int, tokens: int, seed: int) -> tuple[Tensor, RowGroup]:
    """Random prompts [B, P], and the answers of one task about every image: `tokens` on average, the end included."""
    generator = torch.Generator().manual_seed(seed)
    words = config.text.vocab_size - LOCATIONS
    prompts = torch.randint(4, words, (batch, PROMPT_TOKENS), generator=generator)
    prompts[:, 0], prompts[:, -1] = 0, EOS
    lengths = torch.linspace(0.9 * tokens, 1.1 * tokens, batch).round().int().tolist()
    input_ids = torch.full((batch, max(lengths) + 1), PAD)
    labels = torch.full_like(input_ids, IGNORED)
    for row, length in enumerate(lengths):
        answer = [*torch.randint(4, words, (length - 1,), generator=generator).tolist(), EOS]
        input_ids[row, : length + 1] = torch.tensor([START, 0, *answer[:-1]])
        labels[row, 1 : length + 1] = torch.tensor(answer)
    return prompts, RowGroup(("<OD>",), input_ids[:, None], labels[:, None], prompts[:, None])


def build(
    config: FlorenceConfig, mode: str, precision: str, batch: int, tokens: int, device: torch.device, seed: int
) -> tuple[Side, Side, dict[str, tuple[nn.Parameter, nn.Parameter]]]:
    """Ours, theirs, and name → the same parameter of both, for those of `COMPARED` that learn."""
    native = build_native(config, seed).train().to(device)
    ours = FlorenceModel(config)
    load_tensors(ours, native.state_dict().items(), source="random weights")
    trainer = AnswerTrainer(ours.to(device), config.text.vocab_size - LOCATIONS, PAD)
    if mode != "full":
        for part in (ours.vision, ours.projector, native.model.vision_tower, native.model.multi_modal_projector):
            part.requires_grad_(False)
    trainer.train()

    width, height = config.image_size_wh
    pixel_values = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    prompts, group = answers(config, batch, tokens, seed)
    given = Batch(pixel_values, (group,)).to(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    if mode == "cached":
        with torch.no_grad(), autocast:
            features = ours.encode_image(given.pixel_values)
        # As `florence_lite.train.features` keeps them.
        features = features.to(torch.float32 if precision == "fp32" else torch.float16)
        given = replace(given, pixel_values=None, image_features=features)
    image = torch.full((batch, config.image_tokens), config.text.vocab_size - 1)
    input_ids = torch.cat([image, prompts], dim=1).to(device)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "pixel_values": pixel_values.to(device),
        "decoder_input_ids": group.input_ids[:, 0].to(device),
        "labels": group.labels[:, 0].to(device),
    }

    def our_loss() -> Tensor:
        with autocast:
            return trainer(given, 1.0)[0]

    def their_loss() -> Tensor:
        with autocast:
            return native(**inputs).loss

    mine, theirs = dict(ours.named_parameters()), dict(native.named_parameters())
    pairs = {name: (mine[name], theirs[NATIVE.name_of(name)]) for name in COMPARED if mine[name].requires_grad}
    return Side(trainer, our_loss), Side(native, their_loss), pairs


def check(ours: Side, native: Side, pairs: dict, precision: str) -> dict:
    """Make a first step on both sides; exits where losses or, in fp32, gradients differ. Returns what was compared."""
    with attention_by_products(ours.learning[0].device):
        loss = ours.gradients()
    expected = native.gradients()
    found = {"loss": loss, "transformers_loss": expected}
    if not abs(loss - expected) <= LOSS_TOLERANCE[precision] * abs(expected):
        raise SystemExit(f"{precision}: the losses differ: {loss} and {expected}")
    if precision == "fp32":
        errors = {name: ((a.grad - b.grad).norm() / b.grad.norm()).item() for name, (a, b) in pairs.items()}
        if not max(errors.values()) <= GRADIENT_TOLERANCE:
            raise SystemExit(f"the gradients differ: {errors}")
        found["gradient_error"] = max(errors.values())
    ours.update()
    native.update()
    return found


def measure(
    config: FlorenceConfig, mode: str, precision: str, batch: int, tokens: int, rounds: int, device: torch.device
) -> dict:
    """Median seconds of a step on both sides, and their ratio."""
    ours, native, pairs = build(config, mode, precision, batch, tokens, device, seed=0)
    compared = check(ours, native, pairs, precision)  # also the warm-up
    times: dict[Side, list[float]] = {ours: [], native: []}
    for _ in range(rounds):
        for side, taken in times.items():
            begin = now(device)
            if side is ours:
                with attention_by_products(device):
                    side.gradients()
            else:
                side.gradients()
            side.update()
            taken.append(now(device) - begin)
    ratios = [theirs / mine for mine, theirs in zip(times[ours], times[native], strict=True)]
    return {
        "mode": mode,
        "precision": precision,
        "florence_lite_s": statistics.median(times[ours]),
        "transformers_s": statistics.median(times[native]),
        "ratio": statistics.median(ratios),
        **compared,
    }


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("nano", "base", "large"), default="base")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--tokens", type=int, default=60, help="of an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()

    config = FlorenceConfig.preset(arguments.size, prompt_side="encoder")
    config = replace(config, vision=replace(config.vision, drop_path=0.0), text=replace(config.text, dropout=0.0))
    device = torch.device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()
    rows = []
    for mode in arguments.modes:
        for precision in arguments.precisions:
            rows.append(
                measure(config, mode, precision, arguments.batch, arguments.tokens, arguments.rounds, device)
            )
            gc.collect()
    if arguments.json:
        print(json.dumps({"command": " ".join(sys.argv), **environment(), "rows": rows}, indent=2))
        return
    print(f"{arguments.size}, batch {arguments.batch}, {arguments.device}, median of {arguments.rounds} rounds")
    print(f"{'':14} {'florence-lite':>14} {'transformers':>14} {'ratio':>7} {'loss':>8}")
    for row in rows:
        print(
            f"{row['mode']:8}{row['precision']:6} {row['florence_lite_s'] * 1000:11.0f} ms "
            f"{row['transformers_s'] * 1000:11.0f} ms {row['ratio']:6.2f}x {row['loss']:8.4f}"
        )


if __name__ == "__main__":
    main()
