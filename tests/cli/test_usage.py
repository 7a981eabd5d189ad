"""What `--help` teaches, exit codes, completion in shells and colours."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from florence_lite import cli
from florence_lite.cards import task
from florence_lite.cli.usage import EXAMPLES, EXIT_CODES, START, SUMMARIES

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from florence_lite.cli import main; sys.argv[0] = 'florence-lite'; main()"
GROUP = typer.main.get_command(cli.app)
COMMANDS = {
    name: each
    for name, each in [
        *GROUP.commands.items(),
        *((f"data {name}", each) for name, each in GROUP.commands["data"].commands.items()),
    ]
    if name != "data"
}
LINES = [(name, line) for name, lines in EXAMPLES.items() for line in lines]


def test_every_command_has_examples():
    assert COMMANDS.keys() == EXAMPLES.keys() == SUMMARIES.keys()


def test_no_line_about_a_command_is_cut(command):
    _, out, _ = command("--help")
    assert all(f"  {line}\n" in out for name, line in SUMMARIES.items() if " " not in name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_ends_with_them(command, name):
    code, out, _ = command(*name.split(), "--help")
    assert code == 0
    assert out.endswith("\n".join(["  Examples:", *(f"    {line}" for line in EXAMPLES[name])]) + "\n")


@pytest.mark.parametrize(("name", "line"), LINES, ids=[line for _, line in LINES])
def test_examples_are_understood(name, line):
    """All options and arguments; tasks and files of the repository are there."""
    words = shlex.split(line.rpartition("| ")[2])
    assert words[0] == "florence-lite" and words[1 : 1 + len(name.split())] == name.split()
    given = words[1 + len(name.split()) :]
    context = COMMANDS[name].make_context(name, given)
    assert not context.args
    for word in given:
        if word.startswith("<"):
            assert task(word).name == word
        assert not word.startswith("examples/") or (ROOT / word).is_file()


def test_the_whole_help(command):
    code, out, _ = command("--help")
    assert code == 0 and all(f"    {line}\n" in out for line in START)
    assert all(f"  {line}\n" in out for line in EXIT_CODES.splitlines())


def test_exit_codes(command, tiny, photos, monkeypatch):
    """0, 1, 2 and 130, as the help says; more of each in the tests of the commands."""
    asked = ("<OD>", "--checkpoint", tiny)
    assert command("run", photos[0], *asked)[0] == 0
    assert command("run", photos[0], photos[3], *asked)[0] == 1
    assert command("run", photos[3], *asked)[0] == 2
    assert command("run", photos[0], *asked, "--no-such-option")[0] == 2
    assert command("no-such-command")[0] == 2
    monkeypatch.setattr(cli.cards, "show", lambda line: (_ for _ in ()).throw(KeyboardInterrupt))
    assert command("tasks")[::2] == (130, "stopped\n")


def called(*arguments, **environment) -> subprocess.CompletedProcess:
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], env=own, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("florence-lite se", ["segment", "serve"]),
        ("florence-lite data c", ["check", "convert"]),
        ("florence-lite run --checkpoint sce", ["scenes-nano"]),
        ("florence-lite run --phr", ["--phrase", "--phrases-file"]),
    ],
)
def test_bash_completes(words, completed):
    done = called(_FLORENCE_LITE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
    assert (done.stdout.split(), done.stderr) == (completed, "")


def test_bash_gets_its_script(tmp_path):
    shell = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    shown = called("--show-completion", "bash", **shell)
    assert "complete -o default -F _florence_lite_completion florence-lite" in shown.stdout
    called("--install-completion", "bash", **shell)
    [script] = (tmp_path / ".bash_completions").iterdir()
    assert (
        "_FLORENCE_LITE_COMPLETE=complete_bash" in script.read_text()
        and str(script) in (tmp_path / ".bashrc").read_text()
    )


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal of Unix")
@pytest.mark.parametrize(("environment", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_only_on_terminals_that_want_them(environment, colours):
    """The progress bar, which is all that has any."""
    import pty

    probe = (
        "from florence_lite.progress import progress_bar\n"
        "with progress_bar(True, transient=False) as bar: bar.add_task('images', total=2, completed=1)"
    )
    own = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    own |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment}
    command = [sys.executable, "-c", probe]
    piped = subprocess.run(command, env=own, capture_output=True, check=True)
    assert piped.stdout == piped.stderr == b""
    terminal, end = pty.openpty()
    subprocess.run(command, env=own, stdin=end, stdout=end, stderr=end, check=True)
    os.close(end)
    drawn = b""
    try:
        while read := os.read(terminal, 65536):
            drawn += read
    except OSError:  # how Linux tells the end
        pass
    os.close(terminal)
    assert b"images" in drawn and (b"\x1b[38;5" in drawn) is colours
