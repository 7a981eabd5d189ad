"""One progress bar for everything that takes long."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar(shown: bool) -> Progress:
    """A bar on standard error, or in a notebook, that goes away when it is full; none where nobody would see it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not shown or not (console.is_terminal or console.is_jupyter)
    # While the bar stands, rich would send all prints to the bar's stream, even those that go to a pipe.
    return Progress(console=console, transient=True, disable=hidden, redirect_stdout=sys.stdout.isatty())
