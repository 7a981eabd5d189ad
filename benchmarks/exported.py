"""The pieces of work of `ours.py` by onnxruntime and OpenVINO, from graphs of our own network with the same weights.

There are four: the vision tower with its projector (for one number of images each), the encoder, cross-attention's keys
and values, and a step of the decoder, which takes the keys and values of self-attention so far and returns them with
those of the new id. All sizes that are known beforehand are fixed. The loop around the steps is plain numpy: greedy, or
a beam search under the same rules. Needs onnx and onnxscript to export, and onnxruntime or openvino to run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ours import START
from torch import Tensor, nn

from florence_lite.model import CrossCache, FlorenceModel

BOS, EOS = 0, 2
NGRAM = 3
NEEDS = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}

Run = Callable[..., list[np.ndarray]]


def missing(runtime: str) -> list[str]:
    """Packages that a runtime lacks here."""
    return [name for name in NEEDS[runtime] if importlib.util.find_spec(name) is None]


# ---- graphs ----------------------------------------------------------------------------------------------------------


class _Vision(nn.Module):
    def __init__(self, model: FlorenceModel):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)


class _Encoder(_Vision):
    def forward(self, embedded: Tensor) -> Tensor:
        return self.model.encoder(embedded, None)


class _Cross(_Vision):
    def forward(self, states: Tensor) -> list[Tensor]:
        cross = self.model.cross_cache(states)
        return [*cross.keys, *cross.values]


class _Step(_Vision):
    def forward(self, ids: Tensor, cross: list[Tensor], past: list[Tensor]) -> list[Tensor]:
        """ids [R, 1]; cross keys, then values [1, heads, S, d]; past keys, then values [R, heads, P, d].
        Returns logits [R, V], then keys and values [R, heads, P + 1, d]."""
        layers = len(cross) // 2
        grown: list[Tensor | None] = [None] * len(past)

        def append(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            for at, new in ((layer, keys), (layer + layers, values)):
                grown[at] = torch.cat([past[at], new], dim=2)
            return grown[layer], grown[layer + layers]

        cache = SimpleNamespace(length=1, append=append)  # any length but 0, that of a plain causal call
        length = past[0].shape[2]
        positions = torch.arange(length, length + 1)[None]
        cross = CrossCache(tuple(cross[:layers]), tuple(cross[layers:]))
        hidden = self.model.decode(ids, cross, self_cache=cache, positions=positions)
        return [self.model.logits(hidden[:, -1]), *grown]


def export(model: FlorenceModel, length: int, images: Sequence[int], cache: Path) -> Path:
    """A folder with the graphs for prompts that make `length` positions with the image, written unless it is there."""
    digest = hashlib.sha256(f"{torch.__version__} {length}".encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode() + weight.flatten()[: 2**12].contiguous().numpy().tobytes())
    folder = cache / digest.hexdigest()[:16]
    text, (width, height) = model.config.text, model.config.image_size_wh
    dim, heads = text.d_model, (text.heads, text.d_model // text.heads)
    states = torch.randn(1, length, dim)
    cross = [torch.randn(1, heads[0], length, heads[1]) for _ in range(2 * text.decoder_layers)]
    past = [torch.randn(3, heads[0], 5, heads[1]) for _ in range(2 * text.decoder_layers)]
    rows, so_far = torch.export.Dim("rows", min=1, max=64), torch.export.Dim("past", min=1, max=text.positions - 1)
    free = {"ids": {0: rows}, "cross": [{}] * len(cross), "past": [{0: rows, 2: so_far}] * len(past)}
    graphs: dict[str, tuple] = {
        f"vision{count}": (_Vision(model), (torch.randn(count, 3, height, width),), None) for count in images
    }
    graphs |= {
        "encoder": (_Encoder(model), (states,), None),
        "cross": (_Cross(model), (states,), None),
        "step": (_Step(model), (torch.zeros(3, 1, dtype=torch.int64), cross, past), free),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (module, inputs, dynamic) in graphs.items():
        if not (folder / name / "done").exists():
            (folder / name).mkdir(exist_ok=True)
            program = torch.onnx.export(
                module.eval(), inputs, dynamo=True, dynamic_shapes=dynamic, external_data=True, verbose=False
            )
            program.save(folder / name / "graph.onnx", external_data=True)
            (folder / name / "done").touch()
    if not (folder / "embeddings.npy").exists():
        np.save(folder / "embeddings.npy", model.embed_tokens.weight.detach().numpy())
    return folder


def default_cache() -> Path:
    """Where graphs are kept from one run to the next: the weights of each once, beside it."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "florence_lite_benchmarks")


# ---- runtimes --------------------------------------------------------------------------------------------------------


def onnxruntime_graph(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def openvino_graph(path: Path) -> Run:
    import openvino

    settings = {  # float32 is not its default where the processor knows bfloat16
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        request.infer(list(arrays), share_inputs=True)
        return [np.array(output.data) for output in request.output_tensors]

    return run


GRAPHS = {"onnxruntime": onnxruntime_graph, "openvino": openvino_graph}


class Exported:
    """A side as in `ours.py`. runtime: a key of `GRAPHS`; folder, length, images: of `export`."""

    def __init__(self, runtime: str, folder: Path, length: int, images: Sequence[int]):
        self.name = runtime
        self.parts = {name: GRAPHS[runtime](folder / name / "graph.onnx") for name in ("encoder", "cross", "step")}
        self.visions = {count: GRAPHS[runtime](folder / f"vision{count}" / "graph.onnx") for count in images}
        self.table = np.load(folder / "embeddings.npy", mmap_mode="r")
        # OpenVINO 2026.4 gives wrong numbers at 15 positions and more where a graph's first run had none at all.
        cross = self.parts["cross"](np.zeros((1, length, self.table.shape[1]), np.float32))
        heads, width = cross[0].shape[1], cross[0].shape[3]
        self.parts["step"](
            np.zeros((1, 1), np.int64), *cross, *[np.zeros((1, heads, 16, width), np.float32)] * len(cross)
        )

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
        logits[0, banned([START, *ids])] = -np.inf
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
            of_row[banned([START, *row])] = -np.inf
        total = (logits + scores[:, None]).ravel()
        best = np.argpartition(total, -beams)[-beams:]
        best = best[np.argsort(-total[best], kind="stable")]
        parents, scores = best // logits.shape[1], total[best]
        rows = [[*rows[parent], int(each % logits.shape[1])] for parent, each in zip(parents, best, strict=True)]
        if len(past[0]) != beams or list(parents) != list(range(beams)):
            past = [each[parents] for each in past]
    return [*rows[0], EOS]


def banned(ids: list[int]) -> list[int]:
    """Ids that would repeat a run of `NGRAM` ids."""
    last = ids[len(ids) - NGRAM + 1 :]
    runs = (ids[first : first + NGRAM] for first in range(len(ids) - NGRAM + 1))
    return [run[-1] for run in runs if run[:-1] == last]
