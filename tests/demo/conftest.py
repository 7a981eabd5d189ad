"""Checkpoints that the page asks: a tiny one where the answer does not matter, and the embedded one."""

from pathlib import Path

import pytest

from florence_lite import Florence
from tests.tiny import noise_image, tiny_florence

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def tiny(toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, "encoder")


@pytest.fixture(scope="session")
def nano() -> Florence:
    return Florence.from_pretrained("scenes-nano")


@pytest.fixture(scope="session")
def photo(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("photo") / "noise.png"
    noise_image(3).save(path)
    return str(path)


@pytest.fixture(scope="session")
def lions() -> str:
    return str(EXAMPLES / "lions.png")
