"""The command `florence-lite`: prompts about image files, the cards, data sets, annotation, training and evaluation.

Answers go to standard output, everything else to standard error. Exit codes: 0 all went well; 1 some of the images
could not be answered; 2 none could, or the command has a mistake; 130 and 143 Ctrl-C and SIGTERM stopped it. A fault is
reported in a line that begins `error:`.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer

from florence_lite.cli.annotating import annotate
from florence_lite.cli.calibrating import calibrate
from florence_lite.cli.cards import checkpoints, tasks
from florence_lite.cli.common import STOPPED, OutputError, has_remedy, say, say_error
from florence_lite.cli.data import data_app
from florence_lite.cli.demonstrating import demo
from florence_lite.cli.exporting import export
from florence_lite.cli.refining import refine
from florence_lite.cli.retrieving import find, match, rank
from florence_lite.cli.running import RunCommand, run
from florence_lite.cli.segmenting import panoptic, remove, segment
from florence_lite.cli.serving import serve
from florence_lite.cli.training import evaluate, train
from florence_lite.cli.usage import epilog, taught

MISTAKES = (ValueError, OSError, FloatingPointError)  # of a user: input, files, a learning rate that is too high


class _EvalCommand(typer.core.TyperCommand):
    """Leaves its further markers, which are part of --tasks, out of the usage line."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]"]


class _Commands(typer.core.TyperGroup):
    """Tells a user's mistake in one line instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except MISTAKES as error:
            say_error(error)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            if not has_remedy(error):
                raise
            say_error(error)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say("stopped")
            raise typer.Exit(STOPPED) from None


# Plain help: its brackets and markers are no markup, and it appears without loading rich.
app = typer.Typer(
    cls=_Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=epilog()
)
app.command(cls=RunCommand, **taught("run"))(run)
app.command(**taught("segment"))(segment)
app.command(**taught("panoptic"))(panoptic)
app.command(**taught("remove"))(remove)
app.command(**taught("match"))(match)
app.command(**taught("rank"))(rank)
app.command(**taught("find"))(find)
app.command(**taught("tasks"))(tasks)
app.command(**taught("checkpoints"))(checkpoints)
app.command(**taught("annotate"))(annotate)
app.command(**taught("refine"))(refine)
app.add_typer(data_app, name="data")
app.command(**taught("train"))(train)
app.command(**taught("calibrate"))(calibrate)
app.command("eval", cls=_EvalCommand, **taught("eval"))(evaluate)
app.command(**taught("serve"))(serve)
app.command(**taught("export"))(export)
app.command(**taught("demo"))(demo)


def main() -> None:
    """The entry point. A reader that stops early, such as `head`, ends the command quietly, as does one that is absent.

    Letters that the terminal cannot show are escaped, so that nothing is lost and nothing fails.
    """
    # Before torch is imported: threads that wait for each other sleep soon, instead of taking a busy machine's time.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, or a program without a console
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except (OutputError, OSError) as error:  # a full disk behind ">"; OSError: what was still to be flushed
        say_error(f"standard output cannot be written: {getattr(error, 'strerror', None) or error}")
        _drop_output()
        sys.exit(2)


def _drop_output() -> None:
    """What is still to be written goes nowhere: the interpreter flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        import torch

        from florence_lite import __version__
        from florence_lite.engine.fast import kernel

        print(f"florence-lite {__version__}, torch {torch.__version__}, kernels: {kernel.told()}")
        raise typer.Exit


@app.callback()
def florence_lite(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print what is installed and exit.")
    ] = False,
) -> None:
    """Prompts about images in; boxes, polygons, words and captions with scores out."""
