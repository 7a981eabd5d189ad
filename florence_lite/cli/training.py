"""`florence-lite train` and `florence-lite eval`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from florence_lite.cli.common import (
    AsJson,
    Checkpoint,
    Columns,
    Device,
    Format,
    Outside,
    Precision,
    Tile,
    load,
    needing,
    read_data,
    say,
    stoppable,
)

if TYPE_CHECKING:
    from florence_lite.data.samples import Dataset
    from florence_lite.evaluate.report import Report
    from florence_lite.florence import Florence
    from florence_lite.train.config import ValidationConfig


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run, see examples/.", show_default=False)],
    continue_with_changes: Annotated[
        bool,
        typer.Option(
            "--continue-with-changes",
            help="Go on with a run whose data or settings have changed; without it such a run is refused.",
        ),
    ] = False,
) -> None:
    """Train from scratch on generated scenes, or a checkpoint further on data of your own, as the configuration says.

    An interrupted run goes on where it was. Standard output tells how far the run is, a line every half a minute where
    no bar does, and in its last line the folder of the checkpoint to go on with.
    """
    with stoppable(lambda: _how_to_go_on(config)):
        folder = _trained(config, continue_with_changes)
    if os.environ.get("RANK", "0") == "0":  # of several processes one tells
        print(folder)


def _how_to_go_on(config: Path) -> str:
    """What the same command does after the run was stopped."""
    from florence_lite.files import read_toml
    from florence_lite.train.config import CONFIGURATION, RunConfig
    from florence_lite.train.folders import STATE, saved_step

    settings = read_toml(config, CONFIGURATION)
    try:
        step = saved_step(Path(settings["output"]) / STATE)
    except ValueError:
        step = 0
    if step:
        return f"the same command goes on from step {step}, whose state was saved last"
    every = settings.get("save_every", RunConfig.save_every)
    return f"no state was saved yet (save_every = {every}): the same command begins anew"


def _trained(config: Path, continue_with_changes: bool) -> Path:
    """The folder of the checkpoint, after the run that a configuration describes."""
    from florence_lite.files import read_toml
    from florence_lite.train.config import CONFIGURATION, FineTuneConfig

    if "checkpoint" in read_toml(config, CONFIGURATION):
        own = FineTuneConfig.from_toml(config)
        with needing("train,eval" if own.validation else "train"):
            from florence_lite.scenes import GENERATORS
            from florence_lite.train.finetuning import finetune

            if own.validation:
                _check_metric(config, own.validation)
            return finetune(own, GENERATORS, continue_with_changes)
    from florence_lite.scenes.config import TrainConfig

    settings = TrainConfig.from_toml(config)
    with needing("train,eval" if settings.evaluate_scenes else "train"):
        from florence_lite.scenes.measure import scene_validation
        from florence_lite.scenes.training import train as train_on_scenes

        measure = scene_validation(settings).metrics if settings.evaluate_scenes else None
        return train_on_scenes(settings, measure, continue_with_changes)


def _check_metric(config: Path, validation: ValidationConfig) -> None:
    """ValueError, naming the file, for tasks or a metric that cannot be measured."""
    from florence_lite.train.validation import decisive_metric

    try:
        decisive_metric(validation.tasks, validation.metric)
    except ValueError as error:
        raise ValueError(f"{config}: {error}") from None


def evaluate(
    more_tasks: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    checkpoint: Checkpoint = None,
    data: Annotated[
        Path | None, typer.Option(metavar="D", help="Folder or file of annotated images; else generated scenes.")
    ] = None,
    format: Format = "auto",
    column: Columns = None,
    outside: Outside = False,
    tasks: Annotated[
        list[str] | None,
        typer.Option(metavar='"<TASK>" …', help="What to ask: one or several markers; of scenes some if absent."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="S", help="train, validation or test; else all data, or the test scenes.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(metavar="N", help="Images, from the first; else all data, or 200 scenes.")
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(metavar="A", help="Artwork style; repeat --style for several. Default: fluent and openmoji."),
    ] = None,
    panoptic: Annotated[
        bool, typer.Option("--panoptic", help="Measure panoptic segmentation instead of tasks, beside a baseline.")
    ] = False,
    retrieval: Annotated[
        bool,
        typer.Option(
            "--retrieval",
            help="Measure instead of tasks which texts and images and which phrases and places belong together, "
            "matching, questions with closed answers and infilling; all texts go with all images, so give --count.",
        ),
    ] = False,
    margins: Annotated[
        bool, typer.Option("--margins", help="Tell half the width of the 95 % interval of each figure, too.")
    ] = False,
    tile: Tile = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint on annotated images, or without --data on generated scenes."""
    asked = [*(tasks or []), *(more_tasks or [])]
    ways = {"--panoptic": panoptic, "--retrieval": retrieval, "--tasks": bool(asked)}
    if len(chosen := [name for name, is_chosen in ways.items() if is_chosen]) > 1:
        raise ValueError(f"{' and '.join(chosen)} exclude each other; measure them one after the other")
    if margins and (panoptic or retrieval):
        raise ValueError("--margins belongs to tasks; leave it out or leave out --panoptic and --retrieval")
    if tile is not None:
        if data is None or not asked:
            raise ValueError("--tile belongs to tasks on annotated images: give their folder as --data, and --tasks")
        from florence_lite.cards import task
        from florence_lite.inference.tiling import as_tiling

        as_tiling(tile, [task(name) for name in asked])
    if data is not None:
        if style:
            raise ValueError("--style belongs to generated scenes; leave it out or leave out --data")
        if not chosen:
            raise ValueError('--data needs --tasks, the markers of what to ask, such as --tasks "<OD>" "<CAPTION>"')
        report = _measured(
            asked,
            retrieval,
            lambda: read_data(data, format, split, column, outside),
            lambda: load(checkpoint, device, precision=precision),
            count,
            margins,
            tile,
        )
    elif column or outside or format != "auto":
        raise ValueError("--format, --column and --outside belong to annotated images; give their folder as --data")
    else:
        with needing("train,eval"):
            from florence_lite.cards import task
            from florence_lite.evaluate.metrics import metrics_of
            from florence_lite.scenes import DEFAULT_STYLES
            from florence_lite.scenes.measure import TASKS, evaluate_scenes, retrieval_of_scenes

            asked = [] if panoptic or retrieval else asked or list(TASKS)
            for name in asked:
                metrics_of(task(name))
            styles = tuple(style or DEFAULT_STYLES)
            number = 200 if count is None else count
            florence = load(checkpoint, device, precision=precision)
            if retrieval:
                report = retrieval_of_scenes(florence, split or "test", number, styles)
            else:
                report = evaluate_scenes(florence, split or "test", number, styles, asked, margins)
    print(json.dumps(report.to_dict()) if as_json else report)


def _measured(
    tasks: list[str],
    retrieval: bool,
    read: Callable[[], Dataset],
    load: Callable[[], Florence],
    count: int | None,
    margins: bool,
    tile: tuple[int, int] | None,
) -> Report:
    """The report on the data; without tasks that on retrieval or the panoptic one.

    What is wrong with tasks and data is reported before the network loads.
    """
    from florence_lite.cards import task

    with needing("eval"):
        from florence_lite.evaluate import evaluate, evaluate_panoptic, evaluate_retrieval
        from florence_lite.evaluate.metrics import metrics_of

        if not tasks:
            import torchmetrics  # noqa: F401  before the work, not after it
        for name in tasks:
            metrics_of(task(name))
    dataset = read()
    for kind, times in Counter(problem.kind for problem in dataset.problems).items():
        say(f"data: {kind}: {times}")
    if tasks:
        return evaluate(load(), dataset, tasks, count, margins, tile)
    return (evaluate_retrieval if retrieval else evaluate_panoptic)(load(), dataset, count)
