"""What does attention cost on a GPU when a shape comes for the first time, and again?

    python benchmarks/attention.py --json benchmarks/results/attention-h100.json

In training nearly every batch has shapes of its own, in answering nearly every image and prompt. Peer: cuDNN's
attention, which torch takes by itself on Hopper GPUs; ours is what remains without it
(`florence_lite.model.device.inference_mode`, `florence_lite.train.kernels`). Both sides get the same shapes of the
embedded checkpoint, in turn; outputs must agree.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from peer import environment
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

SIDES = {
    "cudnn": [SDPBackend.CUDNN_ATTENTION],
    "ours": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}
HEADS, CHANNELS, IMAGES = 8, 32, 128
SHAPES = [(5, 15), (4, 25), (5, 38), (6, 62), (2, 111), (7, 19), (3, 47), (2, 87)]  # rows of an image, tokens of a row
AGREE = 2e-2  # bfloat16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this compares kernels of a GPU, and torch sees none")
    found = environment("cuda")
    for name, learns in (("training", True), ("answering", False)):
        times: dict[str, list[float]] = {f"{side}, {when}": [] for side in SIDES for when in ("first", "again")}
        for number, (rows, tokens) in enumerate([(1, 8), *SHAPES]):
            inputs = [torch.randn(IMAGES * rows, HEADS, tokens, CHANNELS, device="cuda") for _ in range(3)]
            inputs = [each.bfloat16().requires_grad_(learns) for each in inputs]
            outputs = {}
            for side, backends in SIDES.items():
                for when in ("first", "again"):
                    ms, outputs[side] = timed(inputs, backends, learns)
                    if number:  # the first loads the libraries
                        times[f"{side}, {when}"].append(ms)
            torch.testing.assert_close(*outputs.values(), rtol=AGREE, atol=AGREE)
        found[name] = {side: round(statistics.median(each), 2) for side, each in times.items()}
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def timed(inputs: list[Tensor], backends: list[SDPBackend], learns: bool) -> tuple[float, Tensor]:
    """Milliseconds of a call, with its backward pass where it learns, and what comes out."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    with sdpa_kernel(backends):
        out = F.scaled_dot_product_attention(*inputs, is_causal=True)
    if learns:
        torch.autograd.grad(out.sum(), inputs)
    torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1000, out.detach()


if __name__ == "__main__":
    main()
