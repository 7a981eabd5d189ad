"""Runs with workers of Ray: the same rows, each exactly once, whatever is killed."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from florence_lite.annotate import annotate, ray_engine
from florence_lite.annotate.parts import STAGING, Ids, open_output, part_files
from florence_lite.annotate.ray_engine import COLUMN, Outcome, Worker
from tests.annotate.conftest import png
from tests.annotate.rows import assert_once, assert_same, read_rows

psutil = pytest.importorskip("psutil")
NONE_DONE = np.empty(0, np.int64)


@pytest.fixture
def ray():
    """Ray, where it is installed; skips where not. No process of it may outlive the test."""
    for name, value in ray_engine.SETTINGS.items():  # some of which Ray reads when it is imported
        os.environ.setdefault(name, value)
    if sys.platform == "win32":
        pytest.skip("processes are killed by signals")
    yield pytest.importorskip("ray", reason="needs the extra distributed")
    assert not psutil.wait_procs(workers_of(os.getpid()), timeout=10)[1]


@pytest.fixture
def config(config, photos):
    """Without the picture that repeats another: which of them answers first is not known here."""
    return replace(config, source=[str(file) for file in sorted(photos.iterdir()) if file.name != "repeated.png"])


@pytest.fixture
def expected(config, tmp_path):
    """The folder of the same run by the embedded engine."""
    embedded = replace(config, output=str(tmp_path / "embedded"))
    annotate(embedded, tell=lambda line: None)
    return embedded.output


def workers_of(pid: int) -> list[psutil.Process]:
    return [each for each in psutil.Process(pid).children(recursive=True) if "MapWorker" in each.name()]


def quiet(line: str) -> None:
    pass


# ---- without Ray -----------------------------------------------------------------------------------------------------


def test_nothing_else_imports_ray(config):
    code = (
        "import pickle, sys\n"
        "import florence_lite, florence_lite.cli, florence_lite.annotate.ray_engine\n"
        "from florence_lite.annotate import annotate\n"
        "annotate(pickle.loads(bytes.fromhex(sys.argv[1])), tell=print)\n"
        "assert not {'ray', 'ray.data'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, pickle.dumps(config).hex()], check=True, capture_output=True)


def test_without_ray_the_extra_is_named(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs the package ray: pip install 'florence-lite\[distributed\]'"):
        annotate(config, "ray", 2, quiet)


@pytest.fixture
def opened(config):
    with open_output(config.output, config.asked()) as output:
        yield output


def outcomes_of(config, batches, done=NONE_DONE) -> list:
    """What a worker answers to batches of images, in this process."""
    worker = Worker(config, lambda: done)
    return [pickle.loads(worker({COLUMN: [pickle.dumps(batch)]})[COLUMN][0]) for batch in batches]


def test_a_worker_stages_what_the_embedded_engine_commits(config, expected, opened):
    batches = list(ray_engine._batches(config, 7))
    assert [len(batch) for batch in batches] == [7] * 5 + [4]
    told = outcomes_of(config, batches)
    assert not part_files(config.output)
    for outcome in told + outcomes_of(config, batches[:2]):
        opened.commit(outcome.staged)
    assert_same(config.output, expected)
    assert sum(bool(each.told.errors) for outcome in told for each in outcome.images) == 2
    assert {outcome.revisions for outcome in told} == {tuple({row["revision"] for row in read_rows(expected)})}

    done = outcomes_of(config, batches, opened.done.numbers())
    assert all(outcome.staged is None and all(each.done for each in outcome.images) for outcome in done)


def test_an_output_that_the_worker_does_not_see_is_refused(config):
    [error, *_] = outcomes_of(config, ray_engine._batches(config, 2))
    assert isinstance(error, ValueError) and "give a folder that all machines of the cluster share" in str(error)
    assert not os.path.exists(config.output)


def test_a_picture_twice_in_a_batch_is_asked_once(config, opened):
    [batch, *_] = ray_engine._batches(config, 2)
    [outcome] = outcomes_of(config, [batch * 2])
    assert [each.name for each in outcome.images] == [each.name for each in batch * 2]
    assert len(outcome.images) == 4 and outcome.staged.rows == outcomes_of(config, [batch])[0].staged.rows


def test_what_carries_bytes_travels_in_small_batches(config, monkeypatch, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [bytes(100)] * 10}), file := tmp_path / "images.parquet")
    monkeypatch.setattr(ray_engine, "BYTES_AT_ONCE", 250)
    batches = ray_engine._batches(replace(config, source=str(file)), 256)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]


def test_a_fault_of_the_source_comes_behind_its_images(config, tmp_path):
    batches = ray_engine._batches(replace(config, source=[config.source[0], str(tmp_path / "a-{1..2}.jpg")]), 4)
    with pytest.raises(FileNotFoundError, match="a-1.jpg"):
        list(batches)


def in_this_process(config, workers, batch, done):
    """`ray_engine.outcomes` without Ray."""
    yield from outcomes_of(config, ray_engine._batches(config, batch()), done.numbers())


def test_the_report_is_that_of_the_embedded_engine(config, photos, tmp_path, monkeypatch):
    config = replace(config, source=str(photos))  # with the picture that repeats another
    monkeypatch.setattr(ray_engine, "outcomes", in_this_process)
    embedded = replace(config, output=str(tmp_path / "embedded"))
    for _ in ("at first", "again"):
        found, expected = annotate(config, "ray", 2, quiet).to_dict(), annotate(embedded, tell=quiet).to_dict()
        for differs in ("output", "parts", "seconds", "images_per_second"):
            found.pop(differs), expected.pop(differs)
        assert found == expected and found["duplicates"] == 1
    assert found["done"] == 39
    [line] = (tmp_path / "answers" / "duplicates.jsonl").read_text(encoding="utf-8").splitlines()
    assert "repeated.png" in line


def test_a_part_that_is_not_here_is_no_part(config, monkeypatch):
    def elsewhere(*arguments):
        for outcome in in_this_process(*arguments):
            os.unlink(outcome.staged.path)
            yield outcome

    monkeypatch.setattr(ray_engine, "outcomes", elsewhere)
    with pytest.raises(ValueError, match="which is not here: give an output that all machines of the cluster share"):
        annotate(config, "ray", 2, quiet)
    assert not part_files(config.output)


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("raised", "sent", "text"),
    [
        (FileNotFoundError("no such checkpoint"), FileNotFoundError, "no such checkpoint"),
        (OSError(28, "No space left"), OSError, "No space left"),
        (MemoryError("too much"), ValueError, r"out of memory \(too much\); take fewer workers"),
        (Unpicklable(1, 2), RuntimeError, "Unpicklable: 1 and 2"),
    ],
)
def test_errors_travel(raised, sent, text):
    def fail():
        raise raised

    error = pickle.loads(ray_engine._sent(fail))
    assert type(error) is sent
    with pytest.raises(sent, match=text):
        raise error


def test_what_kills_every_worker_ends_the_run(config):
    [batch, other, *_] = ray_engine._batches(config, 2)
    names = [each.name for each in batch]
    with open_output(config.output, config.asked()) as output:
        deaths = [ray_engine._attempt(config.output, names) for _ in range(ray_engine.DEATHS)]
        for each in deaths:
            each.__enter__()  # and never comes back
        first, second = outcomes_of(config, [batch, other])
        assert isinstance(first, ValueError) and f"3 workers died of the images from {names[0]}" in str(first)
        assert isinstance(second, Outcome)
        assert len(list((output.folder / STAGING).glob("*.attempt"))) == ray_engine.DEATHS
    with open_output(config.output, config.asked()):
        assert isinstance(outcomes_of(config, [batch])[0], Outcome)  # the next run tries again


def test_ids_that_are_sorted_are_not_copied():
    numbers = np.arange(5, dtype=np.int64)
    assert Ids(numbers).numbers() is numbers
    ids = Ids(numbers[::-1])
    ids.add(-3)
    assert ids.numbers().tolist() == [-3, 0, 1, 2, 3, 4]


# ---- with Ray --------------------------------------------------------------------------------------------------------


def test_the_same_rows_though_a_worker_is_killed(config, expected, ray, monkeypatch, capfd):
    outcomes, killed, told = ray_engine.outcomes, [], []

    def killing(*arguments):
        for outcome in outcomes(*arguments):
            # Ray says nothing of a worker that is killed between two batches: then another is, three at most.
            if len(killed) < 3 and not any("a worker died" in line for line in told) and workers_of(os.getpid()):
                killed.append(workers_of(os.getpid())[0].pid)
                os.kill(killed[-1], signal.SIGKILL)
            yield outcome

    monkeypatch.setattr(ray_engine, "outcomes", killing)
    report = annotate(config, "ray", 2, told.append)
    assert_same(config.output, expected)
    assert_once(config.output)
    assert (report.images, report.answered, report.failed) == (39, 39, 2) and report.rows == len(read_rows(expected))
    assert not os.listdir(os.path.join(config.output, STAGING))
    assert any("a worker died" in line for line in told) and not ray.is_initialized()
    out, err = capfd.readouterr()
    assert out == "" and "Traceback" not in err  # on a busy machine the raylet itself may speak of the death


def test_what_is_wrong_in_a_worker_is_told_in_its_words(config, ray, capfd):
    missing = replace(config, checkpoints=[{"checkpoint": config.checkpoints[0].checkpoint + "-not-there"}])
    with pytest.raises((FileNotFoundError, ValueError)) as embedded:
        annotate(missing, tell=quiet)
    with pytest.raises(embedded.type) as raised:
        annotate(missing, "ray", 2, quiet)
    assert str(raised.value) == str(embedded.value) and "checkpoint-not-there" in str(raised.value)
    assert capfd.readouterr() == ("", "")


# ---- with Ray, slowly ------------------------------------------------------------------------------------------------


def command(config) -> list[str]:
    [checkpoint] = config.checkpoints
    tasks = ["--tasks", "<OD>", "<CAPTION>"]
    options = ["--checkpoint", checkpoint.checkpoint, "--output", config.output, "--decoding", "max_new_tokens=24"]
    return [sys.executable, "-m", "florence_lite", "annotate", *config.source, *tasks, *options]


@pytest.fixture
def many(config, tmp_path):
    """The same questions about more pictures, so that there is time to kill."""
    for number in range(600):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{number:04d}.png").write_bytes(png(number))
    return replace(config, source=[str(tmp_path / "many")])


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_same_command_goes_on_when_the_driver_has_ended(many, ray, tmp_path, ended_by):
    whole = replace(many, output=str(tmp_path / "whole"))
    subprocess.run(command(whole), check=True, capture_output=True)
    with_ray = [*command(many), "--engine", "ray", "--workers", "2"]
    moments = []
    while len(moments) < 3:
        process = subprocess.Popen(with_ray, stderr=subprocess.PIPE, text=True, start_new_session=True)
        parts = len(moments) and len(part_files(many.output))
        deadline = time.monotonic() + 120
        while len(part_files(many.output)) <= parts and time.monotonic() < deadline:
            time.sleep(0.01)
        others = workers_of(process.pid)
        assert len(others) == 2
        (os.kill if ended_by == signal.SIGKILL else os.killpg)(process.pid, ended_by)
        _, told = process.communicate(timeout=60)
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[ended_by], told
        assert ended_by == signal.SIGKILL or "give the same command again to go on" in told
        assert not psutil.wait_procs(others, timeout=10)[1]
        assert_once(many.output)
        moments.append(len(part_files(many.output)))
    subprocess.run(with_ray, check=True, capture_output=True)
    assert moments == sorted(set(moments)) and moments[-1] < len(part_files(many.output))
    assert_same(many.output, whole.output)
    assert_once(many.output)
