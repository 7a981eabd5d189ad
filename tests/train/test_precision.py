"""A run computes in what its processors are fast at, says so where it does not, and stays with what it was begun in."""

import json
import re

import pytest
import torch

from florence_lite.model import device
from florence_lite.model.device import cpu_instructions
from florence_lite.train import precision
from florence_lite.train.config import RunConfig
from florence_lite.train.finetuning import finetune
from florence_lite.train.folders import saved_precision
from florence_lite.train.loop import start
from florence_lite.train.precision import bf16_cost, bf16_pays, choose_precision
from tests.train.squares import settings, write_base, write_squares

CPU = torch.device("cpu")
OLD = "processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni bf16ish\nbugs : bf16\n\nprocessor : 1\n"


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """What the system says of its processor, and how much slower bfloat16 is when it is measured."""

    def be(text: str | None, cost: float | None = None):
        monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
        (tmp_path / "cpuinfo").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(precision, "bf16_cost", lambda device: pytest.fail("measured") if cost is None else cost)

    for name in precision.LIMITS:
        monkeypatch.delenv(name, raising=False)
    return be


@pytest.fixture
def accelerator(tmp_path):
    return start(RunConfig(str(tmp_path / "run"), precision="fp32"))


# ---- what the processor can do


@pytest.mark.parametrize(
    "text, pays",
    [
        (OLD, False),
        ("processor : 0\nflags\t\t: fpu avx512_bf16 avx2\n", True),
        ("processor : 0\nflags\t\t: fpu amx_tile amx_bf16\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm\n", False),
    ],
)
def test_instructions_decide(processor, text, pays):
    """Without a measurement, so that a run computes the same whenever it is started."""
    processor(text)
    assert bf16_pays(CPU) is pays


@pytest.mark.parametrize("text", [None, "", "cpu : POWER9\n"])
def test_a_measurement_decides_where_the_system_is_silent(processor, text):
    for cost, pays in ((0.4, True), (1.3, False)):
        processor(text, cost)
        assert cpu_instructions() is None and bf16_pays(CPU) is pays


def test_a_measurement_decides_where_the_instructions_are_switched_off(processor, monkeypatch):
    processor("flags : avx512_bf16\n", cost=15.9)
    assert bf16_pays(CPU)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not bf16_pays(CPU)


@pytest.mark.parametrize("capability, pays", [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_graphics_cards(monkeypatch, capability, pays):
    """Older ones compute in bfloat16 too, by way of float32."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert bf16_pays(torch.device("cuda")) is pays
    assert not bf16_pays(torch.device("mps"))


def test_the_measurement():
    before = torch.random.get_rng_state()
    assert 0.01 < bf16_cost(CPU) < 1000
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- what is chosen


@pytest.mark.parametrize(
    "asked, pays, begun, chosen, told",
    [
        ("auto", True, None, "bf16", None),
        ("auto", False, None, "fp32", None),
        ("auto", True, "bf16", "bf16", None),
        ("auto", True, "fp32", "fp32", "begun in fp32 and goes on in it; a new one would compute in bf16 here"),
        ("auto", False, "bf16", "bf16", "begun in bf16 and goes on in it; a new one would compute in fp32 here"),
        ("auto", False, "bf16", "bf16", r"bf16 is slow here, .* take 12\.7 times as long as in float32 \(measured\)"),
        ("bf16", False, None, "bf16", r"bf16 is slow here, .* take 12\.7 times as long as in float32 \(measured\)"),
        ("bf16", True, None, "bf16", None),
        ("fp32", True, None, "fp32", None),
        ("fp32", False, None, "fp32", None),
    ],
)
def test_what_is_chosen(accelerator, monkeypatch, asked, pays, begun, chosen, told):
    monkeypatch.setattr(precision, "bf16_pays", lambda device: pays)
    monkeypatch.setattr(precision, "bf16_cost", lambda device: 12.7)
    lines = []
    assert choose_precision(asked, accelerator, begun, lines.append) == chosen
    assert bool(lines) == (told is not None)
    if told:
        assert re.search(told, "\n".join(lines))


def test_no_warning_where_a_measurement_denies_it(accelerator, monkeypatch):
    monkeypatch.setattr(precision, "bf16_pays", lambda device: False)
    monkeypatch.setattr(precision, "bf16_cost", lambda device: 0.8)
    assert choose_precision("bf16", accelerator, None, lambda line: pytest.fail(line)) == "bf16"


def test_all_processes_compute_in_the_same(accelerator, monkeypatch):
    """One that cannot decides for all."""
    monkeypatch.setattr(precision, "bf16_pays", lambda device: True)
    monkeypatch.setattr(precision, "gather_object", lambda values: [*values, False])
    assert choose_precision("auto", accelerator) == "fp32"


def test_it_is_the_default_and_reaches_the_run(tmp_path, processor, capsys):
    assert RunConfig("out").precision == "auto"
    for text, expected in ((OLD, "no"), ("flags : avx512_bf16\n", "bf16")):
        processor(text)
        assert start(RunConfig(str(tmp_path))).mixed_precision == expected
    processor(OLD, cost=8.0)
    assert start(RunConfig(str(tmp_path), precision="bf16")).mixed_precision == "bf16"
    assert "take 8.0 times as long" in capsys.readouterr().err


def test_a_run_stays_with_what_it_was_begun_in(toy_tokenizer, tmp_path, processor, capsys):
    """On another machine too."""
    base = write_base(toy_tokenizer, "decoder", tmp_path / "base")
    run = settings(base, write_squares(tmp_path / "data"), tmp_path / "run", steps=2, save_every=1)
    processor(OLD)
    finetune(run)
    assert saved_precision(tmp_path / "run" / "state") == "fp32"
    processor("flags : avx512_bf16\n")
    accelerator = start(run)
    assert accelerator.mixed_precision == "no"
    assert "begun in fp32 and goes on in it" in capsys.readouterr().err
    (tmp_path / "run" / "state").rename(tmp_path / "run" / "state.former")  # stopped while it was replaced
    assert start(run).mixed_precision == "no"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"precision": "int1"}', "{"])
def test_a_state_that_does_not_say(tmp_path, content):
    (tmp_path / "step.json").write_text(content)
    assert saved_precision(tmp_path) is None
    (tmp_path / "step.json").write_text(json.dumps({"step": 3, "precision": "bf16"}))
    assert saved_precision(tmp_path) == "bf16"
