"""What a run can start from: everything that `Florence.from_pretrained` takes, with all that belongs to it."""

import json
from pathlib import Path

import pytest
import torch

from florence_lite.checkpoint import adapter_base, load_pretrained
from florence_lite.florence import Florence
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.train.config import DataConfig
from florence_lite.train.finetuning import finetune, read_sources
from tests.checkpoint.test_hub import NAME, cache, no_proxy, server  # noqa: F401
from tests.tiny import tiny_config
from tests.train.squares import settings, write_base, write_squares

MEAN, STD, DECODING = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125), {"num_beams": 2, "forced_bos": None}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def base(toy_tokenizer, tmp_path_factory) -> Path:
    return write_base(toy_tokenizer, "encoder", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def own(toy_tokenizer, tmp_path_factory) -> Path:
    """A checkpoint with image statistics and decoding settings of its own."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(2)
    config = tiny_config("encoder", toy_tokenizer.vocabulary.size)
    preprocessor = Preprocessor(config.image_size_wh, MEAN, STD)
    Florence(FlorenceModel(config), toy_tokenizer, None, preprocessor, DECODING).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(own, data, tmp_path_factory) -> Path:
    """A LoRA result on it."""
    pytest.importorskip("peft")
    return finetune(settings(own, data, tmp_path_factory.mktemp("first"), lora_rank=2))


def assert_same(one: Path | str, other: Path | str, equal: bool = True) -> None:
    ours, theirs = (Florence.from_pretrained(each).model.state_dict() for each in (one, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) == equal


def test_statistics_and_decoding_are_the_checkpoints_own(own, data, tmp_path):
    run = settings(own, data, tmp_path / "run")
    loaded = load_pretrained(own)
    [source] = read_sources(run, loaded.model, loaded.tokenizer, loaded.preprocessor)
    assert (source.collate.preprocessor.mean, source.collate.preprocessor.std) == (MEAN, STD)
    florence = Florence.from_pretrained(finetune(run))
    assert (florence.preprocessor.mean, florence.preprocessor.std) == (MEAN, STD)
    assert florence.decoding == DECODING


@pytest.mark.parametrize("kept", ["computed", "memory"])
def test_a_lora_result_is_trained_on(adapter, own, data, tmp_path, kept):
    """Its adapter is merged; the result is a whole checkpoint with the statistics of the base."""
    run = settings(adapter, data, tmp_path / "run", steps=1, learning_rate=1e-9, freeze_vision=True, features=kept)
    whole = finetune(run)
    result, start = Florence.from_pretrained(whole), Florence.from_pretrained(adapter)
    assert not (whole / "adapter_config.json").exists()
    assert (result.preprocessor.mean, result.decoding) == (MEAN, DECODING)
    for name, tensor in start.model.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], tensor, rtol=0, atol=1e-6)
    assert_same(adapter, own, equal=False)


def test_lora_on_a_lora_result(adapter, data, tmp_path, monkeypatch):
    """The new adapter's base is the sum of both, which the run keeps: the first run may go on without changing it."""
    monkeypatch.chdir(tmp_path)
    still = finetune(settings(adapter, data, "still", steps=1, learning_rate=1e-12, lora_rank=3))
    start = Florence.from_pretrained(adapter)
    for name, tensor in Florence.from_pretrained(still).model.state_dict().items():
        torch.testing.assert_close(tensor, start.model.state_dict()[name], rtol=0, atol=1e-6)

    folder = finetune(settings(adapter, data, "second", lora_rank=3))
    assert adapter_base(folder).name == str(tmp_path / "second" / "base")
    assert_same(tmp_path / "second" / "base", adapter)
    expected = Florence.from_pretrained(folder).model.state_dict()
    changed = [name for name, tensor in start.model.state_dict().items() if not torch.equal(tensor, expected[name])]
    assert changed and all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    monkeypatch.chdir("/")
    florence = Florence.from_pretrained(tmp_path / folder)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in florence.model.state_dict().items())
    assert florence.preprocessor.mean == MEAN
    before = (tmp_path / "second" / "base" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    finetune(settings(adapter, data, "second", lora_rank=3, steps=4))  # and goes on
    assert (tmp_path / "second" / "base" / "model.safetensors").stat().st_mtime_ns == before


def test_a_lora_result_notes_its_base_by_its_full_path(base, data, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.chdir(base.parent)
    folder = finetune(settings(Path(base.name), data, tmp_path / "run", lora_rank=2, steps=1))
    assert adapter_base(folder).name == str(base)
    monkeypatch.chdir("/")
    assert Florence.from_pretrained(folder)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_from_a_hub(own, data, tmp_path, server, cache, lora_rank):  # noqa: F811
    server.push("me/own", {path.name: path.read_bytes() for path in own.iterdir()})
    folder = finetune(settings("me/own", data, tmp_path / "run", steps=1, lora_rank=lora_rank))
    assert Florence.from_pretrained(folder).preprocessor.mean == MEAN
    if lora_rank:
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "me/own"


def test_an_embedded_checkpoint(data, tmp_path):
    loaded = load_pretrained("scenes-nano")
    assert (loaded.preprocessor.mean, loaded.preprocessor.std) == (loaded.card.mean, loaded.card.std)
    run = settings("scenes-nano", data, tmp_path / "run", steps=1, batch=1)
    assert finetune(run) == tmp_path / "run" / "checkpoint"


# ---- data that teach nothing


def test_data_that_teach_nothing_are_refused_before_training(base, data, tmp_path):
    tasks = {"<CAPTION>": 1, "<OCR>": 1}
    sets = (DataConfig(str(data), tasks), DataConfig(str(data), {"<VQA>": 1}))
    run = settings(base, data, tmp_path / "run")
    with pytest.raises(ValueError, match=r"teaches? .*<CAPTION>"):
        finetune(type(run)(run.output, run.checkpoint, sets, steps=1))
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_task_that_no_image_says_anything_about_is_told(base, data, tmp_path, capsys):
    run = settings(base, data, tmp_path / "run", steps=1)
    finetune(type(run)(run.output, run.checkpoint, (DataConfig(str(data), {"<OD>": 1, "<VQA>": 1}),), steps=1, batch=1))
    out = capsys.readouterr().out
    assert f"data set {data}: images that teach <OD>: 6, <VQA>: 0" in out
    assert f"data set {data}: warning: no image says anything about <VQA>: it is not taught" in out
