"""Valid data sets of all formats, and random damage to their files.

    python -m tests.data.damage --cases 100000 --seed 1

A damaged data set is read, or refused with a ValueError that names it: no other exception, no hang, and no image that
becomes one without objects while its files still speak of some, unless it is reported.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import random
import signal
import sys
import tarfile
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from florence_lite.data import read_dataset
from florence_lite.data.readers.brush import mask_to_brush
from florence_lite.geometry import rasterize
from tests.data.files import coco, picture

SECONDS = 20  # that reading a small data set may take on a busy machine
SIZE = (100, 80)
NAMES = ("a.jpg", "b.jpg", "none.jpg")  # the last one has no objects
SQUARE = [[10, 10], [40, 10], [40, 30], [10, 30]]
FLAT = [number for point in SQUARE for number in point]
CAT = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 20], "area": 600, "iscrowd": 0}
RUNS = {"size": [80, 100], "counts": [810, 20, 60, 20, 7090]}


@dataclass(frozen=True)
class Valid:
    """A valid data set: its files of annotations, name → content, and whether the content of a damaged file still
    speaks of what is in an image (called with the content, the name of the file, and that of the image)."""

    files: dict[str, bytes]
    speaks: Callable[[bytes, str, str], bool]
    format: str = "auto"
    images: tuple[str, ...] = field(default=NAMES)


def coco_files(**changes: Any) -> dict[str, bytes]:
    records = [CAT, {**CAT, "image_id": 2, **changes}, {**CAT, "image_id": 2, "bbox": [50, 5, 30, 70]}]
    content = coco([(name, *SIZE) for name in NAMES], records)
    return {"annotations/instances_train.json": json.dumps(content).encode()}


def coco_speaks(content: bytes, file: str, image: str) -> bool:
    data = json.loads(content)
    numbers = {record.get("id") for record in data["images"] if record.get("file_name") == image}
    said = [r for r in data["annotations"] if not isinstance(r, dict) or r.get("image_id") in numbers]
    return any(not isinstance(record, dict) or record.get("segments_info") != [] for record in said)


def panoptic_files() -> dict[str, bytes]:
    content = coco([(name, *SIZE) for name in NAMES], [])
    segment = {"id": 9, "category_id": 1, "bbox": [10, 10, 30, 20], "iscrowd": 0}
    content["annotations"] = [{"image_id": n, "file_name": f"{n}.png", "segments_info": [segment]} for n in (1, 2)]
    return {"panoptic.json": json.dumps(content).encode()}


def voc_files() -> dict[str, bytes]:
    corners = "".join(
        f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), (9, 9, 30, 30), strict=True)
    )
    item = f"<object><name>cat</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>"
    size = "<size><width>100</width><height>80</height></size>"
    return {
        f"Annotations/{name[:-4]}.xml": f"<annotation><filename>{name}</filename>{size}{objects}</annotation>".encode()
        for name, objects in zip(NAMES, (item, item * 2, ""), strict=True)
    }


def yolo_files(lines: str, settings: str) -> dict[str, bytes]:
    labels = {
        f"labels/{name[:-4]}.txt": text.encode()
        for name, text in zip(NAMES, (lines, lines.replace("0 .5", "0 .6"), ""), strict=True)
    }
    return {"data.yaml": settings.encode(), **labels}


def lines_of(*records: Any) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def jsonl_files() -> dict[str, bytes]:
    cat = {"label": "cat", "box": [10, 10, 40, 30], "polygons": [SQUARE], "phrase": "a cat"}
    masked = {"label": "dog", "mask": RUNS}
    whole = {"captions": ["a cat"], "expressions": [{"phrase": "it", "objects": [0]}], "exhaustive": ["objects"]}
    return {
        "data.jsonl": lines_of(
            {"image": "a.jpg", "size_wh": [100, 80], "objects": [cat, masked], **whole},
            {"image": "b.jpg", "objects": [cat], "questions": [{"question": "how many?", "answer": "1"}]},
            {"image": "none.jpg", "objects": []},
        )
    }


def jsonl_speaks(content: bytes, file: str, image: str) -> bool:
    """Whether a line about the image says anything but that it is empty."""
    for line in content.split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("image") == image:
            said = record.get("suffix", record.get("objects"))
            return said not in ([], "")
    return False


def answer_files() -> dict[str, bytes]:
    box = "cat<loc_100><loc_125><loc_400><loc_375>"
    answers = zip(NAMES, (box, box * 2, ""), strict=True)
    return {"train.jsonl": lines_of(*({"image": n, "prefix": "<OD>", "suffix": s} for n, s in answers))}


def text_files() -> dict[str, bytes]:
    line = ",".join(map(str, FLAT)) + ",STOP\n"
    return {f"gt/gt_{n[:-4]}.txt": t.encode() for n, t in zip(NAMES[:2], (line, line * 2), strict=True)}


def paddle_files() -> dict[str, bytes]:
    text = json.dumps([{"transcription": "STOP", "points": SQUARE, "difficult": False}])
    return {"Label.txt": f"a.jpg\t{text}\nb.jpg\t{text}\n".encode()}


def paddle_speaks(content: bytes, file: str, image: str) -> bool:
    said = [line.partition(b"\t")[2] for line in content.split(b"\n") if line.partition(b"\t")[0] == image.encode()]
    return any(text.strip() != b"[]" for text in said)


def task_files() -> dict[str, bytes]:
    corners = {"x": 10, "y": 12.5, "width": 30, "height": 25, "rotation": 0}
    frame = {"original_width": 100, "original_height": 80, "image_rotation": 0, "from_name": "label"}
    box = {**frame, "id": "1", "type": "rectanglelabels", "value": {**corners, "rectanglelabels": ["cat"]}}
    points = {"points": [[10, 10], [40, 10], [40, 30]], "polygonlabels": ["dog"]}
    outline = {**frame, "id": "2", "type": "polygonlabels", "value": points}
    masked = mask_to_brush(rasterize([np.array(SQUARE)], SIZE))
    mask = {**frame, "id": "3", "type": "brushlabels", "value": {"rle": masked, "brushlabels": ["dog"]}}
    results = zip(NAMES, ([box, mask], [box, outline], []), strict=True)
    tasks = [{"id": 1, "data": {"image": f"images/{n}"}, "annotations": [{"result": said}]} for n, said in results]
    return {"project.json": json.dumps(tasks).encode()}


def task_speaks(content: bytes, file: str, image: str) -> bool:
    tasks = [task for task in json.loads(content) if image in str(task.get("data"))]
    return any(said for task in tasks for answer in task["annotations"] for said in answer["result"])


def tar_files() -> dict[str, bytes]:
    stream, image = io.BytesIO(), io.BytesIO()
    Image.new("RGB", SIZE).save(image, "JPEG")
    cat = {"label": "cat", "box": [10, 10, 40, 30]}
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, objects in zip(NAMES, ([cat], [cat], []), strict=True):
            texts = {name: image.getvalue(), f"{name[:-4]}.json": json.dumps({"objects": objects}).encode()}
            for member, content in texts.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return {"00000.tar": stream.getvalue()}


def expression_files(as_pickle: bool) -> dict[str, bytes]:
    records = [{"image_id": 1, "ann_id": 1, "sentences": [{"sent": "the cat"}], "split": "train"}]
    name, dumps = ("refs(unc).p", pickle.dumps) if as_pickle else ("refs.json", lambda r: json.dumps(r).encode())
    return {"instances.json": coco_files()["annotations/instances_train.json"], name: dumps(records)}


def in_own_file(content: bytes, file: str, image: str) -> bool:
    """Of formats with a file for each image: whether it says anything."""
    return Path(file).stem.removeprefix("gt_") == image[:-4] and bool(content.strip())


VALID = {
    "coco": Valid(coco_files(segmentation=[FLAT]), coco_speaks),
    "coco, masks": Valid(coco_files(segmentation=RUNS), coco_speaks),
    "coco, panoptic": Valid(panoptic_files(), coco_speaks),
    "voc": Valid(voc_files(), lambda content, file, image: in_own_file(content, file, image) and b"bndbox" in content),
    "yolo": Valid(
        yolo_files("0 .5 .5 .2 .2\n1 .1 .1 .4 .1 .4 .4\n", "path: .\ntrain: images\nnames: [cat, dog]\n"), in_own_file
    ),
    "yolo, keypoints": Valid(
        yolo_files("0 .5 .5 .2 .2 .4 .4 2 .6 .6 1\n", "kpt_shape: [2, 3]\nnames:\n  0: person\n"), in_own_file
    ),
    "jsonl": Valid(jsonl_files(), jsonl_speaks),
    "jsonl, answers": Valid(answer_files(), jsonl_speaks),
    "refcoco": Valid(expression_files(False), coco_speaks),
    "refcoco, pickle": Valid(expression_files(True), coco_speaks),
    "icdar": Valid(text_files(), in_own_file, images=NAMES[:2]),
    "labelstudio": Valid(task_files(), task_speaks),
    "webdataset": Valid(tar_files(), lambda content, file, image: False),
    "paddleocr": Valid(paddle_files(), paddle_speaks, images=NAMES[:2]),
}


# ---- damage ----------------------------------------------------------------------------------------------------------

ODD = [None, True, 0, -1, 1e400, 10**30, 0.5, "", "x", "\0", "../a", [], {}, [[]], [None], {"a": 1}, "1", "9" * 5000]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three faults."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(FAULTS)(content, rng)
    return content


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _without_a_part(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.randrange(1, 40) :]


def _with_other_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _with_another_character(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.choice(b"0123456789-.,:;[]{}<>\"'/ \n\teNn".decode()).encode() + content[start + 1 :]


def _with_a_part_twice(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start : start + rng.randrange(1, 60)] + content[start:]


def _with_odd_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    odd = [
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"[" * 3000,
        b"9" * 400,
        b"&x;",
        b"<!DOCTYPE x>",
        b"\r",
        b"\x80.",
        b"*a",
    ]
    return content[:start] + rng.choice(odd) + content[start:]


def _with_an_odd_value(content: bytes, rng: random.Random) -> bytes:
    """One value of JSON, or of a line of JSON, is another, or its key is missing."""
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    head, tab, text = lines[number].rpartition(b"\t")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return _with_other_bytes(content, rng)
    holders = list(_holders(data))
    if not holders:
        return content
    holder, key = rng.choice(holders)
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(ODD)
    lines[number] = head + tab + json.dumps(data).encode()
    return b"\n".join(lines)


def _holders(data: Any) -> list[tuple[Any, Any]]:
    """Every dict and list within, with each of its keys."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [pair for key, value in entries for pair in [(data, key), *_holders(value)]]


FAULTS = (
    _cut,
    _without_a_part,
    _with_other_bytes,
    _with_another_character,
    _with_a_part_twice,
    _with_odd_bytes,
    *[_with_an_odd_value] * 3,
)


# ---- reading what is damaged -----------------------------------------------------------------------------------------


def write_valid(folder: Path, valid: Valid) -> None:
    for name in valid.images:
        picture(folder / "images" / name, SIZE)
    for name, content in valid.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def fault_in_reading(folder: Path, valid: Valid, rng: random.Random) -> str | None:
    """Damage one file of a valid data set in `folder`, read the set, and mend the file; what is wrong with the reading,
    or None."""
    names = [*valid.files, *(f"images/{name}" for name in valid.images)]
    name = rng.choice(list(valid.files)) if rng.random() < 0.9 else rng.choice(names)
    file = folder / name
    whole = file.read_bytes()
    content = damaged(whole, rng)
    file.write_bytes(content)
    try:
        with time_limit():
            dataset = read_dataset(folder, valid.format)
            dataset.summary()
        silent = [
            sample.name
            for sample in dataset
            if not dataset.problems and _is_empty(sample.annotation) and _speaks(valid, folder, Path(sample.name).name)
        ]
        return f"{name}: {silent} became empty in silence: {content!r:.2000}" if silent else None
    except ValueError as error:
        return None if str(folder) in str(error) else f"{name}: an error that names nothing: {error}"
    except Exception:
        return f"{name}: {traceback.format_exc()}\n{content!r:.2000}"
    finally:
        file.write_bytes(whole)


def _is_empty(annotation: Any) -> bool:
    no_lines = "lines" in annotation.exhaustive and not annotation.lines and not annotation.ignored_lines
    return annotation.is_negative or no_lines


def _speaks(valid: Valid, folder: Path, image: str) -> bool:
    if image not in NAMES[:2]:
        return False
    said = []
    for name in valid.files:
        try:
            said.append(valid.speaks((folder / name).read_bytes(), name, image))
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ):  # a file of another kind, or one that says nothing
            continue
    return any(said)


@contextmanager
def time_limit():
    """TimeoutError where reading hangs; no limit on systems without alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_):
        raise TimeoutError(f"reading took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = argparse.ArgumentParser(description="Damage data sets at random and read them.")
    parser.add_argument("--cases", type=int, default=20_000, help="of all formats together")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faults: Counter[str] = Counter()
    for kind, valid in VALID.items():
        with tempfile.TemporaryDirectory() as folder:
            write_valid(Path(folder), valid)
            for number in range(options.cases // len(VALID)):
                fault = fault_in_reading(Path(folder), valid, random.Random(f"{options.seed} {kind} {number}"))
                if fault:
                    faults[kind] += 1
                    if faults[kind] <= 3:
                        print(f"{kind}, case {number}: {fault}\n")
    print(f"{sum(faults.values())} faults in {options.cases} cases: {dict(faults)}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
