"""How far something is: lines for a log."""

import io
import sys

import pytest

from florence_lite.progress import ProgressLines, duration, is_logged


def test_a_line_after_the_first_step_then_at_intervals_and_at_the_end():
    lines, now = [], [100.0]
    progress = ProgressLines(total=100, done=40, write=lines.append, interval=30, clock=lambda: now[0])
    for step in range(41, 101):
        now[0] += 2.0
        progress.update(step, f"loss {1 / step:.3f}")
    assert lines[0] == "step 41 of 100, loss 0.024, 2.00 s a step, 2 min left"
    assert [int(line.split()[1]) for line in lines] == [41, 56, 71, 86, 100]
    assert lines[3] == "step 86 of 100, loss 0.012, 2.00 s a step, 28 s left"
    assert lines[-1] == "step 100 of 100, loss 0.010, 2.00 s a step"


def test_other_work_than_training():
    lines = []
    ProgressLines(total=16, done=0, write=lines.append, clock=lambda: 0.0, unit="picture").update(8)
    assert lines == ["picture 8 of 16, 0.00 s a picture, 0 s left"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (110, "2 min"), (5940, "99 min"), (11100, "3 h 5 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "err", "logged"),
    [(io.StringIO, io.StringIO, True), (io.StringIO, Terminal, True), (Terminal, Terminal, False)],
)
def test_lines_are_for_where_no_bar_stands(monkeypatch, out, err, logged):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdout", out())
    monkeypatch.setattr(sys, "stderr", err())
    assert is_logged() == logged


def test_no_more_time_is_left_than_there_is():
    lines = []
    ProgressLines(100, 0, lines.append, clock=iter([0.0, 2.0]).__next__).update(1, most=30)
    assert lines == ["step 1 of 100, 2.00 s a step, 30 s left"]
