"""The command: what it prints where, its exit codes and how it speaks of mistakes; mostly on a tiny random network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import florence_lite
from florence_lite import Instance, Result, cli
from florence_lite.cards import CheckpointCard, checkpoint, checkpoints
from florence_lite.checkpoint import save_checkpoint
from florence_lite.cli import running
from florence_lite.evaluate.report import Report
from florence_lite.geometry import box_iou
from florence_lite.model import FlorenceConfig, TextConfig, VisionConfig
from florence_lite.scenes import VALIDATION, Scenes
from florence_lite.scenes.measure import TASKS
from tests.engine.models import lively_model

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TRUTH = json.loads((EXAMPLES / "truth.json").read_text(encoding="utf-8"))

needs_embedded = pytest.mark.skipif(
    all(card.source != "embedded" for card in checkpoints()), reason="no checkpoint is embedded in this installation"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, toy_tokenizer) -> str:
    """Folder of a checkpoint with random weights: its answers are short nonsense of every kind."""
    config = FlorenceConfig(
        vision=VisionConfig(
            dims=(8, 16, 16, 32), depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), groups=(1, 2, 2, 4), window=3
        ),
        text=TextConfig(toy_tokenizer.vocabulary.size, 32, 1, 1, heads=4, ffn_dim=32, positions=64),
        image_size_wh=(64, 64),
        prompt_side="decoder",
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(lively_model(config, eos_gain=3.0), folder)
    toy_tokenizer.save(folder / "tokenizer.json")
    return str(folder)


@pytest.fixture
def photos(tmp_path) -> list[str]:
    """Five images of different sizes and one file that is none, the fourth of the six."""
    paths = []
    for number in range(6):
        path = tmp_path / f"photo {number}.png"
        Image.new("RGB", (40 + 10 * number, 50), (40 * number, 90, 200)).save(path)
        paths.append(str(path))
    Path(paths[3]).write_text("no image", encoding="utf-8")
    return paths


@pytest.fixture
def command(capsys):
    """Runs the command with the given arguments; returns its exit code, standard output and standard error."""

    def call(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.app([str(argument) for argument in arguments], prog_name="florence-lite")
        return (ended.value.code or 0, *capsys.readouterr())

    return call


# ---- run -------------------------------------------------------------------------------------------------------------


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


def test_listing_goes_to_standard_output(command, tiny, photos):
    code, out, err = command("run", photos[1], "<OD>", "--checkpoint", tiny)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{photos[1]}  <OD>  50×50"
    assert len(re.findall(r"^ +0\.\d\d( +\d+\.\d){4}$", out, re.MULTILINE)) >= 1


def test_unreadable_image_leaves_the_others_answered(command, tiny, photos):
    code, out, err = command("run", *photos, "missing.png", "<CAPTION>", "--checkpoint", tiny, "--json")
    assert code == 1
    assert [json.loads(line)["image"] for line in out.splitlines()] == photos[:3] + photos[4:]
    first, second = err.splitlines()
    assert first == f"error: image {photos[3]} holds no image of a known format, whatever its name says"
    assert second == "error: image missing.png does not exist"


def test_region_outside_of_one_image_leaves_the_others_answered(command, tiny, photos):
    options = ["--region", 0, 0, 45, 50, "--checkpoint", tiny, "--json"]
    code, out, err = command("run", photos[0], photos[1], "<REGION_TO_CATEGORY>", *options)
    assert code == 1
    assert json.loads(out)["image"] == photos[1]
    assert err.startswith(f"error: image {photos[0]}: task <REGION_TO_CATEGORY>: region (0, 0, 45, 50) must lie in")


def test_no_answer_at_all_is_exit_code_2(command, tiny, photos):
    code, out, err = command("run", photos[3], "<OD>", "--checkpoint", tiny)
    assert (code, out) == (2, "")
    assert err.startswith("error: image ")


def test_many_images_equal_single_ones(command, tiny, photos):
    readable = photos[:3] + photos[4:]
    together = command("run", *readable, *readable, "<OD>", "--checkpoint", tiny, "--json")[1].splitlines()
    alone = [command("run", path, "<OD>", "--checkpoint", tiny, "--json")[1].strip() for path in readable]
    boxes = [[i["box"] for i in json.loads(line)["instances"]] for line in together]
    assert boxes == [[i["box"] for i in json.loads(line)["instances"]] for line in alone] * 2
    assert all(boxes)


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
    assert [json.loads(line)["picture"] for line in out.splitlines()] == expected
    assert sorted(map(str, tmp_path.glob("all*"))) == expected


def test_names_of_many_pictures_sort_like_the_images():
    files = running._picture_files(Path("out.png"), ["a.png"] * 12)
    assert [file.name for file in (files[0], files[9], files[11])] == ["out-01.png", "out-10.png", "out-12.png"]
    assert files == sorted(files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo 0.png"], 'the prompt is missing; write it behind the images:  florence-lite run photo 0.png "<OD>"'),
        (["photo 0.png", "photo 1.png"], "the prompt is missing"),
        (["photo 0.png", "absent.JPG"], "the prompt is missing"),
        (["<OD>"], 'the image is missing; write it before the prompt:  florence-lite run photo.jpg "<OD>"'),
        (["<OD>", "photo 0.png"], "<OD> must be the last argument"),
        (["photo 0.png", "<VQA>", "--phrase", "dog", "cat"], "several phrases are given as --phrase … --phrase …"),
        (["photo 0.png", "<OF>"], r"unknown task '<OF>'; did you mean '<O[CD]R?>'\? tasks: <CAPTION>, .*<OD>.*<VQA>"),
        (["photo 0.png", "od"], "unknown task 'od'; did you mean '<OD>'"),
        (["photo 0.png", "<OD>", "--text", "dog"], "task <OD> takes no input, but text was given"),
        (["photo 0.png", "<OD>", "--region", "0", "0", "9", "9"], "task <OD> takes no input, but region was given"),
        (["photo 0.png", "<VQA>"], 'task <VQA> needs text="…", but nothing was given'),
        (["photo 0.png", "<OPEN_VOCABULARY_DETECTION>", "--phrase", " "], "phrases.0. is ' '; it must be a string"),
        (["photo 0.png", "<REGION_TO_OCR>"], "needs region=.* in pixels, but nothing was given"),
        (["photo 0.png", "<REGION_TO_OCR>", "--region", "9", "9", "9", "20"], "region .9, 9, 9, 20. must have 0 <= x0"),
        (["photo 0.png", "<REGION_TO_OCR>", "--region", "-1", "0", "9", "9"], "region .-1, 0, 9, 9. must have 0 <= x0"),
        (["photo 0.png", "<OD>", "--picture", "out.xyz"], "must end in an image format that can be written"),
        (["photo 0.png", "<OD>", "--picture", "out"], "must end in an image format that can be written"),
        (["photo 0.png", "<OD>", "--picture", "no/out.png"], "there is no folder no"),
        (["photo 0.png", "<OD>", "--picture", "photo 0.png"], "would overwrite the image photo 0.png"),
        (["photo 0.png", "<OD>", "--device", "abacus"], "--device abacus cannot be used here"),
    ],
)
def test_mistakes_are_told_in_one_line(command, tiny, photos, monkeypatch, arguments, message):
    monkeypatch.chdir(Path(photos[0]).parent)
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
                "dog          0.50      1.0     2.2   300.0     4.0",
                "sea�[2Jlion            0.0     0.0     9.0     9.0",
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


# ---- the other commands ----------------------------------------------------------------------------------------------


def test_tasks_lists_every_task(command):
    code, out, _ = command("tasks")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [card.name for card in florence_lite.tasks()]
    assert (
        "<VQA>                                --text    the answer to a question about the image (Florence.ask)\n"
        in out
    )


def test_checkpoints_lists_licence_and_metrics(command, monkeypatch):
    card = CheckpointCard(
        name="small",
        summary="a small one",
        source="org/name",
        licence="MIT",
        image_size_wh=(224, 192),
        tasks=("<OD>",),
        metrics={"<OD>/box_f1": 0.81234, "<OCR>/wer": 1.0},
        protocol="on two scenes",
        command="florence-lite train small.toml",
        seed=3,
        hardware="one core",
        notes="Trained twice.\nThe second one counts.\n",
    )
    monkeypatch.setattr("florence_lite.cards.checkpoints", lambda: (card,))
    code, out, _ = command("checkpoints")
    assert code == 0
    assert out.splitlines() == [
        "small  (org/name, MIT, 224×192 pixels, 1 tasks)",
        "  a small one",
        "  <OD>/box_f1  0.8123",
        "  <OCR>/wer    1",
        "  measured: on two scenes",
        "  trained: florence-lite train small.toml, seed 3, on one core",
        "  Trained twice.",
        "  The second one counts.",
    ]


@pytest.mark.parametrize(
    "options", [[], ["--style", "noto", "--style", "fluent", "--split", "validation", "--count", "7"]]
)
def test_eval_measures_the_checkpoint(command, tiny, monkeypatch, options):
    calls = []

    def evaluate_scenes(florence, split, count, styles):
        calls.append((florence.model.config.image_size_wh, split, count, styles))
        return Report({"<OD>": {"box_f1": 0.5}}, {"<OD>": count}, {"<OD>": 0}, {"<OD>": 0}, images=count)

    monkeypatch.setattr("florence_lite.scenes.measure.evaluate_scenes", evaluate_scenes)
    code, out, err = command("eval", "--checkpoint", tiny, *options)
    assert (code, err) == (0, "")
    count = 7 if options else 200
    assert f"images: {count}" in out and out.split()[-8:-2] == ["<OD>", "box_f1", "0.5000", str(count), "0", "0"]
    styles = ("noto", "fluent") if options else ("fluent", "openmoji")
    assert calls == [((64, 64), "validation" if options else "test", count, styles)]
    assert json.loads(command("eval", "--checkpoint", tiny, *options, "--json")[1])["metrics"] == {
        "<OD>": {"box_f1": 0.5}
    }


def test_train_runs_the_configuration_and_evaluates_it(command, tiny, monkeypatch, tmp_path):
    calls = []

    def train(config, evaluate, continue_with_changes):
        assert not continue_with_changes
        calls.append((config.output, evaluate(Path(tiny), torch.device("cpu"))))
        return Path(config.output) / "checkpoint"

    def evaluate(florence, samples, tasks, count):
        told = {"size": florence.model.config.image_size_wh, "split": samples.seeds, "count": count, "tasks": tasks}
        return SimpleNamespace(named_metrics=lambda: told | {"styles": samples.styles})

    monkeypatch.setattr("florence_lite.train.validation.evaluate", evaluate)
    monkeypatch.setattr("florence_lite.scenes.training.train", train)
    config = tmp_path / "run.toml"
    config.write_text('output = "here"\nstyles = ["openmoji"]\nevaluate_scenes = 5\n[tasks]\n"<OD>" = 1\n')
    code, out, _ = command("train", config)
    assert (code, out) == (0, f"{Path('here', 'checkpoint')}\n")
    told = {"size": (64, 64), "split": VALIDATION, "count": 5, "tasks": TASKS, "styles": ("openmoji",)}
    assert calls == [("here", told)]


def test_train_knows_generated_scenes_as_a_data_set(command, monkeypatch, tmp_path):
    monkeypatch.setattr("florence_lite.train.finetuning.finetune", lambda config, generators, _: generators["scenes"])
    config = tmp_path / "run.toml"
    config.write_text('output = "here"\ncheckpoint = "c"\n[[data]]\npath = "scenes"\n[data.tasks]\n"<OD>" = 1\n')
    assert command("train", config)[:2] == (0, f"{Scenes}\n")


def test_missing_packages_are_named_with_the_remedy(command, monkeypatch, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('output = "here"\n[tasks]\n"<OD>" = 1\n')
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for module in ("scenes.training", "train.loop"):
        monkeypatch.delitem(sys.modules, f"florence_lite.{module}", raising=False)
        monkeypatch.delattr(f"florence_lite.{module}", raising=False)
    code, _, err = command("train", config)
    assert code == 2
    assert err == "error: the package accelerate is missing; pip install 'florence-lite[train,eval]'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no training configuration at"),
        ("output =", "is no valid TOML"),
        ('output = "here"\nsteps = 0\n[tasks]\n"<OD>" = 1\n', "steps = 0 must be"),
    ],
)
def test_mistakes_in_a_training_configuration(command, tmp_path, text, message):
    config = tmp_path / "run.toml"
    if text is not None:
        config.write_text(text)
    code, out, err = command("train", config)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message in err


def test_version(command):
    assert command("--version") == (0, f"florence-lite {florence_lite.__version__}\n", "")


# ---- processes of their own ------------------------------------------------------------------------------------------

MAIN = "import sys; from florence_lite.cli import main; sys.argv[0] = 'florence-lite'; main()"


def test_help_and_tasks_do_not_load_torch():
    probe = MAIN.replace(
        "main()", "sys.addaudithook(lambda e, a: sys.exit(9) if e == 'import' and a[0] == 'torch' else 0); main()"
    )
    for arguments in (["--help"], ["run", "--help"], ["tasks"], ["run", "a.png", "<OF>"]):
        done = subprocess.run([sys.executable, "-c", probe, *arguments], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == (2 if "<OF>" in arguments else 0), done.stderr.decode()


def test_reader_that_stops_early_sees_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "tasks"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_letters_that_the_terminal_lacks_are_replaced():
    probe = "from florence_lite import cli; cli.app = lambda: print('猫'); cli.main()"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, b"?")


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
    code, out, err = command("run", EXAMPLES / "meadow.png", "<OD>", "--picture", picture, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    objects = TRUTH["meadow.png"]["objects"]
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
