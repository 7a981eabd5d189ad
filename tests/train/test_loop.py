"""The training loop: stopped anywhere, it goes on to the same weights."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from florence_lite.checkpoint import load_checkpoint
from florence_lite.florence import Florence
from florence_lite.model.config import PRESETS
from florence_lite.train import folders, scratch
from florence_lite.train.config import TrainConfig
from florence_lite.train.figures import RunningMeans
from florence_lite.train.folders import bring_back, save_state, saved_step
from florence_lite.train.loop import coordinate_sigma, cosine_with_warmup, parameter_groups
from florence_lite.train.scratch import train
from tests.tiny import noise_image
from tests.train.short_run import TOKENIZER_SCENES, settings, small_preset
from tests.train.stopped import Stopped, run_until_killed


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PRESETS, "nano", small_preset())
    monkeypatch.setattr(scratch, "TOKENIZER_SCENES", TOKENIZER_SCENES)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a whole run, and the checkpoints its evaluations were shown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", small_preset())
        patch.setattr(scratch, "TOKENIZER_SCENES", TOKENIZER_SCENES)
        output, shown = tmp_path_factory.mktemp("whole"), []

        def evaluate(folder, device):
            assert device == torch.device("cpu")
            shown.append(load_file(folder / "model.safetensors"))
            return {"f1": 0.5}

        train(settings(output), evaluate)
    return output, shown


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "state" / "model.safetensors")


def assert_same_weights(one: Path, other: Path):
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


# ---- a whole run


def test_a_run_leaves_checkpoint_state_and_log(uninterrupted):
    output, shown = uninterrupted
    assert saved_step(output / "state") == 4
    assert {path.name for path in output.iterdir()} == {
        "checkpoint",
        "best",
        "best.json",
        "state",
        "log.jsonl",
        "tokenizer.json",
    }
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    losses = [entry for entry in log if "losses" in entry]
    assert [entry["step"] for entry in losses] == [1, 2, 3, 4]
    assert {"loss", "<OD>", "dense/class", "dense/box"} <= losses[0]["losses"].keys()
    assert [e["step"] for e in log if e.get("evaluation") == {"f1": 0.5}] == [2, 4]
    assert len(shown) == 2
    assert any(not torch.equal(shown[0][name], shown[1][name]) for name in shown[0])


def test_the_checkpoint_answers(uninterrupted):
    output, _ = uninterrupted
    florence = Florence.from_pretrained(output / "checkpoint")
    assert florence.model.config.prompt_side == "decoder"
    assert florence.model.config.text.vocab_size == florence.tokenizer.vocabulary.size
    assert florence.run(noise_image(0), "<OD>", max_new_tokens=8).token_ids
    assert (
        load_file(output / "checkpoint" / "model.safetensors")["model.language_model.shared.weight"].dtype
        == torch.float16
    )


def test_a_finished_run_stays_as_it_is(uninterrupted):
    output, _ = uninterrupted
    before = (output / "log.jsonl").read_text()
    assert train(settings(output)) == output / "checkpoint"
    assert (output / "log.jsonl").read_text() == before


def test_fewer_steps_than_were_made(uninterrupted):
    output, _ = uninterrupted
    with pytest.raises(ValueError, match="has made 4 steps already; steps = 3 is less"):
        train(settings(output, steps=3))


# ---- stopped and resumed


def test_killed_and_resumed(uninterrupted, tmp_path):
    """A process killed while it writes the state of its third step goes on from the second."""
    run_until_killed("tests.train.short_run", tmp_path)
    assert saved_step(tmp_path / "state") == 2
    train(settings(tmp_path))
    assert_same_weights(tmp_path, uninterrupted[0])
    assert load_checkpoint(tmp_path / "checkpoint").config == load_checkpoint(uninterrupted[0] / "checkpoint").config
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines() if "losses" in line]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize("save_every", [1, 2, 3])
def test_stopped_by_an_error_and_resumed(uninterrupted, tmp_path, monkeypatch, save_every):
    """Wherever the last state was saved, before or after an evaluation drew random numbers."""
    forward = scratch.ScratchTrainer.forward
    calls = []

    def fail_at_the_fourth(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise Stopped
        return forward(self, *arguments)

    monkeypatch.setattr(scratch.ScratchTrainer, "forward", fail_at_the_fourth)
    with pytest.raises(Stopped):
        train(settings(tmp_path, save_every=save_every))
    assert saved_step(tmp_path / "state") == 3 // save_every * save_every
    train(settings(tmp_path, save_every=save_every))
    assert_same_weights(tmp_path, uninterrupted[0])


class Saver:
    """Stands in for accelerate: a state is one file."""

    is_main_process = True

    def wait_for_everyone(self) -> None:
        pass

    def save_state(self, folder: str) -> None:
        (Path(folder) / "model").write_text("whole")


@pytest.mark.parametrize("moves_done", [0, 1, 2])
def test_a_state_is_always_whole(tmp_path, monkeypatch, moves_done):
    """Stopped before, between and behind the two moves that put a new state in the place of the former."""
    folder = tmp_path / "state"
    save_state(Saver(), folder, 5)
    replace, done = Path.replace, []

    def move(source, destination):
        if len(done) == moves_done:
            raise Stopped
        done.append(source)
        return replace(source, destination)

    def stop(*arguments, **options):
        if len(done) == 2:
            raise Stopped

    monkeypatch.setattr(Path, "replace", move)
    if moves_done == 2:
        monkeypatch.setattr(folders.shutil, "rmtree", stop)
    with pytest.raises(Stopped):
        save_state(Saver(), folder, 6)
    monkeypatch.undo()
    bring_back(folder)
    assert saved_step(folder) == (6 if moves_done == 2 else 5)
    assert (folder / "model").read_text() == "whole"
    save_state(Saver(), folder, 7)
    assert saved_step(folder) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_no_state_yet(tmp_path):
    assert saved_step(tmp_path / "state") == 0


def test_a_loss_that_is_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(
        scratch.ScratchTrainer, "forward", lambda self, *_: (self.dense.sides.weight.sum() * math.nan, {})
    )
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0; lower learning_rate"):
        train(settings(tmp_path))


# ---- batches


def test_batches_do_not_depend_on_where_a_run_began_nor_on_who_shares_it(toy_tokenizer):
    config = settings(Path("unused"))
    collate = scratch.TaskCollator(
        scratch.Codec(toy_tokenizer),
        scratch.Preprocessor((64, 64)),
        config.tasks,
        (*scratch.CLASSES, scratch.TEXT_CLASS),
        (8, 8),
    )

    def batches(first=0, parts=(range(2),), **changes):
        return scratch.SceneBatches(settings(Path("unused"), **changes), collate, (64, 64), first, parts)

    whole, rest, halves = batches(), batches(2), batches(parts=(range(1), range(1, 2)))
    assert (len(whole), len(rest)) == (4, 2)
    for (early,), (late,) in ((whole[2], rest[0]), (whole[3], rest[1])):
        assert torch.equal(early.pixel_values, late.pixel_values)
        assert all(torch.equal(a.labels, b.labels) for a, b in zip(early.groups, late.groups, strict=True))
    for step in range(4):
        (one,), parts = whole[step], halves[step]
        assert torch.equal(one.pixel_values, torch.cat([part.pixel_values for part in parts]))
        assert sorted(answers(one)) == sorted(answer for part in parts for answer in answers(part))
        assert one.tokens == sum(part.tokens for part in parts)
    assert not torch.equal(whole[0][0].pixel_values, whole[1][0].pixel_values)
    other = batches(seed=2)
    assert not any(torch.equal(other[0][0].pixel_values, whole[i][0].pixel_values) for i in range(4))


def answers(batch) -> list[tuple[str, list[int]]]:
    return [
        (name, [id for id in row if id >= 0])
        for group in batch.groups
        for image in group.labels.tolist()
        for name, row in zip(group.tasks, image, strict=True)
    ]


# ---- schedules

PLAN = TrainConfig("unused", {"<OD>": 1}, steps=100, warmup=10, sigma_start=16.0, sigma_end=1.0, sigma_share=0.4)


def test_learning_rate():
    factors = [cosine_with_warmup(step, PLAN) for step in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1 and factors[55] == pytest.approx(0.5) and factors[100] == pytest.approx(0)
    assert (np.diff(factors[10:]) < 0).all()
    assert cosine_with_warmup(0, TrainConfig("unused", {"<OD>": 1}, warmup=0)) == 1
    assert cosine_with_warmup(200, PLAN) == pytest.approx(0)


@pytest.mark.parametrize(("step", "sigma"), [(0, 16), (10, 8), (20, 4), (40, 1), (41, 1), (100, 1)])
def test_width_of_coordinate_targets(step, sigma):
    assert coordinate_sigma(step, PLAN) == pytest.approx(sigma)


def test_width_that_never_shrinks():
    assert coordinate_sigma(1, TrainConfig("unused", {"<OD>": 1}, sigma_share=0.0)) == pytest.approx(2.0)


def test_only_matrices_decay():
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2), torch.nn.Linear(2, 2, bias=False))
    module[2].requires_grad_(False)
    decayed, others = parameter_groups(module, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert decayed["params"] == [module[0].weight]
    assert len(others["params"]) == 3


def test_running_means():
    means = RunningMeans()
    means.add({"loss": torch.tensor([1.0]), "<OD>": torch.tensor([5.0, 7.0])})
    means.add({"loss": torch.tensor([2.0]), "<OD>": torch.tensor([9.0])})
    assert means.take() == {"loss": 1.5, "<OD>": 7.0}
    assert means.take() == {}
