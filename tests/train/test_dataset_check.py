"""The check of a data set before training, from Python and from the command."""

import json
import re
import sys
from dataclasses import replace

import pytest
from PIL import Image

from florence_lite import cli
from florence_lite.cards import TaskCard, register_task, task
from florence_lite.checkpoint import save_checkpoint
from florence_lite.data import read_dataset
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression
from florence_lite.data.samples import Dataset, Sample
from florence_lite.model import FlorenceConfig, FlorenceModel, TextConfig, VisionConfig
from florence_lite.rules import Pair
from florence_lite.tokens import Codec
from florence_lite.train.dataset_check import COLUMNS, TILE, check_dataset, contact_sheet, report_lines
from florence_lite.train.rows import RowWriter
from tests.data.annotated import ANNOTATED, SIZE
from tests.data.files import coco, picture, write

PICTURE = Image.new("RGB", SIZE, (90, 120, 200))


@pytest.fixture(scope="module")
def network(toy_tokenizer) -> RowWriter:
    return RowWriter(Codec(toy_tokenizer), positions=200, image_tokens=50, prompt_side="decoder", bins=1000)


def crowd(count: int) -> Annotation:
    """`count` dogs and nothing else."""
    dogs = tuple(ObjectAnnotation("dog", (i % 50, i % 40, 60.0, 50.0)) for i in range(count))
    return Annotation(SIZE, dogs, exhaustive=frozenset({"objects"}))


def data(*annotations: Annotation) -> Dataset:
    return Dataset.of([Sample(PICTURE, a, f"image {n}") for n, a in enumerate(annotations)], format="made up")


def test_counts(network):
    bare = Annotation(SIZE, captions=("a wall",), exhaustive=frozenset())
    found = check_dataset(data(ANNOTATED, crowd(5), crowd(0), bare), network)
    assert found.classes == {"dog": (7, 2), "door": (1, 1)}
    assert found.tasks["<OD>"] == 3  # images without dogs count: they teach that there may be none
    assert found.tasks["<CAPTION>"] == 2
    assert found.tasks["<OCR>"] == found.tasks["<VQA>"] == 1
    assert found.sizes == {"smallest": SIZE, "typical": SIZE, "largest": SIZE}
    assert found.summary["images"] == 4 and found.problems == ()
    assert found.lengths.keys() == found.tasks.keys()


def test_tasks_that_the_data_cannot_train_are_absent(network):
    found = check_dataset(data(crowd(1)), network)
    assert list(found.tasks) == [
        *("<DENSE_REGION_CAPTION>", "<OD>", "<OPEN_VOCABULARY_DETECTION>", "<REGION_PROPOSAL>"),
        "<REGION_TO_CATEGORY>",
    ]
    assert check_dataset(data(crowd(1))).lengths == {}


def test_lengths_are_those_of_the_training_rows(network):
    found = check_dataset(data(crowd(1), crowd(3), crowd(2)), network).lengths["<OD>"]
    label = len(network.codec.tokenizer.encode_plain("dog"))
    assert (found.shortest, found.typical, found.longest) == (label + 4 + 1, label + 8 + 1, label + 12 + 1)
    assert found.longest_in == "image 1"
    prompt = network.codec.tokenizer.encode_prompt(task("<OD>").prompt())
    assert found.prompt == len(prompt)
    assert found.limit == network.positions - len(prompt) - 1
    assert found.too_long == 0


@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_the_limit_is_exact(network, side):
    """The longest answer of the limit fits; one token more does not."""
    network = replace(network, prompt_side=side, image_tokens=0)
    length = check_dataset(data(crowd(10)), network).lengths["<OD>"]
    start = 1 + (length.prompt if side == "decoder" else 1)
    fitting, short = (replace(network, positions=start + length.longest - less) for less in (0, 1))
    for each, too_long in ((fitting, 0), (short, 1)):
        found = check_dataset(data(crowd(10), crowd(1)), each).lengths["<OD>"]
        assert (found.too_long, found.limit) == (too_long, length.longest - too_long)


def test_prompts_that_do_not_fit_behind_the_image(network):
    network = replace(network, prompt_side="encoder", image_tokens=195)
    assert check_dataset(data(crowd(1)), network).lengths["<OD>"].too_long == 1


def test_the_limit_of_the_card_counts(network):
    found = check_dataset(data(crowd(1)), replace(network, positions=5000)).lengths["<REGION_TO_CATEGORY>"]
    assert found.limit == task("<REGION_TO_CATEGORY>").max_new_tokens - 1


def test_images_that_cannot_be_read_and_targets_that_cannot_be_made(network, tmp_path):
    cut = picture(tmp_path / "cut.png", SIZE)
    cut.write_bytes(cut.read_bytes()[:60])
    odd = replace(
        ANNOTATED, expressions=(replace(ANNOTATED.expressions[0], phrase="this <and> that"), *ANNOTATED.expressions)
    )
    found = check_dataset(Dataset([cut, PICTURE], (crowd(1), odd), ("cut.png", "odd")), network)
    told = {problem.kind: (problem.record, problem.what) for problem in found.problems}
    assert told["image unreadable"][0] == "cut.png" and "damaged or cut short" in told["image unreadable"][1]
    for marker in ("<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>"):
        record, what = told[f"prompt of {marker} left out"]
        assert record == "odd" and "'this <and> that'" in what
    assert found.summary["problems"] == {kind: 1 for kind in told}
    assert found.lengths["<OPEN_VOCABULARY_DETECTION>"].shortest > 0  # the other phrases of the image are measured


def test_the_report_for_people(network):
    lines = list(report_lines(check_dataset(data(ANNOTATED, crowd(40)), network)))
    assert "2 images, 43 objects, 3 outlined, 2 lines, 3 captions, 4 expressions, 2 questions" in lines
    assert "dog          42        2" in lines
    assert next(line for line in lines if line.startswith("<OD>")).endswith("longest in image 1")
    assert lines[-1] == "no problems"


def test_examples_of_problems_are_few(tmp_path):
    picture(tmp_path / "a.jpg")
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [5, 5, 0, n]} for n in range(9)]
    write(tmp_path / "instances.json", coco([("a.jpg", 100, 80)], boxes))
    lines = list(report_lines(check_dataset(read_dataset(tmp_path)), examples=2))
    first = lines.index("box left out: 9")
    assert lines[first + 1].startswith("  instances.json: image a.jpg, annotation 1: x0 y0 x1 y1 = ")
    assert lines[first + 3 :] == ["  … and 7 more"]


def test_contact_sheet():
    sheet = contact_sheet(data(*[ANNOTATED] * 9), count=COLUMNS + 1)
    assert sheet.width > COLUMNS * TILE * 0.8 and sheet.height > TILE
    colours = {colour for _, colour in contact_sheet(data(ANNOTATED), count=1).getcolors(2**20)}
    assert (90, 120, 200) in colours and len(colours) > 3  # the photo, and what is drawn on it
    with pytest.raises(ValueError, match="none of 1 images can be read"):
        contact_sheet(Dataset([Image.new("RGB", (5, 5))], (ANNOTATED,), ("small",)))


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, toy_tokenizer) -> str:
    """Folder of a checkpoint with random weights and a short table of positions."""
    vision = VisionConfig(dims=(8, 16, 16, 32), depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), groups=(1, 2, 2, 4), window=3)
    text = TextConfig(toy_tokenizer.vocabulary.size, 32, 1, 1, heads=4, ffn_dim=32, positions=64)
    config = FlorenceConfig(vision=vision, text=text, image_size_wh=(64, 64), prompt_side="decoder")
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(FlorenceModel(config), folder)
    toy_tokenizer.save(folder / "tokenizer.json")
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.jpg")
    dogs = [{"image_id": 1, "category_id": 2, "bbox": [n, n, 20, 20]} for n in range(20)]
    unknown, ignored = {**dogs[0], "image_id": 2, "category_id": 9}, {**dogs[0], "image_id": 4, "iscrowd": 1}
    known = {**dogs[0], "image_id": 2}
    images = [(f"{name}.jpg", 100, 80) for name in ("a", "b", "c", "d")]
    write(tmp_path / "instances_train.json", coco(images, [*dogs, unknown, ignored, known]))
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.app(["data", "check", *map(str, arguments)], prog_name="florence-lite")
    return (ended.value.code or 0, *capsys.readouterr())


def test_command(capsys, folder, tiny):
    code, out, err = run(capsys, folder, "--split", "train", "--checkpoint", tiny, "--sheet", folder / "sheet.png")
    assert (code, err) == (0, "")
    assert "format coco: instances_train.json: 4 images, 23 annotations; images in . (4)" in out
    assert "negatives, images without objects: 1 (1: instances_train.json lists it without objects)" in out
    assert "name some of their objects or lines, maybe not all: 1" in out and "never asked for nor wrong: 1" in out
    assert "unknown category: 1\n  instances_train.json: image b.jpg, annotation 21: category_id 9 is not listed" in out
    assert "longest in a.jpg" in out and out.endswith("sheet.png\n")
    assert Image.open(folder / "sheet.png").width > 400


def test_data_that_train_nothing(capsys, tmp_path, tiny):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "0 50 40 20 20\n")
    write(tmp_path / "classes.txt", "cat\n")
    code, out, _ = run(capsys, tmp_path, "--checkpoint", tiny)
    assert code == 1 and "no task can be trained on this data" in out
    assert "pixels are divided by 100 and 80" in out


def test_command_in_json(capsys, folder, tiny):
    code, out, _ = run(capsys, folder, "--format", "coco", "--checkpoint", tiny, "--json")
    found = json.loads(out)
    assert (code, found["classes"], found["lengths"]["<OD>"]["too_long"]) == (0, {"dog": [21, 2], "cat": [0, 0]}, 1)
    assert found["problems"][0]["kind"] == "unknown category"
    assert found["summary"]["negatives"] == {"instances_train.json lists it without objects": 1}
    assert found["tasks"]["<OD>"] == 2  # not the image with something unknown, nor the one with a crowd


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no data set nowhere"),
        (["{folder}", "--format", "voc"], "holds no files of the format 'voc'"),
        (["{folder}", "--sheet", "{folder}/sheet"], "must end in an image format"),
        (["{folder}", "--sheet", "{folder}/none/sheet.png"], "--sheet .* there is no folder"),
        (["{folder}", "--column", "image"], "--column image must be MEANING=COLUMN"),
        (["{folder}", "--checkpoint", "none"], "checkpoint 'none' is neither a folder nor"),
    ],
)
def test_mistakes(capsys, folder, arguments, message):
    code, out, err = run(capsys, *(argument.replace("{folder}", str(folder)) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and re.search(message, err)


def test_a_missing_package_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    code, _, err = run(capsys, "someone/photos", "--format", "huggingface", "--column", "image=photo")
    assert (code, err) == (2, "error: the package datasets is missing; pip install 'florence-lite[train]'\n")


def test_shared_bccd(capsys, shared_data):
    code, out, _ = run(capsys, shared_data / "bccd", "--split", "test")
    assert code == 0
    assert "72 images, 945 objects" in out and "no problems" in out


def test_all_captions_of_an_image_are_measured(network):
    """One of five is too long."""
    annotation = Annotation(SIZE, captions=("a dog",), more_captions=("a dog " * 400, "a cat", "two dogs", "dogs"))
    found = check_dataset(data(annotation), network)
    assert found.tasks == {"<CAPTION>": 1} | {name: 1 for name in found.tasks if name != "<CAPTION>"}
    assert (found.lengths["<CAPTION>"].too_long, found.lengths["<CAPTION>"].longest_in) == (1, "image 0")
    assert found.lengths["<CAPTION>"].longest > network.positions


def test_all_questions_and_phrases_of_an_image_are_measured(network):
    """One answer of two is too long, and one prompt of two."""
    long = "a dog and a cat " * 60
    questions = (Question("is it red?", "yes"), Question("what is it?", long))
    annotation = Annotation(
        SIZE, questions=questions, expressions=(ReferringExpression("the dog"), ReferringExpression(long))
    )
    found = check_dataset(data(crowd(1), annotation), network)
    assert [found.lengths[name].too_long for name in ("<VQA>", "<OPEN_VOCABULARY_DETECTION>")] == [1, 1]
    assert found.tasks["<VQA>"] == 1  # images


def test_tasks_of_ones_own_are_checked(network, own_tasks):
    card = TaskCard("<FIRST>", "the first object", "What is first?", "text")
    register_task(card, rule=lambda annotation: [Pair(texts=[item.label]) for item in annotation.objects[:1]])
    found = check_dataset(data(crowd(2), crowd(0)), network)
    assert (found.tasks["<FIRST>"], found.lengths["<FIRST>"].too_long) == (1, 0)


def test_a_task_whose_rule_is_misspelt_or_fails_spoils_no_other(network, own_tasks):
    def fails(annotation):
        raise ValueError("this rule knows nothing")

    card = TaskCard("<A>", "a", "A?", "text", scoring="text")
    register_task(replace(card, rule="captons.short"))
    register_task(replace(card, name="<B>"), rule=fails)
    found = check_dataset(data(crowd(1)), network)
    kinds = {problem.kind: problem.what for problem in found.problems}
    assert "unknown rule 'captons.short'; did you mean 'captions.short'" in kinds["task <A> left out"]
    assert kinds["no target for <B>"] == "this rule knows nothing"
    assert "<OD>" in found.tasks and not {"<A>", "<B>"} & found.tasks.keys()
