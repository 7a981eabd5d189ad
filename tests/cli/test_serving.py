"""`florence-lite serve` as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.serve.client import FORM, form, png
from tests.tiny import noise_image

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from florence_lite.cli import main; sys.argv[0] = 'florence-lite'; main()"


@pytest.mark.skipif(os.name == "nt", reason="needs the signals of Unix")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_until_it_is_stopped(tiny, stop):
    command = [sys.executable, "-c", MAIN, "serve", "--checkpoint", tiny, "--port", "0", "--max-queue", "5"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        line = process.stderr.readline()
        assert line.startswith(f"{tiny} answers at http://127.0.0.1:")
        address = line.split(" at ")[1].split()[0]
        question = urllib.request.Request(f"{address}/run", form(png(noise_image(0)), prompt="<OD>"), FORM)
        with urllib.request.urlopen(question, timeout=60) as answer:
            assert json.load(answer)["task"] == "<OD>"
        with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
            told = json.load(answer)
        assert (told["checkpoint"], told["max_queue"]) == (tiny, 5)
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
    if stop == signal.SIGINT:
        assert (process.returncode, out, err) == (130, "", "stopped; all that was accepted is answered\n")
    else:
        assert (process.returncode, out, err) == (-signal.SIGTERM, "", "")


def test_an_answer_does_not_wait_to_be_acknowledged():
    """Connections send at once what is written: head and body of an answer are two pieces."""
    from florence_lite.cli.serving import _listen

    with _listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_that_is_not_there(command):
    code, out, err = command("serve", "--host", "192.0.2.1", "--port", "80")
    assert (code, out) == (2, "") and err.startswith("error: --host 192.0.2.1 --port 80 cannot be listened at: ")


def test_a_checkpoint_that_is_not_there(command, tmp_path):
    code, _, err = command("serve", "--port", "0", "--checkpoint", str(tmp_path / "none"))
    assert code == 2 and err.startswith("error: ") and "none" in err


def test_without_the_extra(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert command("serve") == (
        2,
        "",
        "error: the package uvicorn is missing; pip install 'florence-lite[serve]'\n",
    )


def test_limits_are_checked(command):
    assert command("serve", "--max-queue", "0")[2] == "error: --max-queue 0 must be a whole number of at least 1\n"
