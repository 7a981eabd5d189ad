"""Runs that are killed, at random and in the middle of every step of a write, and full disks."""

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from florence_lite.annotate import annotate, parts
from florence_lite.annotate.parts import STAGING, open_output, part_files, read_ids
from florence_lite.annotate.progress import Report
from florence_lite.cli import main
from tests.annotate.rows import assert_once, assert_same, read_rows

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")

KILLS = 20


@pytest.fixture(scope="module")
def processes():
    """Fresh processes that have imported everything, so that they begin at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["florence_lite.annotate.engine", "tests.annotate.test_killed", "pyarrow.parquet"])
    return context


def run(config, prepare=None) -> None:
    """What a killed process does. prepare: what to do first, and with what."""
    if prepare is not None:
        prepare[0](*prepare[1:])
    annotate(config, tell=lambda line: None)


def killing_itself(step: str, after: int) -> None:
    """Let this process be killed in the middle of, or right after, the `after`-th time that it does something."""
    when, name = step.split()
    owner, name = (parts, "_write_table") if name == "write" else (os, name)
    function, calls = getattr(owner, name), []

    def watched(*args, **more):
        calls.append(args)
        if len(calls) < after:
            return function(*args, **more)
        if when == "after":
            function(*args, **more)
        if when == "half":
            table, file = args[:2]
            function(table, file, *args[2:], **more)
            file.flush()
            os.ftruncate(file.fileno(), file.tell() // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, watched)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Rows of a run that nothing disturbed, made once."""
    made = {}

    def of(config):
        if not made:
            made["config"] = replace(config, output=str(tmp_path_factory.mktemp("whole") / "answers"))
            annotate(made["config"], tell=lambda line: None)
        return made["config"].output

    return of


def assert_whole(config) -> None:
    """All that is visible can be read, and no row is there twice."""
    for file in part_files(config.output):
        ids, marks = read_ids(file)
        assert parts.part_name(ids, marks) == file.stem
    assert_once(config.output)


def test_killed_at_twenty_random_moments(config, processes, uninterrupted):
    """Some moments after a number of parts, and as soon as a file that is being written is seen."""
    expected = uninterrupted(config)
    chance, killed, seen = random.Random(16), 0, []
    folder = Path(config.output)
    while killed < KILLS:
        files, parts_more = len(part_files(folder)), chance.randrange(4)
        in_a_write, moment = chance.random() < 0.4, chance.uniform(0, 0.06)
        process = processes.Process(target=run, args=(config,))
        process.start()
        while process.is_alive() and len(part_files(folder)) < files + parts_more:
            time.sleep(0.002)
        while in_a_write and process.is_alive() and not any((folder / STAGING).glob("*.parquet")):
            time.sleep(0.0005)
        if not in_a_write:
            process.join(moment)
        process.kill()
        process.join()
        if process.exitcode == 0:  # through before it could be killed: half of it is to do again
            for file in part_files(folder)[::2]:
                file.unlink()
            continue
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        assert_whole(config)
        seen.append(len(read_rows(folder)))
    run(config)
    assert_same(folder, expected)
    assert_once(folder)
    assert os.listdir(folder / STAGING) == [] and len(set(seen)) > 3


@pytest.mark.parametrize("step", ["half write", "before fsync", "before replace", "after replace"])
def test_killed_within_a_write(config, processes, uninterrupted, step):
    expected = uninterrupted(config)
    process = processes.Process(target=run, args=(config, (killing_itself, step, 5)))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert_whole(config)
    assert part_files(config.output)
    run(config)
    assert_same(config.output, expected)
    assert_once(config.output)


def test_a_full_disk_says_how_to_go_on_and_what_is_there_is_whole(config, uninterrupted, tmp_path):
    """The limit of a file's size stands in for the disk: the system refuses to write more, in the same place."""
    expected = uninterrupted(config)
    script = (
        "import pickle, resource, sys\n"
        "config = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "import florence_lite.annotate.engine, pyarrow.parquet, torch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
        "from florence_lite.annotate import annotate\n"
        "annotate(config)\n"
    )
    sizes = sorted(file.stat().st_size for file in part_files(expected))
    command = [sys.executable, "-c", script, pickle.dumps(config).hex(), str(sizes[-len(sizes) // 4])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (
        done.returncode == 1
        and "File too large; what is in parts/ is whole: make room and give the same" in done.stderr
    )
    assert_whole(config)
    assert os.listdir(Path(config.output) / STAGING) == []
    run(config)
    assert_same(config.output, expected)


@pytest.mark.parametrize("damage", ["cut", "emptied", "other rows", "a byte"])
def test_a_damaged_part_is_named_moved_and_redone(config, uninterrupted, damage):
    expected = uninterrupted(config)
    annotate(config, tell=lambda line: None)
    first, second = part_files(config.output)[:2]
    content = first.read_bytes()
    if damage == "a byte":  # in the column of ids
        content = content[:40] + bytes([content[40] ^ 255]) + content[41:]
    first.write_bytes({"cut": content[:-100], "emptied": b"", "other rows": second.read_bytes()}.get(damage, content))
    told = []
    report = annotate(config, tell=told.append)
    [moved] = report.damaged
    assert moved.endswith(f"damaged/{first.name}") and Path(moved).is_file()
    assert any(moved in line and "asked again" in line for line in told)
    assert report.answered == 3
    assert_same(config.output, expected)


def test_two_runs_never_write_in_one_folder(config):
    with open_output(config.output, config.asked()), pytest.raises(ValueError, match="another run is working in"):
        parts.LOCK_WAIT, before = 0.1, parts.LOCK_WAIT
        try:
            annotate(config, tell=lambda line: None)
        finally:
            parts.LOCK_WAIT = before


def stopped_command(arguments, log, number) -> None:
    """The command in a process that gets a signal as soon as its tenth image is answered."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    add, calls = Report.add, []

    def watched(report, answers):
        add(report, answers)
        calls.append(answers)
        if len(calls) == 10:
            os.kill(os.getpid(), number)

    Report.add = watched
    sys.argv = ["florence-lite", "annotate", *arguments]
    main()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_keeps_what_is_finished(config, processes, uninterrupted, tmp_path, number, code):
    expected = uninterrupted(config)
    toml, log = tmp_path / "run.toml", tmp_path / "log"
    toml.write_text(
        f"checkpoints = [{config.checkpoints[0].checkpoint!r}]\n"
        '[[tasks]]\ntask = "<OD>"\ndecoding = {max_new_tokens = 24}\n'
        '[[tasks]]\ntask = "<CAPTION>"\ndecoding = {max_new_tokens = 12}\n'
        '[[tasks]]\ntask = "<REGION_TO_CATEGORY>"\nof = "<OD>"\ndecoding = {max_new_tokens = 12}\n'
    )
    arguments = [*config.source, "--config", str(toml), "--output", config.output]
    process = processes.Process(target=stopped_command, args=(arguments, str(log), number))
    process.start()
    process.join()
    told = log.read_text()
    assert process.exitcode == code, told
    assert "10 of" in told and "give the same command again to go on" in told and "Traceback" not in told
    assert len({row["image_id"] for row in read_rows(config.output)}) == 10
    assert len(part_files(config.output)) == 1  # not full yet when it was written
    run(config)
    assert_same(config.output, expected)
