"""The runner answers what the library answers, id for id, without it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lite import Florence, tasks
from florence_lite.answers import Answer, Instance
from florence_lite.engine import GenerationOptions
from florence_lite.engine.constraints import repeated_ngrams
from florence_lite.export import exporting, runner
from florence_lite.export.runner import Runner
from florence_lite.tokens import Codec, grammar
from tests.tiny import noise_image

ROUNDING = 1e-4  # of float32, in the logits of one network by two runtimes
EXAMPLES = Path(__file__).parents[2] / "examples"
WITHOUT = """
import runpy, sys
sys.modules |= dict.fromkeys(("torch", "florence_lite", "transformers", "safetensors"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
INTERRUPTED = """
import signal
from runner import Runner

runners = [Runner(threads=1), Runner(threads=1)]
while runners:
    del runners[0]
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def inputs(card, words: str, phrases: list[str]) -> tuple[dict, list[str]]:
    """What a task takes: as `florence.run` is given it, and as the runner is."""
    region = (10, 12, 50, 60)
    return {
        "none": ({}, []),
        "text": ({"text": words}, [words]),
        "phrase": ({"phrases": phrases[:1]}, phrases[:1]),
        "phrases": ({"phrases": phrases}, phrases),
        "region": ({"region": region}, [str(value) for value in region]),
    }[card.input]


def check_parity(florence: Florence, folder: Path, pictures: list, words: str, phrases: list[str]) -> tuple[int, int]:
    """Asserts equal ids for every task, up to where two are equally likely. Returns the answers that were compared, and
    how many of them part at such a place."""
    exported, compared, parted = Runner(folder, 1), 0, 0
    for picture in pictures:
        encoded = exported.encode(picture)
        for card in tasks():
            text = "a <mask> and a dog" if card.name == "<INFILLING>" else words
            given, said = inputs(card, text, phrases)
            result = florence.run(picture, card.name, **given, constrained=False, num_beams=1)
            answers = exported.ask(encoded, card.name, *said)
            ids = [token_id for answer in answers for token_id in answer.ids]
            if ids != list(result.token_ids):
                assert card.input != "phrases"
                prompt = card.prompt(**given, size_wh=picture.size, bins=florence.model.config.bins)
                assert margin(florence, picture, prompt, ids, list(result.token_ids)) < ROUNDING, card.name
                parted += 1
            if result.presence:
                asked = [answer.presence for answer in answers]
                assert asked == pytest.approx(list(result.presence.values()), abs=1e-4)
            compared += len(answers)
    return compared, parted


@torch.inference_mode()
def margin(florence: Florence, picture: Image.Image, prompt: str, ids: list[int], expected: list[int]) -> float:
    """How much likelier the expected id is where an answer parts from it, as a difference of log-probabilities."""
    place = next(place for place, pair in enumerate(zip(ids, expected, strict=False)) if pair[0] != pair[1])
    model, sentence = florence.model, florence.tokenizer.encode_prompt(prompt)
    on_decoder = model.config.prompt_side == "decoder"
    states, _ = model.encode(florence.encode(picture).features[None], None if on_decoder else torch.tensor([sentence]))
    read = [*(sentence if on_decoder else [2]), *expected[:place]]
    logits = model.logits(model.decode(torch.tensor([read]), model.cross_cache(states)))[0, -1]
    return abs(float(logits[expected[place]] - logits[ids[place]]))


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("layout", ["native", "original"])
def test_ids_are_those_of_the_checkpoint(traced, reuse, tmp_path, layout, to):
    florence, folder = traced(layout)
    if to == "openvino":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
        reuse(folder)
        folder = tmp_path / "openvino"
        exporting.export(florence, folder, to)
    pictures = [noise_image(1), noise_image(2)]
    compared, parted = check_parity(florence, folder, pictures, "the dog and the cat", ["stop sign", "the dog"])
    assert compared == 2 * (len(tasks()) + 1) and parted <= 1


def test_sentences_and_short_answers(traced):
    florence, folder = traced("original")
    exported, picture = Runner(folder, 1), noise_image(3)
    for options in ({}, {"max_new_tokens": 5}, {"max_new_tokens": 1}):
        result = florence.run(picture, "What is red?", constrained=False, **options)
        assert exported.ask(picture, "What is red?", **options)[0].ids == list(result.token_ids)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_embedded_checkpoint(tmp_path, to):
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    pytest.importorskip("onnxruntime" if to == "onnx" else to, reason="the extra is not installed")
    florence = Florence.from_pretrained()
    exporting.export(florence, tmp_path / "out", to)
    pictures = [Image.open(file) for file in sorted(EXAMPLES.glob("*.png"))]
    phrases = ["the rabbit", "all lions", "the penguin"]
    compared, parted = check_parity(florence, tmp_path / "out", pictures, "what is the largest object?", phrases)
    assert compared == 4 * (len(tasks()) + 2) and parted <= 2


# ---- in --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_images_are_prepared_alike(traced, tmp_path, mode):
    florence, folder = traced("native")
    picture = noise_image(4).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(file, exif=turned)
    features, size_wh = Runner(folder, 1).encode(file)
    expected = florence.encode(file)
    assert size_wh == expected.size_wh == (70, 90)
    np.testing.assert_allclose(features[0], expected.features.numpy(), atol=2e-4)


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [
        ("<ODD>", [], "unknown task <ODD>; there are <CAPTION>, "),
        ("OD", [], "OD is no sentence; the task is called <OD>"),
        ("<OD>", ["car"], "<OD> takes nothing, not"),
        ("<VQA>", [], "<VQA> takes a text, not"),
        ("<VQA>", [" "], "<VQA> takes a text, not"),
        ("<OPEN_VOCABULARY_DETECTION>", [], "takes a phrase or more"),
        ("<REGION_TO_CATEGORY>", ["1", "2", "3"], "takes four numbers, x0 y0 x1 y1"),
        ("<REGION_TO_CATEGORY>", ["1", "2", "300", "4"], "must lie in the image of 90×70 pixels"),
        ("<REGION_TO_CATEGORY>", ["1", "2", "nan", "4"], "must lie in the image of 90×70 pixels"),
        ("<REGION_TO_CATEGORY>", ["1", "2", "x", "4"], "region 1 2 x 4 must be four numbers, x0 y0 x1 y1 in pixels"),
        ("<VQA>", ["why " * 200], "the network takes"),
    ],
)
@pytest.mark.parametrize("layout", ["native", "original"])
def test_mistakes(traced, layout, prompt, given, message):
    with pytest.raises(ValueError, match=message):
        Runner(traced(layout).folder, 1).ask(noise_image(0), prompt, *given)


def test_deep_images_are_refused(traced, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="deep.png has mode I;16: convert it to 8 bits a channel"):
        Runner(traced("native").folder, 1).encode(tmp_path / "deep.png")


# ---- the answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize("history", [[], [7], [7, 8, 9, 7, 8], [7, 7, 7, 7], [5, 6, 7, 5, 6, 8, 5, 6]])
def test_repeats_are_those_of_the_engine(size, history):
    options = GenerationOptions(9, no_repeat_ngram_size=size)
    assert set(runner.repeats(history, size)) == set(repeated_ngrams(history, options))


RING, OTHER = ((1, 1), (30, 2), (20, 40)), ((5, 50), (60, 50), (61, 61), (5, 60))
ANSWERS = {
    "labelled_boxes": [
        Instance("door handle", box=(1, 2, 30, 40)),
        Instance("door handle", box=(5, 5, 9, 9)),
        Instance("café", box=(0, 0, 89, 69)),
    ],
    "boxes": [Instance("", box=(1, 2, 30, 40)), Instance("", box=(5, 5, 9, 9))],
    "labelled_quads": [
        Instance("stop", quad=(1, 1, 20, 2, 21, 12, 1, 11)),
        Instance("", quad=(3, 3, 9, 3, 9, 9, 3, 9)),
    ],
    "labelled_boxes_or_polygons": [
        Instance("dog", polygons=(RING, OTHER)),
        Instance("dog", box=(1, 2, 30, 40)),
        Instance("cat", polygons=(OTHER,)),
    ],
    "polygons": [Instance("", polygons=(RING, OTHER))],
    "region_text": [Instance("yellow building", box=(1, 2, 30, 40))],
    "text": [],
}


@pytest.mark.parametrize("form", ANSWERS)
def test_places_are_read_like_the_library_does(traced, form):
    florence, folder = traced("native")
    codec, exported = Codec(florence.tokenizer), Runner(folder, 1)
    answer = Answer("" if ANSWERS[form] else "two wheels", tuple(ANSWERS[form]))
    ids = [0, *codec.serialize(answer, form, (90, 70)), 2]
    card = next(card for card in tasks() if card.grammar == form)
    expected = []
    for item in codec.parse(ids, form, (90, 70)).instances:
        rings = [np.ravel(ring) for ring in item.polygons] if item.kind == "polygons" else [item.box or item.quad]
        expected += [(item.label, item.kind.removesuffix("s"), list(points)) for points in rings]
    read = exported.read(ids, exported.tasks[card.name]["grammar"], (90, 70))
    assert [(place.label, place.kind) for place in read] == [(label, kind) for label, kind, _ in expected]
    for place, (_, _, points) in zip(read, expected, strict=True):
        assert place.points == pytest.approx(points)
    assert len(read) == sum(len(item.polygons or (1,)) for item in ANSWERS[form])


def test_ids_out_of_place_make_no_places(traced):
    _, folder = traced("native")
    exported = Runner(folder, 1)
    first, words = exported.ids["loc_first"], exported.ids["text_first"]
    ids = [0, first, first + 1, words, first + 5, first + 6, first + 2, first + 9, first, exported.ids["poly_open"], 2]
    [place] = exported.read(ids, exported.tasks["<OD>"]["grammar"], (1000, 1000))
    assert place.kind == "box" and place.points == [2.5, 6.5, 5.5, 9.5]  # corners in order


# ---- on its own ------------------------------------------------------------------------------------------------------


def test_it_imports_nothing_but_its_few_packages():
    modules = set()
    for node in ast.walk(ast.parse(Path(runner.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    assert modules - set(sys.stdlib_module_names) == {"numpy", "PIL", "tokenizers", "onnxruntime", "openvino"}


def run_alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITHOUT, str(folder / "runner.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=folder)


def test_it_runs_without_torch_and_the_library(traced, tmp_path):
    florence, folder = traced("original")
    noise_image(5).save(tmp_path / "photo.png")
    photo = str(tmp_path / "photo.png")
    done = run_alone(folder, photo, "<OPEN_VOCABULARY_DETECTION>", "the dog")
    assert done.returncode == 0, done.stderr
    text, ids, presence, *_ = done.stdout.splitlines()
    result = florence.run(photo, "<OPEN_VOCABULARY_DETECTION>", phrases=["the dog"], constrained=False)
    assert ids == "ids: " + " ".join(map(str, result.token_ids)) and text.startswith("<s>")
    assert float(presence.removeprefix("presence of the dog: ")) == pytest.approx(result.presence["the dog"], abs=1e-3)
    failed = run_alone(folder, photo, "<ODD>")
    assert failed.returncode == 1 and failed.stderr.startswith("error: unknown task <ODD>") and not failed.stdout
    assert "error: " in run_alone(folder, str(tmp_path / "no.png"), "<OD>").stderr


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_signals_are_handled_after_it_is_gone(traced, reuse, tmp_path, to):
    """Ctrl-C is one, the end of a data loader's worker another."""
    florence, folder = traced("native")
    if to == "openvino":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
        reuse(folder)
        folder = tmp_path / "openvino"
        exporting.export(florence, folder, to)
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_what_it_knows_is_told(traced):
    florence, folder = traced("original")
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert (about["format"], about["precision"], about["prompt_side"]) == ("onnx", "fp32", "encoder")
    assert about["tasks"].keys() == {card.name for card in tasks()}
    assert about["tasks"]["<CAPTION>"]["no_repeat_ngram_size"] == 3 and about["tasks"]["<OD>"]["forced_bos"] == 0
    assert not about["tasks"]["<OD>"]["no_repeat_ngram_size"]  # a list may say the same label again
    assert grammar("labelled_boxes").group == about["tasks"]["<OD>"]["grammar"]["group"]
