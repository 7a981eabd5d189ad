"""The command as a process: its help, its streams and their encodings."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import florence_lite
from florence_lite.engine.fast import kernel

ROOT = Path(__file__).parents[2]


def test_version(command):
    told = f"florence-lite {florence_lite.__version__}, torch {torch.__version__}, kernels: {kernel.told()}\n"
    assert command("--version") == (0, told, "")


MAIN = "import sys; from florence_lite.cli import main; sys.argv[0] = 'florence-lite'; main()"


def test_help_and_tasks_do_not_load_torch():
    probe = MAIN.replace(
        "main()", "sys.addaudithook(lambda e, a: sys.exit(9) if e == 'import' and a[0] == 'torch' else 0); main()"
    )
    for arguments in (["--help"], ["run", "--help"], ["tasks"], ["run", "a.png", "<OF>"]):
        done = subprocess.run([sys.executable, "-c", probe, *arguments], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == (2 if "<OF>" in arguments else 0), done.stderr.decode()


@pytest.mark.parametrize(("given", "seen"), [(None, "5000"), ("7", "7")])
def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(given, seen):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    probe = f"import atexit, os; atexit.register(lambda: print(os.environ['GOMP_SPINCOUNT'])); {MAIN}"
    done = subprocess.run(
        [sys.executable, "-c", probe, "tasks"],
        cwd=ROOT,
        env=environment | ({"GOMP_SPINCOUNT": given} if given else {}),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().splitlines()[-1] == seen


def test_reader_that_stops_early_sees_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "tasks"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def called(probe: str, tmp_path: Path, arguments=(), **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", probe, *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, **more)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_letters_that_the_terminal_lacks_are_escaped(tmp_path, encoding):
    words = "猫 🙂 × \udcff"
    probe = (
        f"from florence_lite import cli; from florence_lite.cli.common import *\ncli.app = lambda: (show({words!r}), "
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = called(f"{probe}show_json({words!r})); cli.main()", tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    plain, json_line = done.stdout.decode(encoding).splitlines()
    assert json.loads(json_line) == words
    assert plain == words.encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.skipif(os.name == "nt", reason="needs a shell of Unix")
@pytest.mark.parametrize(
    ("closed", "expected"),
    [(">&-", (0, b"", b"")), ("2>&-", (0, b"florence-lite", b"")), (">&- 2>&- <&-", (0, b"", b""))],
)
def test_absent_streams(tmp_path, closed, expected):
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(MAIN)} --version {closed}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout[:13], done.stderr) == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full disk to write to")
def test_full_disk_behind_standard_output(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", MAIN, "tasks"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr == b"error: standard output cannot be written: No space left on device\n"
