"""The examples run as they stand, from a folder of their own, and their truth describes their images."""

import json
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from florence_lite import Florence, cards
from florence_lite.data.annotation import Annotation, ObjectAnnotation, TextLine
from florence_lite.scenes import CLASSES, STYLES, TEST

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
OWN_TESTS = {"transformers_trainer.py", "video.py"}
PICTURES = {"shapes.py"}  # what the notebooks train on
SCRIPTS = sorted({path.name for path in EXAMPLES.glob("*.py")} - OWN_TESTS - PICTURES)
HEADER = re.compile(r"# /// script\n((?:#.*\n)+?)# ///\n")  # of PEP 723, here the first lines of a file
TRUTH = json.loads((EXAMPLES / "truth.json").read_text(encoding="utf-8"))
SCENES_MEASURED = 1000  # from the first seed of the test split

needs_embedded = pytest.mark.skipif(
    all(card.source != "embedded" for card in cards.checkpoints()),
    reason="no checkpoint is embedded in this installation",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_short(script):
    source = (EXAMPLES / script).read_text(encoding="utf-8")
    compile(source, script, "exec")
    source = source[HEADER.match(source).end() :]
    assert source.startswith('"""') and len(source.splitlines()) <= 25


@pytest.mark.parametrize("script", [*SCRIPTS, *sorted(OWN_TESTS)])
def test_scripts_say_what_they_need(script):
    """As PEP 723 has it, so that uv and pipx run them; from this checkout, where it is one."""
    source = (EXAMPLES / script).read_text(encoding="utf-8")
    lines = HEADER.match(source)[1].splitlines()
    header = tomllib.loads("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert header["requires-python"] == project["requires-python"]
    assert header["tool"]["uv"]["sources"] == {"florence-lite": {"path": ".."}}
    names, extras = set(), set()
    for each in header["dependencies"]:
        name, listed = re.fullmatch(r"([\w-]+)(?:\[([\w,]+)])?(?:>=[\d.]+)?", each).groups()
        names.add(name)
        extras |= set(listed.split(",")) if listed else set()
    assert "florence-lite" in names and extras <= project["optional-dependencies"].keys()
    modules = {re.split(r"[\s.]", line)[1] for line in source.splitlines() if re.match(r"(from|import) ", line)}
    at_hand = {"florence_lite", "numpy", "PIL", "torch", *sys.stdlib_module_names}  # what the package brings
    assert modules - at_hand == names - {"florence-lite"}


@needs_embedded
def test_video_keeps_its_numbers(tmp_path, monkeypatch, capsys):
    for package in ("supervision", "trackers"):
        pytest.importorskip(package, reason=f"the package {package} is not installed")
    frames = tmp_path / "frames"
    frames.mkdir()
    with Image.open(EXAMPLES / "meadow.png") as picture:
        for number in range(3):
            picture.crop((4 * number, 0, 200 + 4 * number, picture.height)).save(frames / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["video.py", "frames"])
    runpy.run_path(str(EXAMPLES / "video.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert told.startswith("3 frames, drawn in tracked.gif; seen: {")
    labels = re.findall(r"\d+: '(\w+)'", told)
    assert "penguin" in labels and len(labels) == len(set(labels))  # each thing has one number
    with Image.open("tracked.gif") as video:
        assert video.n_frames == 3


@needs_embedded
@pytest.mark.parametrize(
    ("script", "expected", "picture"),
    [
        ("detect_and_draw.py", ["drawn in detected.png"], "detected.png"),
        (
            "many_prompts_one_image.py",
            [" a penguin, a cat and a hamburger", " BIKE  (", " 3  (", " penguin  ("],
            None,
        ),
        ("open_vocabulary.py", ["rabbit \n    ", "the bicycle - not in the image\n"], "phrases.png"),
        ("many_phrases.py", ["144 phrases, ", "the hamburger on the right"], "many_phrases.png"),
        ("closed_labels.py", ["any label:", "hamburger ", "cat or dog: cat"], "closed.png"),
        ("streaming.py", ["3 objects, drawn in streamed.png", "\na penguin, a cat and a hamburger"], "streamed.png"),
        ("segment_everything.py", ["penguin ", " pixels, ", "drawn in outlines.png"], "outlines.png"),
        ("panoptic.py", ["the sky      stuff", "the grass    stuff", "pixels of no segment: 1%"], "panoptic.png"),
        ("remove_object.py", ["painted over: "], "removed.png"),
        ("new_task_at_run_time.py", ["at the top left: fish", "in the center: chair", "on the right: donut"], None),
        ("match_and_rank.py", ["and a penguin: football.png", "and two buses: lions.png"], "ranked.png"),
        ("find_in_folder.py", ["  donuts.png     [[", "4 images; absent from 3, 0 cannot be read"], "found.png"),
        (
            "closed_questions.py",
            ["is there a rabbit? yes ", "right? bus ", "object? lion  (bus "],
            "answers.png",
        ),
        (
            "infilling.py",
            ["<mask>: a penguin, a cat and a hamburger", "1: penguin", "2: cat"],
            "filled.png",
        ),
        ("tiled_detection.py", ["as one image: 0 of 200 found", "in tiles: 1"], "tiles.png"),
    ],
)
def test_scripts_run(script, expected, picture, tmp_path, monkeypatch, capsys, own_tasks):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    out, err = capsys.readouterr()
    assert all(words in out for words in expected) and not err
    assert [path.name for path in tmp_path.iterdir()] == ([picture] if picture else [])


@needs_embedded
def test_phrases_of_the_example_find_as_many_as_there_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "open_vocabulary.py"), run_name="__main__")
    boxes, phrase = {}, ""
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("    "):
            boxes[phrase] += 1
        else:
            phrase = line.removesuffix("- not in the image").strip()
            boxes[phrase] = 0
    assert boxes == {"rabbit": 1, "the lion at the bottom": 1, "all buses": 2, "the bicycle": 0}


@needs_embedded
@pytest.mark.parametrize("name", TRUTH)
def test_lists_of_the_pictures_are_right(name):
    florence = Florence.from_pretrained("scenes-nano")
    assert sorted(florence.detect(EXAMPLES / name).labels) == sorted(each["label"] for each in TRUTH[name]["objects"])


def test_every_script_is_run():
    run = next(mark for mark in test_scripts_run.pytestmark if mark.name == "parametrize")
    assert sorted(script for script, *_ in run.args[1]) == SCRIPTS


@pytest.mark.parametrize("name", TRUTH)
def test_truth_describes_its_image(name):
    truth = TRUTH[name]
    with Image.open(EXAMPLES / name) as image:
        assert list(image.size) == truth["size_wh"]
    annotation = Annotation(
        tuple(truth["size_wh"]),
        tuple(ObjectAnnotation(thing["label"], tuple(thing["box"])) for thing in truth["objects"]),
        tuple(TextLine(line["text"], tuple(line["quad"])) for line in truth["lines"]),
        (truth["caption"],),
    )
    width, height = annotation.size_wh
    for thing in annotation.objects:
        x0, y0, x1, y1 = thing.box
        assert thing.label in CLASSES and thing.label in truth["caption"]
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert truth["style"] in STYLES
    assert truth["seed"] in TEST and truth["seed"] - TEST[0] >= SCENES_MEASURED


def test_every_image_has_its_truth_and_its_credit():
    images = sorted(path.name for path in EXAMPLES.glob("*.png"))
    assert sorted(TRUTH) == images
    rows = (EXAMPLES / "README.md").read_text(encoding="utf-8").splitlines()
    for name in images:
        credit = "OpenMoji" if TRUTH[name]["style"] == "openmoji" else "Microsoft"
        assert any(f"`{name}`" in row and credit in row for row in rows)
