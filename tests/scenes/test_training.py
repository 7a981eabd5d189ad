"""Training from scratch: what a run leaves, and that stopped anywhere it goes on to the same weights."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from florence_lite.checkpoint import load_checkpoint
from florence_lite.florence import Florence
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import TextConfig
from florence_lite.model.config import PRESETS
from florence_lite.scenes import CLASSES, training
from florence_lite.scenes.cells import TEXT_CLASS, SceneCollator
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.trainer import ScratchTrainer
from florence_lite.scenes.training import APART, SceneBatches, train
from florence_lite.tokens import Codec
from florence_lite.train import loop
from florence_lite.train.collate import TaskCollator
from florence_lite.train.folders import save_state, saved_step
from tests.tiny import noise_image, tiny_config
from tests.train.stopped import Stopped
from tests.train.unpacked import unpacked

TOKENIZER_SCENES = 3


def small_preset() -> dict:
    """With dropout, so that the random state of a resumed run matters."""
    config = tiny_config("decoder", image_size_wh=(64, 64))
    text = TextConfig(
        vocab_size=1400,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        heads=2,
        ffn_dim=32,
        positions=400,
        dropout=0.1,
    )
    return {"vision": config.vision, "text": text, "image_size_wh": (64, 64), "prompt_side": "decoder"}


def settings(output: Path, **changes) -> TrainConfig:
    values = {"styles": ("openmoji",), "steps": 4, "batch": 2, "warmup": 2, "learning_rate": 1e-3, "vocabulary": 1400}
    values |= {"evaluate_every": 2, "save_every": 1, "seed": 1}
    return TrainConfig(str(output), {"<OD>": 1, "<CAPTION>": 0.5, "<OPEN_VOCABULARY_DETECTION>": 1}, **values | changes)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PRESETS, "nano", small_preset())
    monkeypatch.setattr(training, "TOKENIZER_SCENES", TOKENIZER_SCENES)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of a whole run, and the checkpoints its evaluations were shown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", small_preset())
        patch.setattr(training, "TOKENIZER_SCENES", TOKENIZER_SCENES)
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
        "run.json",
        "run.lock",
        "tokenizer.json",
    }
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    losses = [entry for entry in log if "losses" in entry]
    assert [entry["step"] for entry in losses] == [1, 2, 3, 4]
    assert {"loss", "<OD>", "dense/object", "dense/background", "dense/box"} <= losses[0]["losses"].keys()
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


def test_a_finished_run_stays_as_it_is(uninterrupted, capsys):
    output, _ = uninterrupted
    before = (output / "log.jsonl").read_text()
    assert train(settings(output)) == output / "checkpoint"
    assert "written anew" not in "".join(capsys.readouterr())
    assert (output / "log.jsonl").read_text() == before


def test_fewer_steps_than_were_made(uninterrupted):
    output, _ = uninterrupted
    with pytest.raises(ValueError, match="has made 4 steps already; steps = 3 is less"):
        train(settings(output, steps=3))


def test_a_run_ends_with_its_time_and_goes_on_with_more(tmp_path, monkeypatch, capsys):
    """Each step takes 20 seconds of the minute; the time that was spent counts when the run goes on."""
    rates, adamw = [], torch.optim.AdamW.step

    def read(clock, accelerator):
        clock.seconds += 20

    def step(optimizer, *arguments, **options):
        rates.append(optimizer.param_groups[0]["lr"])
        return adamw(optimizer, *arguments, **options)

    monkeypatch.setattr(loop.Clock, "read", read)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    plan = settings(tmp_path, steps=1000, save_every=100, evaluate_every=100, warmup=0, minutes=1)
    train(plan)
    assert saved_step(tmp_path / "state") == 3
    assert load_checkpoint(tmp_path / "checkpoint")
    assert rates == pytest.approx([plan.learning_rate * share for share in (1, 0.75, 0.25)])
    train(plan)
    assert "has made its 3 steps: nothing is left to train; its time is over; more `minutes`" in capsys.readouterr().out
    train(dataclasses.replace(plan, minutes=5 / 3))
    assert saved_step(tmp_path / "state") == 5
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [3, 5]


# ---- stopped and resumed


def test_stopped_while_writing_and_resumed(uninterrupted, tmp_path, monkeypatch):
    """A run that ends while it writes the state of its third step goes on from the second."""

    def stop_in_the_third(accelerator, folder, step, seconds=0.0):
        if step == 3:
            monkeypatch.setattr(accelerator, "save_state", stop)
        save_state(accelerator, folder, step, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", stop_in_the_third)
        with pytest.raises(Stopped):
            train(settings(tmp_path))
    assert saved_step(tmp_path / "state") == 2
    train(settings(tmp_path))
    assert_same_weights(tmp_path, uninterrupted[0])
    assert load_checkpoint(tmp_path / "checkpoint").config == load_checkpoint(uninterrupted[0] / "checkpoint").config
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines() if "losses" in line]
    assert steps == [1, 2, 3, 4]


def stop(*arguments):
    raise Stopped


@pytest.mark.parametrize("save_every", [1, 2, 3])
def test_stopped_by_an_error_and_resumed(uninterrupted, tmp_path, monkeypatch, save_every):
    """Wherever the last state was saved, before or after an evaluation drew random numbers."""
    forward = ScratchTrainer.forward
    calls = []

    def fail_at_the_fourth(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise Stopped
        return forward(self, *arguments)

    monkeypatch.setattr(ScratchTrainer, "forward", fail_at_the_fourth)
    with pytest.raises(Stopped):
        train(settings(tmp_path, save_every=save_every))
    assert saved_step(tmp_path / "state") == 3 // save_every * save_every
    train(settings(tmp_path, save_every=save_every))
    assert_same_weights(tmp_path, uninterrupted[0])


def test_a_loss_that_is_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(ScratchTrainer, "forward", lambda self, *_: (self.dense.sides.weight.sum() * math.nan, {}))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0; lower learning_rate"):
        train(settings(tmp_path))


# ---- batches


def test_batches_do_not_depend_on_where_a_run_began_nor_on_who_shares_it(toy_tokenizer):
    config = settings(Path("unused"))
    tasks = TaskCollator(Codec(toy_tokenizer), Preprocessor((64, 64)).pixels, config.tasks, (8, 8))
    collate = SceneCollator(tasks, (*CLASSES, TEXT_CLASS))

    def batches(first=0, parts=(range(2),), **changes):
        return SceneBatches(settings(Path("unused"), **changes), collate, (64, 64), first, parts)

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


@pytest.mark.parametrize("first", [0, 70])
def test_scenes_are_shown_again_with_other_rows(toy_tokenizer, first):
    """Whether the process drew the scene before or, as after a resumed run, did not."""
    config = settings(Path("unused"), steps=400, shows=2)
    tasks = TaskCollator(Codec(toy_tokenizer), Preprocessor((64, 64)).pixels, config.tasks, (8, 8))
    collate = SceneCollator(tasks, (*CLASSES, TEXT_CLASS))

    def batches(first=0):
        return SceneBatches(config, collate, (64, 64), first, [range(2)])

    early = batches()
    shown = [early[step][0] for step in (10, 11)]
    assert len(early.kept) == 4
    late = early if not first else batches(first)
    again = [late[step - first][0] for step in (10 + APART, 11 + APART)]
    assert not late.kept
    for one, other in zip(shown, again, strict=True):
        assert torch.equal(one.pixel_values, other.pixel_values)
    assert [answers(each) for each in shown] != [answers(each) for each in again]
    third = late[10 + 2 * APART - first][0]
    assert not torch.equal(third.pixel_values, shown[0].pixel_values)


def answers(batch) -> list[tuple[str, list[int]]]:
    return [(row.task, [id for id in row.labels if id >= 0]) for row in unpacked(batch)]
