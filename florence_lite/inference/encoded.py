"""Encoded images: what the vision tower sees of a picture, computed once for any number of prompts."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from florence_lite.checks import is_whole
from florence_lite.files import parse_json, replacing
from florence_lite.images import load_enough
from florence_lite.inference.chunks import chunks
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import CrossCache, FlorenceModel, usable_device
from florence_lite.model.device import inference_mode, weight_state

IMAGES_AT_ONCE = 8  # images that go through the vision tower together
# A JPEG of at least twice as many pixels each way is made smaller while it is decoded. That is still several times what
# networks take; photographs of cameras are decoded whole, so that they are prepared as transformers prepares them.
ENOUGH_WH = (4096, 4096)
KEPT_PIXELS = 2**24  # of a larger picture a smaller copy is kept to be drawn on
SAMPLES = 64  # numbers of every tensor that the digest of a network looks at

_FORMAT, _VERSION = "florence_lite encoded image", "1"


@dataclass(frozen=True)
class Maker:
    """The checkpoint that encoded an image.

    name: what it was loaded by; it does not count in comparisons, so that a moved folder is the same checkpoint.
    digest: hexadecimal, of the network and of how it prepares images.
    """

    name: str = field(compare=False)
    digest: str

    @classmethod
    def of(cls, name: str, model: FlorenceModel, preprocessor: Preprocessor) -> Maker:
        """Sizes, settings and `SAMPLES` numbers from all over each weight: milliseconds, where all would take seconds.

        Training changes almost every number of a weight, so samples tell one checkpoint from another. The tables of
        tokens have no part in an encoded image, and saving may lengthen them: they do not count.
        """
        config = model.config
        settings = [asdict(config.vision), config.text.heads, config.image_size_wh, config.prompt_side]
        digest = hashlib.sha256(json.dumps([settings, preprocessor.to_settings()], sort_keys=True).encode())
        for key, tensor in sorted(model.state_dict().items()):
            if "embed_tokens" in key or "lm_head" in key:
                continue
            numbers = tensor.detach().flatten()[:: max(1, tensor.numel() // SAMPLES)]
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(numbers.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return cls(name, digest.hexdigest())

    def __str__(self) -> str:
        return f"{self.name!r} (weights {self.digest[:8]})"


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image as the network sees it, made by `Florence.encode` and accepted wherever an image is.

    size_wh: width and height of the image in pixels.
    features: float [N, D], what the vision tower sees.
    hidden_states: float [N, D], the encoder's output where the prompt goes to the decoder; None where it goes to the
        encoder, which then runs once per prompt.
    maker: the checkpoint that encoded it; no other can use it.
    image: the picture, RGB, which results keep to be drawn, smaller than `size_wh` where that is more than
        `KEPT_PIXELS`; or None.
    """

    size_wh: tuple[int, int]
    features: Tensor = field(repr=False)
    hidden_states: Tensor | None = field(repr=False)
    maker: Maker
    image: Image.Image | None = field(default=None, repr=False)
    _cross: CrossCache | None = field(default=None, init=False, repr=False)

    @property
    def device(self) -> torch.device:
        return self.features.device

    def to(self, device: str | torch.device) -> EncodedImage:
        """This image on another device, itself where it is there already; ValueError for one that cannot be used."""
        device = usable_device(device)
        moved = self.features.to(device)
        if moved.device == self.device:
            return self
        hidden_states = None if self.hidden_states is None else self.hidden_states.to(device)
        return replace(self, features=moved, hidden_states=hidden_states)

    def cross_cache(self, model: FlorenceModel) -> CrossCache:
        """Keys and values [1, heads, N, d] of the decoder's cross-attention, computed for the first prompt and kept.

        For networks whose prompts go to the decoder.
        """
        if self._cross is None:
            object.__setattr__(self, "_cross", model.cross_cache(self.hidden_states[None]))
        return self._cross

    def save(self, path: str | os.PathLike, keep_image: bool = True) -> None:
        """Write it into one safetensors file. keep_image: with the picture, three bytes a pixel, if there is one.

        The file replaces its predecessor at once. Raises FileNotFoundError where its folder does not exist, and
        IsADirectoryError where `path` is a folder.
        """
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"encoded image {path} cannot be saved: this is a folder; give the name of a file")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"encoded image {path} cannot be saved: there is no folder {path.parent}")
        tensors = {"features": self.features, "hidden_states": self.hidden_states}
        if keep_image and self.image is not None:
            tensors["image"] = torch.from_numpy(np.array(self.image))
        about = {
            "format": _FORMAT,
            "version": _VERSION,
            "checkpoint": self.maker.name,
            "digest": self.maker.digest,
            "size_wh": json.dumps(self.size_wh),
        }
        tensors = {name: part.contiguous() for name, part in tensors.items() if part is not None}
        with replacing(path) as partial:
            save_file(tensors, partial, about)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> EncodedImage:
        """What `save` wrote, on `device`. No code of the file is run.

        Raises FileNotFoundError where there is no file, and ValueError, naming it, where it is damaged or something
        else.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"encoded image {path} does not exist or is no file")
        try:
            with safe_open(path, framework="pt") as opened:
                about = opened.metadata() or {}
                # Copied: what is read stays tied to the file.
                tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is no encoded image, or damaged or cut short: {error}") from None
        if about.get("format") != _FORMAT:
            raise ValueError(f"{path} is no encoded image: EncodedImage.save did not write it")
        if about.get("version") != _VERSION:
            raise ValueError(f"{path} is of version {about.get('version')!r}, not {_VERSION!r}: encode the image again")
        try:
            return cls._from_parts(about, tensors).to(device)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is a damaged encoded image ({error}): encode the image again") from None

    @classmethod
    def _from_parts(cls, about: Mapping[str, str], tensors: Mapping[str, Tensor]) -> EncodedImage:
        size_wh = parse_json(about["size_wh"], "size_wh")
        if not isinstance(size_wh, list) or len(size_wh) != 2 or not all(is_whole(side, 1) for side in size_wh):
            raise ValueError(f"size_wh is {size_wh}; it must be a width and a height")
        width, height = size_wh
        features, hidden_states, pixels = (tensors.get(name) for name in ("features", "hidden_states", "image"))
        if features is None or features.ndim != 2 or not features.is_floating_point():
            raise ValueError("there are no features, float [N, D]")
        if hidden_states is not None and (hidden_states.shape, hidden_states.dtype) != (features.shape, features.dtype):
            raise ValueError(f"hidden_states is {list(hidden_states.shape)}, features is {list(features.shape)}")
        if pixels is not None and not _is_picture(pixels, width, height):
            raise ValueError(f"the picture is {list(pixels.shape)} of an image of {width}×{height} pixels")
        image = None if pixels is None else Image.fromarray(pixels.numpy())
        return cls((width, height), features, hidden_states, Maker(about["checkpoint"], about["digest"]), image)


def _is_picture(pixels: Tensor, width: int, height: int) -> bool:
    """Whether a tensor holds the picture of an image of that size, or a smaller one."""
    fits = pixels.ndim == 3 and 0 < pixels.shape[0] <= height and 0 < pixels.shape[1] <= width and pixels.shape[2] == 3
    return fits and pixels.dtype == torch.uint8


@dataclass(frozen=True)
class OpenedImage:
    """A picture on its way to the network.

    size_wh: of the image. pixels: RGB, with as many pixels as the network takes. kept: RGB, to be drawn on, or None.
    """

    size_wh: tuple[int, int]
    pixels: Image.Image
    kept: Image.Image | None


def kept_picture(picture: Image.Image) -> Image.Image:
    """The picture, or a smaller copy where it has more than `KEPT_PIXELS`."""
    shrink = math.ceil(math.sqrt(picture.width * picture.height / KEPT_PIXELS))
    return picture.reduce(shrink) if shrink > 1 else picture


class ImageEncoder:
    """Encodes images with one network. name: of its checkpoint, for messages."""

    def __init__(self, model: FlorenceModel, preprocessor: Preprocessor, name: str):
        self.model, self.preprocessor, self.name = model, preprocessor, name
        self._maker: Maker | None = None
        self._made_of: list[tuple[int, int]] | None = None  # address and number of changes of every weight

    @property
    def maker(self) -> Maker:
        """What encoded images know their checkpoint by; computed anew when a weight has been changed."""
        state = [weight_state(tensor) for tensor in chain(self.model.parameters(), self.model.buffers())]
        if self._made_of != state:
            self._maker, self._made_of = Maker.of(self.name, self.model, self.preprocessor), state
        return self._maker

    def open(self, image: Any, keep_image: bool = True) -> OpenedImage | EncodedImage:
        """The picture, loaded and made as small as the network takes it, so that of many pictures one at a time is in
        memory; an encoded image stays what it is. keep_image: whether it is kept to be drawn on.

        Raises as `load_image`, and ValueError for an encoded image that this network cannot use.
        """
        if not isinstance(image, EncodedImage):
            return self._opened(image, keep_image)
        if image.maker != self.maker:
            raise ValueError(
                f"the encoded image was made by checkpoint {image.maker} and cannot be used by {self.maker}: encode "
                "the image with the Florence that is asked about it"
            )
        weight, config = self.model.embed_tokens.weight, self.model.config
        expected = (config.image_tokens, config.text.d_model)
        if image.features.shape != expected or (image.hidden_states is None) != (config.prompt_side == "encoder"):
            raise ValueError(
                f"the encoded image has features {list(image.features.shape)}, the network {list(expected)}: its file "
                "was changed; encode the image again"
            )
        if image.features.dtype != weight.dtype:
            raise ValueError(
                f"the encoded image is {image.features.dtype}, the network {weight.dtype}: encode the image again"
            )
        if image.device != weight.device:
            raise ValueError(
                f"the encoded image is on {image.device}, the network on {weight.device}: move it with "
                f"encoded.to({str(weight.device)!r})"
            )
        return image

    def _opened(self, image: Any, keep_image: bool) -> OpenedImage:
        picture, size_wh = load_enough(image, ENOUGH_WH)
        pixels = self.preprocessor.resized(picture)
        return OpenedImage(size_wh, pixels, kept_picture(picture) if keep_image else None)

    @inference_mode()
    def encode(self, opened: Sequence[OpenedImage | EncodedImage]) -> list[EncodedImage]:
        """What `open` returned, encoded, a few at a time."""
        pictures = [image for image in opened if isinstance(image, OpenedImage)]
        fresh: list[EncodedImage] = []
        for few in chunks(pictures, IMAGES_AT_ONCE):
            fresh += self._encode(few)
        remaining = iter(fresh)
        return [next(remaining) if isinstance(image, OpenedImage) else image for image in opened]

    def _encode(self, pictures: Sequence[OpenedImage]) -> list[EncodedImage]:
        weight, maker = self.model.embed_tokens.weight, self.maker
        pixel_values = self.preprocessor([picture.pixels for picture in pictures])
        features = self.model.encode_image(pixel_values.to(weight.device, weight.dtype))
        hidden_states = [None] * len(pictures)
        if self.model.config.prompt_side == "decoder":
            hidden_states = [row.clone() for row in self.model.encode(features)[0]]
        # Cloned: a row of a batch would keep the whole batch in memory.
        return [
            EncodedImage(picture.size_wh, row.clone(), hidden, maker, picture.kept)
            for picture, row, hidden in zip(pictures, features, hidden_states, strict=True)
        ]
