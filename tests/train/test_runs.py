"""What must not change the weights of a fine-tuning run, and what a run keeps."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from florence_lite.checkpoint import load_checkpoint
from florence_lite.florence import Florence
from florence_lite.train import loop
from florence_lite.train.config import ValidationConfig
from florence_lite.train.finetuning import finetune
from florence_lite.train.folders import replace_folder, saved_step
from tests.train.squares import settings, write_base, write_squares
from tests.train.stopped import ROOT, losses, run_until_killed

FROZEN = {"freeze_vision": True, "precision": "fp32", "steps": 4, "batch": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def base(request, toy_tokenizer, tmp_path_factory) -> Path:
    return write_base(toy_tokenizer, request.param, tmp_path_factory.mktemp(request.param))


def config_file(path: Path, base: Path, data: Path, output: Path, **changes) -> Path:
    """The run of `settings` as a file."""
    values = dataclasses.asdict(settings(base, data, output, **changes))
    table = [f'path = "{values.pop("data")[0]["path"]}"', "[data.tasks]", '"<OD>" = 1']
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None]
    path.write_text("\n".join([*lines, "[[data]]", *table]))
    return path


def assert_same_run(one: Path, other: Path, **tolerance):
    """Both runs made the same weights, and told the same losses."""
    assert losses(one) == pytest.approx(losses(other), abs=2e-4)
    ours, theirs = (load_checkpoint(output / "checkpoint").state_dict() for output in (one, other))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **tolerance)


# ---- parts, recomputed activations, processes


@pytest.fixture(scope="module")
def plain(base, data, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("plain")
    finetune(settings(base, data, output, steps=4, batch=4, save_every=1, precision="fp32"))
    return output


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"accumulate": 4}, {"gradient_checkpointing": True}])
def test_less_memory_for_the_same_weights(base, data, plain, tmp_path, changes):
    finetune(settings(base, data, tmp_path, steps=4, batch=4, save_every=1, precision="fp32", **changes))
    assert_same_run(tmp_path, plain, rtol=1e-3, atol=5e-4)


def test_recomputed_activations_are_not_kept(base, data):
    """Of all blocks, the vision tower's too, only what goes in is kept for the backward pass."""
    model = load_checkpoint(base).train()

    def kept() -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model.encode_image(torch.zeros(1, 3, 48, 64)).sum().backward()
        return sum(sizes)

    before = kept()
    loop.recompute_activations(model)
    assert kept() < 0.5 * before


def test_two_processes(base, data, plain, tmp_path):
    """Two processes share every batch (by gloo) and come to the weights and losses of one."""
    path = config_file(
        tmp_path / "run.toml", base, data, tmp_path / "run", steps=4, batch=4, save_every=1, precision="fp32"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    done = subprocess.run(
        [*launch, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "florence_lite", "train", path],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", plain, rtol=1e-3, atol=5e-4)
    assert len(list((tmp_path / "run" / "state").glob("random_states_*.pkl"))) == 2


def test_a_batch_that_cannot_be_shared(base, data, tmp_path):
    class Accelerator:
        num_processes, process_index = 3, 1

    with pytest.raises(ValueError, match="batch = 4 cannot be shared evenly by 3 processes in accumulate = 2 parts"):
        loop.shares(settings(base, data, tmp_path, batch=4, accumulate=2), Accelerator)
    twelve = settings(base, data, tmp_path, batch=12, accumulate=2)
    assert loop.shares(twelve, Accelerator) == [range(4, 6), range(6, 8)]


# ---- killed


@pytest.mark.parametrize("step", [1, 2, 4])
def test_killed_at_any_step(toy_tokenizer, data, tmp_path, step):
    """With dropout, so that the random state of a resumed run matters."""
    base = write_base(toy_tokenizer, "encoder", tmp_path / "base", dropout=0.1)
    whole, part = (
        settings(base, data, tmp_path / name, steps=4, save_every=2, crops=0.5, evaluate_every=3)
        for name in ("whole", "part")
    )
    finetune(whole)
    path = config_file(
        tmp_path / "run.toml", base, data, tmp_path / "part", steps=4, save_every=2, crops=0.5, evaluate_every=3
    )
    run_until_killed("tests.train.squares", path, step)
    assert saved_step(tmp_path / "part" / "state") == (step - 1) // 2 * 2
    finetune(part)
    assert_same_run(tmp_path / "part", tmp_path / "whole", rtol=0, atol=0)


@pytest.mark.parametrize("name", ["state", "checkpoint", "best"])
def test_a_folder_that_was_moved_away_when_the_run_was_killed_is_brought_back(base, data, tmp_path, name):
    validation = ValidationConfig(str(data), ("<OD>",), count=1, metric="<OD>/ap50")
    run = settings(base, data, tmp_path, steps=1, validation=validation)
    finetune(run)
    folder = tmp_path / name
    files = {path.name for path in folder.iterdir()}
    folder.rename(tmp_path / f"{name}.former")
    finetune(run)
    assert files and {path.name for path in folder.iterdir()} == files
    assert not (tmp_path / f"{name}.former").exists()


# ---- a full disk


@contextmanager
def full_disk(room: int):
    """No file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_that_cannot_be_written_leaves_the_former_whole(tmp_path):
    folder = tmp_path / "state"
    replace_folder(folder, lambda partial: (partial / "a").write_text("former"))

    def too_much(partial: Path) -> None:
        (partial / "a").write_text("new")
        torch.save(torch.zeros(10**6), partial / "b")

    with (
        full_disk(10**6),
        pytest.raises(OSError, match=r"state could not be written \(.*MiB are free there. What was saved before is"),
    ):
        replace_folder(folder, too_much)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert [path.read_text() for path in folder.iterdir()] == ["former"]
    replace_folder(folder, too_much)
    assert (folder / "a").read_text() == "new"


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(base, data, tmp_path, monkeypatch):
    run = settings(base, data, tmp_path / "run", steps=4, save_every=1, precision="fp32")
    finetune(dataclasses.replace(run, steps=2, warmup=1))
    save_state = loop.save_state

    def save_on_a_full_disk(*arguments):
        with full_disk(10_000):
            save_state(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", save_on_a_full_disk)
        with pytest.raises(OSError, match="state could not be written"):
            finetune(run)
    assert saved_step(tmp_path / "run" / "state") == 2
    assert load_checkpoint(tmp_path / "run" / "checkpoint")
    finetune(run)
    assert saved_step(tmp_path / "run" / "state") == 4


# ---- features of a frozen tower


@pytest.fixture(scope="module")
def computed(base, data, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("computed")
    finetune(settings(base, data, output, save_every=1, **FROZEN))
    return output


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_kept_features(base, data, computed, tmp_path, where, monkeypatch):
    """The tower sees each image twice, as it is and mirrored, and never again; the weights are the same."""
    run = settings(base, data, tmp_path, save_every=1, features=where, **FROZEN)
    finetune(run)
    assert_same_run(tmp_path, computed, rtol=1e-3, atol=5e-4)
    assert (tmp_path / "features").exists() == (where == "disk")
    if where == "disk":
        monkeypatch.setattr("florence_lite.train.features._fill", None)  # a second time would be an error
        finetune(dataclasses.replace(run, steps=5))


def test_adapters_with_kept_features(base, data, tmp_path):
    pytest.importorskip("peft")
    folder = finetune(settings(base, data, tmp_path, lora_rank=2, features="memory"))
    assert Florence.from_pretrained(folder).run(data / "0.png", "<OD>", max_new_tokens=8).token_ids


# ---- the best checkpoint


def test_the_best_checkpoint_is_kept(base, data, tmp_path, monkeypatch):
    merits = iter([0.2, None, 0.5, 0.4])
    monkeypatch.setattr(
        "florence_lite.train.validation.Validation.metrics", lambda self, folder, device: {"<OD>/ap50": next(merits)}
    )
    validation = ValidationConfig(str(data), ("<OD>",), metric="<OD>/ap50")
    shown = []
    replace = loop.replace_folder

    def watched(folder, write):
        replace(folder, write)
        shown.append(load_checkpoint(folder).state_dict())

    monkeypatch.setattr(loop, "replace_folder", watched)
    finetune(settings(base, data, tmp_path, steps=4, evaluate_every=1, validation=validation))
    told = json.loads((tmp_path / "best.json").read_text())
    assert told == {"step": 3, "merit": 0.5, "metrics": {"<OD>/ap50": 0.5}}
    best = load_checkpoint(tmp_path / "best").state_dict()
    assert all(torch.equal(best[name], shown[2][name]) for name in best)
    assert not all(torch.equal(best[name], shown[3][name]) for name in best)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["evaluation"]["<OD>/ap50"] for entry in log if "evaluation" in entry] == [0.2, None, 0.5, 0.4]


def test_validation(base, data, tmp_path):
    validation = {"path": str(data), "tasks": ["<OD>"], "count": 2}
    finetune(settings(base, data, tmp_path, validation=validation))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"<OD>/ap", "<OD>/ap50", "<OD>/label_f1"} <= log[0]["evaluation"].keys()
    assert Florence.from_pretrained(tmp_path / "best")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"tasks": ["<OCR>"], "metric": "<OCR>/ap"},
            ValueError,
            r"metric = '<OCR>/ap' is not measured; choose from \['",
        ),
        ({"tasks": "<OD>"}, ValueError, "tasks = '<OD>' must be a list of markers"),
        ({"tasks": ["<COUNT>"]}, ValueError, "<COUNT>"),
        ({"path": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"count": 0}, ValueError, "count = 0 must be a whole number"),
        ({"tasks": ["<CAPTION>"]}, ValueError, "holds nothing that <CAPTION>/.* could be measured on"),
        ({"tasks": ["<OD>", "<OCR>"], "metric": "<OCR>/cer"}, ValueError, "holds nothing that <OCR>/cer"),
        ({"colour": "red"}, ValueError, r"unknown field 'colour'"),
    ],
)
def test_validation_that_cannot_be_done_is_told_before_training(base, data, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        finetune(settings(base, data, tmp_path, validation={"path": str(data), "tasks": ["<OD>"]} | changes))
    assert not (tmp_path / "checkpoint").exists()


# ---- trackers


def test_tensorboard_gets_the_figures_where_it_is_installed(base, data, tmp_path):
    pytest.importorskip("tensorboard")
    finetune(settings(base, data, tmp_path))
    assert list(tmp_path.rglob("events.out.tfevents.*"))
