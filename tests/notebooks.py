"""Running the notebooks of `examples/`, and writing what they show back into them.

    python -m tests.notebooks examples/quickstart.ipynb …     run them, and renew their outputs

Outputs that are kept are small, the same on every machine as far as may be, and name no place on one.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
SIDE = 600  # pixels that a picture in a notebook has at most
QUALITY = 72  # of its JPEG
SECONDS = 1200  # that a cell may take, on a busy machine

_TIMES = re.compile(r", \d[\d.]* s a step(, .+ left)?$", re.MULTILINE)  # of the machine, not of the notebook
_EMBEDDED = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)")


def run(path: Path, folder: Path) -> Any:
    """The notebook as it stands after all of its cells have run in `folder`, a copy of `examples/`.

    Raises `nbclient.exceptions.CellExecutionError`, with the traceback, where a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        startup_timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | {"PYTHONWARNINGS": "ignore:IProgress not found"})  # a bar of tqdm is not missed
    return notebook


def copy_examples(folder: Path) -> Path:
    """The examples in a folder of their own, without what earlier runs left beside them."""
    return Path(copytree(EXAMPLES, folder, ignore=ignore_patterns("runs", "__pycache__", ".*"), dirs_exist_ok=True))


def clean(notebook: Any, folder: Path) -> None:
    """Make the outputs of a notebook that ran in `folder` fit to be kept."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = _TIMES.sub("", _without(folder, output.text))
            if "data" in output:
                output.data = _smaller(output.data, folder)
                output.metadata = {}


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs in which what a cell prints stands in one piece, however it came."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.get("name") == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _smaller(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a cell shows, its pictures as small JPEGs."""
    kept = {kind: _without(folder, value) for kind, value in data.items() if kind.startswith("text/")}
    picture = data.get("image/png") or data.get("image/jpeg")
    if picture:
        kept["image/jpeg"] = _shrunk(picture)
    if "text/html" in kept:
        kept["text/html"] = _EMBEDDED.sub(
            lambda found: f"data:image/jpeg;base64,{_shrunk(found[1])}", kept["text/html"]
        )
    return kept


def _shrunk(encoded: str) -> str:
    """A picture in base64 as a small JPEG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _without(folder: Path, text: str) -> str:
    """Text in which paths into the folder are relative to it."""
    for name in {str(folder), str(folder.resolve())}:
        text = text.replace(f"{name}/", "").replace(name, ".")
    return text


def renew(path: Path) -> None:
    """Run a notebook of `examples/` and write it back with what it shows."""
    import nbformat

    with tempfile.TemporaryDirectory() as scratch:
        folder = copy_examples(Path(scratch) / "examples")
        notebook = run(path, folder)
        clean(notebook, folder)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        renew(Path(argument))
        print(f"{argument}: {Path(argument).stat().st_size // 1000} kB")
