"""A checkpoint and pictures small enough to be annotated many times."""

import io

import pytest

from florence_lite.annotate import AnnotateConfig
from tests.tiny import noise_image, tiny_florence

TASKS = (
    {"task": "<OD>", "decoding": {"max_new_tokens": 24}},
    {"task": "<CAPTION>", "decoding": {"max_new_tokens": 12}},
    {"task": "<REGION_TO_CATEGORY>", "of": "<OD>", "decoding": {"max_new_tokens": 12}},
)


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    noise_image(seed, (60 + seed % 7, 50)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, toy_tokenizer):
    """The folder of a tiny checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    tiny_florence(toy_tokenizer, "encoder").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 40 pictures, of which one repeats another, one is cut short and one is empty."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(37):
        (folder / f"{number:02d}.png").write_bytes(png(number))
    (folder / "repeated.png").write_bytes(png(5))
    (folder / "cut.png").write_bytes(png(40)[:200])
    (folder / "empty.png").write_bytes(b"")
    return folder


@pytest.fixture
def config(checkpoint, photos, tmp_path):
    """A run of three tasks, one of which asks about the boxes of another, in small parts."""
    return AnnotateConfig(
        photos, tmp_path / "answers", TASKS, checkpoints=[{"checkpoint": str(checkpoint)}], images_per_part=3
    )
