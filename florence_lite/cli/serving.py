"""`florence-lite serve`: prompts about images over HTTP."""

from __future__ import annotations

import logging
import math
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence_lite.cli.common import Adapter, Checkpoint, Device, Precision, load, needing, say, within

if TYPE_CHECKING:
    import uvicorn

MB = 2**20
KEEP_ALIVE = 75  # seconds that a connection may be idle: longer than proxies keep theirs, who would find it closed


def serve(
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    host: Annotated[
        str, typer.Option(metavar="H", help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", callback=within(0, 65535), help="0: any free one.")] = 8000,
    max_queue: Annotated[
        int, typer.Option(metavar="N", callback=within(1), help="Requests on their way; more are refused with 429.")
    ] = 64,
    max_upload: Annotated[
        int, typer.Option(metavar="MB", callback=within(1), help="The largest body of a request, in MiB.")
    ] = 20,
    timeout: Annotated[
        int, typer.Option(metavar="S", callback=within(1), help="Seconds from a request to its answer.")
    ] = 60,
    cache: Annotated[
        int, typer.Option(metavar="MB", callback=within(0), help="MiB of encoded images to keep for the next request.")
    ] = 256,
) -> None:
    """Answer prompts about images over HTTP until Ctrl-C or SIGTERM, after which what was accepted is still answered.

    POST /run and /stream take a form or JSON; GET /tasks, /health and /docs tell more. With curl:

    curl -F image=@photo.jpg --form-string "prompt=<OD>" http://127.0.0.1:8000/run
    """
    with needing("serve"):
        import python_multipart  # noqa: F401  forms
        import uvicorn  # noqa: F401

        from florence_lite.serve import create_app

    listening = _listen(host, port)  # before the network loads
    with listening:
        florence = load(checkpoint, device, adapter, precision)
        app = create_app(florence, max_queue, max_upload * MB, timeout, cache * MB)
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what clients do wrong is told to them
        shown, number = listening.getsockname()[:2]
        address = f"[{shown}]:{number}" if ":" in shown else f"{shown}:{number}"
        say(f"{florence.name} answers at http://{address} (described at /docs)")
        try:
            server_of(app, timeout).run(sockets=[listening])
        except KeyboardInterrupt:  # which uvicorn passes on when everything is answered
            say("stopped; all that was accepted is answered")
            raise typer.Exit(130) from None


def server_of(app: Any, timeout: float) -> uvicorn.Server:
    """The server of an application that answers within `timeout` seconds.

    When it is to end, it waits so long for its answers, and a little for clients to take them.
    """
    import uvicorn

    from florence_lite.serve.app import SENDING

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(timeout + SENDING),
    )
    return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
        # Its connections inherit it; asyncio sets it only on sockets that it made. Without it an answer's body waits
        # for the client to acknowledge the head, 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port} cannot be listened at: {error.strerror or error}; choose another"
        ) from None
