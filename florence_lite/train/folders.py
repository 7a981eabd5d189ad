"""The folders of a run: each is replaced as a whole, so that a run stopped at any point leaves all of them whole."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError

from florence_lite.files import read_json, replace_text


def save_state(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write weights, optimiser and random state beside the former state, then put the new one in its place.

    Stopped at any point, it leaves a whole state, which `bring_back` puts in its place.
    """

    def write(partial: Path) -> None:
        accelerator.save_state(str(partial))  # every process has a random state of its own
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
            (partial / "step.json").write_text(json.dumps({"step": step, "precision": precision}))

    replace_folder(folder, write, accelerator.is_main_process, accelerator.wait_for_everyone)


def replace_folder(
    folder: Path,
    write: Callable[[Path], None],
    main: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Have a new folder written beside `folder`, then put it in its place.

    main, wait: of several processes that write together, whether this one moves the folders, and how they meet.
    Raises OSError, the former folder whole, where the new one cannot be written.
    """
    partial, former = _beside(folder, ".partial"), _beside(folder, ".former")
    if main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    wait()
    try:
        write(partial)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch tells a full disk as a RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        free = shutil.disk_usage(folder.parent).free / 2**20
        raise OSError(
            f"{folder} could not be written ({error}); {free:.0f} MiB are free there. What was saved before is whole: "
            "make room and start the run again"
        ) from error
    if main:
        shutil.rmtree(former, ignore_errors=True)
        if folder.exists():
            folder.replace(former)
        partial.replace(folder)
        shutil.rmtree(former, ignore_errors=True)
    wait()


def bring_back(folder: Path) -> None:
    """Put the folder in its place again that `replace_folder` had moved away when it was stopped."""
    former = _beside(folder, ".former")
    if former.exists() and not folder.exists():
        former.replace(folder)


def keep_if_best(output: Path, step: int, merit: float | None) -> None:
    """Copy the checkpoint to `best` if no evaluation had greater merit; "best.json" beside it tells step and merit."""
    record = output / "best.json"
    before = read_json(record)["merit"] if record.is_file() else -math.inf
    if merit is None or not merit > before:
        return
    replace_folder(output / "best", lambda partial: shutil.copytree(output / "checkpoint", partial, dirs_exist_ok=True))
    replace_text(record, json.dumps({"step": step, "merit": merit}))


def saved_step(folder: Path) -> int:
    """The step of the state in `folder`, 0 if there is none."""
    path = folder / "step.json"
    return read_json(path)["step"] if path.is_file() else 0


def saved_precision(folder: Path) -> str | None:
    """The precision, "bf16" or "fp32", of the run whose state is in `folder`, or beside it where `replace_folder` was
    stopped; None where none says so."""
    for place in (folder, _beside(folder, ".former")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if (precision := read_json(place / "step.json")["precision"]) in ("bf16", "fp32"):
                return precision
    return None


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(folder.name + ending)
