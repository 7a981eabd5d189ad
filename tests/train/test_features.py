"""Features of a frozen tower: kept for the same contents alone, in room that was reserved."""

import io
import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from florence_lite.data import read_dataset
from florence_lite.data.annotation import Annotation
from florence_lite.data.samples import Dataset, Sample
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.train import features as module
from florence_lite.train.features import image_features
from florence_lite.train.loop import start
from tests.tiny import noise_image, tiny_config
from tests.train.squares import settings, write_squares

WIDTH = 4 * 49 * 32  # bytes of one view: float32 of the image tokens


@pytest.fixture
def data(tmp_path) -> Path:
    return write_squares(tmp_path / "data", images=3)


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Features of a data set in a folder, and whether they were computed."""
    accelerator = start(settings(tmp_path, tmp_path, tmp_path / "run", precision="fp32"))
    fill, calls = module._fill, []

    def watched(*arguments):
        calls.append(1)
        return fill(*arguments)

    monkeypatch.setattr(module, "_fill", watched)

    def keep(samples, model=None, preprocessor=None, mirrored=True, folder=tmp_path / "kept"):
        calls.clear()
        mirrored = [True] * len(samples) if mirrored is True else mirrored
        found = image_features(
            model or tower(), preprocessor or Preprocessor((64, 48)), samples, mirrored, accelerator, folder
        )
        return found, bool(calls)

    return keep


def tower(seed: int = 0) -> FlorenceModel:
    torch.manual_seed(seed)
    return FlorenceModel(tiny_config()).eval()


def test_they_are_what_the_tower_sees(keep, data):
    samples, model = read_dataset(data), tower()
    kept, _ = keep(samples, model)
    assert kept.views.shape == (3, 2, 49, 32) and not kept.unreadable
    image = samples[1].load()
    both = Preprocessor((64, 48))([image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    with torch.no_grad():
        torch.testing.assert_close(kept.of(1), model.encode_image(both), rtol=1e-4, atol=1e-5)


def test_a_log_tells_how_far_they_are(keep, data, capsys):
    keep(read_dataset(data))
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "computing the image features of 3 pictures"
    assert told[1].startswith("picture 3 of 3, ")


def test_the_same_contents_are_used_again(keep, data, tmp_path, capsys):
    """Wherever the pictures lie and whatever they are called."""
    first, computed = keep(read_dataset(data))
    assert computed
    shutil.copytree(data, tmp_path / "moved")
    again, computed = keep(read_dataset(tmp_path / "moved"))
    assert not computed and torch.equal(first.views, again.views)
    assert "anew" not in capsys.readouterr().out


def another_picture(data: Path) -> dict:
    """Under the same name, of the same size."""
    before = (data / "1.png").stat()
    noise_image(3).save(data / "1.png")
    os.utime(data / "1.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    return {}


def another_size(data: Path) -> dict:
    """Which the picture does not have: its annotation is for another one."""
    samples = read_dataset(data)
    return {"samples": replace(samples, annotations=(Annotation((9, 9)), *samples.annotations[1:]))}


@pytest.mark.parametrize(
    "change, what",
    [
        (another_picture, "images changed"),
        (another_size, "images changed"),
        (lambda data: {"model": tower(1)}, "tower changed"),
        (lambda data: {"preprocessor": Preprocessor((64, 48), mean=(0.5, 0.5, 0.5))}, "tower changed"),
        (lambda data: {"mirrored": [False, True, True]}, "mirrored changed"),
        (lambda data: {"mirrored": None}, "shape, mirrored changed"),
        (lambda data: os.truncate(data.parent / "kept" / "features.bin", 1000) or {}, "features.bin changed"),
        (lambda data: (data.parent / "kept" / "features.bin").unlink() or {}, "features.bin changed"),
        (lambda data: (data.parent / "kept" / "features.json").write_text("[") and {}, "images, mirrored changed"),
        (lambda data: (data.parent / "kept" / "features.json").write_text("[]") and {}, "images, mirrored changed"),
    ],
)
def test_they_are_computed_anew_for_other_contents(keep, data, tmp_path, capsys, change, what):
    keep(read_dataset(data))
    given = {"samples": read_dataset(data)} | change(data)
    found, computed = keep(**given)
    told = " ".join(capsys.readouterr().out.split())
    assert computed and "are computed anew" in told and what in told
    fresh, _ = keep(**given, folder=tmp_path / "fresh")
    assert torch.equal(found.views, fresh.views)
    assert not keep(**given)[1]


def as_bytes(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize("form", [lambda picture: picture, as_bytes], ids=["picture", "bytes"])
def test_pictures_in_memory(keep, form):
    def dataset(*seeds):
        return Dataset.of([Sample(form(noise_image(seed)), Annotation((90, 70)), str(seed)) for seed in seeds])

    keep(dataset(0, 1))
    assert not keep(dataset(0, 1))[1]
    assert keep(dataset(1, 0))[1]


def test_images_that_cannot_be_read(keep, data, tmp_path):
    """They have no features, in this run and in the next; whole again, they get them."""
    whole = (data / "1.png").read_bytes()
    (data / "1.png").write_bytes(whole[:-60])
    for _ in range(2):
        found, _ = keep(read_dataset(data))
        assert list(found.unreadable) == [1]
        with pytest.raises(ValueError, match="1.png is damaged or cut short"):
            found.of(1)
        assert found.of(0).any() and found.of(2).any()
    (data / "1.png").write_bytes(whole)
    found, computed = keep(read_dataset(data))
    assert computed and not found.unreadable and found.of(1).any()
    in_memory, _ = keep(read_dataset(data), folder=None)
    assert torch.equal(in_memory.views, found.views)


# ---- room on the disk


@pytest.fixture
def largest_file():
    """No file may be larger than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("reserving", ["by the system", "by writing", "not on this file system"])
def test_no_room(keep, data, tmp_path, largest_file, monkeypatch, reserving):
    """It is told before anything is computed, with what is needed, and nothing is left behind."""
    samples = read_dataset(data)
    if reserving == "by writing":
        monkeypatch.delattr(os, "posix_fallocate")
    if reserving == "not on this file system":
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    largest_file(3 * 2 * WIDTH - 1)
    with pytest.raises(OSError, match=r'features.bin: kept features need \d+ MiB, and \d+ MiB are free .*"computed"'):
        keep(samples)
    assert list((tmp_path / "kept").iterdir()) == []
    largest_file(3 * 2 * WIDTH + 4096)
    assert keep(samples)[0].views.any()


def refuse(*arguments):
    raise OSError(95, "Operation not supported")


def test_the_room_is_reserved(tmp_path):
    """A file of holes would find no room later."""
    module._reserve(tmp_path / "features.bin", 300_000)
    found = (tmp_path / "features.bin").stat()
    assert found.st_size == 300_000 and found.st_blocks * 512 >= 300_000
