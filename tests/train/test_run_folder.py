"""A run folder: it knows what its run was started with, lets one run at a time in, and notices what is damaged."""

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from florence_lite.checkpoint import load_checkpoint
from florence_lite.train import record
from florence_lite.train.config import DataConfig, FineTuneConfig, RunConfig, ValidationConfig
from florence_lite.train.finetuning import finetune
from florence_lite.train.folders import is_begun, whole_state
from florence_lite.train.record import FIXED, FREE, TOLD, changes_between, described
from tests.train.squares import settings, write_base, write_squares


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def base(toy_tokenizer, tmp_path_factory) -> Path:
    return write_base(toy_tokenizer, "decoder", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def finished(base, data, tmp_path_factory) -> Path:
    """The folder of a run of two steps."""
    output = tmp_path_factory.mktemp("finished")
    finetune(settings(base, data, output, steps=2))
    return output


@pytest.fixture
def run(base, data, finished, tmp_path) -> FineTuneConfig:
    """The same run in a folder of its own, to go on to a third step."""
    shutil.copytree(finished, tmp_path / "run")
    return settings(base, data, tmp_path / "run", steps=3)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def changed(run: FineTuneConfig, **values) -> FineTuneConfig:
    return dataclasses.replace(run, **values)


# ---- what it was started with


def other_annotations(data: Path, folder: Path) -> Path:
    """The same pictures, one box moved by a pixel."""
    shutil.copytree(data, folder)
    content = json.loads((folder / "instances.json").read_text())
    content["annotations"][3]["bbox"][0] += 1
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"learning_rate": 1e-3},
            r"learning_rate was 0.003, now 0.001\. Change it back, give this run another `output`",
        ),
        ({"seed": 4}, "seed was 0, now 4"),
        ({"batch": 6}, "batch was 3, now 6"),
        ({"validation": ValidationConfig("DATA", ("<OD>",))}, r"validation.tasks was absent, now \[\"<OD>\"\]"),
        ({"data": (DataConfig("DATA", {"<OD>": 2}),)}, r"data\[0\].tasks was \{\"<OD>\": 1\}, now \{\"<OD>\": 2\}"),
        ({"data": (DataConfig("DATA", {"<OD>": 1}), DataConfig("DATA", {"<OD>": 1}))}, r"data\[1\].tasks was absent"),
        ({"data": (DataConfig("OTHER", {"<OD>": 1}),)}, r"data\[0\].content was \"6 images, \w+\", now \"6 images"),
        ({"data": (DataConfig("FEWER", {"<OD>": 1}),)}, r"data\[0\].content was \"6 images, \w+\", now \"5 images"),
    ],
    ids=["rate", "seed", "batch", "validation", "tasks", "more", "annotations", "images"],
)
def test_another_run_is_refused_or_goes_on_when_asked(run, data, tmp_path, capsys, values, message):
    places = {"DATA": data, "OTHER": tmp_path / "other", "FEWER": tmp_path / "fewer"}
    other_annotations(data, places["OTHER"])
    write_squares(places["FEWER"], images=5)
    if "data" in values:
        values = {"data": tuple(dataclasses.replace(each, path=str(places[each.path])) for each in values["data"])}
    if "validation" in values:
        values = {"validation": dataclasses.replace(values["validation"], path=str(data))}
    before = files(Path(run.output))
    with pytest.raises(ValueError, match=message):
        finetune(changed(run, **values))
    assert files(Path(run.output)) == before

    finetune(changed(run, **values), continue_with_changes=True)
    assert "goes on with a change" in capsys.readouterr().out
    noted = json.loads((Path(run.output) / "run.json").read_text())
    assert len(noted["changes"]) >= 2  # steps as well
    capsys.readouterr()
    finetune(changed(run, **values))  # it is that run now
    assert "change" not in capsys.readouterr().out


def test_what_the_weights_do_not_fit_is_refused_even_when_asked(run, base, tmp_path, toy_tokenizer):
    shutil.copytree(base, tmp_path / "same")
    finetune(changed(run, checkpoint=str(tmp_path / "same")))  # elsewhere, but the same
    other = write_base(toy_tokenizer, "decoder", tmp_path / "other", dropout=0.1)
    weights = load_checkpoint(other)
    weights.embed_tokens.weight.data[5, 3] += 1
    from florence_lite.florence import Florence

    Florence(weights, toy_tokenizer).save_pretrained(other)
    for values, name in (
        ({"lora_rank": 2}, "lora_rank was 0, now 2"),
        ({"freeze_vision": True}, "freeze_vision was false, now true"),
        ({"checkpoint": str(other)}, "checkpoint.content was"),
    ):
        with pytest.raises(ValueError, match=f"its weights fit nothing else: {name}.* Give this run another `output`"):
            finetune(changed(run, **values), continue_with_changes=True)


def test_what_changes_nothing_that_is_learned_may_change(run, data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "moved")
    free = {"workers": 2, "save_every": 1, "evaluate_every": 7, "accumulate": 3, "gradient_checkpointing": True}
    finetune(changed(run, **free, data=(DataConfig(str(tmp_path / "moved"), {"<OD>": 1}),)))
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("the run goes on with")] == [
        "the run goes on with a change: steps was 2, now 3"
    ]


def test_a_run_that_made_no_step_may_be_changed(run):
    output = Path(run.output)
    shutil.rmtree(output)
    with pytest.raises(FloatingPointError):
        finetune(changed(run, learning_rate=1e30, warmup=0, steps=8))
    assert (output / "state" / "step.json").is_file() and not is_begun(output)
    finetune(run)
    assert json.loads((output / "run.json").read_text())["settings"]["learning_rate"] == 3e-3


@pytest.mark.parametrize("damage", [None, "", '{"settings": {', "[]", '{"settings": 3, "changes": []}', "[" * 99_999])
def test_a_folder_without_a_whole_record(run, capsys, damage):
    """As older versions left it, or damaged."""
    file = Path(run.output) / "run.json"
    file.unlink() if damage is None else file.write_text(damage)
    with pytest.raises(ValueError, match="run.json"):
        finetune(run)
    if damage is None or len(damage) < 100:
        finetune(run, continue_with_changes=True)
        assert "is not known; it goes on as it is configured now" in capsys.readouterr().out
        assert json.loads(file.read_text())["settings"]["steps"] == 3


def test_the_groups_of_settings_name_fields():
    from florence_lite.scenes.config import TrainConfig

    known = {field.name for cls in (FineTuneConfig, TrainConfig) for field in dataclasses.fields(cls)}
    assert known >= FREE | TOLD | FIXED and not FREE & TOLD and not FREE & FIXED and not TOLD & FIXED


def test_a_field_that_the_record_does_not_know_had_its_default():
    config = RunConfig("run")
    former = described(config, {})
    del former["weight_decay"]
    former["gone"] = 3
    assert changes_between(former, described(config, {}), config) == []
    [change] = changes_between(former, described(RunConfig("run", weight_decay=0.5), {}), config)
    assert str(change) == "weight_decay was 0.05, now 0.5"


# ---- one run at a time


def test_a_second_run_in_the_folder_is_refused(run, monkeypatch):
    monkeypatch.setattr(record, "LOCK_WAIT", 0.05)
    before = files(Path(run.output))
    with (
        FileLock(Path(run.output) / "run.lock"),
        pytest.raises(ValueError, match="another run is working in .* or give this one another `output`"),
    ):
        finetune(run)
    assert files(Path(run.output)) == before
    with pytest.raises(ValueError, match="started otherwise"):
        finetune(changed(run, seed=5))
    finetune(run)  # neither the run that has ended nor the one that was refused holds it


def test_a_dead_run_holds_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "LOCK_WAIT", 0.05)
    held = (
        "import os, signal, sys; from filelock import FileLock; FileLock(sys.argv[1]).acquire(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", held, tmp_path / "run.lock"], check=False).returncode == -9

    class One:
        is_main_process, num_processes = True, 1

    with record.run_folder(RunConfig(str(tmp_path)), One()):
        pass


# ---- damaged states

STATE = ("model.safetensors", "optimizer.bin", "random_states_0.pkl", "step.json")
DAMAGES = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-7]),
    "changed": lambda file: file.write_bytes(file.read_bytes()[:-7] + b"\0" * 7),
    "hostile": lambda file: file.write_bytes(pickle.dumps(Touch(file.parent / "touched"))),
    "folder": lambda file: (file.unlink(), file.mkdir()),
}


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", STATE)
def test_a_damaged_state_is_named_with_the_remedy(run, name, damage):
    state = Path(run.output) / "state"
    assert {path.name for path in state.iterdir()} == set(STATE)
    damage(state / name)
    with pytest.raises(ValueError, match=rf"{name} .*: the run cannot go on. Put the file back .* `checkpoint`"):
        whole_state(state)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        '{"step": -1}',
        '{"step": "2"}',
        '{"step": 1e9}',
        '{"files": {}}',
        '{"step": 2, "files": {"../a": "b"}}',
    ],
)
def test_a_step_that_is_none(run, text):
    state = Path(run.output) / "state"
    (state / "step.json").write_text(text)
    with pytest.raises(ValueError, match="step.json .*: the run cannot go on"):
        whole_state(state)


@pytest.mark.parametrize("left", ["checkpoint", "log.jsonl"])
def test_a_lost_state_is_no_new_beginning(run, left):
    output = Path(run.output)
    for name in {"checkpoint", "log.jsonl", "state"} - {left}:
        path = output / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    before = files(output)
    with pytest.raises(ValueError, match="state/step.json is missing: the run cannot go on"):
        finetune(run)
    assert files(output) == before


@pytest.mark.filterwarnings("ignore:Detected pickle")
@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl"])
def test_no_code_of_a_state_is_run(run, name):
    """Even where the digests were made to fit, or an older version noted none."""
    state = Path(run.output) / "state"
    DAMAGES["hostile"](state / name)
    (state / "step.json").write_text('{"step": 2}')
    with pytest.raises(ValueError, match=r"does not fit \(a file .* holds more than numbers\): the run cannot go on"):
        finetune(run)
    assert not (state / "touched").exists()


def test_a_random_state_that_is_not_there_is_told(run, capsys):
    state = Path(run.output) / "state"
    (state / "random_states_0.pkl").unlink()
    (state / "step.json").write_text('{"step": 2}')
    finetune(run)
    assert "no random state for it in" in capsys.readouterr().out


# ---- the other files


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "log.jsonl is missing or empty"),
        ("", "log.jsonl is missing or empty"),
        ('{"step": 1, "losses": {"loss": 3}}\n{"step": 2, "los', "1 lines behind step 2, or damaged, are left out"),
        ('{"step": 2, "losses": {"loss": 3}}\n{"step": 3, "losses": {}}\n[]\n\udc80\n', "3 lines behind step 2"),
    ],
)
def test_a_damaged_log(run, capsys, text, told):
    file = Path(run.output) / "log.jsonl"
    file.unlink() if text is None else file.write_bytes(text.encode(errors="surrogateescape"))
    finetune(run)
    assert told in capsys.readouterr().out
    steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 3


def test_a_finished_run_says_so_and_writes_its_checkpoint_again(finished, base, data, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    run, before = settings(base, data, tmp_path / "run", steps=2), files(finished / "checkpoint")
    assert finetune(run) == tmp_path / "run" / "checkpoint"
    out = capsys.readouterr().out
    assert f"the run in {run.output} has made its 2 steps: nothing is left to train" in out and "anew" not in out
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        DAMAGES["cut"](tmp_path / "run" / "checkpoint" / name)
        finetune(run)
        assert "is written anew from the state" in capsys.readouterr().out
        assert files(tmp_path / "run" / "checkpoint") == before
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    finetune(run)
    assert files(tmp_path / "run" / "checkpoint") == before
    with pytest.raises(ValueError, match="has made 2 steps already; steps = 1 is less"):
        finetune(changed(run, steps=1))


BEST_DAMAGES = {
    "no-record": lambda output: (output / "best.json").unlink(),
    "cut-record": lambda output: DAMAGES["cut"](output / "best.json"),
    "empty-record": lambda output: DAMAGES["empty"](output / "best.json"),
    "hostile-record": lambda output: (output / "best.json").write_text('{"step": 1, "merit": "inf"}'),
    "words-for-figures": lambda output: (output / "best.json").write_text(
        '{"step": 1, "merit": 0.9, "metrics": {"<OD>/ap": "high"}}'
    ),
    "no-folder": lambda output: shutil.rmtree(output / "best"),
    "no-weights": lambda output: (output / "best" / "model.safetensors").unlink(),
    "cut-weights": lambda output: DAMAGES["cut"](output / "best" / "model.safetensors"),
    "empty-config": lambda output: DAMAGES["empty"](output / "best" / "config.json"),
    "no-tokenizer": lambda output: (output / "best" / "tokenizer.json").unlink(),
    "no-image-statistics": lambda output: (output / "best" / "preprocessor_config.json").unlink(),
}


@pytest.mark.parametrize("damage", BEST_DAMAGES.values(), ids=BEST_DAMAGES.keys())
@pytest.mark.parametrize("steps", [2, 3])
def test_a_damaged_best_is_told_and_decided_anew(base, data, tmp_path, monkeypatch, capsys, damage, steps):
    """Of a finished run, and of one that goes on: the next checkpoint becomes the best, though its merit is less."""
    merits = iter([0.9, 0.5])
    monkeypatch.setattr(
        "florence_lite.train.validation.Validation.metrics", lambda self, folder, device: {"<OD>/ap": next(merits)}
    )
    run = settings(base, data, tmp_path, steps=2, validation=ValidationConfig(str(data), ("<OD>",)))
    assert finetune(run) == tmp_path / "best"
    assert f"the best is that of step 2, <OD>/ap 0.900: {tmp_path / 'best'}" in capsys.readouterr().out
    damage(tmp_path)
    assert finetune(changed(run, steps=steps)) == tmp_path / "best"
    assert "the next evaluation decides anew which checkpoint is the best" in capsys.readouterr().out
    assert json.loads((tmp_path / "best.json").read_text())["merit"] == 0.5
    assert load_checkpoint(tmp_path / "best")
