"""Scenes on disk: PNG images and COCO JSON."""

from __future__ import annotations

import json
from pathlib import Path

from florence_lite.data.annotation import Annotation, ObjectAnnotation
from florence_lite.data.scenes.catalogue import CLASSES, LICENCES, TRAINING_STYLES
from florence_lite.data.scenes.scene import Scenes
from florence_lite.geometry import mask_to_rle, rasterize

CAPTION_LENGTHS = ("short", "detailed", "paragraph")


def export_coco(
    folder: str | Path,
    split: str,
    count: int,
    styles: tuple[str, ...] = TRAINING_STYLES,
    size_wh: tuple[int, int] = (224, 224),
) -> Path:
    """Write the first `count` scenes of a split to `folder` (made if missing) and return it.

    images/<seed>.png        the images; the image id is the seed
    instances_<split>.json   COCO instances: boxes x y w h; an outline of one ring as a polygon, one of several rings
                             (holes, parts) as uncompressed run lengths; category ids are positions in `CLASSES` from 1
    captions_<split>.json    COCO captions, three an image; an extra field "length": "short", "detailed", "paragraph"
    scenes_<split>.json      a list with one entry per image:
                             {"image_id",
                              "lines": [{"text", "quad": 8 numbers, clockwise from the top left}],
                              "phrases": [{"annotation_id", "phrase"}],
                              "referrals": [{"phrase", "annotation_ids": none, one or several}],
                              "questions": [{"question", "answer"}]}

    Raises as `Scenes`.
    """
    scenes = Scenes(split, styles, size_wh, count)
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    licenses = [{"id": i, **LICENCES[style]} for i, style in enumerate(styles, 1)]
    info = {"description": f"florence_lite scenes, {split}, artwork {', '.join(styles)}"}
    images, instances, captions, extra = [], [], [], []
    for scene in scenes:
        seed, annotation = scene["seed"], scene["annotation"]
        name = f"{seed}.png"
        scene["image"].save(folder / "images" / name)
        images.append({"id": seed, "file_name": name, "width": size_wh[0], "height": size_wh[1]})
        first = len(instances) + 1
        instances += [_instance(first + i, seed, thing, size_wh) for i, thing in enumerate(annotation.objects)]
        for length, caption in zip(CAPTION_LENGTHS, annotation.captions, strict=True):
            captions.append({"id": len(captions) + 1, "image_id": seed, "caption": caption, "length": length})
        extra.append({"image_id": seed, **_language(annotation, first)})
    categories = [{"id": i, "name": label} for i, label in enumerate(CLASSES, 1)]
    head = {"info": info, "licenses": licenses, "images": images}
    _write(folder / f"instances_{split}.json", {**head, "annotations": instances, "categories": categories})
    _write(folder / f"captions_{split}.json", {**head, "annotations": captions})
    _write(folder / f"scenes_{split}.json", extra)
    return folder


def _instance(annotation_id: int, image_id: int, thing: ObjectAnnotation, size_wh: tuple[int, int]) -> dict:
    x0, y0, x1, y1 = thing.box
    mask = rasterize(thing.rings, size_wh)
    one_ring = len(thing.rings) == 1
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": CLASSES.index(thing.label) + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(mask.sum()),
        "segmentation": [[value for point in thing.rings[0] for value in point]] if one_ring else mask_to_rle(mask),
        "iscrowd": 0,
    }


def _language(annotation: Annotation, first_id: int) -> dict:
    return {
        "lines": [{"text": line.text, "quad": list(line.quad)} for line in annotation.lines],
        "phrases": [
            {"annotation_id": first_id + i, "phrase": thing.phrase} for i, thing in enumerate(annotation.objects)
        ],
        "referrals": [
            {"phrase": r.phrase, "annotation_ids": [first_id + i for i in r.objects]} for r in annotation.referrals
        ],
        "questions": [{"question": q.question, "answer": q.answer} for q in annotation.questions],
    }


def _write(path: Path, content: dict | list) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
