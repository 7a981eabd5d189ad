"""What a run folder remembers: one run at a time works in it, and `run.json` tells what that run was started with.

Of the settings, some change nothing that is learned and may differ whenever a run goes on; three are told; all others
make it another run, which is refused, or goes on with the changes where that is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from florence_lite import __version__
from florence_lite.checkpoint import Pretrained
from florence_lite.data.annotation import Annotation
from florence_lite.data.samples import Dataset, Sample
from florence_lite.files import read_json_object, refuse_long_name, replace_text
from florence_lite.train.config import RunConfig
from florence_lite.train.digests import update_with_tensors
from florence_lite.train.folders import STATE, bring_back_all, check_best, forget_best, is_begun, whole_state
from florence_lite.train.log import tell

RECORD = "run.json"
LOCK = "run.lock"
LOCK_WAIT = 6.0  # seconds; the workers of a run that was killed may hold its lock for five more

FREE = {  # change nothing that is learned
    *("output", "workers", "save_every", "evaluate_every"),
    *("accumulate", "gradient_checkpointing", "features"),
}
TOLD = {"steps", "minutes", "precision"}  # change how a run goes on, as their change says
FIXED = {  # decide what the saved weights are weights of: no run can go on with others
    *("checkpoint", "freeze_vision", "lora_rank", "lora_targets", "preset", "vocabulary"),
}
PLACES = {
    "name",
    "path",
    "format",
    "split",
    "columns",
    "outside",
}  # of a checkpoint or data set, whose content is compared


class Change(NamedTuple):
    """A setting that is not what it was; `field` is the configuration's field that it belongs to."""

    name: str
    before: Any
    now: Any

    @property
    def field(self) -> str:
        return self.name.split(".")[0].split("[")[0]

    def __str__(self) -> str:
        return f"{self.name} was {_shown(self.before)}, now {_shown(self.now)}"


@contextmanager
def run_folder(
    config: RunConfig,
    accelerator: Accelerator,
    contents: Callable[[], Mapping[str, Any]] = dict,
    continue_with_changes: bool = False,
) -> Iterator[int | None]:
    """Work in the folder of a run, alone, and only if the run is the one that it was started as.

    Gives the step of the state to go on from, None where nothing was trained yet.

    contents: gives fingerprints of what the configuration names: "checkpoint", "data" (a list), "validation".
    continue_with_changes: go on with settings or contents that have changed; what has, is told and noted.

    Raises ValueError where another run works in the folder, where settings or contents have changed, where the folder
    holds a run without a record or has too long a name, where its state is missing or damaged, and where the run is
    longer already.
    """
    output = Path(config.output)
    lock = FileLock(output / LOCK)

    def enter() -> int | None:
        refuse_long_name(output, "output =", spare=0)
        if output.exists() and not output.is_dir():
            raise ValueError(f"output = {config.output!r} is a file; it must be the folder of a run")
        output.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=LOCK_WAIT)
        except Timeout:
            raise ValueError(
                f"another run is working in {str(output)!r}: wait for its end, or give this one another `output`"
            ) from None
        return _enter(config, contents(), continue_with_changes)

    try:
        yield on_main(accelerator, enter)
    finally:
        lock.release()


def on_main(accelerator: Accelerator, function: Callable[[], Any]) -> Any:
    """What `function` returns on the main process, in all processes; what it raises there, all raise."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = function()
        except (ValueError, OSError) as error:
            outcome[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


# ---- the record ------------------------------------------------------------------------------------------------------


def _enter(config: RunConfig, contents: Mapping[str, Any], continue_with_changes: bool) -> int | None:
    """Compare the run with the record of its folder, check its state, and write the record anew."""
    output, settings = Path(config.output), described(config, contents)
    bring_back_all(output)
    changes: list[Change] = []
    noted: list[Any] = []
    step = None
    if is_begun(output):
        changes, noted = _compared(config, settings, continue_with_changes)
        step = whole_state(output / STATE)
        if step > config.steps:
            raise ValueError(
                f"the run in {config.output!r} has made {step} steps already; steps = {config.steps} is less: raise "
                "it, or give this run another `output`"
            )
        for each in changes:
            tell(f"the run goes on with a change: {each}")
        if any(each.field == "validation" for each in changes):
            forget_best(output, "the validation has changed")
        else:
            check_best(output)
        if step < config.steps:
            tell(f"the run in {output} goes on at step {step} of {config.steps}")
    noted = [*noted, *({"step": step, "change": str(each)} for each in changes)]
    record = {"florence_lite": __version__, "settings": settings, "changes": noted}
    replace_text(output / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return step


def _compared(
    config: RunConfig, settings: Mapping[str, Any], continue_with_changes: bool
) -> tuple[list[Change], list[Any]]:
    """What has changed since the run was started, and the changes that were noted before.

    Raises ValueError where the run must not go on with them.
    """
    ways = "give this run another `output`, or ask for it with --continue-with-changes"
    try:
        known = read_record(Path(config.output))
    except (ValueError, FileNotFoundError) as error:
        if not continue_with_changes:
            raise ValueError(f"{error}, so that nobody can tell whether this is the same run: {ways}") from None
        tell(f"{error}: what the run was started with is not known; it goes on as it is configured now")
        return [], []
    changes = changes_between(known["settings"], settings, config)
    if fixed := [each for each in changes if each.field in FIXED]:
        raise ValueError(
            f"the run in {config.output!r} was started otherwise, and its weights fit nothing else: {_listed(fixed)}. "
            "Give this run another `output`"
        )
    other = [each for each in changes if each.field not in TOLD]
    if other and not continue_with_changes:
        raise ValueError(
            f"the run in {config.output!r} was started otherwise: {_listed(other)}. Change it back, {ways}"
        )
    return changes, known["changes"]


def read_record(output: Path) -> dict[str, Any]:
    """The record in a run's folder; FileNotFoundError where there is none, ValueError where it is damaged."""
    file = output / RECORD
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing (lost, or the run is one of an older version)")
    record = read_json_object(file)
    if not isinstance(record.get("settings"), dict) or not isinstance(record.get("changes"), list):
        raise ValueError(f"{file} is damaged: it lacks `settings` or `changes`")
    return record


def described(config: RunConfig, contents: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run as JSON has them, and beside the names of checkpoint and data their contents."""
    settings = asdict(config)
    if "checkpoint" in contents:
        settings["checkpoint"] = {"name": settings["checkpoint"], "content": contents["checkpoint"]}
    for each, content in zip(settings.get("data", ()), contents.get("data", ()), strict=True):
        each["content"] = content
    if settings.get("validation"):
        settings["validation"]["content"] = contents["validation"]
    return json.loads(json.dumps(settings))


def changes_between(before: Mapping[str, Any], now: Mapping[str, Any], config: RunConfig) -> list[Change]:
    """What differs between the settings of a run, without those that may. A field that the record does not know yet
    had its default."""
    defaults = {field.name: field.default for field in fields(config)}
    former, current = dict(_flat(before)), dict(_flat(now))
    changes = []
    for name in dict.fromkeys((*current, *former)):
        was, is_now = (each.get(name, defaults.get(name)) for each in (former, current))
        # As text: tasks are drawn in the order in which they stand.
        if json.dumps(was, default=str) != json.dumps(is_now, default=str):
            changes.append(Change(name, was, is_now))
    return [each for each in changes if each.field in defaults and each.field not in FREE]


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings as "learning_rate", "checkpoint.content", "data[0].weight"."""
    for field, value in settings.items():
        tables = {f"{field}[{n}]": each for n, each in enumerate(value)} if field == "data" else {field: value}
        for name, table in tables.items():
            if isinstance(table, dict) and field in ("checkpoint", "data", "validation"):
                yield from ((f"{name}.{key}", each) for key, each in table.items() if key not in PLACES)
            else:
                yield name, table


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _listed(changes: Sequence[Change]) -> str:
    return "; ".join(map(str, changes))


# ---- fingerprints ----------------------------------------------------------------------------------------------------


def checkpoint_content(loaded: Pretrained) -> str:
    """A digest of the weights, the tokenizer and the image processor."""
    digest = hashlib.sha256(loaded.tokenizer.to_json().encode())
    digest.update(repr(loaded.preprocessor.to_settings()).encode())
    update_with_tensors(digest, loaded.model.state_dict())
    return digest.hexdigest()[:16]


def data_content(samples: Sequence[Sample], name: str) -> str:
    """How many images there are, and a digest of their names, sizes in bytes and annotations; the `name` of samples
    that are generated."""
    if not isinstance(samples, Dataset):
        return name
    digest = hashlib.sha256()
    files = samples.images if isinstance(samples.images, list | tuple) else ()  # others may be read when asked for
    for number, (each, annotation) in enumerate(zip(samples.names, samples.annotations, strict=True)):
        file = files[number] if files else None
        size = file.stat().st_size if isinstance(file, Path) and file.is_file() else None
        digest.update(repr((each, size, *_known(annotation))).encode(errors="surrogatepass"))
    return f"{len(samples)} images, {digest.hexdigest()[:16]}"


def _known(annotation: Annotation) -> Iterator[tuple[str, Any]]:
    """The fields that tell something, so that a field which a later version adds changes nothing."""
    for field in fields(annotation):
        value = getattr(annotation, field.name)
        if field.name == "size_wh" or (field.compare and value != field.default):
            yield field.name, sorted(value) if isinstance(value, frozenset) else value
