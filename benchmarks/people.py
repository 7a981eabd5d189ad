"""Makes a data set of people in natural photographs from the openly licensed part of COCO, for `finetuning.py`.

    python benchmarks/people.py FOLDER --output people
    python benchmarks/finetuning.py examples/people.toml people --output runs/people

FOLDER: with `persons.json`, COCO's file of all people in its photos, and the photos in `val2017/`, of any size. The
places are scaled to the photos as they are; the last digit of a photo's id says which split it belongs to, today and
always: 0 and 1 test, 2 validation, the others training. Photos without people stay, as such.
"""

import argparse
import json
import os
from pathlib import Path

from PIL import Image

SPLITS = {"train": "3456789", "val": "2", "test": "01"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with persons.json and val2017/")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    coco = json.loads((arguments.folder / "persons.json").read_text(encoding="utf-8"))
    by_image: dict[int, list[dict]] = {}
    for item in coco["annotations"]:
        by_image.setdefault(item["image_id"], []).append(item)
    (pictures := arguments.output / "images").mkdir(parents=True, exist_ok=True)
    for split, digits in SPLITS.items():
        images, annotations = [], []
        for image in coco["images"]:
            if str(image["id"])[-1] not in digits:
                continue
            file = arguments.folder / "val2017" / image["file_name"]
            link = pictures / file.name
            if not link.exists():
                os.symlink(file.resolve(), link)
            width, height = Image.open(file).size
            images.append({**image, "width": width, "height": height})
            annotations += [scaled(item, image, (width, height)) for item in by_image.get(image["id"], ())]
        data = {"images": images, "annotations": annotations, "categories": coco["categories"]}
        (arguments.output / f"{split}.json").write_text(json.dumps(data), encoding="utf-8")
        print(f"{split}: {len(images)} photos, {len(annotations)} people")


def scaled(item: dict, image: dict, size_wh: tuple[int, int]) -> dict:
    across, down = size_wh[0] / image["width"], size_wh[1] / image["height"]
    x, y, width, height = item["bbox"]
    return {
        **{name: value for name, value in item.items() if name != "segmentation"},
        "bbox": [x * across, y * down, width * across, height * down],
        "area": item.get("area", width * height) * across * down,
    }


if __name__ == "__main__":
    main()
