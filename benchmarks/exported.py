"""The pieces of work of `ours.py` by onnxruntime and OpenVINO, from graphs of our own network with the same weights.

There are four: the vision tower with its projector (for one number of images each), the encoder, cross-attention's keys
and values, and a step of the decoder, which takes the keys and values of self-attention so far and returns them with
those of the new id. They are those of `florence-lite export`, with all sizes fixed that are known beforehand. The loop
around the steps is plain numpy: greedy, or a beam search under the same rules. Needs onnx and onnxscript to export, and
onnxruntime or openvino to run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ours import START
from torch import Tensor

from florence_lite.export.parts import CrossKeysValues, Encoder, graph, key_value_names, step_graph, vision_graph
from florence_lite.export.runner import onnx_graph, openvino_graph, repeats
from florence_lite.model import FlorenceModel

BOS, EOS = 0, 2
NGRAM = 3
NEEDS = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}


def missing(runtime: str) -> list[str]:
    """Packages that a runtime lacks here."""
    return [name for name in NEEDS[runtime] if importlib.util.find_spec(name) is None]


# ---- graphs ----------------------------------------------------------------------------------------------------------


def export(model: FlorenceModel, length: int, images: Sequence[int], cache: Path) -> Path:
    """A folder with the graphs for prompts that make `length` positions with the image, written unless it is there."""
    digest = hashlib.sha256(f"{torch.__version__} {length}".encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode() + weight.flatten()[: 2**12].contiguous().numpy().tobytes())
    folder = cache / digest.hexdigest()[:16]
    states = (torch.zeros(1, length, model.config.text.d_model),)
    keys_values = key_value_names("cross", model.config.text)
    makers: dict[str, Callable] = {f"vision{count}": partial(vision_graph, model, count) for count in images}
    makers |= {
        "encoder": lambda: graph(Encoder(model), states, None, (["embedded"], ["encoder_hidden_states"])),
        "cross": lambda: graph(CrossKeysValues(model), states, None, (["encoder_hidden_states"], keys_values)),
        "step": lambda: step_graph(model, length),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in makers.items():
        if not (folder / name / "done").exists():
            (folder / name).mkdir(exist_ok=True)
            make().save(folder / name / "graph.onnx", external_data=True)
            (folder / name / "done").touch()
    if not (folder / "embeddings.npy").exists():
        np.save(folder / "embeddings.npy", model.embed_tokens.weight.detach().numpy())
    return folder


def default_cache() -> Path:
    """Where graphs are kept from one run to the next: the weights of each once, beside it."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "florence_lite_benchmarks")


# ---- runtimes --------------------------------------------------------------------------------------------------------


GRAPHS = {"onnxruntime": onnx_graph, "openvino": openvino_graph}


class Exported:
    """A side as in `ours.py`. runtime: a key of `GRAPHS`; folder, length, images: of `export`."""

    def __init__(self, runtime: str, folder: Path, length: int, images: Sequence[int]):
        self.name = runtime
        load = partial(GRAPHS[runtime], threads=torch.get_num_threads())
        self.parts = {name: load(folder / name / "graph.onnx") for name in ("encoder", "cross", "step")}
        self.visions = {count: load(folder / f"vision{count}" / "graph.onnx") for count in images}
        self.table = np.load(folder / "embeddings.npy", mmap_mode="r")

    def vision(self, pixels: Tensor) -> Tensor:
        return torch.from_numpy(self.visions[len(pixels)](pixels.numpy())[0])

    def encoder(self, features: Tensor, prompt: list[int]) -> Tensor:
        states = self._states(features, prompt)
        self.parts["cross"](states)
        return torch.from_numpy(states)

    def decode(self, states: Tensor, tokens: int, beams: int) -> list[list[int]]:
        return [self._decode(states.numpy(), tokens, beams)]

    def answer(self, pixels: Tensor, prompts: list[list[int]], tokens: int, beams: int = 1) -> list[list[int]]:
        """About one image and one prompt."""
        [prompt] = prompts
        return [self._decode(self._states(self.vision(pixels), prompt), tokens, beams)]

    def _states(self, features: Tensor, prompt: list[int]) -> np.ndarray:
        embedded = np.concatenate([features.numpy(), self.table[prompt][None]], axis=1)
        return self.parts["encoder"](embedded)[0]

    def _decode(self, states: np.ndarray, tokens: int, beams: int) -> list[int]:
        cross = self.parts["cross"](states)
        heads, width = cross[0].shape[1], cross[0].shape[3]

        def step(ids: list[int], past: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
            logits, *past = self.parts["step"](np.array(ids)[:, None], *cross, *past)
            return logits, past

        nothing = [np.zeros((1, heads, 0, width), np.float32)] * len(cross)
        return (beam if beams > 1 else greedy)(step, nothing, tokens, beams)


# ---- the loop --------------------------------------------------------------------------------------------------------


def greedy(step: Callable, past: list[np.ndarray], tokens: int, beams: int = 1) -> list[int]:
    """The likeliest ids behind the forced first one; the end token at last."""
    _, past = step([START], past)
    ids = [BOS]
    while len(ids) < tokens - 1:
        logits, past = step(ids[-1:], past)
        logits[0, repeats([START, *ids], NGRAM)] = -np.inf
        ids.append(int(logits[0].argmax()))
    return [*ids, EOS]


def beam(step: Callable, past: list[np.ndarray], tokens: int, beams: int) -> list[int]:
    """The likeliest answer that a search with so many beams finds. None ends before the others: see `ours.py`."""
    _, past = step([START], past)
    rows, scores = [[BOS]], np.zeros(1, np.float32)
    while len(rows[0]) < tokens - 1:
        logits, past = step([row[-1] for row in rows], past)
        largest = logits.max(axis=1, keepdims=True)
        logits -= largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
        for row, of_row in zip(rows, logits, strict=True):
            of_row[repeats([START, *row], NGRAM)] = -np.inf
        total = (logits + scores[:, None]).ravel()
        best = np.argpartition(total, -beams)[-beams:]
        best = best[np.argsort(-total[best], kind="stable")]
        parents, scores = best // logits.shape[1], total[best]
        rows = [[*rows[parent], int(each % logits.shape[1])] for parent, each in zip(parents, best, strict=True)]
        if len(past[0]) != beams or list(parents) != list(range(beams)):
            past = [each[parents] for each in past]
    return [*rows[0], EOS]
