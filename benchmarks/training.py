"""Speed of training steps against transformers' native Florence-2 with the same random weights.

    python benchmarks/training.py --size base

A step is forward, backward, clipping of the gradients, fused AdamW and zeroing; both sides get the same pixel values,
prompts and answers. Losses must agree in every step, and in fp32 the gradients of the first one.

    full     all weights learn
    frozen   the tower and its projector are frozen and run in every step, on both sides
    cached   the same, but ours is given what the tower saw, as fine-tuning keeps it; transformers runs the tower

In bf16 both sides compute under autocast and keep the weights in float32. Ours is what fine-tuning runs, with the
settings of `florence_lite.train.kernels`; one of them, `keep_freed_memory`, holds for the process, so that
transformers gains by it as well. There is no dropout, and no location token, for which our loss would be a softer one.
Rounds alternate between the two sides. The table shows medians, and the ratio is the median of the rounds' ratios.
Needs transformers with its pull request 46898; before that, this class shifted the labels twice.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import transformers
from peer import EOS, START, build_native, environment
from torch import Tensor, nn

from florence_lite.checkpoint import load_tensors
from florence_lite.checkpoint.layouts import NATIVE
from florence_lite.model import FlorenceConfig, FlorenceModel
from florence_lite.train.collate import Batch
from florence_lite.train.kernels import faster_kernels, keep_freed_memory
from florence_lite.train.lanes import IGNORED, RowGroup
from florence_lite.train.trainer import AnswerTrainer

SIZES = ("nano", "base", "large")
MODES = ("full", "frozen", "cached")
PRECISIONS = {"fp32": 1e-4, "bf16": 2e-2}  # and how far the losses may differ, relative
GRADIENTS_DIFFER = 1e-3  # relative, for the norm of a parameter's gradient
COMPARED = (  # parameters whose gradients are compared, those of a frozen tower excepted
    "embed_tokens.weight",
    "encoder.layers.0.ffn.fc1.weight",
    "decoder.layers.0.cross_attention.q_proj.weight",
    "vision.stages.1.blocks.0.spatial.attention.qkv.weight",
    "vision.stages.0.embed.conv.weight",
)
WARM_UP = 2  # rounds after the first step, until the memory that the sides take in turn has settled
PAD, PROMPT_TOKENS = 1, 13  # as many as <OD> has
MARKS = 1020  # locations and marks, the last ids of Florence-2's vocabulary


class Side:
    """A network, its loss on the data, and the optimiser.

    around: a context for forward and backward.
    """

    def __init__(self, module: nn.Module, loss: Callable[[], Tensor], around: Callable[[], AbstractContextManager]):
        self.loss, self.around = loss, around
        self.learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=1e-6, fused=True)

    def gradients(self) -> float:
        """Compute them; returns the loss."""
        with self.around():
            loss = self.loss()
            loss.backward()
        return loss.item()

    def step(self, device: torch.device) -> tuple[float, float]:
        """Make a whole step; returns its loss and its seconds."""
        begin = now(device)
        loss = self.gradients()
        self.update()
        return loss, now(device) - begin

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def random_rows(config: FlorenceConfig, batch: int, tokens: int) -> RowGroup:
    """One prompt and answer for every image; the answers have `tokens` tokens on average, their ends included."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randint, 4, config.text.vocab_size - MARKS, generator=generator)
    prompts = draw((batch, PROMPT_TOKENS))
    prompts[:, 0], prompts[:, -1] = 0, EOS
    lengths = torch.linspace(0.9 * tokens, 1.1 * tokens, batch).round().int().tolist()
    input_ids = torch.full((batch, max(lengths) + 1), PAD)
    labels = torch.full_like(input_ids, IGNORED)
    for row, length in enumerate(lengths):
        answer = draw((length - 1,))
        input_ids[row, : length + 1] = torch.cat([torch.tensor([START, 0]), answer])
        labels[row, 1 : length + 1] = torch.cat([answer, torch.tensor([EOS])])
    places = (labels != IGNORED).flatten().nonzero().squeeze(1)
    return RowGroup(input_ids[:, None], labels[:, None], ("<OD>",), places, (len(places),), prompt_ids=prompts[:, None])


def build(
    config: FlorenceConfig, mode: str, precision: str, batch: int, tokens: int, device: torch.device
) -> tuple[Side, Side, dict[str, tuple[nn.Parameter, nn.Parameter]]]:
    """Ours, theirs, and the parameters of `COMPARED` that learn, each in both networks."""
    native = build_native(config, seed=0).train().to(device)
    model = FlorenceModel(config)
    load_tensors(model, native.state_dict().items(), source="random weights", device=device)
    model.to(device)
    if mode != "full":
        for part in (model.vision, model.projector, native.model.vision_tower, native.model.multi_modal_projector):
            part.requires_grad_(False)
    trainer = AnswerTrainer(model, config.text.vocab_size - MARKS, PAD).train()

    width, height = config.image_size_wh
    pixel_values = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    rows = random_rows(config, batch, tokens)
    given = Batch(pixel_values, (rows,)).to(device)
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")
    if mode == "cached":
        with torch.no_grad(), autocast():
            features = model.encode_image(given.pixel_values)
        kept = features.to(torch.float32 if precision == "fp32" else torch.float16)  # as fine-tuning keeps them
        given = replace(given, pixel_values=None, image_features=kept)
    image = torch.full((batch, config.image_tokens), config.text.vocab_size - 1)
    input_ids = torch.cat([image, rows.prompt_ids[:, 0]], dim=1)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "pixel_values": pixel_values,
        "decoder_input_ids": rows.input_ids[:, 0],
        "labels": rows.labels[:, 0],
    }
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}

    def our_loss() -> Tensor:
        with autocast():
            return trainer(given, sigma=1.0)[0]

    def their_loss() -> Tensor:
        with autocast():
            return native(**inputs).loss

    mine, theirs = dict(model.named_parameters()), dict(native.named_parameters())
    pairs = {name: (mine[name], theirs[NATIVE.name_of(name)]) for name in COMPARED if mine[name].requires_grad}
    ours = Side(trainer, our_loss, partial(faster_kernels, device, "bf16" if precision == "bf16" else "no"))
    return ours, Side(native, their_loss, nullcontext), pairs


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def check(what: str, difference: float, allowed: float) -> None:
    if not difference <= allowed:
        raise SystemExit(f"{what} of the two sides differ by {difference:.1e}; {allowed:.0e} is allowed")


def first_step(ours: Side, native: Side, pairs: dict, precision: str) -> dict:
    """Make the first step on both sides; returns its loss and how far losses and gradients differ."""
    loss, expected = ours.gradients(), native.gradients()
    row = {"loss": loss, "losses_differ": abs(loss / expected - 1)}
    check("losses", row["losses_differ"], PRECISIONS[precision])
    if precision == "fp32":
        row["gradients_differ"] = max(((a.grad - b.grad).norm() / b.grad.norm()).item() for a, b in pairs.values())
        check("gradients", row["gradients_differ"], GRADIENTS_DIFFER)
    ours.update()
    native.update()
    return row


def measure(
    config: FlorenceConfig, mode: str, precision: str, batch: int, tokens: int, rounds: int, device: torch.device
) -> dict:
    """Median seconds of a step on both sides, and their ratio."""
    ours, native, pairs = build(config, mode, precision, batch, tokens, device)
    row = {"mode": mode, "precision": precision, **first_step(ours, native, pairs, precision)}
    seconds = []
    for _ in range(WARM_UP + rounds):
        (loss, mine), (expected, theirs) = ours.step(device), native.step(device)
        check("losses", abs(loss / expected - 1), PRECISIONS[precision])
        seconds.append((mine, theirs))
    mine, theirs = zip(*seconds[WARM_UP:], strict=True)
    return row | {
        "florence_lite_s": statistics.median(mine),
        "transformers_s": statistics.median(theirs),
        "ratio": statistics.median(b / a for a, b in zip(mine, theirs, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--tokens", type=int, default=60, help="in an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write one JSON object, or print it alone")
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
            rows.append(measure(config, mode, precision, arguments.batch, arguments.tokens, arguments.rounds, device))
            gc.collect()  # the networks before the next ones
    found = json.dumps({**environment(), "rows": rows}, indent=2)
    if arguments.json == "-":
        print(found)
        return
    if arguments.json:
        Path(arguments.json).write_text(found + "\n")
    print(f"{arguments.size}, batch {arguments.batch}, {arguments.device}, median of {arguments.rounds} rounds")
    print(f"{'':14}{'florence-lite':>14} {'transformers':>14} {'ratio':>7} {'loss':>8}")
    for row in rows:
        print(
            f"{row['mode']:8}{row['precision']:6}{row['florence_lite_s'] * 1000:11.0f} ms "
            f"{row['transformers_s'] * 1000:11.0f} ms {row['ratio']:6.2f}x {row['loss']:8.4f}"
        )


if __name__ == "__main__":
    main()
