"""What a frozen vision tower sees in a data set, computed once instead of in every step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from florence_lite.data.augment import Turn, can_turn
from florence_lite.data.samples import Sample
from florence_lite.files import read_json
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.progress import progress_bar

BATCH = 8  # images that go through the tower at once


def image_features(
    model: FlorenceModel,
    preprocessor: Preprocessor,
    samples: Sequence[Sample],
    mirrored: bool,
    accelerator: Accelerator,
    folder: Path | None = None,
    origin: str = "",
) -> Tensor:
    """Features [samples, ways, N, D] of each image as it is and, if `mirrored`, mirrored.

    They are float16 where the run computes in bfloat16, which is coarser still, else float32.

    folder: where to keep them in a file, from which they are read when they are needed, in later runs as well; None
        keeps them in memory, in every process by itself.
    origin: which tower saw which data set; what is in the folder is used again only for the same.
    Raises ValueError for an image that cannot be read.
    """
    dtype = torch.float32 if accelerator.mixed_precision == "no" else torch.float16
    ways, tokens, width = 1 + mirrored, model.config.image_tokens, model.config.text.d_model
    shape = (len(samples), ways, tokens, width)
    if folder is None:
        features = torch.zeros(shape, dtype=dtype)
        _fill(features, model, preprocessor, samples, accelerator)
        return features
    file, done = folder / "features.bin", folder / "features.json"
    content = {"origin": origin, "shape": shape, "dtype": str(dtype), "images": [sample.name for sample in samples]}
    content = json.loads(json.dumps(content))
    if accelerator.is_main_process and not (done.is_file() and read_json(done) == content):
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        _fill(_mapped(file, shape, dtype), model, preprocessor, samples, accelerator)
        done.write_text(json.dumps(content))
    accelerator.wait_for_everyone()
    return _mapped(file, shape, dtype)


def _mapped(file: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor that lives in a file."""
    size = torch.Size(shape).numel()
    return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(*shape)


@torch.no_grad()
def _fill(
    features: Tensor,
    model: FlorenceModel,
    preprocessor: Preprocessor,
    samples: Sequence[Sample],
    accelerator: Accelerator,
) -> None:
    training = model.training
    model.to(accelerator.device).eval()
    views = _views(samples, features.shape[1])
    total = features.shape[0] * features.shape[1]
    with progress_bar(accelerator.is_main_process) as progress:
        bar = progress.add_task("image features", total=total)
        for first in range(0, total, BATCH):
            places, images = zip(*(next(views) for _ in range(min(BATCH, total - first))), strict=True)
            with accelerator.autocast():
                seen = model.encode_image(preprocessor(images).to(accelerator.device))
            for (sample, way), each in zip(places, seen, strict=True):
                features[sample, way] = each.to("cpu", features.dtype)
            progress.advance(bar, len(images))
    model.train(training)


def _views(samples: Sequence[Sample], ways: int) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """Every image in each way, with the place of its features; one that must not be mirrored comes as it is."""
    for number in range(len(samples)):
        sample = samples[number]
        image = sample.load()
        yield (number, 0), image
        if ways > 1:
            allowed = can_turn(sample.annotation, Turn.FLIP_LEFT_RIGHT)
            yield (number, 1), image.transpose(Turn.FLIP_LEFT_RIGHT) if allowed else image
