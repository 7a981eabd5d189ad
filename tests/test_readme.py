"""The first screen of the README. What holds for every page, the README too, is tested in test_docs.py."""

import json
import re
import tomllib

import pytest

from florence_lite import cards
from tests.pages import README, ROOT, commands

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RESULTS = ROOT / "benchmarks" / "results"


def test_it_is_short():
    assert len(README.text.splitlines()) <= 130


def test_first_screen_holds_a_picture_and_the_two_commands():
    first = "\n".join(README.text.splitlines()[:40])
    install = 'pip install . && florence-lite run sample "<OD>" --picture out.png'
    test = 'pip install -e ".[test]" && python -m pytest -n auto'
    assert re.findall(r"```console\n(.*)\n```", first) == [install, test]
    assert "](docs/images/sample.webp)" in first


def test_ci_runs_the_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lines = [line for block in README.of("console") for line in commands(block)]
    for part in lines[2:4]:
        program, *rest = part.split(maxsplit=2)
        assert re.search(rf"^{program} {rest[0]} (--quiet )?{re.escape(rest[1])}( -q)?$", script, re.MULTILINE), part


def test_python_version():
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in README.text


def test_five_lines_of_python_are_five():
    assert len(README.of("python")[0].splitlines()) == 5


def test_links_that_have_to_be_there():
    links = set(re.findall(r"\]\(([^)]+)\)", README.text))
    assert {"examples/README.md", "LICENSE", "CHANGELOG.md", "docs/getting-started.md", "docs/limits.md"} <= links


def seconds(file: str, work: str, dtype: str | None = None) -> float:
    """What a file of results says that a piece of work took."""
    runs = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    for run in runs if isinstance(runs, list) else [runs]:
        for row in run["rows"]:
            if row["work"] == work and run.get("dtype") == dtype:
                if "images_a_second" in row:
                    return 1 / row["images_a_second"]["single calls"]
                return row["seconds"]["florence-lite"]
    raise AssertionError(f"{file} has no row {work!r}")


def test_checkpoint_table_equals_the_cards_and_the_measurements():
    """Latency: of the embedded checkpoint a call of `<OD>`, of the others an image with 64 ids, greedily."""
    work = "image, greedy 64"
    base = f"{seconds('inference-base.json', work):.1f} s"
    gpu = f"{1000 * seconds('inference-base-h100.json', work, 'bfloat16'):.0f} ms"
    large = f"{seconds('inference-large.json', work):.1f} s"
    embedded = f"{1000 * seconds('throughput-embedded.json', 'embedded, <OD>'):.0f} ms"
    latency = {"scenes-nano": (embedded, "–"), "florence-2-base": (base, gpu), "florence-2-large": (large, "–")}
    header, *body = README.rows("## Checkpoints")
    expected = []
    for card in cards.checkpoints():
        cpu, cuda = latency[card.name.removesuffix("-ft")]
        if card.source == "embedded":
            accuracy = f"AP50 {card.metrics['<OD>/ap50']:.2f}"
        else:
            accuracy = f"mAP {card.metrics['coco_detection_map']}"
        expected.append([f"`{card.name}`", card.licence, accuracy, cpu, cuda])
    assert [[cells[0], cells[2], cells[3], cells[4], cells[5]] for cells in sorted(body)] == sorted(expected)


ROWS = {  # of the table of the embedded checkpoint in benchmarks/README.md
    "detection AP50": "<OD>/ap50",
    "detection AP": "<OD>/ap",
    "phrases found": "<OPEN_VOCABULARY_DETECTION>/acc@0.5",
    "outlines of phrases": "<REFERRING_EXPRESSION_SEGMENTATION>/miou",
    "outlines in given boxes": "<REGION_TO_SEGMENTATION>/miou",
    "region → category": "<REGION_TO_CATEGORY>/accuracy",
    "words read": "<OCR>/word_f1",
    "objects in captions": "<CAPTION>/object_f1",
    "presence AUROC, random": "<OPEN_VOCABULARY_DETECTION>/presence_auroc_random",
    "presence AUROC, one": "<OPEN_VOCABULARY_DETECTION>/presence_auroc_changed",
    "absent phrases rejected at": "<OPEN_VOCABULARY_DETECTION>/absent_rejected",
    "present phrases kept": "<OPEN_VOCABULARY_DETECTION>/t_acc",
    "questions": "<VQA>/vqa_accuracy",
    "image → text": "captions/text_r@1",
    "calibration error": "<OPEN_VOCABULARY_DETECTION>/ece",
    "unseen style: detection": "held_out <OD>/box_f1",
    "unseen style: words": "held_out <OCR>/word_f1",
    "seven further styles": "other_styles <OD>/box_f1",
    "photographs in which": "photographs/named",
}


@pytest.mark.parametrize("name", ROWS)
def test_figures_of_the_embedded_checkpoint_are_those_of_its_card(name):
    [card] = [card for card in cards.checkpoints() if card.source == "embedded"]
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    lines = text[text.index("## The embedded checkpoint") : text.index("### What was tried")].splitlines()
    [line] = [line for line in lines if re.match(rf"\| {name}\b", line)]
    _, value, _, before, constant = (cell.strip() for cell in line.strip("|").split("|"))
    metric = ROWS[name]
    assert float(value.strip("*").split()[0]) == pytest.approx(card.metrics[metric], abs=6e-4)
    for told, baseline in ((before, "weights before"), (constant, "constant answer")):
        if told != "–":
            assert float(told) == pytest.approx(card.baselines[baseline][metric], abs=6e-4)
