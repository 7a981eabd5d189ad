"""`florence-lite refine`: which answers are worth training on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from florence_lite.cli.common import SHARE, AsJson, needing, show, show_json, within


def refine(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder that annotate wrote.", show_default=False)],
    to: Annotated[str, typer.Option(metavar="OUT", help="Folder of what is kept; one that refine wrote is replaced.")],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Stages and their settings, see examples/; options go before it."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            **SHARE,
            help="The least score that is kept, 0.3 if absent. Scores put answers in order; how many of those with one "
            "score are right, OUT/near.html shows. The presence of phrases is judged from 0.5, a probability where the "
            "checkpoint is calibrated (florence-lite calibrate).",
        ),
    ] = None,
    with_stage: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="STAGE", help="Also judge by captions, regions or balance; repeat --with."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Leave a stage out; repeat --without.")
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Annotations by a person, as JSONL, COCO …; they win over the model."),
    ] = None,
    empty_are_negatives: Annotated[
        bool,
        typer.Option("--empty-are-negatives", help="Believe answers that list nothing; else they train nothing."),
    ] = False,
    sheet: Annotated[
        int | None, typer.Option(metavar="N", callback=within(0), help="Images near a threshold to show, 48 if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Filter answers in stages, and write into OUT what is kept, what is dropped with its reasons, and what is near.

    Stages judge one after the other: repeated, errors, faults (parse errors, truncated, foreign pictures), scores,
    presence, slivers, whole (boxes of the whole image), twins, opinions (what no second checkpoint or tag confirms),
    captions (labels that no caption mentions), regions (boxes that are called otherwise when asked about), orphans
    (answers about boxes that are gone), duplicates (images that look alike), balance (labels that there are enough of).

    OUT is a data set that train, eval and data read. OUT/near.html shows what is nearest to a threshold, and tells how
    corrections come back.

    The exit code is 1 where OUT was written but some of the corrections could not be used.
    """
    from florence_lite.progress import progress_bar
    from florence_lite.refine import RefineConfig
    from florence_lite.refine import refine as filter_answers

    chosen = RefineConfig() if config is None else RefineConfig.from_toml(config)
    settings = {name: dict(table) for name, table in chosen.settings.items()}
    for name in with_stage or []:
        settings.setdefault(name, {})
    if threshold is not None:
        settings.setdefault("scores", {})["threshold"] = threshold
    chosen = replace(
        chosen,
        settings=settings,
        without=tuple({*chosen.without, *(without or [])}),
        empty_are_negatives=empty_are_negatives or chosen.empty_are_negatives,
        sheet=chosen.sheet if sheet is None else sheet,
    )
    with needing("annotate"), progress_bar(not as_json) as bar:
        task = bar.add_task("reading", total=None)
        report = filter_answers(
            folder,
            to,
            chosen,
            corrections,
            lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    if as_json:
        show_json(report.to_dict())
    else:
        for line in report.lines():
            show(line)
        if report.sheet:
            show(f"nearest to a threshold: {report.sheet} images, shown in {Path(to) / 'near.html'}")
    if report.unmatched:
        raise typer.Exit(1)
