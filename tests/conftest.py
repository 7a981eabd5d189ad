"""What several test modules use: the folder of shared test data, and a tokenizer small enough to train on the spot."""

import lzma
import os
import shutil
from pathlib import Path

# Before torch is imported: several test processes beside each other are fastest with one thread each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from florence_lite.cards import task_card, tasks
from florence_lite.engine.fast import kernel
from florence_lite.tokens import Tokenizer

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")

SENTENCES = [
    "a red apple and a green door handle next to two wheels",
    "the dog and the cat sit in front of a yellow building",
    "stop sign, café, 猫, traffic light, door handle",
]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `shared/data`; tests that need it are skipped where it is absent."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("FLORENCE_LITE_SHARED", beside)) / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set FLORENCE_LITE_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """What lies in `tests/published`, unpacked: files of real checkpoints, and what they answered."""
    folder, packed = tmp_path_factory.mktemp("published"), Path(__file__).parent / "published"
    for file in packed.rglob("*.*"):
        target = folder / file.relative_to(packed)
        target.parent.mkdir(exist_ok=True)
        if file.suffix == ".xz":
            target.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
        else:
            shutil.copyfile(file, target)
    return folder


@pytest.fixture(scope="session")
def toy_tokenizer() -> Tokenizer:
    """A byte-level BPE of a few sentences with Florence-2's added tokens and 1000 bins."""
    return Tokenizer.train(SENTENCES, vocab_size=1400)


@pytest.fixture
def own_tasks(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(task_card.TASKS, "_by_name", {card.name: card for card in tasks()})
    monkeypatch.setattr(task_card, "_OWN_RULES", {})


@pytest.fixture
def plain_network(monkeypatch):
    """Without compiled kernels, so that a test can watch the network's own methods."""
    monkeypatch.setattr(kernel, "library", lambda: None)
