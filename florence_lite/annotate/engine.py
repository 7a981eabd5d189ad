"""A run of the data engine: from a configuration to parts of rows, each exactly once.

The embedded engine is one process: threads read and digest files ahead of the networks, which answer without a pause,
and another thread writes what is finished. With the number of images nothing grows but some tens of bytes for each,
the numbers by which they are known. A file that is answered is not even read again, as long as it does not change.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from florence_lite.annotate.annotator import Annotator, ReadImage, read_ahead
from florence_lite.annotate.config import AnnotateConfig
from florence_lite.annotate.parts import STAGING, Answers, Ids, Output, open_output, stage, telling
from florence_lite.annotate.progress import Progress, Report, damage_told, told_of
from florence_lite.checks import is_whole
from florence_lite.data.sources import ListedImage, count_images, list_images
from florence_lite.inference.many_images import IMAGES_AHEAD

SECONDS_PER_PART = 60.0  # after which a part is written, however few images it has: a killed run loses no more
ROWS_PER_PART = 2**14  # at which it is
ENGINES = ("embedded", "ray")
DUPLICATES = "duplicates.jsonl"


def annotate(
    config: AnnotateConfig,
    engine: str = ENGINES[0],
    workers: int = 1,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Ask the checkpoints of a configuration its tasks about every image of its source, and write the answers.

    What is done is not asked again, so that the same call goes on after whatever ended it.

    engine: "embedded", in this process, or "ray", with `workers` processes of Ray, on a cluster if it is there.
    tell: gets lines for people, how far the run is among them; standard error without it.

    On Ctrl-C and SIGTERM what is finished is written; then KeyboardInterrupt is raised, or SystemExit with code 143.
    Raises FileNotFoundError and ValueError for sources, checkpoints, options and output folders that cannot be used,
    OSError where the output cannot be written.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; choose one of {', '.join(ENGINES)}")
    if not is_whole(workers, 1) or engine == "embedded" and workers != 1:
        raise ValueError(
            f"workers is {workers!r}; it must be a whole number of at least 1, and more than 1 only with the engine "
            "ray (--engine ray)"
        )
    tell = tell or _to_stderr
    listed = list_images(config.source, config.column)
    listed = chain([next(listed)], listed)  # a source without images is told before anything is loaded or made
    annotator = Annotator(config) if engine == "embedded" else None
    with open_output(config.output, config.asked()) as output, _stoppable(at_once=engine == "ray") as stop:
        for line in (*damage_told(output.damaged), *([output.news] if output.news else [])):
            tell(line)
        damaged = [str(each.path) for each in output.damaged]
        report = Report(str(output.folder), failed_before=output.failed, damaged=damaged)
        with Progress(report, tell) as progress:
            _count(config, progress)
            if annotator is not None:
                _embedded(config, annotator, listed, output, progress, stop.event)
            else:
                try:
                    _by_workers(config, workers, output, progress)
                except KeyboardInterrupt:
                    if stop.signal is None:
                        raise
        if not stop.event.is_set():
            output.sweep()
        else:
            report.images = max(report.images, progress.total or 0)  # else those that it came to
            for line in report.lines():
                tell(line)
            tell("stopped; what is finished is kept: give the same command again to go on")
    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if stop.signal is not None:
        sys.exit(128 + stop.signal)
    return report


def _embedded(
    config: AnnotateConfig,
    annotator: Annotator,
    listed: Iterable[ListedImage],
    output: Output,
    progress: Progress,
    stop: threading.Event,
) -> None:
    report, done = progress.report, output.done

    def is_done(key: int) -> int | None:
        image_id = output.files.image_id(key)
        known = image_id is not None and all(each.done_id(image_id) in done for each in annotator.questions)
        return image_id if known else None

    with _Writer(output, report, config.images_per_part) as writer, _Duplicates(output.folder) as duplicates:
        images = _new_images(read_ahead(listed, is_done), annotator, done, report, duplicates)
        for answers in annotator.answers(images, done, stop):
            report.add(told_of(answers))
            writer.add(answers)
            progress.update()
        if not stop.is_set():
            duplicates.keep()
    progress.update()


def _by_workers(config: AnnotateConfig, workers: int, output: Output, progress: Progress) -> None:
    from florence_lite.annotate.ray_engine import outcomes

    def batch() -> int:
        """So small that all workers end at about the same time."""
        share = config.images_per_part if progress.total is None else progress.total // (8 * workers)
        return min(config.images_per_part, max(IMAGES_AHEAD // 2, share))

    report, seen = progress.report, Ids()
    with _Duplicates(output.folder) as duplicates:
        for outcome in outcomes(config, workers, batch, output.done):
            if not report.images:  # starting workers is not answering
                progress.started = time.monotonic() - outcome.seconds
            if outcome.deaths:
                progress.tell(f"a worker died; the {len(outcome.images)} images that it had were answered by another")
            if outcome.staged is not None:
                if not os.path.isfile(outcome.staged.path):
                    raise ValueError(
                        f"a worker staged {outcome.staged.path}, which is not here: give an output that all machines "
                        "of the cluster share"
                    )
                report.rows += output.commit(outcome.staged)
                report.parts += 1
            for image in outcome.images:
                report.images += 1
                if not seen.add(image.image_id):
                    report.duplicates += 1
                    duplicates.add(image)
                elif image.done:
                    report.done += 1
                else:
                    report.add(image.told)
            progress.update()
        duplicates.keep()


def _new_images(
    images: Iterable[ReadImage], annotator: Annotator, done: Ids, report: Report, duplicates: _Duplicates
) -> Iterator[ReadImage]:
    """The images about which something is not answered yet, none twice."""
    seen = Ids()
    for image in images:
        report.images += 1
        if not seen.add(image.image_id):
            report.duplicates += 1
            duplicates.add(image)
        elif all(question.done_id(image.image_id) in done for question in annotator.questions):
            report.done += 1
        else:
            yield image


def _count(config: AnnotateConfig, progress: Progress) -> None:
    """Let another thread find out how many images there are."""

    def count() -> None:
        try:
            progress.total = count_images(config.source, config.column)
        except (ValueError, OSError):
            return  # the run itself tells

    threading.Thread(target=count, name="florence-lite counts", daemon=True).start()


class _Writer:
    """Writes answers as parts, in a thread of its own; what goes wrong there is raised by the next call."""

    def __init__(self, output: Output, report: Report, images_per_part: int):
        self._output, self._report, self._images = output, report, images_per_part
        self._answers: list[Answers] = []
        self._rows, self._since = 0, time.monotonic()
        self._writing: Future[int] | None = None
        self._thread = ThreadPoolExecutor(1, "florence-lite writes")

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, fault: type[BaseException] | None, *_: Any) -> None:
        try:
            self._begin()
            self._end()
        except OSError:
            if fault is None:  # else what went wrong before is what people need to know
                raise
        finally:
            self._thread.shutdown()

    def add(self, answers: Answers) -> None:
        self._answers.append(answers)
        self._rows += len(answers.rows)
        waited = time.monotonic() - self._since
        if len(self._answers) >= self._images or self._rows >= ROWS_PER_PART or waited >= SECONDS_PER_PART:
            self._begin()

    def _begin(self) -> None:
        self._end()
        if any(each.rows or each.marks for each in self._answers):
            self._writing = self._thread.submit(self._write, self._answers)
        self._answers, self._rows, self._since = [], 0, time.monotonic()

    def _end(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._report.rows += writing.result()
            self._report.parts += 1

    def _write(self, answers: list[Answers]) -> int:
        return self._output.commit(stage(self._output.folder, answers))


class _Duplicates:
    """The list of files that have the same bytes as others: JSON lines of source and image_id. It replaces that of the
    run before when all of the source has been seen."""

    def __init__(self, folder: Path):
        self._folder, self._file, self._staged = folder, folder / DUPLICATES, folder / STAGING / DUPLICATES
        self._stream: TextIO | None = None

    def __enter__(self) -> _Duplicates:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._stream is not None:
            with suppress(OSError):  # of a list that is not kept
                self._stream.close()
            self._staged.unlink(missing_ok=True)

    def add(self, image: Any) -> None:
        """image: has a name and an image_id."""
        line = json.dumps({"source": image.name, "image_id": image.image_id}, ensure_ascii=False)
        with telling(self._folder):
            self._stream = self._stream or self._staged.open("w", encoding="utf-8")
            self._stream.write(line + "\n")

    def keep(self) -> None:
        """The list is whole."""
        if self._stream is None:
            self._file.unlink(missing_ok=True)
            return
        with telling(self._folder):
            self._stream.close()
            os.replace(self._staged, self._file)


class _Stop:
    """event: is set when the run shall end. signal: that asked for it."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None


@contextmanager
def _stoppable(at_once: bool) -> Iterator[_Stop]:
    """Within, the first Ctrl-C or SIGTERM asks the run to end, or raises KeyboardInterrupt `at_once`; a second one ends
    it in any case."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def asked(number: int, _: Any) -> None:
        restore()
        stop.signal = number
        stop.event.set()
        if at_once:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, asked)
    try:
        yield stop
    finally:
        restore()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
