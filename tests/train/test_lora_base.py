"""LoRA at the size of Florence-2 base, on random weights: the mechanics, not what it learns. Takes minutes."""

import pytest
import torch

from florence_lite.checkpoint import load_checkpoint
from florence_lite.florence import Florence
from florence_lite.model import FlorenceConfig, FlorenceModel
from florence_lite.train.finetuning import finetune
from tests.engine.models import enliven
from tests.train.squares import settings, write_squares
from tests.train.stopped import losses


@pytest.mark.slow
def test_adapters_at_base_size(toy_tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    data = write_squares(tmp_path / "data", images=2)
    torch.manual_seed(0)
    model = FlorenceModel(FlorenceConfig.preset("base"))
    enliven(model, 2, None)
    Florence(model, toy_tokenizer).save_pretrained(tmp_path / "base")
    del model
    run = settings(
        tmp_path / "base",
        data,
        tmp_path / "run",
        steps=6,
        batch=2,
        save_every=1,
        lora_rank=8,
        lora_targets=("q_proj", "v_proj", "fc1"),
        learning_rate=1e-3,
        features="memory",
        flips=0.0,
    )
    folder = finetune(run)

    curve = losses(tmp_path / "run")
    assert curve[-1] < 0.9 * curve[0]

    before, merged = load_checkpoint(tmp_path / "base"), Florence.from_pretrained(folder)
    changed = {
        name for name, tensor in merged.model.state_dict().items() if not torch.equal(tensor, before.state_dict()[name])
    }
    targets = ("q_proj.weight", "v_proj.weight", "fc1.weight")
    assert changed and all(name.startswith(("encoder", "decoder")) and name.endswith(targets) for name in changed)
    assert (folder / "adapter_model.safetensors").stat().st_size < 0.02 * sum(
        path.stat().st_size for path in (tmp_path / "base").glob("*.safetensors")
    )

    unmerged = Florence(peft.PeftModel.from_pretrained(before, folder).eval(), toy_tokenizer)
    merged.save_pretrained(tmp_path / "saved")
    loaded = Florence.from_pretrained(tmp_path / "saved")
    answers = [each.run(data / "0.png", "<OD>", max_new_tokens=12) for each in (merged, unmerged, loaded)]
    assert len(answers[0].token_ids) > 2
    assert answers[0].token_ids == answers[1].token_ids == answers[2].token_ids
    assert answers[0].token_logprobs == pytest.approx(answers[1].token_logprobs, abs=1e-3)
