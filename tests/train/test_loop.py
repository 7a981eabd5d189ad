"""The training loop: its states are always whole, and its schedules."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from florence_lite.train import folders
from florence_lite.train.config import RunConfig
from florence_lite.train.folders import bring_back, save_state, saved_step
from florence_lite.train.log import RunningMeans
from florence_lite.train.loop import Clock, coordinate_sigma, cosine_with_warmup, parameter_groups
from tests.train.stopped import Stopped

# ---- states


class Saver:
    """Stands in for accelerate: a state is one file."""

    is_main_process, mixed_precision = True, "no"

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
    with pytest.raises(ValueError, match="step.json is missing: the run cannot go on. Put the file back"):
        saved_step(tmp_path / "state")


# ---- schedules

PLAN = RunConfig("unused", steps=100, warmup=10, sigma_start=16.0, sigma_end=1.0, sigma_share=0.4)


def test_learning_rate():
    factors = [cosine_with_warmup(step, PLAN) for step in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1 and factors[55] == pytest.approx(0.5) and factors[100] == pytest.approx(0)
    assert (np.diff(factors[10:]) < 0).all()
    assert cosine_with_warmup(0, RunConfig("unused", warmup=0)) == 1
    assert cosine_with_warmup(200, PLAN) == pytest.approx(0)


def test_schedules_end_with_the_time_where_it_is_short():
    plan = dataclasses.replace(PLAN, minutes=2)
    assert Clock(PLAN, 10**6).place(7) == 7 and not Clock(PLAN, 10**6).is_over(99) and Clock(PLAN, 0).is_over(100)
    assert Clock(plan, 60).place(7) == 50 and Clock(plan, 60).place(70) == 70  # the farther of the two
    assert Clock(plan, 60).left() == 60 and Clock(PLAN, 60).left() == float("inf")
    assert Clock(plan, 120).is_over(7) and not Clock(plan, 119).is_over(7)
    assert cosine_with_warmup(3, plan, 55) == pytest.approx(0.4 * 0.5)  # the warm-up is counted in steps
    assert cosine_with_warmup(90, plan, 100) == pytest.approx(0)


@pytest.mark.parametrize(("step", "sigma"), [(0, 16), (10, 8), (20, 4), (40, 1), (41, 1), (100, 1)])
def test_width_of_coordinate_targets(step, sigma):
    assert coordinate_sigma(step, PLAN) == pytest.approx(sigma)


def test_width_that_never_shrinks():
    assert coordinate_sigma(1, RunConfig("unused", sigma_share=0.0)) == pytest.approx(2.0)


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
