"""The README says what is true: its files, commands, tables and Python are compared with the project or run."""

import importlib
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import typer

import florence_lite
from florence_lite import Florence, Result, TaskCard, cards, cli
from florence_lite.cli.inputs import SAMPLE
from florence_lite.scenes import CLASSES, LICENCES, STYLES
from florence_lite.tokens.grammars import GRAMMARS
from tests.train.squares import write_squares

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL))

needs_embedded = pytest.mark.skipif(
    all(card.source != "embedded" for card in cards.checkpoints()),
    reason="no checkpoint is embedded in this installation",
)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def console_lines() -> list[str]:
    """Every command of the console blocks, those joined by && apart."""
    return [part.strip() for block in blocks("console") for line in block.splitlines() for part in line.split("&&")]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, its header first and without its rule."""
    section = README.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return cells[:1] + cells[2:]


OWN_COMMANDS = [line for line in console_lines() + INLINE if line.startswith("florence-lite ")]
RUNS = [line for line in OWN_COMMANDS if line.startswith("florence-lite run ")]


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert {"examples/README.md", "LICENSE", "CHANGELOG.md"} <= set(links)
    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []


def test_files_that_are_named_exist():
    named = set(re.findall(r"(?:examples|tests|tasks|checkpoints)/[\w./-]*\w", README)) - {"tasks/*.toml"}
    assert "examples/meadow.png" in named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_first_screen_holds_the_two_commands():
    first = "\n".join(README.splitlines()[:40])
    install = 'pip install . && florence-lite run sample "<OD>" --picture out.png'
    test = 'pip install -e ".[test]" && python -m pytest -n auto'
    assert re.findall(r"```console\n(.*)\n```", first) == [install, test]


def test_ci_runs_the_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for part in console_lines()[2:4]:
        program, *rest = part.split(maxsplit=2)
        assert re.search(rf"^{program} {rest[0]} (--quiet )?{re.escape(rest[1])}( -q)?$", script, re.MULTILINE), part


def test_extras_exist():
    extras = [extra for group in re.findall(r"\.\[([\w,]+)\]", README) for extra in group.split(",")]
    assert extras and set(extras) <= PROJECT["optional-dependencies"].keys()


def test_python_version():
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in README


@pytest.mark.parametrize("line", OWN_COMMANDS)
def test_commands_parse(line):
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(cli.app).commands[name]
    values = command.make_context(name, arguments).params
    if name == "run":
        *images, prompt = values["images_and_prompt"]
        assert all(image == SAMPLE or (ROOT / image).is_file() for image in images)
        assert prompt in [card.name for card in cards.tasks()]


def test_every_subcommand_is_shown():
    assert {shlex.split(line)[1] for line in OWN_COMMANDS} == typer.main.get_command(cli.app).commands.keys()


def test_task_table_equals_the_cards():
    inputs = {"none": "–", "text": "`text`", "phrase": "one phrase", "phrases": "`phrases`", "region": "`region`"}
    expected = [
        [f"`{card.name}`", inputs[card.input], card.summary, f"`{card.method}`"] for card in florence_lite.tasks()
    ]
    assert rows("## Tasks")[1:] == expected
    assert all(callable(getattr(Florence, card.method)) for card in florence_lite.tasks())


def test_grammars_are_all_named():
    sentence = re.search(r"The forms are (.*?)\.\n", README, re.DOTALL)[1]
    assert sorted(re.findall(r"`(\w+)`", sentence)) == sorted(GRAMMARS)


def test_checkpoint_table_equals_the_cards():
    header, *body = rows("## Checkpoints")
    metrics = [cell.strip("`") for cell in header[3:]]
    expected = []
    for card in cards.checkpoints():
        if card.source != "embedded":
            continue
        metrics = [f"{card.metrics[name]:.2f}" if name in card.metrics else "–" for name in metrics]
        expected.append([f"`{card.name}`", card.licence, "{}×{}".format(*card.image_size_wh), *metrics])
    assert body == expected


def test_table_of_public_checkpoints_equals_the_cards():
    header, *body = rows("### Public checkpoints")
    metrics = [cell.strip("`") for cell in header[3:]]
    expected = []
    for card in cards.checkpoints():
        if card.source != "embedded":
            cells = [f"{card.metrics[name]}" if name in card.metrics else "–" for name in metrics]
            expected.append([f"`{card.name}`", f"`{card.source}`", card.licence, *cells])
    assert sorted(body) == sorted(expected)


def test_artwork_table_equals_the_catalogue():
    table = {row[0].strip("`"): row[2] for row in rows("## Training on generated scenes")[1:]}
    assert table == {style: LICENCES[style] for style in STYLES}


def test_limits_count_the_classes():
    assert f"knows {len(CLASSES)} kinds of objects" in README


def test_names_of_the_api_exist():
    methods = [name.removesuffix("()") for name in INLINE if re.fullmatch(r"\w+\(\)", name)]
    assert methods and [name for name in methods if not hasattr(Result, name)] == []


def test_what_stays_is_there():
    table = {cells[0].strip("`"): re.findall(r"`(\w+)`", cells[1]) for cells in rows("## What stays")[1:]}
    assert list(table) == [
        "florence_lite",
        *(f"florence_lite.{room}" for room in ("inference", "data", "rules", "evaluate", "train", "scenes")),
    ]
    assert sorted(table["florence_lite"]) == florence_lite.__all__
    for module, names in table.items():
        found = importlib.import_module(module)
        assert set(names) <= set(found.__all__), module
        assert all(getattr(found, name) is not None for name in names)


def test_own_task_is_a_card(tmp_path, own_tasks):
    [text] = blocks("toml")
    (tmp_path / "count.toml").write_text(text, encoding="utf-8")
    card = florence_lite.register_task(tmp_path / "count.toml")
    assert isinstance(card, TaskCard)
    assert card.prompt("dogs") == "how many dogs are there?"


def test_five_lines_of_python_are_five():
    assert len(blocks("python")[0].splitlines()) == 5


@pytest.mark.parametrize("text", blocks("python") + blocks("py"))  # "py": what needs the network or a GPU
def test_python_compiles(text):
    compile(text, "README", "exec")


@pytest.fixture
def workplace(tmp_path, monkeypatch, own_tasks) -> Path:
    """A folder with the examples in it, as in a clone; tasks registered there are forgotten afterwards."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@needs_embedded
def test_python_runs(workplace):
    names: dict = {}
    for text in blocks("python"):  # the own task, which trains, has a test of its own
        if "register_task" not in text:
            exec(compile(text, "README", "exec"), names)
    assert names["result"].labels
    assert (workplace / "out.png").is_file()


@pytest.fixture
def photos(workplace) -> Path:
    """A small data set in the place of the README's."""
    photos = workplace / "my-photos"
    for split in ("train", "val", "test"):
        source = write_squares(workplace / split, per_image=2, images=2, prefix=f"{split}-")
        (photos / "annotations").mkdir(parents=True, exist_ok=True)
        shutil.move(source / "instances.json", photos / "annotations" / f"instances_{split}.json")
        shutil.move(source, photos / "images" / split)
    return photos


@needs_embedded
def test_a_task_of_ones_own_answers_learns_and_is_measured(photos):
    """As the README has it; only the number of steps is another."""
    names: dict = {}
    exec(compile(blocks("python")[0], "README", "exec"), names)
    [text] = [text for text in blocks("python") + blocks("py") if "register_task" in text]
    shorter, changed = re.subn(r"\bsteps=\d+", "steps=1", text)
    assert changed == 1
    exec(compile(shorter, "README", "exec"), names)
    report = names["report"]
    assert report.answers == {"<COUNT>": 2} and report.metrics["<COUNT>"]["accuracy"] is not None
    assert (photos.parent / "runs" / "count" / "checkpoint" / "model.safetensors").is_file()


@needs_embedded
def test_fine_tuning_commands_run(workplace, photos, capsys):
    """On a small data set; of the configuration only the number of steps is another."""
    pytest.importorskip("faster_coco_eval")
    config = workplace / "examples" / "finetune.toml"
    config.write_text(re.sub(r"(?m)^(steps|evaluate_every) = \d+", r"\1 = 2", config.read_text()))
    lines = [line for line in OWN_COMMANDS if "my-photos" in line or "finetune.toml" in line]
    lines = [line for line in lines if "calibrate" not in line]  # which needs more phrases than these two photos have
    assert [shlex.split(line)[1] for line in lines] == ["data", "train", "eval"]
    printed = []
    for line in lines:
        with pytest.raises(SystemExit) as ended:
            cli.app(shlex.split(line)[1:])
        assert ended.value.code in (0, None), line
        printed.append(capsys.readouterr().out)
    assert "no problems" in printed[0] and (workplace / "sheet.png").is_file()
    assert printed[1].splitlines()[-1] == "runs/mine/best"
    assert "ap50" in printed[2] and "images: 2" in printed[2]
    assert Florence.from_pretrained("runs/mine/best").run(photos / "images" / "test" / "test-0.png", "<OD>")


@needs_embedded
@pytest.mark.parametrize("line", RUNS)
def test_commands_run(line, workplace, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.app(shlex.split(line)[1:])
    assert ended.value.code in (0, None)
    out, err = capsys.readouterr()
    assert out and (not err or err.startswith("note: ") and err.count("\n") == 1)
    assert (workplace / "out.png").is_file() == ("--picture" in line)
