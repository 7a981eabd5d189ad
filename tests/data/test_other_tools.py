"""What is written, read by the tools that it is written for; those that are not installed are left out."""

import io
import json
import warnings

import numpy as np
import pytest
from PIL import Image

from florence_lite.data import Annotation, Dataset, ObjectAnnotation, Sample, write_dataset
from florence_lite.geometry import rasterize
from tests.data.annotated import rectangle
from tests.data.files import turned

SIZE = (100, 80)
RING = (rectangle(10, 10, 60, 60), rectangle(20, 20, 40, 40))
CAT = ObjectAnnotation("cat", (10.0, 10.0, 60.0, 60.0), RING)
DOG = ObjectAnnotation("dog", (61.0, 20.0, 90.0, 70.0), (rectangle(61, 20, 90, 70),))
CROWD = ObjectAnnotation("dog", (0.0, 0.0, 9.0, 9.0))
OBJECTS = frozenset({"objects"})


@pytest.fixture
def data(tmp_path):
    """Two objects and a crowd on a picture that EXIF turns, one object, and none."""
    red = Image.new("RGB", SIZE, "red")
    both = Annotation(SIZE, (CAT, DOG), ignored=(CROWD,), captions=("a cat",), exhaustive=OBJECTS)
    samples = [
        Sample(turned(tmp_path / "größe.jpg", SIZE[::-1]), both, "größe.jpg"),
        Sample(red, Annotation(SIZE, (DOG,), exhaustive=OBJECTS), "b"),
        Sample(red, Annotation(SIZE, exhaustive=OBJECTS), "none"),
    ]
    return Dataset.of(samples, classes=("dog", "cat"))


def supervision():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an optional package of it
        return pytest.importorskip("supervision")


def found(dataset):
    """Of a data set of supervision: name of the image → label, box and mask of each object; all pictures are read."""
    objects = {}
    for path, image, detections in dataset:
        masks = detections.mask if detections.mask is not None else [None] * len(detections)
        labels = [dataset.classes[number] for number in detections.class_id]
        assert image.shape == (SIZE[1], SIZE[0], 3)
        name = path.replace("\\", "/").split("/")[-1]
        objects[name] = list(zip(labels, detections.xyxy.tolist(), masks, strict=True))
    return objects


@pytest.mark.parametrize("module", ["pycocotools", "faster_coco_eval"])
def test_coco_evaluators(tmp_path, data, module):
    coco = pytest.importorskip(f"{module}.coco" if module == "pycocotools" else module).COCO
    folder = write_dataset(data, "coco", tmp_path / "out").path
    loaded = coco(str(folder / "annotations" / "instances.json"))
    assert [each["name"] for each in loaded.loadCats(loaded.getCatIds())] == ["dog", "cat"]
    (cat,) = loaded.loadAnns(loaded.getAnnIds(imgIds=[1], catIds=[2]))
    assert (loaded.annToMask(cat).astype(bool) == rasterize(RING, SIZE)).all() and cat["area"] == 50 * 50 - 20 * 20
    dog, crowd = loaded.loadAnns(loaded.getAnnIds(imgIds=[1], catIds=[1]))
    assert (dog["bbox"], dog["iscrowd"], crowd["iscrowd"]) == ([61, 20, 29, 50], 0, 1)
    assert loaded.getAnnIds(imgIds=[3]) == []
    captions = coco(str(folder / "annotations" / "captions.json"))
    assert captions.loadAnns(captions.getAnnIds(imgIds=[1]))[0]["caption"] == "a cat"


def test_coco_in_supervision(tmp_path, data):
    sv = supervision()
    folder = write_dataset(data, "coco", tmp_path / "out").path
    file = folder / "annotations" / "instances.json"
    objects = found(sv.DetectionDataset.from_coco(str(folder / "images"), str(file)))
    assert [(label, box) for label, box, _ in objects["größe.jpg"][:2]] == [
        ("cat", list(CAT.box)),
        ("dog", list(DOG.box)),
    ]
    assert objects["none.png"] == [] and len(objects) == 3


@pytest.mark.parametrize("outlined", [False, True])
def test_yolo_in_supervision(tmp_path, data, outlined):
    sv = supervision()
    if not outlined:
        data = Dataset.of([*data, Sample(data[1].image, Annotation(SIZE, (CROWD,)), "c")], classes=data.classes)
    folder = write_dataset(data, "yolo", tmp_path / "out").path
    objects = found(
        sv.DetectionDataset.from_yolo(
            str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), force_masks=outlined
        )
    )
    (cat, cat_box, cat_mask), (dog, dog_box, dog_mask) = objects["größe.jpg"]
    assert (cat, dog) == ("cat", "dog") and objects["none.png"] == []
    assert np.abs(np.array([cat_box, dog_box]) - [CAT.box, DOG.box]).max() <= 1
    if outlined:
        differ = dog_mask ^ rasterize(DOG.polygons, SIZE)
        assert differ.sum() <= 2 * (29 + 50)  # its pixels lie on the outline


def test_voc_in_supervision(tmp_path, data):
    sv = supervision()
    folder = write_dataset(data, "voc", tmp_path / "out").path
    objects = found(sv.DetectionDataset.from_pascal_voc(str(folder / "JPEGImages"), str(folder / "Annotations")))
    (cat, cat_box, _), (dog, dog_box, _), (crowd, _, _) = objects["größe.jpg"]
    assert (cat, dog, crowd) == ("cat", "dog", "dog") and objects["none.png"] == []
    assert np.abs(np.array([cat_box, dog_box]) - [CAT.box, DOG.box]).max() <= 1  # which counts pixels from 1


def test_parquet_in_datasets(tmp_path, data):
    datasets = pytest.importorskip("datasets")
    folder = write_dataset(data, "huggingface", tmp_path / "out").path
    file = folder / "data" / "train-00000-of-00001.parquet"
    loaded = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].size == SIZE and loaded[0]["caption"] == ["a cat"]
    names = loaded.features["objects"]["category"].feature
    assert names.int2str(loaded[0]["objects"]["category"]) == ["cat", "dog", "dog"]
    assert loaded[0]["objects"]["bbox"][0] == [10, 10, 50, 50] and loaded[2]["objects"]["bbox"] == []
    by_name = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert by_name["train"].num_rows == 3


def test_save_to_disk_in_datasets(tmp_path, data):
    datasets = pytest.importorskip("datasets")
    splits = {"train": data, "val": data[:1]}
    loaded = datasets.load_from_disk(str(write_dataset(splits, "datasets", tmp_path / "out").path))
    assert {name: rows.num_rows for name, rows in loaded.items()} == {"train": 3, "val": 1}
    assert loaded["val"][0]["image"].size == SIZE
    alone = datasets.load_from_disk(str(write_dataset(data, "datasets", tmp_path / "alone").path))
    assert alone.num_rows == 3 and alone.features["objects"]["category"].feature.names == ["dog", "cat"]


def test_tars_in_webdataset(tmp_path, data):
    webdataset = pytest.importorskip("webdataset")
    folder = write_dataset(data, "webdataset", tmp_path / "out").path
    samples = list(webdataset.WebDataset(str(folder / "shard-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["größe", "b", "none"]
    assert Image.open(io.BytesIO(samples[0]["jpg"])).size == SIZE and samples[0]["txt"] == b"a cat"
    assert [len(json.loads(sample["json"])["objects"]) for sample in samples] == [2, 1, 0]
