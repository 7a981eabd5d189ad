"""Answers by several processes, also on other machines: the stages of a run as a stream of Ray Data.

    one task that lists       names of images, a batch at a time, no faster than they are answered
    N workers                 each with the checkpoints in memory: read, answer, stage; on a GPU each where one is asked
    the process that began    commits what is staged

Ray starts the workers, hands out the batches and starts again what dies. A batch whose worker died is answered anew, by
whichever worker is free: a part of it that was staged before is never committed, for nobody tells of it. All that
travels is names (bytes only of what lies in parquet files and packed tars) and where a part was staged.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import re
import signal
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from florence_lite.annotate.annotator import Annotator, ReadImage, read_ahead
from florence_lite.annotate.config import AnnotateConfig
from florence_lite.annotate.parts import RECORD, STAGING, Ids, Staged, stage
from florence_lite.annotate.progress import Told, told_of
from florence_lite.data.sources import ListedImage, list_images

BYTES_AT_ONCE = 2**25  # that a batch of pictures holds at most, where listing had to read them
WAITING = 2  # batches that a worker has at a time, one of them being answered
DEATHS = 3  # of workers at the same batch that end the run
# Quiet, and telling nobody, unless the environment says otherwise; the logs of Ray are in its own folder all the same.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what Ray would print on standard output in spite of that
    "RAY_LOGGER_LEVEL": "critical",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Names are small: Ray would list millions of them ahead before half of its memory is full.
    "RAY_DATA_DOWNSTREAM_CAPACITY_OBJECT_STORE_BUDGET_UTIL_THRESHOLD": "0",
}
COLUMN = "pickled"  # of the stream
NOTHING = pickle.dumps(None)


class Seen(NamedTuple):
    """An image that a worker has seen. done: nothing was left to ask about it. told: what is counted of its answers."""

    name: str
    image_id: int
    done: bool
    told: Told


class Outcome(NamedTuple):
    """What became of a batch of images.

    staged: the part with its rows; None where nothing was left to ask. images: all of them. revisions: of the
    checkpoints that were asked. seconds: that the batch took, without loading checkpoints. deaths: of workers that had
    it before.
    """

    staged: Staged | None
    images: list[Seen]
    revisions: tuple[str, ...]
    seconds: float
    deaths: int


def outcomes(config: AnnotateConfig, workers: int, batch: Callable[[], int], done: Ids) -> Iterator[Outcome]:
    """Answer all images of a run with `workers` processes; what they stage is the caller's to commit, at once.

    batch: tells how many images a worker answers at a time, whose rows are a part; it is asked when the cluster is
    there. done: what is not asked again; of what is added to it later, the workers do not hear.

    The cluster is the one that the program is connected to, that of RAY_ADDRESS, or one of its own on this machine.
    Raises ValueError where Ray is missing or the cluster cannot do the work, and what listing images raised, or a
    worker.
    """
    with _cluster(config, workers) as (ray, processors):
        from ray.data import ActorPoolStrategy

        stream = ray.data.read_datasource(_listing(config, batch()), override_num_blocks=1, num_cpus=0)
        stream = stream.map_batches(
            Worker,
            batch_size=1,
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=WAITING),
            fn_constructor_args=(_on_own_gpu(config), partial(ray.get, ray.put(done.numbers()))),
            num_cpus=processors,
            num_gpus=1 if _needs_gpu(config) else None,
        )
        revisions: tuple[str, ...] = ()
        for block in stream.iter_batches(batch_size=None, prefetch_batches=0):
            for outcome in map(pickle.loads, block[COLUMN]):
                if isinstance(outcome, Exception):
                    raise outcome
                revisions = revisions or outcome.revisions
                if outcome.revisions != revisions:
                    named = ", ".join(each.checkpoint for each in config.checkpoints)
                    raise ValueError(
                        f"the workers have different weights of {named}: {', '.join(revisions)} and "
                        f"{', '.join(outcome.revisions)}; give all machines the same"
                    )
                yield outcome


class Worker:
    """Answers batches of images, in a process of its own; what goes wrong it sends in the place of an outcome.

    done: gives int64 [N], sorted, which all workers of a machine share.
    """

    def __init__(self, config: AnnotateConfig, done: Callable[[], NDArray[np.int64]]):
        self.config, self._done = config, done
        self.annotator: Annotator | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {COLUMN: [_sent(self._outcome, pickle.loads(pickled)) for pickled in batch[COLUMN]]}

    def _outcome(self, images: list[ListedImage] | Exception) -> Outcome:
        if isinstance(images, Exception):  # of listing them
            raise images
        if self.annotator is None:
            if not Path(self.config.output, RECORD).is_file():
                raise ValueError(
                    f"output {self.config.output} is not there on {platform.node()}, where a worker runs: give a "
                    "folder that all machines of the cluster share"
                )
            self.done = Ids(self._done())
            self.annotator = Annotator(self.config)
        with _attempt(self.config.output, [each.name for each in images]) as deaths:
            return self._answered(self.annotator, images, deaths)

    def _answered(self, annotator: Annotator, images: list[ListedImage], deaths: int) -> Outcome:
        began, seen, asked = time.perf_counter(), [], set()

        def new_images() -> Iterator[ReadImage]:
            for image in read_ahead(images):
                is_done = all(each.done_id(image.image_id) in self.done for each in annotator.questions)
                seen.append(Seen(image.name, image.image_id, is_done, Told()))
                if not is_done and image.image_id not in asked:
                    asked.add(image.image_id)
                    yield image

        answers = list(annotator.answers(new_images(), self.done))
        told = {each.rows[0].image.image_id: told_of(each) for each in answers if each.rows}
        seen = [each._replace(told=told.get(each.image_id, Told())) for each in seen]
        staged = stage(self.config.output, answers) if any(each.rows or each.marks for each in answers) else None
        revisions = tuple(dict.fromkeys(each.query.revision for each in annotator.questions))
        return Outcome(staged, seen, revisions, time.perf_counter() - began, deaths)


# ---- the stream ------------------------------------------------------------------------------------------------------


def _listing(config: AnnotateConfig, batch: int) -> Any:
    """The images of a configuration as a source of Ray Data: rows of `COLUMN`, a pickled batch each."""
    import pyarrow as pa
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    def blocks() -> Iterator[pa.Table]:
        batches = _batches(config, batch)
        while (pickled := _sent(next, batches, None)) != NOTHING:
            yield pa.table({COLUMN: pa.array([pickled], pa.binary())})

    class Listing(Datasource):
        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
            return [ReadTask(blocks, BlockMetadata(None, None, None, None))]

    return Listing()


def _batches(config: AnnotateConfig, size: int) -> Iterator[list[ListedImage]]:
    """The images of a configuration in lists of `size`, or fewer where they carry `BYTES_AT_ONCE`. What is wrong with a
    source is raised behind the images that came before."""
    batch: list[ListedImage] = []
    carried, fault = 0, None
    try:
        for image in list_images(config.source, config.column):
            batch.append(image)
            carried += len(image.content or b"")
            if len(batch) == size or carried >= BYTES_AT_ONCE:
                yield batch
                batch, carried = [], 0
    except Exception as error:
        fault = error
    if batch:
        yield batch
    if fault is not None:
        raise fault


def _sent(function: Callable[..., Any], *arguments: Any) -> bytes:
    """What a function returns, or the error that it raises, pickled."""
    try:
        return pickle.dumps(function(*arguments))
    except Exception as error:
        sent = _told(error)
        sent.add_note(traceback.format_exc())
        try:
            pickle.loads(content := pickle.dumps(sent))
        except Exception:  # of an error that cannot be pickled
            content = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        return content


def _told(error: Exception) -> Exception:
    """The error, or one that says what to do where memory ran out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        reason = str(error).strip().split("\n")[0]
        return ValueError(f"a worker ran out of memory ({reason}); take fewer workers or half precision")
    return error


@contextmanager
def _attempt(folder: str, names: Sequence[str]) -> Iterator[int]:
    """A try at a batch of images; how many workers died of it. ValueError where `DEATHS` did.

    Files in `staging/` tell, which stay behind only where a worker dies.
    """
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]
    staging = Path(folder) / STAGING
    before = list(staging.glob(f"{digest}.*.attempt"))
    if len(before) >= DEATHS:
        raise ValueError(
            f"{len(before)} workers died of the images from {names[0]} to {names[-1]}, most likely for want of memory: "
            "take fewer workers, or leave those images out"
        )
    attempt = staging / f"{digest}.{uuid.uuid4().hex[:8]}.attempt"
    attempt.touch()
    try:
        yield len(before)
    finally:
        for each in (*before, attempt):
            each.unlink(missing_ok=True)


# ---- the cluster -----------------------------------------------------------------------------------------------------


@contextmanager
def _cluster(config: AnnotateConfig, workers: int) -> Iterator[tuple[Any, int]]:
    """Ray, connected to a cluster, and the processors that each worker gets; one of its own ends with the statement.

    Raises ValueError where Ray is missing, the cluster of RAY_ADDRESS is not there or fails, and where this machine
    has too few GPUs.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise ValueError(
            "engine ray needs the package ray: pip install 'florence-lite[distributed]'; the embedded engine needs "
            "nothing more"
        ) from None
    logged = os.environ["RAY_LOG_TO_DRIVER"] != "0"  # which Ray reads when it is imported, maybe long before
    processors, address, connected = 1, os.environ.get("RAY_ADDRESS"), ray.is_initialized()
    if not connected and address:
        try:
            if there := re.fullmatch(r"(.+):(\d+)", address):  # which Ray would try for minutes
                socket.create_connection((there[1], int(there[2])), timeout=10).close()
            with _connecting():
                ray.init(address, log_to_driver=logged)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise ValueError(f"RAY_ADDRESS = {address!r}: there is no cluster to connect to: {_line(error)}") from None
    elif not connected:
        processors = max(1, (os.cpu_count() or 1) // workers)
        with _connecting():
            ray.init("local", num_cpus=workers * processors, include_dashboard=False, log_to_driver=logged)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if _needs_gpu(config) and gpus < workers:
            ray.shutdown()
            raise ValueError(f"{workers} workers on {workers} GPUs: this machine has {gpus}; take fewer workers")
    _quieten()
    context = ray.data.DataContext.get_current()
    before, context.target_max_block_size = context.target_max_block_size, 1  # a batch travels as soon as it is there
    logs = f"/tmp/ray/{ray.get_runtime_context().get_session_name()}/logs"
    try:
        yield ray, processors
    except ray.exceptions.RayError as error:
        line = _line(error)
        remedy = "install the same florence-lite on all its machines; " if "No module named" in line else ""
        raise ValueError(f"the cluster could not go on: {line}; {remedy}the logs of Ray are in {logs}") from error
    finally:
        context.target_max_block_size = before
        if not connected:
            ray.shutdown()


@contextmanager
def _connecting() -> Iterator[None]:
    """Standard error goes nowhere: Ray says there which of the settings it has found. What this program does on
    SIGTERM, which Ray replaces, is put back."""
    on_sigterm = signal.getsignal(signal.SIGTERM)
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)


def _quieten() -> None:
    """Ray Data speaks on standard error from the same level on as Ray; its file keeps everything."""
    level = os.environ["RAY_LOGGER_LEVEL"].upper()
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(level)


def _line(error: Exception) -> str:
    """The last line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _needs_gpu(config: AnnotateConfig) -> bool:
    return any(each.device.startswith("cuda") for each in config.checkpoints)


def _on_own_gpu(config: AnnotateConfig) -> AnnotateConfig:
    """The configuration for a worker: of the GPUs it sees its own alone."""
    checkpoints = [
        replace(each, device="cuda") if each.device.startswith("cuda") else each for each in config.checkpoints
    ]
    return replace(config, checkpoints=tuple(checkpoints))
