"""What `florence-lite train` prints, and what it says about mistakes of a configuration and changed ones."""

import dataclasses
import json
from pathlib import Path

import pytest

from florence_lite import cli
from florence_lite.train.config import FineTuneConfig
from tests.train.squares import write_base, write_squares

RUN = """
output = "{output}"
checkpoint = "{base}"
steps = 3
batch = 3
warmup = 1
evaluate_every = 2
learning_rate = {rate}
[[data]]
path = "{data}"
[data.tasks]
"<OD>" = 1
[validation]
path = "{data}"
tasks = ["<OD>"]
metric = "{metric}"
"""


@pytest.fixture
def train(capsys, toy_tokenizer, tmp_path):
    """Runs `florence-lite train`; returns exit code, standard output and standard error."""
    data = write_squares(tmp_path / "photos", images=4)
    content = json.loads((data / "instances.json").read_text())
    content["annotations"].append({"id": 9, "image_id": 0, "category_id": 1, "bbox": [5, 5, 0, 3]})  # has no area
    (data / "instances.json").write_text(json.dumps(content))
    base = write_base(toy_tokenizer, "decoder", tmp_path / "base")

    def call(*options, rate=1e-3, metric="<OD>/ap50", output="run") -> tuple[int, str, str]:
        file = tmp_path / "run.toml"
        file.write_text(RUN.format(output=tmp_path / output, base=base, data=data, rate=rate, metric=metric))
        with pytest.raises(SystemExit) as ended:
            cli.app(["train", str(file), *options], prog_name="florence-lite")
        return (ended.value.code or 0, *capsys.readouterr())

    return call


def test_a_log_has_the_data_the_steps_the_result_and_the_folder_to_go_on_with(train, tmp_path, monkeypatch):
    merits = iter([0.5, 0.25])

    def metrics(self, folder: Path, device):
        print("a metric's own words")
        return {"<OD>/ap": 0.1, "<OD>/ap50": next(merits)}

    monkeypatch.setattr("florence_lite.train.validation.Validation.metrics", metrics)
    code, out, err = train()
    told, lines = f"data set {tmp_path / 'photos'}: ", out.splitlines()
    assert code == 0 and "a metric's own words" in err
    summary = [line for line in lines if line.startswith(told)]
    assert "4 images" in summary[0] and f"{told}left out or repaired: 1 × box left out" in summary
    assert f"{told}images that teach <OD>: 3" in summary  # of the fourth, something was not understood
    measured = [line for line in lines if line.startswith("validation: ")]
    assert "4 images" in measured[0] and "validation: left out or repaired: 1 × box left out" in measured
    lines = lines[len(summary) + len(measured) :]
    assert [line.split(",")[0] for line in lines[:-2]] == [
        "step 1 of 3",
        "step 2 measured: <OD>/ap 0.100",
        "step 3 of 3",
        "step 3 measured: <OD>/ap 0.100",
    ]
    assert "the best so far" in lines[1] and "the best so far" not in lines[3]
    assert lines[-2] == f"trained 3 steps; the best is that of step 2, <OD>/ap50 0.500: {tmp_path / 'run' / 'best'}"
    assert lines[-1] == str(tmp_path / "run" / "best")


def test_a_changed_configuration_goes_on_only_when_asked(train):
    assert train()[0] == 0
    code, out, err = train(rate=0.5)
    assert code == 2 and "learning_rate was 0.001, now 0.5. Change it back" in err and "--continue-with-changes" in err
    code, out, _ = train("--continue-with-changes", rate=0.5)
    assert code == 0 and "the run goes on with a change: learning_rate was 0.001, now 0.5" in out


def test_a_metric_that_is_not_measured_is_told_with_file_and_field(train, tmp_path):
    code, out, err = train(metric="<OD>/ap5")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'run.toml'}: [validation] metric = '<OD>/ap5' is not measured; choose")


def test_an_output_whose_name_is_too_long(train):
    code, _, err = train(output=300 * "x")
    assert code == 2 and "error: output = /" in err and "is too long for the file system; give a shorter one" in err


def test_an_output_that_is_a_file(train, tmp_path):
    (tmp_path / "run").write_text("mine")
    code, _, err = train()
    assert code == 2 and "is a file; it must be the folder of a run" in err
    assert (tmp_path / "run").read_text() == "mine"


def test_continuing_is_no_field_of_a_configuration():
    """There it would stay, and the next change would be mixed in silence."""
    from florence_lite.train import FineTuneConfig

    assert "continue_with_changes" not in {field.name for field in dataclasses.fields(FineTuneConfig)}


def test_a_field_of_the_data_at_the_top_is_told_where_it_stands(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('shorten = true\noutput = "runs/a"\ncheckpoint = "scenes-nano"\n')
    with pytest.raises(ValueError, match=r"run.toml: shorten stands in \[\[data\]\], below its path, not at the top"):
        FineTuneConfig.from_toml(file)


def test_ctrl_c_says_where_the_same_command_goes_on(train, monkeypatch):
    """The state that was saved last, or the beginning."""

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("florence_lite.train.validation.Validation.metrics", stopped)
    code, _, err = train()
    assert code == 130 and err.endswith(
        "stopped: no state was saved yet (save_every = 100): the same command begins anew\n"
    )
    monkeypatch.undo()
    train(output="whole")
    monkeypatch.setattr("florence_lite.cli.training._trained", stopped)
    code, _, err = train(output="whole")
    assert code == 130 and err.endswith("stopped: the same command goes on from step 3, whose state was saved last\n")
