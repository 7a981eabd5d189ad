"""What a frozen vision tower sees in a data set, computed once instead of in every step."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import ExifTags, Image
from torch import Tensor

from florence_lite.data.augment import Turn
from florence_lite.data.samples import Sample
from florence_lite.files import read_json
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.progress import ProgressLines, is_logged, progress_bar
from florence_lite.train.digests import update_with_tensors
from florence_lite.train.log import tell

BATCH = 8  # images that go through the tower at once
ZEROS = 2**20  # bytes that are written at once where room cannot be reserved otherwise
CANNOT_RESERVE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # what such file systems answer


@dataclass(frozen=True)
class Features:
    """What a tower saw.

    views: [samples, ways, N, D], each image as it is and, where there are two ways, mirrored.
    unreadable: number of a sample → why its image cannot be read.
    """

    views: Tensor
    unreadable: Mapping[int, str]

    def of(self, number: int) -> Tensor:
        """The views [ways, N, D] of a sample. Raises ValueError for one whose image cannot be read."""
        if number in self.unreadable:
            raise ValueError(self.unreadable[number])
        return self.views[number]


def image_features(
    model: FlorenceModel,
    preprocessor: Preprocessor,
    samples: Sequence[Sample],
    mirrored: Sequence[bool] | None,
    accelerator: Accelerator,
    folder: Path | None = None,
) -> Features:
    """Features of each image as it is and mirrored.

    mirrored: for every image, whether it may be; one that may not is seen as it is a second time. None where no image
        is wanted mirrored.
    They are float16 where the run computes in bfloat16, which is coarser still, else float32.

    folder: where to keep them in a file, from which they are read when they are needed, in later runs as well; None
        keeps them in memory, in every process by itself. What is in the folder is used again only for the same images
        seen by the same tower, by digests of their contents; else it is computed anew, which is said.
    Raises OSError, before anything is computed, where there is no room for the file.
    """
    dtype = torch.float32 if accelerator.mixed_precision == "no" else torch.float16
    ways, tokens, width = 1 if mirrored is None else 2, model.config.image_tokens, model.config.text.d_model
    shape = (len(samples), ways, tokens, width)
    if folder is None:
        views = torch.zeros(shape, dtype=dtype)
        return Features(views, _fill(views, model, preprocessor, samples, mirrored, accelerator))
    file, record = folder / "features.bin", folder / "features.json"
    if accelerator.is_main_process:
        size = torch.Size(shape).numel() * dtype.itemsize
        content = {
            "tower": _tower_digest(model, preprocessor, accelerator),
            "shape": list(shape),
            "dtype": str(dtype),
            "images": [_image_digest(samples, number) for number in range(len(samples))],
            "mirrored": mirrored,
        }
        if changed := _changed(content, file, record, size):
            if record.is_file():
                accelerator.print(f"kept features in {folder} are computed anew: {', '.join(changed)} changed")
            folder.mkdir(parents=True, exist_ok=True)
            record.unlink(missing_ok=True)
            _reserve(file, size)
            unreadable = _fill(_mapped(file, shape, dtype), model, preprocessor, samples, mirrored, accelerator)
            record.write_text(json.dumps(content | {"unreadable": unreadable}))
    accelerator.wait_for_everyone()
    unreadable = {int(number): reason for number, reason in read_json(record)["unreadable"].items()}
    return Features(_mapped(file, shape, dtype), unreadable)


def _changed(content: Mapping[str, Any], file: Path, record: Path, size: int) -> list[str]:
    """What of the kept features is not as it is now; [] where they can be used."""
    if not record.is_file():
        return ["everything"]
    try:
        kept = read_json(record)
    except ValueError:
        kept = {}
    kept = kept if isinstance(kept, dict) else {}
    changed = [name for name, value in content.items() if kept.get(name) != value]
    whole = isinstance(kept.get("unreadable"), dict) and file.is_file() and file.stat().st_size == size
    return changed or ([] if whole else [file.name])


def _tower_digest(model: FlorenceModel, preprocessor: Preprocessor, accelerator: Accelerator) -> str:
    """Of all that decides what is seen in an image: weights, configuration, preprocessing and precision."""
    digest = hashlib.sha256(repr((model.config, preprocessor, accelerator.mixed_precision)).encode())
    for part in (model.vision, model.projector):
        update_with_tensors(digest, part.state_dict())
    return digest.hexdigest()


def _image_digest(samples: Sequence[Sample], number: int) -> str:
    """Of all that decides what is seen of a sample: its image, and the size that it must have."""
    digest = hashlib.sha256()
    try:
        sample = samples[number]
        digest.update(repr(tuple(sample.annotation.size_wh)).encode())
        if isinstance(sample.image, Image.Image):
            turned = sample.image.getexif().get(ExifTags.Base.Orientation)
            digest.update(repr((sample.image.size, sample.image.mode, turned)).encode())
            digest.update(sample.image.tobytes())
        elif isinstance(sample.image, bytes):
            digest.update(hashlib.sha256(sample.image).digest())
        else:
            with open(sample.image, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except (ValueError, OSError):
        digest.update(b"unreadable")
    return digest.hexdigest()


def _mapped(file: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor that lives in a file."""
    size = torch.Size(shape).numel()
    return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(*shape)


def _reserve(file: Path, size: int) -> None:
    """Make a new file of `size` bytes whose room on the disk is its own: a mapped file that finds none later would
    end the process. Raises OSError, naming what is needed and what is free."""
    file.unlink(missing_ok=True)
    try:
        with file.open("wb") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, size)
            except (AttributeError, OSError) as error:  # the system has no such call, or its file system
                if isinstance(error, OSError) and error.errno not in CANNOT_RESERVE:
                    raise
                for first in range(0, size, ZEROS):
                    opened.write(bytes(min(ZEROS, size - first)))
    except OSError as error:
        file.unlink(missing_ok=True)
        free = shutil.disk_usage(file.parent).free / 2**20
        raise OSError(
            f"{file}: kept features need {size / 2**20:.0f} MiB, and {free:.0f} MiB are free there ({error}): make "
            'room, or choose features = "computed" or "memory"'
        ) from error


@torch.no_grad()
def _fill(
    views: Tensor,
    model: FlorenceModel,
    preprocessor: Preprocessor,
    samples: Sequence[Sample],
    mirrored: Sequence[bool] | None,
    accelerator: Accelerator,
) -> dict[int, str]:
    """Compute all views [samples, ways, N, D]; number → reason of the samples whose images cannot be read."""
    training = model.training
    model.to(accelerator.device).eval()
    unreadable: dict[int, str] = {}
    pictures = _pictures(samples, mirrored, unreadable)
    told = accelerator.is_main_process and is_logged()
    lines = ProgressLines(len(samples), 0, tell if told else lambda line: None, unit="picture")
    if told:
        tell(f"computing the image features of {len(samples)} pictures")
    with progress_bar(accelerator.is_main_process) as progress:
        bar = progress.add_task("image features", total=views.shape[0] * views.shape[1])
        while batch := list(islice(pictures, BATCH)):
            places, images = zip(*batch, strict=True)
            with accelerator.autocast():
                seen = model.encode_image(preprocessor(images).to(accelerator.device))
            for (sample, way), each in zip(places, seen, strict=True):
                views[sample, way] = each.to("cpu", views.dtype)
            progress.advance(bar, len(images))
            lines.update(places[-1][0] + 1)
    model.train(training)
    return unreadable


def _pictures(
    samples: Sequence[Sample], mirrored: Sequence[bool] | None, unreadable: dict[int, str]
) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """Every image in each way, with the place of its features; one that must not be mirrored comes as it is.

    unreadable: gets number → reason of the samples whose images cannot be read.
    """
    for number in range(len(samples)):
        try:
            image = samples[number].load()
        except (ValueError, OSError) as error:
            unreadable[number] = str(error)
            continue
        yield (number, 0), image
        if mirrored is not None:
            yield (number, 1), image.transpose(Turn.FLIP_LEFT_RIGHT) if mirrored[number] else image
