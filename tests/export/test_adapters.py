"""A LoRA fine-tune is exported like any checkpoint, whether its adapter is merged or not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from florence_lite import Florence, tasks
from florence_lite.export import export
from florence_lite.export.runner import Runner
from florence_lite.train.finetuning import finetune
from tests.cli.conftest import command  # noqa: F401  a fixture
from tests.tiny import noise_image, tiny_florence
from tests.train.squares import settings, write_squares

for package, extra in (("onnx", "export"), ("onnxscript", "export"), ("onnxruntime", "export"), ("peft", "train")):
    pytest.importorskip(package, reason=f"the extra {extra} is not installed")


@pytest.fixture(scope="module")
def base(toy_tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "base"
    tiny_florence(toy_tokenizer, "encoder").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base) -> Path:
    """Of a short training on `base`: the folder holds the adapter alone."""
    data = write_squares(base.parent / "data")
    return finetune(settings(base, data, base.parent / "run", lora_rank=4, steps=4))


def answers(ask: Callable[[str], list[int]]) -> dict[str, list[int]]:
    """The ids that are answered to every task without input."""
    return {card.name: ask(card.name) for card in tasks() if card.input == "none"}


def check_answers(florence: Florence, base: Path, folder: Path) -> None:
    """Those of the exported folder are those of the fine-tune, which are not those that it began with."""
    picture, untrained, exported = noise_image(1), Florence.from_pretrained(base), Runner(folder, 1)
    before, tuned = (
        answers(lambda name, asked=asked: list(asked.run(picture, name, constrained=False, num_beams=1).token_ids))
        for asked in (untrained, florence)
    )
    assert answers(lambda name: exported.ask(picture, name)[0].ids) == tuned
    assert all(tuned[name] != before[name] for name in tuned) and max(map(len, tuned.values())) > 8


def test_the_folder_of_an_adapter(base, adapter, tmp_path, command):  # noqa: F811
    code, out, err = command("export", "--checkpoint", adapter, "--output", tmp_path / "out")
    assert code == 0 and "have the same ids as the checkpoint's" in out, err
    check_answers(Florence.from_pretrained(adapter), base, tmp_path / "out")


def test_a_merged_checkpoint(base, adapter, tmp_path):
    Florence.from_pretrained(base, adapter=adapter).save_pretrained(tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    export(Florence.from_pretrained(tmp_path / "merged"), tmp_path / "out")
    check_answers(Florence.from_pretrained(adapter), base, tmp_path / "out")


def test_a_network_with_an_adapter_inside(base, tmp_path):
    import peft

    torch.manual_seed(0)
    florence = Florence.from_pretrained(base)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.inject_adapter_in_model(lora, florence.model.eval())
    export(florence, tmp_path / "out")
    check_answers(florence, base, tmp_path / "out")
