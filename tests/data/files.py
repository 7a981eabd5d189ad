"""Small data sets written on the spot."""

import json
from pathlib import Path

from PIL import Image


def picture(path: Path, size_wh: tuple[int, int] = (100, 80), **options) -> Path:
    """An image file of one colour; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh, (90, 120, 200)).save(path, **options)
    return path


def write(path: Path, content: object) -> Path:
    """A text file, or JSON of anything that is no text; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def turned(path: Path, size_wh: tuple[int, int]) -> Path:
    """An image whose EXIF data say that it is to be turned by 90 degrees to be upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(path, size_wh, exif=exif)


def coco(images, annotations, categories=("cat", "dog")) -> dict:
    """A COCO file. images: (file_name, width, height), numbered from 1; annotations: dicts, numbered from 1."""
    return {
        "images": [
            {"id": n, "file_name": name, "width": width, "height": height}
            for n, (name, width, height) in enumerate(images, start=1)
        ],
        "annotations": [{"id": n, **record} for n, record in enumerate(annotations, start=1)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories, start=1)],
    }


def kinds(dataset) -> dict[str, int]:
    """Kind of problem → count."""
    return dataset.summary()["problems"]
