"""The notebooks of `examples/`: each runs from top to bottom, and what is kept of its outputs is small and clean."""

import json
import os
import re
import runpy
from pathlib import Path

import pytest

from florence_lite import cards
from florence_lite.data import read_dataset
from tests import notebooks

NOTEBOOKS = sorted(notebooks.EXAMPLES.glob("*.ipynb"))
LARGEST = 300_000  # bytes
PLACES = re.compile(r"/(?:home|root|tmp|opt|usr|work|Users)/|[A-Z]:\\\\|site-packages|\bat 0x[0-9a-fA-F]{6,}")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@each_notebook
def test_what_is_kept_is_whole_small_and_of_no_machine(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and len(text) < LARGEST
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert notebook["cells"][0]["cell_type"] == "markdown" and notebook["cells"][0]["source"][0].startswith("# ")
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "not run from top to bottom"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and all(cell["metadata"] == {} for cell in cells)
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    pictures = re.compile(r"[A-Za-z0-9+/=]{200,}")  # in base64
    assert not PLACES.search(pictures.sub("", json.dumps([cell["outputs"] for cell in cells])))


@each_notebook
def test_links_lead_somewhere(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    words = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for link in re.findall(r"\]\(([^)#:]+)\)", words):
        assert (path.parent / link).exists(), link


@pytest.mark.skipif(
    all(card.source != "embedded" for card in cards.checkpoints()),
    reason="no checkpoint is embedded in this installation",
)
@each_notebook
def test_notebooks_run(path, tmp_path, monkeypatch):
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason=f"notebooks are run with {package}")
    root = str(notebooks.EXAMPLES.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]))
    folder = notebooks.copy_examples(tmp_path / "examples")
    kept = code_cells(json.loads(path.read_text(encoding="utf-8")))
    now = code_cells(notebooks.run(path, folder))
    assert [bool(cell["outputs"]) for cell in now] == [bool(cell["outputs"]) for cell in kept]
    assert not [output for cell in now for output in cell["outputs"] if output["output_type"] == "error"]


def test_a_notebook_that_fails_is_seen(tmp_path):
    exceptions = pytest.importorskip("nbclient.exceptions", reason="notebooks are run with nbclient")
    nbformat = pytest.importorskip("nbformat", reason="notebooks are read with nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    with pytest.raises(exceptions.CellExecutionError, match="ZeroDivisionError"):
        notebooks.run(tmp_path / "wrong.ipynb", tmp_path)


def test_the_pictures_of_the_notebooks_are_a_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shapes = runpy.run_path(str(notebooks.EXAMPLES / "shapes.py"), run_name="__main__")
    assert capsys.readouterr().out == "drawn into shapes/train and shapes/test\n"
    for split in ("train", "test"):
        dataset = read_dataset(tmp_path / "shapes", split=split)
        assert len(dataset) == 20 and not dataset.problems
        for sample in dataset:
            _, things = shapes["picture"](int(Path(sample.name).stem))
            assert [(each.label, tuple(each.box)) for each in sample.annotation.objects] == things
            assert {label for label, _ in things} <= set(shapes["LABELS"])
