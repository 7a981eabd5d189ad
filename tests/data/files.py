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


# ---- smallest data sets: a cat in a.jpg, of 100×80 pixels ------------------------------------------------------------

CAT = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 20]}
BOX = (10, 10, 40, 30)
LINE = "0 .5 .5 .2 .2\n"  # 40 32 60 48


def one(name="a.jpg", *annotations, categories=("cat",), **of_image):
    """A COCO file of one image of 100×80 pixels."""
    content = coco([(name, 100, 80)], annotations, categories)
    content["images"][0].update(of_image)
    return content


def voc(filename, label, **more):
    """An XML file of one object. more: further elements of it."""
    marks = "".join(f"<{tag}>{value}</{tag}>" for tag, value in more.items())
    corners = "<xmin>10</xmin><ymin>10</ymin><xmax>40</xmax><ymax>30</ymax>"
    item = f"<object><name>{label}</name>{marks}<bndbox>{corners}</bndbox></object>"
    return f"<annotation><filename>{filename}</filename>{item}</annotation>"


def labels_of(dataset) -> dict[str, list[str]]:
    """Name of the image → labels of its objects."""
    return {sample.name: [item.label for item in sample.annotation.objects] for sample in dataset}


def no_negatives(dataset) -> bool:
    """Whether no image counts as one without objects."""
    return dataset.summary()["negatives"] == {}
