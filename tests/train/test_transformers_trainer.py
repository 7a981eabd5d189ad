"""The example that fine-tunes with transformers.Trainer runs, learns, and leaves a checkpoint that answers."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from florence_lite.florence import Florence
from tests.train.squares import write_base, write_squares

pytest.importorskip("transformers")
EXAMPLE = Path(__file__).parents[2] / "examples" / "transformers_trainer.py"


@pytest.mark.parametrize("prompt_side", ["encoder", "decoder"])
def test_the_loss_falls_and_the_checkpoint_answers(prompt_side, toy_tokenizer, tmp_path, monkeypatch, capsys):
    data, output = write_squares(tmp_path / "data"), tmp_path / "output"
    base = write_base(toy_tokenizer, prompt_side, tmp_path / "base")
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, str(data), str(output), "--steps", "60", "--checkpoint", str(base)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")

    out = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"'loss': '?([0-9.]+)", out)]
    assert len(losses) == 6 and losses[-1] < 0.92 * losses[0], out
    assert out.splitlines()[-1].startswith("0.png: ")
    before, after = Florence.from_pretrained(base), Florence.from_pretrained(output)
    assert after.tokenizer.to_json() == before.tokenizer.to_json()
    assert not torch.equal(after.model.embed_tokens.weight, before.model.embed_tokens.weight)
    assert after.run(data / "0.png", "<OD>", max_new_tokens=8).token_ids
