# /// script
# requires-python = ">=3.11"
# dependencies = ["pillow"]
# ///
"""Pictures of a kind that no checkpoint has seen, with exact boxes: what the notebooks train on.

`python shapes.py` draws forty of them into the folder `shapes`, with a COCO file for each half, as a labelling tool
would export them.
"""

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

LABELS = ("ring", "cross", "wedge")


def picture(seed: int) -> tuple[Image.Image, list[tuple[str, tuple[int, int, int, int]]]]:
    """A picture with one to four shapes, and the label and the box x0 y0 x1 y1 of each."""
    rng = random.Random(seed)
    image = Image.new("RGB", (224, 224), tuple(rng.randint(190, 255) for _ in range(3)))
    pen, things = ImageDraw.Draw(image), []
    places = [(column, row) for column in range(3) for row in range(3)]
    for column, row in rng.sample(places, rng.randint(1, 4)):
        label, side = rng.choice(LABELS), rng.randint(36, 64)
        x, y = 74 * column + rng.randint(2, 72 - side), 74 * row + rng.randint(2, 72 - side)
        box = (x, y, x + side, y + side)
        _draw(pen, label, box, tuple(rng.randint(0, 150) for _ in range(3)))
        things.append((label, box))
    return image, things


def _draw(pen: ImageDraw.ImageDraw, label: str, box: tuple[int, int, int, int], color: tuple[int, ...]) -> None:
    x0, y0, x1, y1 = box
    third = (x1 - x0) // 3
    if label == "ring":
        pen.ellipse(box, outline=color, width=third // 2)
    elif label == "cross":
        pen.rectangle((x0 + third, y0, x1 - third, y1), fill=color)
        pen.rectangle((x0, y0 + third, x1, y1 - third), fill=color)
    else:
        pen.polygon(((x0, y0), (x1, y0), ((x0 + x1) // 2, y1)), fill=color)


def write_pictures(folder: Path, seeds: range) -> list:
    """Draw pictures into a folder, without a word about what is on them; returns what that would be."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = []
    for seed in seeds:
        image, things = picture(seed)
        image.save(folder / f"{seed}.png")
        truths.append((f"{seed}.png", things))
    return truths


def write_coco(folder: Path, seeds: range) -> None:
    """Draw pictures into a folder, and beside them a COCO file with all of their boxes."""
    images, annotations = [], []
    for image_id, (name, things) in enumerate(write_pictures(folder, seeds), start=1):
        images.append({"id": image_id, "file_name": name, "width": 224, "height": 224})
        for label, (x0, y0, x1, y1) in things:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": LABELS.index(label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": label} for number, label in enumerate(LABELS, start=1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "_annotations.coco.json").write_text(json.dumps(coco), encoding="utf-8")


if __name__ == "__main__":
    write_coco(Path("shapes/train"), range(20))
    write_coco(Path("shapes/test"), range(100, 120))
    print("drawn into shapes/train and shapes/test")
