"""A checkpoint → a folder that runs without torch: graphs, tokenizer, what the runner has to know, and the runner."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from florence_lite.cards import Calibration, TaskCard, task, tasks
from florence_lite.export import runner
from florence_lite.export.comparing import GREEDY, Comparison, compare
from florence_lite.export.parts import encoder_graph, quiet, step_graph, vision_graph
from florence_lite.files import refuse_long_name, replace_text
from florence_lite.florence import Florence
from florence_lite.images import load_image
from florence_lite.tokens import grammar

TARGETS = {  # with the extra and the packages that each needs
    "onnx": ("export", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": ("openvino", ("onnx", "onnxscript", "openvino")),
}
PRECISIONS = ("fp32", "int8")
NAMED_IDS = ("bos", "eos", "sep", "poly_open", "poly_close", "loc_first")  # of a vocabulary
SENTENCE = "sentence"  # any free prompt


def export(
    florence: Florence,
    folder: str | os.PathLike,
    to: str = "onnx",
    precision: str = "fp32",
    images: Sequence[Any] = (),
    progress: Callable[[str], None] = lambda part: None,
) -> Comparison:
    """Write a checkpoint as graphs of vision tower, encoder and decoder step, with a runner that needs no torch.

    folder: a new or an empty one. It is written at once, when everything is done.
    to: "onnx" or "openvino". precision: "int8" stores the matrices of ONNX graphs in 8 bits, which changes answers.
    images: on which the answers of the folder are compared with those of `florence`, as `load_image` takes them; its
        errors are raised.
    progress: told the name of each part before it is made, which takes up to minutes.

    Returns how many answers about `images` are other ones. Raises ValueError for an unknown target or precision, a
    folder that holds something, weights that are not float32 on the processor, and a network that cannot be exported;
    ModuleNotFoundError where a package of the extra is missing.
    """
    folder = Path(folder)
    check_call(folder, to, precision)
    _check_weights(florence)
    pictures = [load_image(image) for image in images]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        partial = Path(scratch, "whole")
        partial.mkdir()
        _write_graphs(florence, partial, to, precision, progress)
        florence.tokenizer.save(partial)
        replace_text(partial / "export.json", json.dumps(about(florence, to, precision), indent=1) + "\n")
        shutil.copyfile(runner.__file__, partial / "runner.py")
        progress("comparison")
        found = compare(florence, partial, pictures)
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    return found


def check_call(folder: Path, to: str, precision: str) -> None:
    """What can be refused before there is a checkpoint; raises as `export`."""
    if to not in TARGETS:
        raise ValueError(f'to="{to}" is unknown; choose from {", ".join(TARGETS)}')
    if precision not in PRECISIONS:
        raise ValueError(f'precision="{precision}" is unknown; choose from {", ".join(PRECISIONS)}')
    if precision == "int8" and to != "onnx":
        raise ValueError(f'precision="int8" is there for onnx alone; leave it out, or take to="onnx" instead of "{to}"')
    refuse_long_name(folder, "the folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a new or empty folder")
    if folder.is_dir() and (held := sorted(os.listdir(folder))):
        raise ValueError(f"folder {folder} holds other things, {held[0]} for one; give a new or empty folder")
    extra, packages = TARGETS[to]
    for package in packages:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            remedy = f"pip install 'florence-lite[{extra}]'"
            raise ModuleNotFoundError(f"the package {error.name} is missing; {remedy}", name=error.name) from None


def _check_weights(florence: Florence) -> None:
    weight = florence.model.embed_tokens.weight
    if weight.dtype != torch.float32:
        kind = str(weight.dtype).removeprefix("torch.")
        raise ValueError(f"graphs are made of float32 weights, these are {kind}: load with dtype=torch.float32")
    if weight.device.type != "cpu":
        raise ValueError(
            f'graphs are made on the processor, the weights are on {weight.device}: load with device="cpu"'
        )


def _write_graphs(florence: Florence, folder: Path, to: str, precision: str, progress: Callable[[str], None]) -> None:
    config = florence.model.config
    source_length = config.image_tokens if config.prompt_side == "decoder" else None
    makers: dict[str, Callable] = {
        "vision": vision_graph,
        "encoder": encoder_graph,
        "decoder_step": lambda model: step_graph(model, source_length),
    }
    for name, make in makers.items():
        progress(name)
        try:
            program = make(florence.model)
        except Exception as error:  # the exporter raises its own kinds, and any that the network does
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise ValueError(
                f"checkpoint {florence.name!r} cannot be exported, its {name} is in the way: {reason}"
            ) from error
        file = folder / f"{name}.onnx"
        program.save(file)
        if precision == "int8":
            _store_in_8_bits(file)
        if to == "openvino":
            import openvino

            openvino.save_model(openvino.convert_model(file), file.with_suffix(".xml"), compress_to_fp16=False)
            for written in _files_of(file):
                written.unlink()


def _store_in_8_bits(file: Path) -> None:
    """Matrices that activations are multiplied with become 8 bits a number, with a scale for every 32 of them."""
    with quiet():
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(onnx.load(file), bits=8, block_size=32, is_symmetric=True)
        quantizer.process()
        for written in _files_of(file):
            written.unlink()
        quantizer.model.save_model_to_file(str(file))


def _files_of(graph: Path) -> list[Path]:
    """The file of an ONNX graph, and that of its weights where these are too large for one."""
    return list(graph.parent.glob(f"{graph.name}*"))


# ---- what the runner has to know -------------------------------------------------------------------------------------


def about(florence: Florence, to: str, precision: str) -> dict[str, Any]:
    """What `export.json` holds: all that the runner has to know beside graphs and tokenizer."""
    config, vocabulary, preprocessor = florence.model.config, florence.tokenizer.vocabulary, florence.preprocessor
    text, calibration = config.text, florence.calibration or Calibration()
    return {
        "checkpoint": florence.name,
        "format": to,
        "precision": precision,
        "size_wh": list(preprocessor.size_wh),
        "mean": list(preprocessor.mean),
        "std": list(preprocessor.std),
        "resample": int(preprocessor.resample),
        "prompt_side": config.prompt_side,
        "image_tokens": config.image_tokens,
        "positions": text.positions,
        "decoder_layers": text.decoder_layers,
        "heads": text.heads,
        "head_width": text.d_model // text.heads,
        "bins": config.bins,
        "known_ids": florence.answering.ids(GREEDY),
        "ids": {
            **{name: getattr(vocabulary, name) for name in NAMED_IDS},
            "text_first": vocabulary.text_ids.start,
            "text_end": vocabulary.text_ids.stop,
        },
        "presence": {name: getattr(calibration, name) for name in ("beta", "temperature", "threshold")},
        "tasks": {card.name: about_task(florence, card) for card in tasks()},
        "sentence": about_task(florence, task(SENTENCE)),
    }


def about_task(florence: Florence, card: TaskCard) -> dict[str, Any]:
    """How a task is asked, decoded and read."""
    options = florence.answering.generation_options(card, prefix_length=1, options=GREEDY)
    form = grammar(card.grammar)
    decoding = ("max_new_tokens", "no_repeat_ngram_size", "forced_bos", "ban_bos_after_forced")
    return {
        "summary": card.summary,
        "template": card.template,
        "input": card.input,
        **{name: getattr(options, name) for name in decoding},
        "asks_presence": card.input in ("phrase", "phrases") and card.scoring == "instance",
        "repeats_phrase": florence.model.config.prompt_side == "encoder" and form.text,
        "grammar": {name: getattr(form, name) for name in ("group", "polygons", "brackets", "inherits_label")},
    }
