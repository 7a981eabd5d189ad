"""`florence-lite segment`, `panoptic` and `remove` on a tiny checkpoint."""

import json

import numpy as np
import pytest
from PIL import Image

from florence_lite import Florence, Instance
from florence_lite.inference.panoptic import assemble


def test_segment_tells_of_each_image(command, tiny, photos, tmp_path):
    picture = tmp_path / "out.png"
    code, out, err = command("segment", *photos[2:4], "--checkpoint", tiny, "--json", "--picture", picture)
    answered, failed = map(json.loads, out.splitlines())
    assert code == 1 and photos[3] in failed["error"] and failed["error"] in err
    assert (answered["image"], answered["task"]) == (photos[2], "<REGION_TO_SEGMENTATION>")
    assert answered["picture"] == str(tmp_path / "out-1.png") and (tmp_path / "out-1.png").is_file()
    code, out, _ = command("segment", photos[0], "--checkpoint", tiny, "--phrase", "a dog", "--phrase", "a cat")
    assert code == 0 and out.startswith(f"{photos[0]}  <REGION_TO_SEGMENTATION>  40×50")
    code, out, _ = command("segment", photos[0], "--checkpoint", tiny, "--region", 1, 2, 30, 40)
    assert code == 0 and out
    code, out, _ = command("segment", photos[0], "--checkpoint", tiny, "--tile", 30, 10)
    assert code == 0 and out


def test_panoptic_writes_ids_and_picture(command, tiny, photos, tmp_path, monkeypatch):
    picture, ids = tmp_path / "out.png", tmp_path / "ids.png"
    asked = []

    def panoptic(florence, image, things, stuff, tile):
        asked.append((image, things, stuff, tile))
        dog = Instance("a dog", box=(5, 5, 25, 25), score=0.5)
        sky = Instance("the sky", box=(0, 0, 40, 20), score=0.25)
        more = {"presence": {"the sky": 0.9, "the sea": 0.125}, "absent": ("the sea",), "parse_errors": 3}
        return assemble((40, 50), [dog, dog], [sky], image=Image.open(image), **more)

    monkeypatch.setattr(Florence, "panoptic", panoptic)
    options = ["--checkpoint", tiny, "--picture", picture, "--ids", ids]
    code, out, _ = command("panoptic", photos[0], *options, "--json", "--stuff", "the sky")
    answer = json.loads(out)
    assert code == 0 and picture.is_file() and answer["size_wh"] == [40, 50]
    red, green, blue = np.moveaxis(np.asarray(Image.open(ids)).astype(int), -1, 0)
    areas = dict(zip(*np.unique(red + 256 * green + 256**2 * blue, return_counts=True), strict=True))
    assert len(answer["segments"]) == 2
    assert all(areas[segment["id"]] == segment["area"] for segment in answer["segments"])
    assert [row["id"] for row in answer["coco"]] == [1, 2]
    code, out, _ = command("panoptic", photos[0], *options, "--thing", "a dog", "--tile", 30, 10)
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["1", "a", "dog", "thing", "0.50", "400", "pixels"],
        ["2", "the", "sky", "stuff", "0.25", "500", "pixels"],
        ["not", "in", "the", "image:", "the", "sea", "(0.12)"],
        ["left", "out,", "as", "others", "hide", "most", "of", "them:", "1"],
        ["parse", "errors", "in", "the", "answers,", "dropped", "or", "repaired:", "3"],
        ["drawn", "in", str(picture)],
        ["ids", "in", str(ids)],
    ]
    assert asked == [(photos[0], None, ["the sky"], None), (photos[0], ["a dog"], [], (30, 10))]


def test_remove_writes_the_picture(command, tiny, photos, tmp_path):
    output = tmp_path / "out.png"
    code, out, _ = command("remove", photos[0], "a dog", "--output", output, "--checkpoint", tiny, "--json")
    answer = json.loads(out)
    before, after = (np.asarray(Image.open(file)) for file in (photos[0], output))
    changed = int((before != after).any(axis=-1).sum())
    assert code == 0 and changed <= answer["painted_pixels"] and answer["found"] == bool(answer["painted_pixels"])
    code, out, _ = command("remove", photos[0], "a dog", "--output", output, "--checkpoint", tiny, "--dilate", 2)
    assert code == 0 and f"written to {output}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["segment", "sample", "--phrase", "a dog", "--region", 1, 2, 3, 4],
            "--phrase and --region exclude each other",
        ),
        (["segment", "sample", "--phrase", " "], "must be a string with something in it"),
        (["segment", "nowhere/*.png"], "no file matches"),
        (["panoptic", "sample", "--ids", "ids.jpg"], "--ids ids.jpg: the name must end in .png"),
        (["panoptic", "sample", "--ids", "a.png", "--picture", "a.png"], "--ids a.png would overwrite --picture"),
        (["panoptic", "sample", "--stuff", "the sky", "--stuff", "the sky"], "'the sky' is given twice"),
        (["panoptic", "none.png"], "image none.png does not exist"),
        (["remove", "sample", "a dog", "--output", "a.xyz"], "--output a.xyz: the name must end in an image format"),
        (["remove", "sample", "a dog", "--output", "no/a.png"], "--output no/a.png: there is no folder no"),
        (["remove", "sample", " ", "--output", "a.png"], "phrase is ' '; it must be one string with something in it"),
    ],
)
def test_mistakes_are_told_in_a_line(command, tiny, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments, "--checkpoint", tiny)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_the_image_is_not_overwritten(command, tiny, photos):
    code, _, err = command("remove", photos[0], "a dog", "--output", photos[0], "--checkpoint", tiny)
    assert code == 2 and "would overwrite the image" in err
    code, _, err = command("panoptic", str(photos[0]).rsplit("/", 1)[0], "--checkpoint", tiny)
    assert code == 2 and "this command takes one" in err


def test_eval_measures_panoptic_segmentation(command, tiny, tmp_path):
    pytest.importorskip("torchmetrics", reason="the package torchmetrics is not installed (extra eval)")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    ring = [[5, 5], [25, 5], [25, 25], [5, 25]]
    record = {"image": "a.png", "objects": [{"label": "dog", "box": [5, 5, 25, 25], "polygons": [ring]}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(record), encoding="utf-8")
    options = ["--data", tmp_path / "data.jsonl", "--checkpoint", tiny, "--panoptic"]
    code, out, err = command("eval", *options, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["images"] == 1 and set(report["metrics"]) == {"panoptic", "panoptic baseline"}
    code, _, err = command("eval", *options, "--tasks", "<OD>")
    assert code == 2 and "--panoptic and --tasks exclude each other" in err
