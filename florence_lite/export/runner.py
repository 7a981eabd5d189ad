"""Ask an exported checkpoint about an image, without torch and without florence-lite.

    python runner.py photo.jpg "<OD>"
    python runner.py photo.jpg "<CAPTION_TO_PHRASE_GROUNDING>" "a dog and two cats"
    python runner.py photo.jpg "<OPEN_VOCABULARY_DETECTION>" "the dog" "the cat"
    python runner.py photo.jpg "<REGION_TO_CATEGORY>" 79 16 176 113
    python runner.py photo.jpg "What is on the table?"

Needs numpy, pillow and tokenizers, and onnxruntime or openvino: whichever the folder's graphs are for. It lies beside
them, and from Python `Runner(folder).ask("photo.jpg", "<OD>")` does the same. Answers are greedy, id for id those of
`florence.run(…, constrained=False, num_beams=1)` of the library, which by itself holds answers to the form of their
task and scores them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tokenizers import Tokenizer

Graph = Callable[..., list[np.ndarray]]
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # what white is in them, nobody says


class Place(NamedTuple):
    """kind: "box" (x0 y0 x1 y1), "quad" (four corners) or "polygon" (a ring of corners). points: x y x y …, pixels."""

    label: str
    kind: str
    points: list[float]


class Answer(NamedTuple):
    """ids: with the forced first id and the end token. text: these ids in words, marks included. places: that they
    name. presence: how likely the image shows the phrase that was asked for; None where none was."""

    ids: list[int]
    text: str
    places: list[Place]
    presence: float | None


class Runner:
    """An exported checkpoint. folder: of the graphs, `tokenizer.json` and `export.json`; threads: of the runtime."""

    def __init__(self, folder: str | Path = Path(__file__).parent, threads: int | None = None):
        folder = Path(folder)
        self.about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.tasks, self.ids = self.about["tasks"], self.about["ids"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        load, suffix = (onnx_graph, "onnx") if self.about["format"] == "onnx" else (openvino_graph, "xml")
        names = ("vision", "encoder", "decoder_step")
        self.vision, self.encoder, self.step = (load(folder / f"{name}.{suffix}", threads) for name in names)

    # ---- in ----------------------------------------------------------------------------------------------------------

    def encode(self, image: str | Path | Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
        """Image features for any number of prompts, and the width and height of the upright image."""
        picture = opened(image)
        pixels = np.asarray(picture.resize(self.about["size_wh"], self.about["resample"]), np.float32)
        mean, std = (np.array(self.about[name], np.float32) * np.float32(255) for name in ("mean", "std"))
        pixel_values = np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])
        return self.vision(pixel_values)[0], picture.size

    def ask(self, image: Any, prompt: str, *inputs: str, max_new_tokens: int | None = None) -> list[Answer]:
        """Answers to a prompt about an image, which may have been encoded: one, but of several phrases one each.

        prompt: a marker of a task, or a sentence. inputs: what the task takes: a text, phrases, or the four numbers of
        a region, x0 y0 x1 y1 in pixels. max_new_tokens: most ids of an answer, in the place of the task's own.
        Raises ValueError for other inputs, and for a prompt that is too long.
        """
        features, size_wh = image if isinstance(image, tuple) else self.encode(image)
        task = self._task(prompt)
        task |= {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        answers = []
        for filling, phrase in self._fillings(prompt, task, inputs, size_wh):
            ids, presence = self._decode(features, task, task["template"].replace("{input}", filling), phrase)
            text = self.tokenizer.decode(ids, skip_special_tokens=False)
            places = self.read(ids, task["grammar"], size_wh)
            if task["input"] == "phrases" and phrase:  # boxes may come without words, because one phrase was asked for
                places = [place._replace(label=place.label or phrase) for place in places]
            answers.append(Answer(ids, text, places, presence))
        return answers

    def _task(self, prompt: str) -> dict[str, Any]:
        if prompt in self.tasks:
            return dict(self.tasks[prompt])
        if prompt.startswith("<") and prompt.endswith(">"):
            raise ValueError(f"unknown task {prompt}; there are {', '.join(self.tasks)}")
        if f"<{prompt}>" in self.tasks:
            raise ValueError(f"{prompt} is no sentence; the task is called <{prompt}>")
        return self.about["sentence"] | {"template": prompt}

    def _fillings(self, prompt: str, task: dict[str, Any], inputs: Sequence[str], size_wh) -> list[tuple[str, str]]:
        """What stands for {input} in the prompts, and the phrases that they ask for."""
        kind, given = task["input"], [str(each).strip() for each in inputs]
        number = {"none": 0, "region": 4}.get(kind, 1)
        if not all(given) or (len(given) < 1 if kind == "phrases" else len(given) != number):
            wanted = {"none": "nothing", "region": "four numbers, x0 y0 x1 y1 in pixels", "phrases": "a phrase or more"}
            raise ValueError(f"{prompt} takes {wanted.get(kind, f'a {kind}')}, not {inputs!r}")
        if kind == "region":
            return [(self._region(given, size_wh), "")]
        if kind in ("phrase", "phrases"):
            return [(each, each) for each in dict.fromkeys(given)]
        return [(given[0] if given else "", "")]

    def _region(self, numbers: Sequence[str], size_wh: tuple[int, int]) -> str:
        """A box as prompts say it."""
        try:
            x0, y0, x1, y1 = box = [float(number) for number in numbers]
        except ValueError:
            raise ValueError(f"region {' '.join(numbers)} must be four numbers, x0 y0 x1 y1 in pixels") from None
        if not (0 <= x0 < x1 <= size_wh[0] and 0 <= y0 < y1 <= size_wh[1]):
            raise ValueError(f"region {box} must lie in the image of {size_wh[0]}×{size_wh[1]} pixels: x0 y0 x1 y1")
        bins = self.about["bins"]
        places = [min(math.floor(value / (size_wh[axis % 2] / bins)), bins - 1) for axis, value in enumerate(box)]
        return "".join(f"<loc_{place}>" for place in places)

    # ---- the answer --------------------------------------------------------------------------------------------------

    def _decode(
        self, features: np.ndarray, task: dict[str, Any], sentence: str, phrase: str
    ) -> tuple[list[int], float | None]:
        """Ids of the answer to a sentence, and the presence of its phrase."""
        ids, about = self.ids, self.about
        prompt = [ids["bos"], *self._text_ids(sentence), ids["eos"]]
        on_decoder = about["prompt_side"] == "decoder"
        room = about["positions"] - (0 if on_decoder else about["image_tokens"])
        if len(prompt) > room:
            raise ValueError(f"the prompt {sentence!r} has {len(prompt)} tokens; the network takes {room}: shorten it")
        cross = self.encoder(features) if on_decoder else self.encoder(features, np.array([prompt]))
        prefix = prompt if on_decoder else [ids["eos"]]  # from which a decoder starts that does not read the prompt
        most = min(task["max_new_tokens"], about["positions"] + 1 - len(prefix))
        forced = task["forced_bos"]
        answer = [] if forced is None or most < 2 else [forced]

        def read(new: Sequence[int], past: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
            """Logits behind more ids, and the cache."""
            for each in new:
                logits, *past = self.step(np.array([[each]]), *cross, *past)
            return logits[0, : about["known_ids"]], past

        logits, past = read([*prefix, *answer], [np.zeros(self._cache_shape(0), np.float32)] * self._layers)
        presence = None
        if task["asks_presence"]:
            label = self._text_ids(phrase) if task["repeats_phrase"] else []
            presence = self._presence(read, logits, past, label)
            if presence < about["presence"]["threshold"]:
                return [*answer, ids["eos"]], presence
            logits[ids["eos"]] = -np.inf  # the answer is not empty
        while len(answer) < most - 1:
            if forced is not None and task["ban_bos_after_forced"]:
                logits[forced] = -np.inf
            repeated = repeats([prefix[-1], *answer], task["no_repeat_ngram_size"])
            logits[[each for each in repeated if each != ids["eos"]]] = -np.inf
            answer.append(int(logits.argmax()))
            if answer[-1] == ids["eos"]:
                return answer, presence
            if len(answer) < most - 1:
                logits, past = read(answer[-1:], past)
        return [*answer, ids["eos"]], presence

    def _presence(self, read: Callable, logits: np.ndarray, past: list[np.ndarray], label: list[int]) -> float:
        """How likely it is that an answer names the phrase, whose ids `label` are, and places it, rather than ends."""
        logprobs = log_softmax(logits)
        log_odds = -logprobs[self.ids["eos"]]
        for each in label:
            log_odds += logprobs[each]
            logits, past = read([each], past)
            logprobs = log_softmax(logits)
        first = self.ids["loc_first"]
        log_odds += np.logaddexp.reduce(
            [*logprobs[first : first + self.about["bins"]], logprobs[self.ids["poly_open"]]]
        )
        how = self.about["presence"]
        return float(1 / (1 + np.exp(-np.clip((log_odds - how["beta"]) / how["temperature"], -80, 80))))

    @property
    def _layers(self) -> int:
        """Keys and values of the decoder's layers."""
        return 2 * self.about["decoder_layers"]

    def _cache_shape(self, length: int) -> tuple[int, int, int, int]:
        return 1, self.about["heads"], length, self.about["head_width"]

    # ---- out ---------------------------------------------------------------------------------------------------------

    def _text_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def read(self, answer: Sequence[int], form: dict[str, Any], size_wh: tuple[int, int]) -> list[Place]:
        """The boxes, quads and polygons that ids name, in pixels of an image of this size. form: "grammar" of a task.

        What is out of place is passed over; the library's reader also counts it and mends what it can.
        """
        ids, bins, group = self.ids, self.about["bins"], form["group"]
        places: list[Place] = []
        words: list[int] = []
        points: list[float] = []
        in_words, in_polygon = False, form["polygons"]

        def add(kind: str, corners: list[float]) -> None:
            places.append(Place(self.tokenizer.decode(words), kind, corners))
            points.clear()
            if not form["inherits_label"] and not in_polygon:
                words.clear()

        for each in answer:
            if 0 <= (place := each - ids["loc_first"]) < bins:
                in_words = False
                points.append((place + 0.5) * size_wh[len(points) % 2] / bins)
                if not in_polygon and len(points) == group:
                    add(*(("box", sorted_box(points)) if group == 4 else ("quad", points[:])))
                continue
            is_text = ids["text_first"] <= each < ids["text_end"]
            if not is_text and each not in (ids["poly_open"], ids["poly_close"], ids["sep"], ids["eos"]):
                continue
            if in_polygon and len(points) >= 6:
                add("polygon", points[: len(points) // 2 * 2])
            points.clear()
            if is_text:
                words = [*words, each] if in_words else [each]
                in_words = True
            elif form["brackets"] and each in (ids["poly_open"], ids["poly_close"]):
                in_polygon = each == ids["poly_open"]
        return places


def opened(image: str | Path | Image.Image) -> Image.Image:
    """The image upright, of mode RGB, transparency over white. Raises ValueError for more than 8 bits a channel."""
    picture = image if isinstance(image, Image.Image) else Image.open(image)
    if picture.mode in DEEP_MODES:
        raise ValueError(f"the image {image} has mode {picture.mode}: convert it to 8 bits a channel")
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def sorted_box(points: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = points
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits)


def repeats(history: Sequence[int], size: int) -> list[int]:
    """Ids that would complete a run of `size` ids which the history already holds; none with size 0."""
    if size == 0 or len(history) < size:
        return []
    last = list(history[len(history) + 1 - size :])
    runs = (history[first : first + size] for first in range(len(history) - size + 1))
    return [run[-1] for run in runs if list(run[:-1]) == last]


def onnx_graph(file: Path, threads: int | None = None) -> Graph:
    """A graph by onnxruntime: arrays in the order of its inputs to arrays in the order of its outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def openvino_graph(file: Path, threads: int | None = None) -> Graph:
    """A graph by OpenVINO, as `onnx_graph`."""
    # float32 is not its default where the processor knows bfloat16
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino_core().compile_model(file, "CPU", settings)
    request = compiled.create_infer_request()

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        request.infer(list(arrays), share_inputs=True)
        return [np.array(output.data) for output in request.output_tensors]

    # OpenVINO 2026.4 gives wrong numbers later where the first run of a decoder step had no ids in its cache.
    run(*(np.zeros(_some_shape(each.partial_shape), each.element_type.to_dtype()) for each in compiled.inputs))
    return run


@cache
def openvino_core() -> Any:
    """The only `openvino.Core` of this process, up to its end.

    Each moves the thread's handling of signals to a stack of its own. Of two that are freed in the order in which they
    were made, OpenVINO 2026.4 leaves it on memory that is gone: the next Ctrl-C, or the end of a data loader's worker,
    is a crash or overwrites what lies there by then.
    """
    import openvino

    return openvino.Core()


def _some_shape(partial: Any) -> list[int]:
    """A shape that an input of OpenVINO may have: one row, and 16 wherever else it is free."""
    return [(16 if axis else 1) if size.is_dynamic else size.get_length() for axis, size in enumerate(partial)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="file of an image")
    parser.add_argument("prompt", help='marker of a task, such as "<OD>", or a sentence')
    kinds = "what the task takes: a text, phrases, or x0 y0 x1 y1 of a region"
    parser.add_argument("input", nargs="*", default=[], help=kinds)
    given = parser.parse_args()
    try:
        answers = Runner().ask(given.image, given.prompt, *given.input)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for number, answer in enumerate(answers):
        print(answer.text)
        print("ids:", *answer.ids)
        if answer.presence is not None:  # of each phrase
            print(f"presence of {given.input[number].strip()}: {answer.presence:.4f}")
        for place in answer.places:
            print(f"{place.kind}:", *(f"{value:.1f}" for value in place.points), place.label)


if __name__ == "__main__":
    main()
