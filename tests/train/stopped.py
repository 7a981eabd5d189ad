"""Runs that are stopped, and what they tell of themselves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


class Stopped(Exception):
    """Raised where a run is to be stopped by an error."""


def run_until_killed(module: str, *arguments: object) -> None:
    """Run a module as a program of its own that kills itself."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def losses(output: Path) -> list[float]:
    """The mean losses that a run has logged."""
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [entry["losses"]["loss"] for entry in log if "losses" in entry]
