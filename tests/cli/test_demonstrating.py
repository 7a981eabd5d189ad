"""`florence-lite demo` where it does not come to serving; `tests/demo` does."""

import sys

import pytest


def test_without_gradio_the_remedy_is_told(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, out, err = command("demo")
    assert (code, out) == (2, "") and "pip install 'florence-lite[demo]'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--port", "0"], "--port 0 must be a number from 1 to 65535"), (["--port", "x"], "'--port'")],
)
def test_mistakes_are_told(command, arguments, message):
    code, out, err = command("demo", *arguments)
    assert (code, out) == (2, "") and message in err


def test_a_checkpoint_that_is_not_there(command):
    pytest.importorskip("gradio", reason="needs gradio")
    code, out, err = command("demo", "--checkpoint", "no/such/folder/at/all")
    assert (code, out) == (2, "") and "no/such/folder/at/all" in err
