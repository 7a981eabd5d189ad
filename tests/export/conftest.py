"""Tiny checkpoints in both layouts, and what they are exported to."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from florence_lite import Florence
from florence_lite.export import exporting
from tests.tiny import noise_image, tiny_florence

LAYOUTS = {"native": "decoder", "original": "encoder"}  # and where the prompts of the tiny checkpoint go
MAKERS = {"vision": "vision_graph", "encoder": "encoder_graph", "decoder_step": "step_graph"}


class Traced(NamedTuple):
    """A checkpoint with the folder that it was exported to."""

    florence: Florence
    folder: Path


@pytest.fixture(scope="session")
def traced(toy_tokenizer, tmp_path_factory):
    """Layout → `Traced`: saved, loaded and exported to ONNX. Tracing takes seconds, so it is done once."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra export is not installed")
    made: dict[str, Traced] = {}

    def get(layout: str) -> Traced:
        if layout not in made:
            root = tmp_path_factory.mktemp(layout)
            tiny_florence(toy_tokenizer, LAYOUTS[layout]).save_pretrained(root / "checkpoint", layout)
            florence = Florence.from_pretrained(root / "checkpoint")
            found = exporting.export(florence, root / "onnx", images=[noise_image(0)])
            assert found.answers >= 8 and found.other_answers == found.other_ids == 0
            made[layout] = Traced(florence, root / "onnx")
        return made[layout]

    return get


class Program:
    """A graph that was made before."""

    def __init__(self, file: Path):
        self.file = file

    def save(self, file: Path) -> None:
        shutil.copyfile(self.file, file)


@pytest.fixture
def reuse(monkeypatch):
    """Lets an export take the graphs of a folder instead of tracing them again."""

    def use(folder: Path) -> None:
        for name, maker in MAKERS.items():
            program = Program(folder / f"{name}.onnx")
            monkeypatch.setattr(exporting, maker, lambda *arguments, program=program: program)

    return use
