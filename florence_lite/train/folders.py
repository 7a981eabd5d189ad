"""The folders of a run: each is replaced as a whole, so that a run stopped at any point leaves all of them whole, and
what was damaged since is noticed before it is used."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import load as load_numbers
from safetensors import SafetensorError, safe_open

from florence_lite.checks import is_number, is_whole
from florence_lite.files import read_json, read_json_object, replace_text
from florence_lite.train.log import tell

STATE, CHECKPOINT, BEST, BEST_RECORD, LOG = "state", "checkpoint", "best", "best.json", "log.jsonl"
STEP = "step.json"
DESCRIBED = {  # file of weights → what every checkpoint with it has beside it
    "model.safetensors": ("config.json", "tokenizer.json"),
    "adapter_model.safetensors": ("adapter_config.json",),
}
WRITTEN_TOGETHER = (  # all or none: a checkpoint that was trained from scratch has none
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
)


# ---- replacing -------------------------------------------------------------------------------------------------------


def replace_folder(
    folder: Path,
    write: Callable[[Path], object],
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


def bring_back_all(output: Path) -> None:
    """`bring_back` for every folder of a run."""
    for name in (STATE, CHECKPOINT, BEST):
        bring_back(output / name)


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


# ---- the state to go on from -----------------------------------------------------------------------------------------


def save_state(accelerator: Accelerator, folder: Path, step: int, seconds: float = 0.0) -> None:
    """Write weights, optimiser and random state beside the former state, then put the new one in its place.

    Stopped at any point, it leaves a whole state, which `bring_back` puts in its place. `step.json` tells the step,
    the seconds of training that led to it, and the SHA-256 of every other file.
    """

    def write(partial: Path) -> None:
        accelerator.save_state(str(partial))  # every process has a random state of its own
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            files = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
            precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
            record = {"step": step, "seconds": seconds, "precision": precision, "files": files}
            (partial / STEP).write_text(json.dumps(record))

    replace_folder(folder, write, accelerator.is_main_process, accelerator.wait_for_everyone)


def is_begun(output: Path) -> bool:
    """Whether something of a run that has trained is in its folder: a state alone that made no step yet is not."""
    if any((output / name).exists() for name in (CHECKPOINT, BEST, BEST_RECORD, LOG)):
        return True
    state = output / STATE
    return state.exists() and (not (state / STEP).is_file() or saved_step(state) > 0)


def saved_step(folder: Path) -> int:
    """The step of the state in `folder`; ValueError, with the remedy, where the state or its `step.json` is missing or
    damaged."""
    return _read_step(folder)[0]


def saved_seconds(folder: Path) -> float:
    """The seconds of training that led to the state in `folder`; 0 where an older version did not note them."""
    seconds = read_json_object(folder / STEP).get("seconds", 0.0)
    return float(seconds) if is_number(seconds) else 0.0


def whole_state(folder: Path) -> int:
    """The step of the state in `folder`, all of whose files are as they were saved; else ValueError, naming the file
    and the remedy."""
    step, files = _read_step(folder)
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            raise _unusable(folder, f"{path} is missing")
        if _sha256(path) != digest:
            raise _unusable(folder, f"{path} is cut or changed")
    return step


def load_state(accelerator: Accelerator, folder: Path) -> None:
    """Give models, optimisers and random numbers the state in `folder`.

    Raises ValueError, naming the folder and the remedy, for a state that does not fit or holds more than numbers.
    Random numbers that the state does not have begin anew, which is told.
    """
    random = folder / f"random_states_{accelerator.process_index}.pkl"
    try:
        accelerator.load_state(str(folder))
        states = load_numbers(random) if random.is_file() else {}
    except Exception as error:  # of torch, pickle, safetensors and accelerate, whatever is wrong with the files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):  # torch would advise to run the code
            reason = "a file is damaged or holds more than numbers"
        raise _unusable(folder, f"the state in {folder} cannot be read or does not fit ({reason})") from error
    cuda = "torch_cuda_manual_seed" in states or accelerator.device.type != "cuda"
    if not cuda or not torch.equal(states.get("torch_manual_seed", torch.empty(0)), torch.get_rng_state()):
        # accelerate passes over this in silence.
        tell(
            f"process {accelerator.process_index}: no random state for it in {folder}: dropout draws other numbers now"
        )


def _read_step(folder: Path) -> tuple[int, Mapping[str, str]]:
    file = folder / STEP
    if not file.is_file():
        raise _unusable(folder, f"{file} is missing")
    try:
        record = read_json_object(file)
    except ValueError as error:
        raise _unusable(folder, str(error)) from None
    step, files = record.get("step"), record.get("files", {})  # which older versions did not note
    if not is_whole(step, 0):
        raise _unusable(folder, f"{file} is damaged: step = {step!r} must be a whole number of at least 0")
    if not isinstance(files, dict) or any(Path(name).name != name for name in files):
        raise _unusable(folder, f"{file} is damaged: files must give the digest of each file")
    return step, files


def _unusable(folder: Path, what: str) -> ValueError:
    checkpoint = folder.with_name(CHECKPOINT)
    return ValueError(
        f"{what}: the run cannot go on. Put the file back from a copy; or train further from another `checkpoint`, "
        f"such as {str(checkpoint)!r}, into another `output`; or delete {str(folder.parent)!r} to begin anew"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- the best checkpoint ---------------------------------------------------------------------------------------------


def keep_if_best(output: Path, step: int, merit: float | None, metrics: Mapping[str, float | None]) -> bool:
    """Copy the checkpoint to `best` if no evaluation had greater merit, and tell whether it was.

    "best.json" beside it tells step, merit and metrics.
    """
    record = output / BEST_RECORD
    before = read_json(record)["merit"] if record.is_file() else -math.inf
    if merit is None or merit < before:  # of equal ones the later, which has learned for longer
        return False
    replace_folder(output / BEST, lambda partial: shutil.copytree(output / CHECKPOINT, partial, dirs_exist_ok=True))
    replace_text(record, json.dumps({"step": step, "merit": merit, "metrics": dict(metrics)}))
    return True


def check_best(output: Path) -> None:
    """Forget, and tell so, what was the best where `best` or its record is missing or damaged."""
    folder, record = output / BEST, output / BEST_RECORD
    if not folder.exists() and not record.exists():
        return
    problem = checkpoint_problem(folder)
    if problem is None and not record.is_file():
        problem = f"{record} is missing"
    elif problem is None:
        try:
            values = read_json_object(record)
            metrics = values.get("metrics")
            figures = metrics.values() if isinstance(metrics, dict) else [""]
            if not is_whole(values.get("step"), 0) or not is_number(values.get("merit")):
                problem = f"{record} is damaged: it lacks step or merit"
            elif not all(value is None or is_number(value) for value in figures):
                problem = f"{record} is damaged: metrics must give figures by their names"
        except ValueError as error:
            problem = str(error)
    if problem:
        forget_best(output, problem)


def forget_best(output: Path, reason: str) -> None:
    """Have the next evaluation decide anew which checkpoint is the best, and tell so."""
    if (output / BEST).exists() or (output / BEST_RECORD).exists():
        (output / BEST_RECORD).unlink(missing_ok=True)
        tell(f"{reason}: the next evaluation decides anew which checkpoint is the best, and replaces {output / BEST}")


def checkpoint_problem(folder: Path) -> str | None:
    """What is missing or damaged in the folder of a checkpoint; None if nothing is cut short."""
    weights = [folder / name for name in DESCRIBED if (folder / name).is_file()]
    if not weights:
        return f"{folder} has no weights"
    try:
        with safe_open(weights[0], "pt"):
            pass
    except (SafetensorError, OSError) as error:
        return f"{weights[0]} is damaged ({error})"
    needed = DESCRIBED[weights[0].name]
    if any((folder / name).is_file() for name in WRITTEN_TOGETHER):
        needed += WRITTEN_TOGETHER
    if missing := [name for name in needed if not (folder / name).is_file()]:
        return f"{folder / missing[0]} is missing"
    for file in sorted(folder.glob("*.json")):
        try:
            read_json_object(file)
        except ValueError as error:
            return str(error)
    return None
