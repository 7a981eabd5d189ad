"""One progress bar for everything that takes long."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def progress_bar(shown: bool, *columns: ProgressColumn | str, transient: bool = True) -> Progress:
    """A bar on standard error, or in a notebook; none where nobody would see it.

    columns: what it shows; rich's usual ones if none are given. transient: whether it goes away when it is full.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not shown or not (console.is_terminal or console.is_jupyter)
    # While the bar stands, rich would send all prints to the bar's stream, even those that go to a pipe.
    return Progress(*columns, console=console, transient=transient, disable=hidden, redirect_stdout=sys.stdout.isatty())
