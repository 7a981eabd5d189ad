"""A tiny checkpoint, photos, and a way to call the command."""

from pathlib import Path

import pytest
from PIL import Image

from florence_lite import cli
from florence_lite.checkpoint import save_checkpoint
from florence_lite.model import FlorenceConfig, TextConfig, VisionConfig
from tests.engine.models import lively_model


@pytest.fixture(scope="session")
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
