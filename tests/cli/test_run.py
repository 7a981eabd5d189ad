"""`florence-lite run`: what it prints where, its exit codes and how it speaks of mistakes."""

import io
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from florence_lite import Instance, Result
from florence_lite.cards import checkpoint, checkpoints
from florence_lite.cli import running
from florence_lite.cli.inputs import Input
from florence_lite.engine.fast import kernel
from florence_lite.geometry import box_iou

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TRUTH = json.loads((EXAMPLES / "truth.json").read_text(encoding="utf-8"))

needs_embedded = pytest.mark.skipif(
    all(card.source != "embedded" for card in checkpoints()), reason="no checkpoint is embedded in this installation"
)


@needs_embedded
def test_unknown_words_are_told(command):
    for prompt in (["<OPEN_VOCABULARY_DETECTION>", "--phrase", "the ghost"], ["is there a ghost?"]):
        code, _, err = command("run", "sample", *prompt)
        assert code == 0 and "note: scenes-nano was not trained on ghost, so that what it answers there is a" in err
    assert "not trained on" not in command("run", "sample", "is there a cat?")[2]
    _, out, err = command("run", "sample", "<OPEN_VOCABULARY_DETECTION>", "--phrase", "the Cat", "--phrase", "CAT")
    assert "not trained on Cat, CAT, and knows words in lower case alone" in err
    assert "nothing found" in out and "left out as a guess: " in out


@pytest.mark.parametrize(
    "prompt",
    [
        ["<OD>"],
        ["<CAPTION>"],
        ["<OCR_WITH_REGION>"],
        ["a free sentence"],
        ["<VQA>", "--text", "how many dogs are there?"],
        ["<REGION_TO_CATEGORY>", "--region", "1", "2", "30", "40.5"],
        ["<REGION_TO_SEGMENTATION>", "--region", "0", "0", "40", "50"],
        ["<REFERRING_EXPRESSION_SEGMENTATION>", "--phrase", "the dog"],
        ["<OPEN_VOCABULARY_DETECTION>", "--phrase", "the dog", "--phrase", "a cat"],
    ],
    ids=lambda prompt: prompt[0],
)
def test_json_is_one_object_and_nothing_else(command, tiny, photos, prompt):
    code, out, err = command("run", photos[0], *prompt, "--checkpoint", tiny, "--json")
    assert (code, err) == (0, "")
    assert out.endswith("\n") and out.count("\n") == 1
    answer = json.loads(out)
    assert answer["image"] == photos[0]
    assert answer["task"] == prompt[0]
    assert answer["size_wh"] == [40, 50]
    assert {"text", "instances", "parse_errors", "truncated", "score"} < answer.keys()
    assert "picture" not in answer
    scores = [instance["score"] for instance in answer["instances"]]
    assert all(score is None or 0 < score < 1 for score in scores)


@pytest.mark.parametrize("prompt", [["<OD>"], ["<CAPTION>"], ["<VQA>", "--text", "what?", "--label", "dog"]])
def test_stream_says_what_the_listing_says(command, tiny, photos, prompt):
    """Not told twice, and an image that cannot be read ends nothing."""
    code, whole, _ = command("run", photos[0], *prompt, "--checkpoint", tiny)
    code, out, err = command("run", photos[3], photos[0], *prompt, "--checkpoint", tiny, "--stream")
    assert code == 1 and photos[3] in err
    lines = [line.split() for line in whole.splitlines()[1:]]
    streamed = [line.split() for line in out.splitlines()[2:]]
    if prompt[0] != "<OD>":
        lines[0] = lines[0][:-1]  # the score is not known before the end
    assert streamed == lines
    assert command("run", photos[0], "<OD>", "--checkpoint", tiny, "--stream", "--json")[0] == 2


def test_labels_close_the_list(command, tiny, photos):
    code, out, _ = command(
        "run", photos[0], "<VQA>", "--text", "what?", "--label", "dog", "--checkpoint", tiny, "--json"
    )
    assert code == 0 and json.loads(out)["text"] == "dog"


@pytest.mark.skipif(kernel.library() is None, reason="no kernels: no compiler at installation, or another processor")
def test_answers_in_fewer_bits(command, tiny, photos):
    code, out, err = command("run", photos[0], "<OD>", "--precision", "int8", "--checkpoint", tiny, "--json")
    assert code == 0 and json.loads(out)["task"] == "<OD>", err


def test_listing_goes_to_standard_output(command, tiny, photos):
    code, out, err = command("run", photos[1], "<OD>", "--checkpoint", tiny)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{photos[1]}  <OD>  50×50"
    assert len(re.findall(r"^ +0\.\d\d( +\d+\.\d){4}$", out, re.MULTILINE)) >= 1


def test_unreadable_image_leaves_the_others_answered(command, tiny, photos):
    code, out, err = command("run", *photos, "missing.png", "<CAPTION>", "--checkpoint", tiny, "--json")
    assert code == 1
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["image"] for record in records] == [*photos, "missing.png"]
    failed = {record["image"]: record["error"] for record in records if "error" in record}
    assert failed == {
        photos[3]: f"image {photos[3]} holds no image of a known format, whatever its name says",
        "missing.png": f"image missing.png does not exist (looked in {Path.cwd()})",
    }
    assert err.splitlines() == [f"error: {reason}" for reason in failed.values()]


def test_region_outside_of_one_image_leaves_the_others_answered(command, tiny, photos):
    options = ["--region", 0, 0, 45, 50, "--checkpoint", tiny, "--json"]
    code, out, err = command("run", photos[0], photos[1], "<REGION_TO_CATEGORY>", *options)
    assert code == 1
    failed, answered = map(json.loads, out.splitlines())
    assert (answered["image"], "error" in answered) == (photos[1], False)
    expected = f"image {photos[0]}: task <REGION_TO_CATEGORY>: --region 0 0 45 50 must lie in"
    assert err.startswith(f"error: {expected}") and failed["error"].startswith(expected)


def test_no_answer_at_all_is_exit_code_2(command, tiny, photos):
    code, out, err = command("run", photos[3], "<OD>", "--checkpoint", tiny)
    assert (code, out) == (2, "")
    assert err.startswith("error: image ")


def test_many_images_equal_single_ones(command, tiny, photos):
    readable = photos[:3] + photos[4:]
    together = command("run", *readable, *readable, "<OD>", "--checkpoint", tiny, "--json")[1].splitlines()
    alone = [command("run", path, "<OD>", "--checkpoint", tiny, "--json")[1].strip() for path in readable]
    boxes = [[i["box"] for i in json.loads(line)["instances"]] for line in together]
    expected = [[i["box"] for i in json.loads(line)["instances"]] for line in alone] * 2
    assert all(boxes) and len(boxes) == len(expected)
    for got, single in zip(boxes, expected, strict=True):
        assert np.array(got) == pytest.approx(np.array(single), abs=1e-3)


@pytest.mark.parametrize(("count", "shown"), [(3, False), (4, True)])
def test_progress_bar_of_more_than_a_few_images_leaves_the_answers_alone(
    command, tiny, photos, monkeypatch, count, shown
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # standard error counts as a terminal
    code, out, err = command("run", *photos[:1] * count, "<CAPTION>", "--checkpoint", tiny, "--json")
    assert code == 0
    assert [json.loads(line)["image"] for line in out.splitlines()] == photos[:1] * count
    assert ("images" in err) == shown


def test_pictures_are_written_and_named(command, tiny, photos, tmp_path):
    code, out, _ = command("run", photos[0], "<OD>", "--checkpoint", tiny, "--picture", tmp_path / "out.png")
    assert code == 0
    assert out.splitlines()[-1] == f"  drawn in {tmp_path / 'out.png'}"
    assert Image.open(tmp_path / "out.png").height >= 640

    options = ["--checkpoint", tiny, "--picture", tmp_path / "all.jpg", "--json"]
    code, out, _ = command("run", *photos, "<OD>", *options)
    assert code == 1
    expected = [str(tmp_path / f"all-{number}.jpg") for number in (1, 2, 3, 5, 6)]
    assert [json.loads(line)["picture"] for line in out.splitlines() if "error" not in json.loads(line)] == expected
    assert sorted(map(str, tmp_path.glob("all*"))) == expected


def test_names_of_many_pictures_sort_like_the_images():
    files = running.picture_files(Path("out.png"), [Input("a.png", "a.png")] * 12)
    assert [file.name for file in (files[0], files[9], files[11])] == ["out-01.png", "out-10.png", "out-12.png"]
    assert files == sorted(files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["photo 0.png"],
            "the prompt is missing; write it behind the images:  florence-lite run 'photo 0.png' \"<OD>\"",
        ),
        (
            ["sample"],
            'florence-lite run sample "<OD>"  Prompts that need nothing else: <CAPTION>.* <REGION_PROPOSAL>; all',
        ),
        (["."], "the prompt is missing"),
        (["-"], "the prompt is missing"),
        (["photo 0.png", "photo 1.png"], "the prompt is missing"),
        (["photo 0.png", "absent.JPG"], "the prompt is missing"),
        (["<OD>"], 'the image is missing; write it before the prompt:  florence-lite run photo.jpg "<OD>"'),
        (["<OD>", "photo 0.png"], "<OD> must be the last argument"),
        (["photo 0.png", "<VQA>", "--phrase", "dog", "cat"], "several phrases are given as --phrase … --phrase …"),
        (["photo 0.png", "<OF>"], r"unknown task '<OF>'; did you mean '<O[CD]R?>'\? tasks: <CAPTION>, .*<OD>.*<VQA>"),
        (["photo 0.png", "od"], "unknown task 'od'; did you mean '<OD>'"),
        (
            ["photo 0.png", "<OD>", "--text", "dog"],
            'task <OD> takes no input, but --text "…" was given; tasks that take it: .*<VQA>',
        ),
        (
            ["photo 0.png", "<OD>", "--region", "0", "0", "9", "9"],
            "task <OD> takes no input, but --region X0 Y0 X1 Y1 in pixels was given",
        ),
        (["photo 0.png", "<VQA>"], 'task <VQA> needs --text "…", but nothing was given'),
        (["photo 0.png", "<OPEN_VOCABULARY_DETECTION>", "--phrase", " "], ": --phrase ' ' must be a string"),
        (["photo 0.png", "<REGION_TO_OCR>"], "needs --region X0 Y0 X1 Y1 in pixels, but nothing was given"),
        (["photo 0.png", "<REGION_TO_OCR>", "--region", "9", "9", "9", "20"], "--region 9 9 9 20 must have 0 <= x0"),
        (["photo 0.png", "<REGION_TO_OCR>", "--region", "-1", "0", "9", "9"], "--region -1 0 9 9 must have 0 <= x0"),
        (["photo 0.png", "<OD>", "--picture", "out.xyz"], "must end in an image format that can be written"),
        (["photo 0.png", "<OD>", "--picture", "out"], "must end in an image format that can be written"),
        (["photo 0.png", "<OD>", "--picture", "no/out.png"], "there is no folder no"),
        (["photo 0.png", "<OD>", "--picture", "./photo 0.png"], "would overwrite the image photo 0.png"),
        (["photo 0.png", "<OD>", "--picture", "link.png"], "would overwrite the image link.png"),
        (["photo-1.png", "photo 0.png", "<OD>", "--picture", "photo.png"], "would overwrite the image photo-1.png"),
        (["none*.png", "<OD>"], "no file matches none"),
        (["empty", "<OD>"], "folder empty holds no file with the ending of an image"),
        (["-", "-", "<OD>"], "- is one image from standard input; give it once"),
        (["photo 0.png", "<OD>", "--picture", "photo 0.png"], "would overwrite the image photo 0.png"),
        (["photo 0.png", "<OD>", "--device", "abacus"], "--device 'abacus' cannot be used here"),
        (["photo 0.png", "<OD>", "--precision", "int4"], "--precision int4 must be one of fp32, bf16, int8"),
    ],
)
def test_mistakes_are_told_in_one_line(command, tiny, photos, monkeypatch, arguments, message):
    monkeypatch.chdir(Path(photos[0]).parent)
    os.link("photo 0.png", "link.png")
    os.link("photo 1.png", "photo-1.png")
    os.mkdir("empty")
    Path("empty", "notes.txt").touch()
    code, out, err = command("run", *arguments, "--checkpoint", tiny)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert re.search(message, err), err


def test_checkpoint_that_is_none(command, photos, tmp_path):
    code, out, err = command("run", photos[0], "<OD>", "--checkpoint", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"error: checkpoint '{tmp_path}' has no file 'config.json'\n"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Result("<OD>", (9, 9)), ["nothing found"]),
        (
            Result("<OD>", (9, 9), dropped=2),
            ["nothing found", "left out of the answer: 2"],
        ),
        (Result("<CAPTION>", (9, 9), text="a dog\nand a cat", score=0.875), ["a dog", "and a cat  (0.88)"]),
        (Result("<OCR>", (9, 9), text="STOP"), ["STOP"]),
        (
            Result(
                "<OD>",
                (900, 900),
                instances=(
                    Instance("dog", box=(1, 2.25, 300, 4), score=0.5),
                    Instance("sea\x1b[2Jlion", box=(0, 0, 9, 9)),
                ),
                parse_errors=2,
                truncated=True,
            ),
            [
                "dog             0.50      1.0     2.2   300.0     4.0",
                r"sea\x1b[2Jlion            0.0     0.0     9.0     9.0",
                "parse errors in the answer, dropped or repaired: 2",
                "the answer was cut short: it reached the most tokens of its task",
            ],
        ),
        (Result("<REGION_TO_CATEGORY>", (9, 9), text="dog", instances=(Instance("dog"),), score=0.5), ["dog  (0.50)"]),
        (
            Result(
                "<OCR_WITH_REGION>", (99, 99), instances=(Instance("a  b\nc", quad=(1, 1, 9, 2, 9, 5, 1, 4), score=1),)
            ),
            ["a b c  1.00      1.0     1.0     9.0     5.0"],
        ),
    ],
)
def test_listing(result, expected):
    assert running.listing(result) == expected


# ---- inputs ----------------------------------------------------------------------------------------------------------


def images_of(out: str) -> list[str]:
    return [json.loads(line)["image"] for line in out.splitlines()]


def test_folders_and_patterns_stand_for_their_images(command, tiny, photos, monkeypatch):
    folder = Path(photos[0]).parent
    Path(photos[3]).unlink()
    for name in ("notes.txt", "._photo 0.png"):  # neither ends like an image that is seen
        (folder / name).write_text("no image", encoding="utf-8")
    (folder / "more").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "more" / "UPPER.JPG")
    readable = photos[:3] + photos[4:]
    options = ["<CAPTION>", "--checkpoint", tiny, "--json"]
    assert images_of(command("run", folder, *options)[1]) == readable
    assert images_of(command("run", photos[1], folder, *options)[1]) == [photos[1], *readable]
    assert images_of(command("run", folder / "photo [12].png", *options)[1]) == photos[1:3]
    assert images_of(command("run", folder / "**" / "*.[jJ]*", *options)[1]) == [str(folder / "more" / "UPPER.JPG")]
    Image.new("RGB", (9, 9)).save(folder / "a[1].png")  # a file is itself, whatever its name looks like
    assert images_of(command("run", folder / "a[1].png", *options)[1]) == [str(folder / "a[1].png")]


def standard_input(monkeypatch, content: bytes, isatty=False):
    stream = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: isatty)
    monkeypatch.setattr("sys.stdin", stream)


def test_an_image_comes_in_by_standard_input(command, tiny, photos, monkeypatch, tmp_path):
    standard_input(monkeypatch, Path(photos[2]).read_bytes())
    picture = tmp_path / "out.png"
    code, out, err = command("run", "-", "<CAPTION>", "--checkpoint", tiny, "--json", "--picture", picture)
    assert (code, err) == (0, "") and picture.is_file()
    assert (json.loads(out)["image"], json.loads(out)["size_wh"]) == ("-", [60, 50])
    standard_input(monkeypatch, b"no image")
    code, out, err = command("run", "-", "<CAPTION>", "--checkpoint", tiny)
    assert (code, out) == (2, "")
    assert err == "error: image on standard input holds no image of a known format, whatever its name says\n"


@pytest.mark.parametrize("absent", [False, True])
def test_standard_input_that_brings_nothing(command, tiny, monkeypatch, absent):
    standard_input(monkeypatch, b"", isatty=True)
    if absent:
        monkeypatch.setattr("sys.stdin", None)
    code, _, err = command("run", "-", "<CAPTION>", "--checkpoint", tiny)
    assert code == 2 and "nothing comes in there" in err


def test_the_sample_comes_with_the_package(command, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["sample", "<CAPTION>", "--checkpoint", tiny, "--json"]
    assert json.loads(command("run", *options)[1])["size_wh"] == [224, 224]
    Image.new("RGB", (9, 8)).save("sample", format="PNG")  # a file of this name goes before
    assert json.loads(command("run", *options)[1])["size_wh"] == [9, 8]


# ---- what is printed and written -------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be had")
@pytest.mark.parametrize("name", [b"a\nerror: b.png", b"\x1b[31mred.png", "\u202egnp.exe.png".encode(), b"\xff.png"])
def test_names_steer_no_terminal(command, tiny, photos, tmp_path, name):
    good, bad = os.fsdecode(name), os.fsdecode(b"bad " + name)
    Path(photos[0]).rename(tmp_path / good)
    (tmp_path / bad).write_text("no image", encoding="utf-8")
    arguments = [
        tmp_path / good,
        tmp_path / bad,
        "<CAPTION>",
        "--checkpoint",
        tiny,
        "--picture",
        tmp_path / f"{good}.png",
    ]
    code, out, err = command("run", *arguments)
    assert code == 1
    for text in (out, err):
        assert all(c.isprintable() or c == "\n" for c in text) and text.isascii() | ("×" in text)
    assert len(err.splitlines()) == 1
    code, out, _ = command("run", *arguments, "--json")
    assert images_of(out) == [str(tmp_path / good), str(tmp_path / bad)]


def test_picture_that_cannot_be_written_leaves_the_answers(command, tiny, photos, tmp_path):
    (tmp_path / "out-2.png").mkdir()  # no file can be written there
    arguments = ["run", *photos[:3], "<OD>", "--checkpoint", tiny, "--picture", tmp_path / "out.png"]
    code, out, err = command(*arguments)
    assert code == 1
    assert err == f"error: picture {tmp_path / 'out-2.png'} cannot be written: Is a directory\n"
    assert [f"drawn in {tmp_path / f'out-{n}.png'}" in out for n in (1, 2, 3)] == [True, False, True]
    assert all(photo in out for photo in photos[:3])
    records = [json.loads(line) for line in command(*arguments, "--json")[1].splitlines()]
    assert [record["picture"] is None for record in records] == [False, True, False]
    assert all(record["instances"] for record in records)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full disk to write to")
def test_full_disk(command, tiny, photos, tmp_path):
    (tmp_path / "full.png").symlink_to("/dev/full")
    code, out, err = command("run", photos[0], "<OD>", "--checkpoint", tiny, "--picture", tmp_path / "full.png")
    assert code == 1 and photos[0] in out
    assert err == f"error: picture {tmp_path / 'full.png'} cannot be written: No space left on device\n"


def test_picture_too_large_for_its_format(command, tiny, tmp_path):
    Image.new("RGB", (70000, 2)).save(tmp_path / "wide.png")
    options = ["--checkpoint", tiny, "--picture", tmp_path / "out.jpg"]
    code, out, err = command("run", tmp_path / "wide.png", "<OD>", *options)
    assert code == 1 and out
    assert err.startswith(f"error: picture {tmp_path / 'out.jpg'} cannot be written: ")


def test_threshold(command, tiny, photos):
    options = ["run", photos[0], "<OD>", "--checkpoint", tiny, "--json"]
    everything = json.loads(command(*options)[1])
    scores = sorted(item["score"] for item in everything["instances"])
    middle = scores[len(scores) // 2]
    answer = json.loads(command(*options, "--threshold", middle)[1])
    assert [item["score"] >= middle for item in answer["instances"]] == [True] * len(answer["instances"])
    assert len(answer["instances"]) + answer["dropped"] == len(scores) and answer["dropped"]
    assert "nothing found" in command(*options[:-1], "--threshold", 1)[1]
    code, _, err = command(*options, "--threshold", 2)
    assert code == 2 and "--threshold" in err


@pytest.mark.parametrize("option", ["--threshold", "--nms"])
def test_options_about_boxes_are_refused_where_there_are_none(command, tiny, photos, option):
    code, out, err = command("run", photos[0], "<CAPTION>", option, 0.5, "--checkpoint", tiny)
    assert (code, out) == (2, "") and err.startswith(f"error: {option} … has no part in task <CAPTION>: no boxes or")


def test_absent_phrases_are_listed_with_their_presence(command, tiny, photos, tmp_path):
    """Hundreds of phrases from a file, beside those of the options."""
    (tmp_path / "phrases.txt").write_text("\ufeffa cat\n\n  the dog \n" + "\n".join(map(str, range(200))), "utf-8")
    options = ["run", photos[0], "<OPEN_VOCABULARY_DETECTION>", "--checkpoint", tiny, "--phrase", "a bus"]
    options += ["--phrases-file", tmp_path / "phrases.txt", "--threshold"]
    answer = json.loads(command(*options, 1, "--json")[1])
    assert list(answer["presence"])[:3] == ["a bus", "a cat", "the dog"] and len(answer["presence"]) == 203
    assert all(0 <= presence <= 1 for presence in answer["presence"].values()) and not answer["instances"]
    _, out, _ = command(*options, 1)
    assert re.search(r"nothing found\n  not in the image: a bus \([01]\.\d\d\), a cat \([01]\.\d\d\), the dog", out)
    assert "not in the image" not in command(*options, 0)[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b" \n\n", "holds no phrase; write one a line"),
        (b"\xff\xfe\x00", "cannot be read: it is no text in UTF-8"),
    ],
)
def test_files_without_phrases_are_told(command, tiny, photos, tmp_path, content, message):
    file = tmp_path / "phrases.txt"
    if content is not None:
        file.write_bytes(content)
    options = ["--phrases-file", file, "--checkpoint", tiny]
    code, out, err = command("run", photos[0], "<OPEN_VOCABULARY_DETECTION>", *options)
    assert (code, out) == (2, "") and err.startswith(f"error: --phrases-file {file} {message}")


def test_nms_leaves_out_what_overlaps(command, tiny, photos):
    options = ["run", photos[0], "<OD>", "--checkpoint", tiny, "--json"]
    everything, some = (json.loads(command(*options, *more)[1]) for more in ((), ("--nms", 0)))
    scores = [item["score"] for item in everything["instances"]]
    assert max(scores) in [item["score"] for item in some["instances"]]
    assert len(some["instances"]) + some["dropped"] == len(scores)
    code, _, err = command(*options, "--nms", 1.5)
    assert code == 2 and "--nms" in err


def test_images_in_tiles(command, tiny, photos, tmp_path):
    """An image that is no larger than a tile is answered as without; of a larger one every tile is."""
    options = ["<OD>", "--checkpoint", tiny, "--json"]
    plain, same = (command("run", photos[0], *options, *more)[1] for more in ((), ("--tile", 50, 10)))
    assert plain == same
    Image.open(photos[0]).resize((200, 150)).save(tmp_path / "large.png")
    code, out, err = command("run", tmp_path / "large.png", photos[3], *options, "--tile", 100, 20)
    assert code == 1 and err.count("\n") == 1
    assert json.loads(out.splitlines()[0])["size_wh"] == [200, 150]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["<OD>", "--tile", "100", "200"], "error: --tile 100 200: the overlap must be smaller than the size"),
        (["<OD>", "--tile", "-100", "20"], "error: --tile -100 20 must be (size, overlap)"),
        (["<CAPTION>", "--tile", "100", "20"], "error: task <CAPTION> cannot be asked in tiles"),
    ],
)
def test_wrong_tiles_are_told_before_the_network_loads(command, photos, arguments, message):
    code, out, err = command("run", photos[0], *arguments, "--checkpoint", "nowhere")
    assert (code, out) == (2, "") and err.startswith(message)


@needs_embedded
def test_a_picture_that_is_foreign_to_the_checkpoint_is_told(command, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).resize((300, 300)).save(tmp_path / "noise.png")
    code, out, err = command("run", tmp_path / "noise.png", "sample", "<OD>", "--json")
    assert code == 0
    assert [json.loads(line)["foreign"] for line in out.splitlines()] == [True, False]
    assert err.startswith("note: 1 of 2 answers are unsure; lists leave out guesses, --threshold 0 shows them. ")
    assert "scenes-nano was trained on generated scenes" in err
    assert err.count("\n") == 1 and "for photographs:  --checkpoint microsoft/Florence-2-base" in err


# ---- the embedded checkpoint -----------------------------------------------------------------------------------------


def matched(answer: dict, objects: list[dict]) -> int:
    """How many true objects a box of the same label covers at IoU 0.5."""
    free = list(answer["instances"])
    for thing in objects:
        hits = [i for i in free if i["label"] == thing["label"] and box_iou([i["box"]], [thing["box"]])[0, 0] >= 0.5]
        if hits:
            free.remove(hits[0])
    return len(answer["instances"]) - len(free)


@needs_embedded
def test_first_command_of_the_readme_is_right(command, tmp_path):
    picture = tmp_path / "out.png"
    code, out, err = command("run", "sample", "<OD>", "--picture", picture, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    objects = TRUTH["meadow.png"]["objects"]  # the sample is this scene
    assert sorted(i["label"] for i in answer["instances"]) == sorted(thing["label"] for thing in objects)
    assert matched(answer, objects) == len(objects)
    assert all(0 < i["score"] < 1 for i in answer["instances"])
    assert Image.open(picture).size >= (640, 640)


@needs_embedded
def test_example_scenes_are_about_as_right_as_the_card_says(command):
    _, out, _ = command("run", *(EXAMPLES / name for name in TRUTH), "<OD>", "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    right = sum(matched(answer, TRUTH[Path(answer["image"]).name]["objects"]) for answer in answers)
    given = sum(len(answer["instances"]) for answer in answers)
    true = sum(len(scene["objects"]) for scene in TRUTH.values())
    assert 2 * right / (given + true) >= checkpoint("scenes-nano").metrics["<OD>/box_f1"] - 0.1


def test_an_adapter_is_merged_into_the_checkpoint(command, tiny, photos, tmp_path):
    """Trained here, without its base's name: the command is told both."""
    pytest.importorskip("peft")
    from florence_lite.checkpoint import load_checkpoint
    from florence_lite.train.lora import add_lora, save_adapter

    adapter = add_lora(load_checkpoint(tiny), 2, ("q_proj",), "")
    for name, weight in adapter.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.5)
    save_adapter(adapter, tmp_path / "adapter")
    plain, merged = (
        command("run", photos[0], "<CAPTION>", "--checkpoint", tiny, "--json", *more)
        for more in ((), ("--adapter", tmp_path / "adapter"))
    )
    assert plain[0] == merged[0] == 0, merged[2]
    assert json.loads(plain[1])["score"] != json.loads(merged[1])["score"]
    code, _, err = command("run", photos[0], "<CAPTION>", "--checkpoint", tmp_path / "adapter")
    assert code == 2 and "give --checkpoint BASE --adapter …" in err
