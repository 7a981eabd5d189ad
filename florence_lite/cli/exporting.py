"""`florence-lite export`: a checkpoint for onnxruntime or OpenVINO."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from florence_lite.cli.common import Adapter, AsJson, Checkpoint, needing, say, show, show_json
from florence_lite.cli.inputs import SAMPLE, find_images


def export(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write, a new or an empty one.")],
    checkpoint: Checkpoint = None,
    adapter: Adapter = None,
    to: Annotated[str, typer.Option(metavar="F", help="Format of the graphs: onnx or openvino.")] = "onnx",
    precision: Annotated[
        str,
        typer.Option(
            metavar="P", help="fp32, or for onnx int8: matrices of a quarter of the size; answers may differ."
        ),
    ] = "fp32",
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE",
            help="Image, folder or pattern on which answers are compared with the checkpoint's; else the sample. "
            "Repeat --compare for several.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as graphs that run without torch, with a short program that asks them.

    Of a LoRA adapter, given as --adapter or as the checkpoint, the merged weights are written. The answers of the
    graphs to all tasks without input are compared with those of the checkpoint, and differences are told.
    """
    from florence_lite.export import export as write
    from florence_lite.export.exporting import check_call
    from florence_lite.florence import DEFAULT_CHECKPOINT, Florence

    images = find_images(compare or [SAMPLE])
    with needing("openvino" if to == "openvino" else "export"):
        check_call(output, to, precision)
        florence = Florence.from_pretrained(checkpoint or DEFAULT_CHECKPOINT, dtype="float32", adapter=adapter)
        found = write(
            florence, output, to, precision, [image.source for image in images], lambda part: say(f"{part} …")
        )
    files = {file.name: file.stat().st_size for file in sorted(output.iterdir())}
    if as_json:
        show_json({"folder": str(output), "format": to, "precision": precision, "files": files, **asdict(found)})
        return
    show(f"written to {output}: " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in files.items()))
    show(str(found))
    show(f'ask it, without torch:  python {output / "runner.py"} photo.jpg "<OD>"')
