"""What docs/serving.md shows works against a real server."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from florence_lite import Florence
from tests.serve.client import serving
from tests.tiny import noise_image

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def served(tiny, tmp_path, monkeypatch):
    """The address of a server; photo.jpg lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    noise_image(0, (200, 150)).save("photo.jpg")
    with serving(tiny) as client:
        yield f"http://127.0.0.1:{client.port}"


def test_curl(served):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line.replace(ADDRESS, served)) for line in lines if line.startswith("curl ")]
    told = []
    for command in commands:
        done = subprocess.run([*command, "-sS"], capture_output=True, check=True, text=True)
        told.append(json.loads(done.stdout))
    assert [each["task"] for each in told] == ["<OD>", "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_CATEGORY>"]
    assert told[1]["presence"].keys() == {"the red car", "all dogs"}


def test_python(served, capsys):
    pytest.importorskip("requests", reason="the package requests, which the page shows, is not installed")
    names = {}
    for block in blocks("py"):
        exec(block.replace(ADDRESS, served), names)
    assert "{'result': {'task': '<OD>'" in capsys.readouterr().out


def test_limits_of_the_page_are_those_of_the_command():
    import typer

    from florence_lite import cli

    told = dict(re.findall(r"`--([a-z-]+) (\d+)`", PAGE))
    options = {each.name.replace("_", "-"): each for each in typer.main.get_command(cli.app).commands["serve"].params}
    assert {"max-queue", "max-upload", "timeout", "cache"} <= told.keys()
    assert {name: str(options[name].default) for name in told} == told


def test_the_application_of_the_page():
    [block] = blocks("python")
    names = {}
    exec(block, names)
    assert isinstance(names["Florence"], type(Florence)) and names["app"].title == "florence-lite"
