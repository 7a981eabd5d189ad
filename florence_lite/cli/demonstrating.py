"""`florence-lite demo`: a page in the browser that asks a checkpoint."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from florence_lite.cli.common import Adapter, Checkpoint, Device, Precision, load, needing, show, within
from florence_lite.cli.inputs import sample


def demo(
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    port: Annotated[
        int | None,
        typer.Option(metavar="N", callback=within(1, 65535), help="Where the page is, else the first free from 7860."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help="Have the system's browser open the page.")] = False,
) -> None:
    """Show a page on this machine: drop an image, choose a task, see the answer, its scores and its JSON.

    Other machines cannot reach the page, nothing leaves this one, and no network is needed. Ctrl-C ends it.
    """
    with needing("demo"):
        import gradio  # noqa: F401  before the checkpoint, whose loading may take long

        from florence_lite.demo.page import served
    florence = load(checkpoint, device, adapter, precision)
    from florence_lite.images import load_image

    with served(florence, load_image(sample()), port, browser) as address:
        show(f"the page is at {address}  (Ctrl-C ends it)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
