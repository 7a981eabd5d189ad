"""Every page says what is true: its links and files are there, its commands parse, and its code runs from top to bottom
on the embedded checkpoint, in a folder with the examples and a small data set `my-photos`. `tests/pages.py` says how
blocks are marked."""

import dataclasses
import importlib
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import florence_lite
from florence_lite import Florence, Result, TaskCard, cards, cli
from florence_lite.data.readers import FORMATS
from florence_lite.evaluate.metrics import METRICS
from florence_lite.scenes import CLASSES, LICENCES, STYLES
from florence_lite.tokens.grammars import GRAMMARS
from florence_lite.train.config import DataConfig, FineTuneConfig, ValidationConfig
from tests.pages import DOCS, PAGES, ROOT, Page, commands, own_commands, page
from tests.train.squares import write_squares

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = sorted({line for each in PAGES for line in own_commands(each)})
IMAGES = ROOT / "docs" / "images"

needs_embedded = pytest.mark.skipif(
    all(card.source != "embedded" for card in cards.checkpoints()),
    reason="no checkpoint is embedded in this installation",
)


# ---- what pages name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.text)
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (page.file.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_files_that_are_named_exist(page):
    named = set(re.findall(r"(?:examples|tests|tasks|checkpoints|benchmarks)/[\w./-]*\w", page.text)) - {"tasks/*.toml"}
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_pictures_are_there_small_and_shown():
    names = {path.name for path in IMAGES.iterdir()}
    shown = {Path(name).name for each in PAGES for name in re.findall(r"images/[\w-]+\.\w+", each.text)}
    assert names == shown
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < 1.5e6


@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_extras_exist(page):
    extras = [name for group in re.findall(r"(?:\.|florence-lite)\[([\w,]+)\]", page.text) for name in group.split(",")]
    assert set(extras) <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_blocks_are_of_known_kinds(page):
    assert {block.kind for block in page.blocks} <= {"", "python", "py", "console", "sh", "text", "toml", "json"}


# ---- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    command, names, arguments = typer.main.get_command(cli.app), [], shlex.split(line)[1:]
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        names.append(arguments.pop(0))
        command = command.commands[names[-1]]
    if not arguments or set(arguments) & {"…", "--version", "--help", "--install-completion"}:
        return
    values = command.make_context(names[-1], arguments).params
    if names == ["run"]:
        assert values["images_and_prompt"][-1] in [card.name for card in cards.tasks()]


def test_every_subcommand_is_shown():
    assert {shlex.split(line)[1] for line in COMMANDS} >= typer.main.get_command(cli.app).commands.keys()


# ---- code -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path, monkeypatch, own_tasks) -> Path:
    """A folder with the examples in it, as in a clone, runs cut to two steps, and a small data set `my-photos`; tasks
    that are registered there are forgotten afterwards."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for config in (tmp_path / "examples").glob("*.toml"):
        config.write_text(re.sub(r"(?m)^(steps|evaluate_every|save_every) = \d+", r"\1 = 2", config.read_text()))
    photos = tmp_path / "my-photos"
    for split in ("train", "val", "test"):
        source = write_squares(tmp_path / split, per_image=2, images=2, prefix=f"{split}-")
        (photos / "annotations").mkdir(parents=True, exist_ok=True)
        shutil.move(source / "instances.json", photos / "annotations" / f"instances_{split}.json")
        shutil.move(source, photos / "images" / split)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_command(line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.app(shlex.split(line)[1:])
    assert ended.value.code in (0, None), line


def run_page(page: Page, capsys) -> SimpleNamespace:
    """Run what a page shows. names: what its Python has defined; printed: of each command, on standard output."""
    ran, out = SimpleNamespace(names={"__name__": page.name}, printed={}), ""
    for number, block in enumerate(page.blocks):
        if block.kind == "python":
            exec(compile(re.sub(r"\bsteps=\d+", "steps=1", block.text), f"{page}, block {number}", "exec"), ran.names)
            out = capsys.readouterr().out
        elif block.kind == "py":
            compile(block.text, f"{page}, block {number}", "exec")
        elif block.kind == "console":
            out = ""
            for line in commands(block.text):
                if line.startswith("florence-lite "):
                    run_command(line)
                    ran.printed[line], err = capsys.readouterr()
                    out += ran.printed[line]
                    assert not re.match("florence-lite run ", line) or (ran.printed[line] and is_note(err)), line
        elif block.kind == "text" and block.follows and page.blocks[number - 1].kind in ("python", "console"):
            assert out == block.text, f"{page}, block {number} prints something else"
        elif block.kind == "toml":
            tomllib.loads(block.text)
        elif block.kind == "json":
            json.loads(block.text)
    return ran


def is_note(err: str) -> bool:
    return not err or (err.startswith("note: ") and err.count("\n") == 1)


def readme(ran, workplace):
    assert ran.names["result"].labels and (workplace / "out.png").is_file()


def tasks(ran, workplace):
    report = ran.names["report"]
    assert report.answers == {"<COUNT>": 2} and report.metrics["<COUNT>"]["accuracy"] is not None
    assert (workplace / "runs" / "count" / "checkpoint" / "model.safetensors").is_file()


def fine_tuning(ran, workplace):
    check, train, evaluate = ran.printed.values()
    assert "no problems" in check and (workplace / "sheet.png").is_file()
    assert train.splitlines()[-1] == "runs/mine/best"
    assert "ap50" in evaluate and "images: 2" in evaluate
    assert Florence.from_pretrained("runs/mine/best").run("my-photos/images/test/test-0.png", "<OD>")


MORE = {"README.md": readme, "docs/tasks.md": tasks, "docs/fine-tuning.md": fine_tuning}


@needs_embedded
@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_a_page_runs_from_top_to_bottom(page, workplace, capsys):
    for package in ("faster_coco_eval", "accelerate") if page.name in ("docs/tasks.md", "docs/fine-tuning.md") else ():
        pytest.importorskip(package)
    ran = run_page(page, capsys)
    if page.name in MORE:
        MORE[page.name](ran, workplace)
    pictures = [line.split("--picture ")[1].split()[0] for line in ran.printed if "--picture " in line]
    assert all((workplace / name).is_file() or list(workplace.glob(f"{Path(name).stem}-*")) for name in pictures)


def test_what_a_page_prints_is_compared(tmp_path, capsys):
    """A page that says something else fails, and so does one whose code does."""
    wrong = tmp_path / "wrong.md"
    for text in ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "```python\nraise AssertionError\n```\n"):
        wrong.write_text(text)
        with pytest.raises(AssertionError):
            run_page(Page(str(wrong)), capsys)


# ---- tables and sentences that are those of the project -------------------------------------------------------------


def test_task_table_equals_the_cards():
    inputs = {"none": "–", "text": "`text`", "phrase": "one phrase", "phrases": "`phrases`", "region": "`region`"}
    expected = [
        [f"`{card.name}`", inputs[card.input], re.sub(r"(<\w+>)", r"`\1`", card.summary), f"`{card.method}`"]
        for card in florence_lite.tasks()
    ]
    assert page("tasks.md").rows("# Tasks")[1:] == expected
    assert all(callable(getattr(Florence, card.method)) for card in florence_lite.tasks())


def test_own_task_is_a_card(tmp_path, own_tasks):
    [text] = page("tasks.md").of("toml")
    (tmp_path / "count.toml").write_text(text, encoding="utf-8")
    card = florence_lite.register_task(tmp_path / "count.toml")
    assert isinstance(card, TaskCard)
    assert card.prompt("dogs") == "how many dogs are there?"


def test_grammars_are_all_named():
    sentence = re.search(r"The forms are (.*?)\.\n", page("tasks.md").text, re.DOTALL)[1]
    assert sorted(re.findall(r"`(\w+)`", sentence)) == sorted(GRAMMARS)


def test_checkpoint_table_equals_the_cards():
    header, *body = page("checkpoints.md").rows("# Checkpoints")
    embedded = [card for card in cards.checkpoints() if card.source == "embedded"]
    assert header[2:] == [f"`{card.name}`" for card in embedded]
    for _, metric, *figures in body:
        assert figures == [f"{card.metrics[metric.strip('`')]:.2f}" for card in embedded], metric
    for card in embedded:
        text = "Under the {} licence, {}×{} pixels".format(card.licence, *card.image_size_wh)
        assert text in page("checkpoints.md").text


def test_table_of_public_checkpoints_equals_the_cards():
    header, *body = page("checkpoints.md").rows("## Public checkpoints")
    metrics = [cell.strip("`") for cell in header[3:]]
    expected = []
    for card in cards.checkpoints():
        if card.source != "embedded":
            cells = [f"{card.metrics[name]}" if name in card.metrics else "–" for name in metrics]
            expected.append([f"`{card.name}`", f"`{card.source}`", card.licence, *cells])
    assert sorted(body) == sorted(expected)


def test_artwork_table_equals_the_catalogue():
    table = {row[0].strip("`"): row[2] for row in page("scenes.md").rows("# Training on generated scenes")[1:]}
    assert table == {style: LICENCES[style] for style in STYLES}


def test_limits_count_the_classes():
    text = " ".join(page("limits.md").text.split())
    assert f"knows {len(CLASSES)} kinds of objects" in text
    [listed] = re.findall(r"closed questions too: (.+?)\.", text)
    assert re.split("[,;] ", listed) == list(CLASSES)


@needs_embedded
def test_limits_are_those_of_the_card():
    """The figures in the sentences, as the card has them."""
    text = " ".join(page("limits.md").text.split())
    [card] = [card for card in cards.checkpoints() if card.source == "embedded"]
    said = {
        "<OPEN_VOCABULARY_DETECTION>/absent_rejected": r"rejects (\S+) of the phrases",
        "<OCR>/word_f1": r"nine of ten as they stand \(F1 (\S+?)\)",
        "words/others": r"surely and wrongly \(F1 (\S+?)\)",
        "<REGION_TO_SEGMENTATION>/miou": r"mIoU (\S+) of objects in given boxes",
        "panoptic/pq": r"PQ (\S+),",
        "panoptic baseline/pq": r"PQ \S+, (\S+)\)",
        "questions/numbers_accuracy": r"[Oo]f numbers it gets (\S+) right",
        "<OD>/box_f1": r"detection F1 falls from (\S+) to",
        "held_out <OD>/box_f1": r"detection F1 falls from \S+ to (\d\.\d+)",
    }
    of_a_hundred = {
        "yes to things unheard of/is there …?": r"it says yes in (\d+) of 100",
        "yes to things unheard of/<IMAGE_TEXT_MATCHING>": r"to such a sentence in (\d+)",
        "yes to things unheard of/a box for a phrase, threshold=0.5": r"with 0.5, in (\d+) of 100",
        "captions right as a whole/<CAPTION>": r"word for word in (\d+) of 100 cases",
        "captions right as a whole/<MORE_DETAILED_CAPTION>": r"paragraphs \(.*?\) in (\d+):",
        "numbers right/1": r"one is counted rightly in (\d+) of 100",
        "numbers right/2": r"two in (\d+),",
        "numbers right/3": r"three in (\d+)\.",
        "phrases accepted/near_place": r"takes for right in (\d+) of 100",
        "photographs/any_of_8_phrases": r"one gets a box in (\d+) of 100",
    }
    for name, pattern in said.items():
        assert re.search(pattern, text)[1] == f"{card.metrics[name]:.2f}", name
    for name, pattern in of_a_hundred.items():
        assert re.search(pattern, text)[1] == f"{100 * card.metrics[name]:.0f}", name


def test_settings_are_those_of_the_configurations():
    """Every key once, with its default; those of [validation] are listed in a sentence."""
    text = page("settings.md").text
    top, data = text.split("In each `[[data]]`")[0], text.split("In each `[[data]]`")[1].split("In `[validation]`")[0]
    for part, config, tables in ((top, FineTuneConfig, {"data", "validation"}), (data, DataConfig, set())):
        said = {}
        for row in re.findall(r"^\| (`.+?) \| (.+?) \|", part, re.MULTILINE):
            names = re.findall(r"`(\w+)`", row[0])
            defaults = [row[1]] if len(names) == 1 else row[1].split(", ")
            said |= dict(zip(names, defaults, strict=True))
        known = {each.name: each.default for each in dataclasses.fields(config)}
        assert said.keys() == known.keys() - tables
        for name, default in said.items():
            if default != "–":
                value = {"none": None, "true": True, "false": False}.get(default, default)
                value = json.loads(value) if isinstance(value, str) else value
                assert (tuple(value) if isinstance(value, list) else value) == known[name], name
    validation = text.split("In `[validation]`")[1]
    assert all(f"`{each.name}`" in validation for each in dataclasses.fields(ValidationConfig))


def test_metrics_are_all_explained():
    text = page("metrics.md").text
    words = set(re.findall(r"`([\w@.]+)", text))
    assert {name for name in METRICS if name not in words} <= {
        "ar",
        "bleu",
        "presence_auroc",
        "rejection",
        "described_ap",
    }


def test_layouts_name_all_formats():
    assert {row[0].split("`")[1] for row in page("data.md").rows("# Layouts of data sets")[1:]} == set(FORMATS)


def test_names_of_the_api_exist():
    inline = [name for each in DOCS for name in each.inline]
    methods = [name.removeprefix("Result.").removesuffix("()") for name in inline if re.fullmatch(r"\w+\(\)", name)]
    assert methods and [name for name in methods if not (hasattr(Result, name) or hasattr(Florence, name))] == []


def test_what_stays_is_there_and_in_the_reference():
    reference = page("reference.md")
    table = {cells[0].strip("`"): re.findall(r"`(\w+)`", cells[1]) for cells in reference.rows("# API reference")[1:]}
    rooms = ("inference", "data", "rules", "evaluate", "train", "scenes", "annotate", "refine", "export", "serve")
    assert list(table) == ["florence_lite", *(f"florence_lite.{room}" for room in rooms)]
    assert sorted(table["florence_lite"]) == florence_lite.__all__
    for module, names in table.items():
        found = importlib.import_module(module)
        assert set(names) <= set(found.__all__), module
        assert all(getattr(found, name) is not None for name in names)
    described = re.findall(r"^::: (\S+)$", reference.text, re.MULTILINE)
    assert described == [f"{module}.{name}" for module, names in table.items() for name in names]
