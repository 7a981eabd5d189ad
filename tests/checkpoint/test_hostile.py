"""Checkpoint folders from elsewhere that ask for more than is there: a ValueError at once, however it is asked."""

import json
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from florence_lite.checkpoint import load_checkpoint, read_decoding, save_checkpoint
from florence_lite.checkpoint import weights as weights_module
from florence_lite.model import FlorenceModel
from tests.tiny import tiny_config

HUGE = 10**9
VISION, TEXT = "vision_config", "text_config"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FlorenceModel(tiny_config("decoder", vocab_size=90, bins=50)).eval()


@pytest.fixture
def folder(model, tmp_path):
    save_checkpoint(model, tmp_path)
    return tmp_path


def set_field(folder, section, name, value):
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    (values[section] if section else values)[name] = value
    file.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        (TEXT, "encoder_layers", HUGE, "text.encoder_layers"),
        (TEXT, "decoder_layers", HUGE, "text.decoder_layers"),
        (TEXT, "max_position_embeddings", HUGE, "text.positions"),
        (TEXT, "vocab_size", 10**18, "text.vocab_size"),
        (TEXT, "d_model", HUGE, "text.d_model"),
        (TEXT, "dropout", "much", "text.dropout"),
        (VISION, "depths", [HUGE, 1], "vision.depths"),
        (VISION, "depths", [1] * 10**5, "vision.depths"),
        (VISION, "embed_dim", [16.5, 32], "vision.dims"),
        (VISION, "embed_dim", {"16": 1, "32": 1}, "vision.dims"),
        (VISION, "patch_stride", [[4], [2]], "vision.strides"),
        (VISION, "window_size", HUGE, "vision.window"),
        (VISION, "mlp_ratio", 1e300, "vision.mlp_ratio"),
        (VISION, "mlp_ratio", float("inf"), "mlp_ratio"),
        (VISION, "mlp_ratio", float("nan"), "mlp_ratio"),
        (VISION, "mlp_ratio", "4", "mlp_ratio"),
        (VISION, "max_temporal_embeddings", HUGE, "max_frames"),
        (VISION, "max_position_embeddings", HUGE, "max_grid"),
        ("florence_lite", "image_size_wh", [HUGE, HUGE], "image_size_wh"),
        ("florence_lite", "image_size_wh", [16_000, 16_000], "image_size_wh"),
        ("florence_lite", "bins", HUGE, "bins"),
        ("", VISION, [], "does not describe a Florence-2 model"),
        ("", TEXT, "much", "does not describe a Florence-2 model"),
    ],
)
def test_a_config_that_asks_for_too_much(folder, section, name, value, message):
    set_field(folder, section, name, value)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(folder)
    assert str(folder / "config.json") in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", ["[" * 10**6, '{"a": ' * 10**5, '{"a": "' + "a" * 2**25 + '"}'])
def test_files_of_settings_that_are_too_deep_or_large(folder, name, content):
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} (is nested too deeply|has more than)"):
        read_decoding(folder)
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": HUGE}, "num_beams = 1000000000 must be a whole number from 1 to 200"),
        ({"length_penalty": 1e308}, "length_penalty = 1e.308 must be a number from -50 to 50"),
        ({"forced_bos_token_id": HUGE}, "forced_bos_token_id = 1000000000 must be below the vocabulary's size, 90"),
        ({"forced_bos_token_id": 90}, "forced_bos_token_id = 90 must be below"),
    ],
)
def test_decoding_settings_that_ask_for_too_much(folder, settings, message):
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        read_decoding(folder)


def test_surplus_tensors_are_counted(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {f"surplus.{n}": torch.zeros(1) for n in range(5000)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"\(5000 problems\):(.|\n)*… and 4980 more") as caught:
        load_checkpoint(folder)
    assert len(str(caught.value)) < 2000


def test_names_that_are_long_are_cut(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"a" * 10**6: torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="unknown: aaa") as caught:
        load_checkpoint(folder)
    assert len(str(caught.value)) < 2000


def test_tables_of_contents_have_a_bound(folder, monkeypatch):
    monkeypatch.setattr(weights_module, "HEADER_BYTES", 1000)
    monkeypatch.setattr(weights_module, "PICKLE_BYTES", 1000)
    with pytest.raises(ValueError, match="model.safetensors has a table of contents of .* bytes, more than"):
        load_checkpoint(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="pytorch_model.bin has a table of contents of .* bytes, more than"):
        load_checkpoint(folder)
    monkeypatch.setattr(weights_module, "MOST_RECORDS", 10)
    with pytest.raises(ValueError, match="pytorch_model.bin has a table of contents of .* parts, more than"):
        load_checkpoint(folder)


def test_pickles_of_the_old_kind_have_a_bound(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02" + b"]" * 3_000_000 + b".")
    with pytest.raises(ValueError, match="pytorch_model.bin has a table of contents of more than 131,072 steps"):
        load_checkpoint(folder)


def test_shards_have_a_bound(folder):
    (folder / "model.safetensors").unlink()
    names = {f"t{n}": f"{n}.safetensors" for n in range(20_000)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ValueError, match="table of contents of 20,000 files"):
        load_checkpoint(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"t": "a" * 5000}}))
    with pytest.raises(ValueError, match="is no index of shards"):
        load_checkpoint(folder)


# ---- pickled files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pickled(folder):
    """A folder whose weights are to be replaced by a pickled file, and what they were."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin", tensors


@pytest.mark.parametrize("version", ["1.13.1", "2.4.0", "2.5.1+cu121", "2.9.1"])
def test_a_torch_that_cannot_read_pickled_files_safely_is_not_asked(pickled, monkeypatch, version):
    file, tensors = pickled
    torch.save(tensors, file)
    assert load_checkpoint(file.parent)
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ValueError, match=f"torch {version[:4]}.* cannot read such files safely: update torch to 2.10"):
        load_checkpoint(file.parent)
    save_file(tensors, file.parent / "model.safetensors")
    assert load_checkpoint(file.parent)


def test_packed_archives_are_refused(pickled):
    """A thousand times as much may come out of them."""
    file, tensors = pickled
    torch.save(tensors, file)
    with zipfile.ZipFile(file) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="pytorch_model.bin: its part .* is packed"):
        load_checkpoint(file.parent)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**6, 10**6),  # 4 terabytes, of a file of a kilobyte
        torch.zeros(3, device="meta"),
        torch.zeros(3, 3).to_sparse(),
    ],
    ids=["expanded", "meta", "sparse"],
)
def test_tensors_that_are_not_in_the_file(pickled, tensor):
    file, tensors = pickled
    torch.save(tensors | {"strange": tensor}, file)
    with pytest.raises(ValueError, match="pytorch_model.bin: 'strange' is no plain tensor|holds more than tensors"):
        load_checkpoint(file.parent)


@pytest.mark.parametrize("value", [{1: torch.zeros(1)}, [torch.zeros(1)], {"a": 1}, None, 7])
def test_pickled_files_of_something_else(pickled, value):
    file, _ = pickled
    torch.save(value, file)
    with pytest.raises(ValueError, match="is no table of tensors|is no plain tensor"):
        load_checkpoint(file.parent)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_of_a_pickled_file_runs(pickled, legacy):
    file, tensors = pickled
    victim = file.with_name("touched")
    torch.save(tensors | {"x": Touch(victim)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_checkpoint(file.parent)
    file.write_bytes(pickle.dumps(Touch(victim)))
    with pytest.raises(ValueError):
        load_checkpoint(file.parent)
    assert not victim.exists()


# ---- memory ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import resource, sys
from florence_lite.checkpoint import load_checkpoint
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
try:
    load_checkpoint(sys.argv[1])
except ValueError as error:
    print("refused", str(error)[:200])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_the_largest_config_takes_no_memory(folder):
    """Nothing but what the files hold is asked for: the network is built without memory."""
    wide = {"d_model": 2**14, "vocab_size": 2**20, "encoder_layers": 8, "decoder_layers": 8}
    wide |= {"encoder_ffn_dim": 2**17, "decoder_ffn_dim": 2**17, "max_position_embeddings": 2**17}
    for name, value in wide.items():
        set_field(folder, TEXT, name, value)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0 and done.stdout.startswith("refused checkpoint"), done.stderr[-2000:]
