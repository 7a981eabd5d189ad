"""What can be exported, what is refused, and what is told of answers that changed."""

import copy
import json
import sys

import pytest
import torch

from florence_lite import Florence
from florence_lite.export import Comparison, export
from florence_lite.export.comparing import differing
from florence_lite.export.runner import Runner
from tests.cli.conftest import command  # noqa: F401  a fixture
from tests.tiny import noise_image, tiny_florence

FILES = {"vision.onnx", "encoder.onnx", "decoder_step.onnx", "export.json", "tokenizer.json", "runner.py"}


def left(folder) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("layout", ["native", "original"])
def test_the_folder(traced, layout):
    folder = traced(layout).folder
    assert left(folder) == FILES and left(folder.parent) == {"checkpoint", "onnx"}


def test_8_bits(traced, reuse, tmp_path):
    florence, folder = traced("native")
    reuse(folder)
    (tmp_path / "int8").mkdir()  # an empty folder will do
    picture = noise_image(0)
    found = export(florence, tmp_path / "int8", precision="int8", images=[picture])
    assert left(tmp_path / "int8") == FILES and left(tmp_path) == {"int8"}
    for name in ("vision.onnx", "encoder.onnx", "decoder_step.onnx"):
        assert (tmp_path / "int8" / name).stat().st_size < (folder / name).stat().st_size
    exported, whole = Runner(tmp_path / "int8", 1), Runner(folder, 1)
    error = abs(exported.encode(picture)[0] - whole.encode(picture)[0]).max()
    assert 1e-6 < error < 0.1
    prompts = [name for name, task in whole.tasks.items() if task["input"] == "none"]
    others = sum(exported.ask(picture, each)[0].ids != whole.ask(picture, each)[0].ids for each in prompts)
    assert (found.images, found.answers, found.other_answers) == (1, len(prompts), others)
    assert (found.other_ids > 0) == (others > 0)


# ---- refused ---------------------------------------------------------------------------------------------------------


pytest.importorskip("onnx", reason="the extra export is not installed")


@pytest.fixture(scope="module")
def tiny(toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, "decoder")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, 'to="tflite" is unknown; choose from onnx, openvino'),
        ({"precision": "int4"}, 'precision="int4" is unknown; choose from fp32, int8'),
        ({"to": "openvino", "precision": "int8"}, 'precision="int8" is there for onnx alone'),
    ],
)
def test_unknown_options(tiny, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(tiny, tmp_path / "out", **options)
    assert not left(tmp_path)


def test_folders_that_hold_something(tiny, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds other things, notes.txt for one; give a new or empty folder"):
        export(tiny, tmp_path)
    with pytest.raises(ValueError, match=r"notes.txt is a file; give a new or empty folder"):
        export(tiny, tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="too long for the file system"):
        export(tiny, tmp_path / (300 * "a"))
    assert left(tmp_path) == {"notes.txt"} and (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": torch.bfloat16}, "float32 weights, these are bfloat16: load with dtype=torch.float32"),
        ({"dtype": torch.float16}, "float32 weights, these are float16: load with dtype=torch.float32"),
        ({"device": "meta"}, r'the weights are on meta: load with device="cpu"'),
    ],
)
def test_other_weights(tiny, tmp_path, change, message):
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    florence = copy.copy(tiny)
    florence.model = copy.deepcopy(tiny.model).to(**change)
    with pytest.raises(ValueError, match=message):
        export(florence, tmp_path / "out")
    assert not left(tmp_path)


def test_a_network_that_is_no_graph(tiny, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra export is not installed")

    class Moody(torch.nn.Module):
        def forward(self, pixels):
            raise RuntimeError("not today\nnor tomorrow")

    florence = copy.copy(tiny)
    florence.model = copy.deepcopy(tiny.model)
    florence.model.vision = Moody()
    with pytest.raises(ValueError, match=r"checkpoint 'tiny' cannot be exported, its vision is in the way: .+"):
        export(florence, tmp_path / "out")
    assert not left(tmp_path)


@pytest.mark.parametrize(("to", "package", "extra"), [("onnx", "onnxscript", "export"), ("openvino",) * 3])
def test_missing_packages(tiny, tmp_path, monkeypatch, to, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package} is missing; pip install 'florence-lite\[{extra}\]'"):
        export(tiny, tmp_path / "out", to)
    assert not left(tmp_path)


def test_images_are_opened_first(tiny, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    with pytest.raises(FileNotFoundError, match="no-such.png"):
        export(tiny, tmp_path / "out", images=[tmp_path / "no-such.png"])
    assert not left(tmp_path)


# ---- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "others", "count"),
    [
        ([0, 5, 6, 2], [0, 5, 6, 2], 0),
        ([0, 5, 6, 2], [0, 5, 7, 2], 1),
        ([0, 5, 6, 2], [0, 9, 5, 6, 2], 1),  # one more, the others move along
        ([0, 5, 6, 2], [0, 2], 2),
        ([0, 2], [7, 8, 9], 3),
    ],
)
def test_differing_ids(ids, others, count):
    assert differing(ids, others) == differing(others, ids) == count


def test_what_is_told():
    assert str(Comparison(1, 8, 0, 90, 0)) == "8 answers about 1 image have the same ids as the checkpoint's"
    assert str(Comparison(2, 16, 4, 200, 10)) == (
        "of 16 answers about 2 images 4 (25.0%) are others than the checkpoint's, and 10 of 200 ids (5.0%)"
    )
    assert str(Comparison(0, 0, 0, 0, 0)) == "no answers were compared"


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command(command, traced, reuse, tmp_path):  # noqa: F811
    florence, folder = traced("original")
    reuse(folder)
    checkpoint = folder.parent / "checkpoint"
    code, out, err = command("export", "--checkpoint", checkpoint, "--output", tmp_path / "out")
    assert code == 0, err
    assert "have the same ids as the checkpoint's" in out and "runner.py photo.jpg" in out and "vision …" in err
    assert left(tmp_path / "out") == FILES
    noise_image(1).save(tmp_path / "a.png")
    arguments = ("--checkpoint", checkpoint, "--output", tmp_path / "int8", "--precision", "int8")
    code, out, _ = command("export", *arguments, "--compare", tmp_path / "a.png", "--json")
    told = json.loads(out)
    assert code == 0 and told["precision"] == "int8" and told["answers"] >= 8 and set(told["files"]) == FILES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "tflite"], "error: --to tflite is unknown; choose from onnx, openvino"),
        (["--precision", "int4"], "error: --precision int4 is unknown; choose from fp32, int8"),
        (["--to", "openvino", "--precision", "int8"], "leave it out, or take --to onnx instead"),
        (["--checkpoint", "no-such-folder/x"], "no-such-folder"),
        (["--compare", "no-such-folder/*.png"], "no file matches no-such-folder/*.png"),
    ],
)
def test_mistakes(command, tmp_path, options, message):  # noqa: F811
    code, out, err = command("export", "--output", tmp_path / "out", *options)
    assert code == 2 and message in err and not out and not left(tmp_path)


def test_the_command_names_the_missing_extra(command, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = command("export", "--output", tmp_path / "out")
    assert code == 2 and "the package onnxruntime is missing; pip install 'florence-lite[export]'" in err
