"""Files of pictures that benchmarks work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from florence_lite.image_files import is_image_name
from florence_lite.scenes import DEFAULT_STYLES, render_scene, scene_seeds

SIZES_WH = ((640, 480), (480, 640), (800, 600), (512, 512), (1024, 768), (1600, 1200))


def pictures_in(folder: Path, pattern: str = "**/*") -> list[Path]:
    """The pictures of a folder, sorted. Ends the script where there are none."""
    files = sorted(file for file in folder.glob(pattern) if is_image_name(file.name))
    if not files:
        raise SystemExit(f"{folder} holds no pictures; name the folder in which they lie")
    return files


def write_files(folder: Path, count: int) -> list[Path]:
    """Pictures of `SIZES_WH` in turn, two of three JPEG, the others PNG."""
    paths = []
    for number in range(count):
        try:
            picture = render_scene(scene_seeds("test")[number], DEFAULT_STYLES)[0]
        except FileNotFoundError:  # no artwork
            noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            picture = Image.fromarray(noise)
        paths.append(folder / f"{number:04}.{'jpg' if number % 3 else 'png'}")
        picture.resize(SIZES_WH[number % len(SIZES_WH)], Image.Resampling.BICUBIC).save(paths[-1])
    return paths
