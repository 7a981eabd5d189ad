"""Any number of images: answered in order, loaded as they are needed, and nothing of them is kept."""

import copy
import gc
import io
import pickle
import types
import weakref

import numpy as np
import pytest
from PIL import Image

import florence_lite.inference.encoded as encoded_module
from florence_lite.florence import Florence
from florence_lite.images import load_enough
from florence_lite.inference import IMAGES_AT_ONCE, EncodedImage, ImageError, Prompt
from florence_lite.inference.many_images import IMAGES_AHEAD, batches, is_image
from florence_lite.inference.pipeline import READ_AHEAD
from florence_lite.results import Result
from tests.tiny import SIDES, noise_image, tiny_florence

SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module", params=SIDES)
def florence(request, toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture
def looks(florence):
    """Batch sizes of the vision tower's calls."""
    sizes = []
    hook = florence.model.vision.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


@pytest.fixture
def loaded(monkeypatch):
    """Everything that is loaded, as it comes."""
    sources = []
    monkeypatch.setattr(encoded_module, "load_enough", lambda *args: sources.append(args[0]) or load_enough(*args))
    return sources


@pytest.fixture
def paths(tmp_path):
    """Twenty photos; the sixth is no image, the thirteenth is missing, the last is cut short."""
    files = [tmp_path / f"photo {number}.png" for number in range(20)]
    for number, file in enumerate(files):
        noise_image(number).save(file)
    files[5].write_text("Dear Sir or Madam", encoding="utf-8")
    files[12].unlink()
    files[19].write_bytes(files[19].read_bytes()[:300])
    return files


# ---- answers


def test_answers_come_in_order_and_equal_those_of_run(florence):
    images = [noise_image(seed, size) for seed, size in enumerate([(90, 70), (64, 48), (33, 120)] * 7)]
    answers = list(florence.run_each(iter(images), "<OD>", **SHORT))
    assert [answer.size_wh for answer in answers] == [image.size for image in images]
    for answer, single in zip(answers, [florence.run(image, "<OD>", **SHORT) for image in images], strict=True):
        assert answer.token_ids == single.token_ids
    assert len({answer.token_ids for answer in answers}) > 1  # else any order would do


def test_a_list_of_prompts_gives_a_list_of_results_per_image(florence, looks):
    prompts = ["<OD>", Prompt("<VQA>", text="is it red?"), "<OPEN_VOCABULARY_DETECTION>"]
    images = [noise_image(seed) for seed in range(10)]
    prompts[2] = Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["dog", "traffic light"])
    answers = list(florence.run_each(images, prompts, **SHORT))
    assert looks == [8, 2]
    for answer, image in zip(answers, images, strict=True):
        assert isinstance(answer, list)
        singles = [florence.run(image, prompt, **SHORT) for prompt in prompts]
        assert [(each.task, each.token_ids) for each in answer] == [(each.task, each.token_ids) for each in singles]
    [one] = florence.run_each(images[:1], ["<OD>"], **SHORT)
    assert isinstance(one, list) and len(one) == 1
    assert list(florence.run_each(images[:2], [])) == [[], []]


def test_kinds_of_images_and_of_collections(florence, tmp_path):
    image = noise_image(0)
    image.save(tmp_path / "photo.png")
    kinds = [tmp_path / "photo.png", str(tmp_path / "photo.png"), np.asarray(image), image, florence.encode(image)]
    expected = florence.run(image, "<OD>", **SHORT)
    for images in (kinds, tuple(kinds), iter(kinds), (each for each in kinds), dict.fromkeys(map(id, kinds)) and kinds):
        assert [answer.token_ids for answer in florence.run_each(images, "<OD>", **SHORT)] == [expected.token_ids] * 5
    assert list(florence.run_each(tmp_path.glob("*.png"), "<OD>", **SHORT)) == [expected]
    assert list(florence.run_each([], "<OD>")) == []


def test_an_encoded_image_of_another_checkpoint_is_an_error_in_its_place(florence, toy_tokenizer):
    other = "decoder" if florence.model.config.prompt_side == "encoder" else "encoder"
    foreign = tiny_florence(toy_tokenizer, other).encode(noise_image(0))
    fine, bad = florence.run_each([noise_image(0), foreign], "<OD>", **SHORT)
    assert isinstance(fine, Result) and isinstance(bad, ImageError)
    assert "made by checkpoint 'tiny'" in str(bad) and bad.name == "1 (counted from 0)"


# ---- errors in the place of answers


def test_a_broken_image_costs_no_answer(florence, paths):
    answers = list(florence.run_each(paths, "<OD>", **SHORT))
    assert len(answers) == 20
    errors = {number: answer for number, answer in enumerate(answers) if isinstance(answer, ImageError)}
    assert list(errors) == [5, 12, 19]
    assert {number: (error.index, error.name) for number, error in errors.items()} == {
        number: (number, str(paths[number])) for number in errors
    }
    assert str(errors[5]) == f"image {paths[5]} holds no image of a known format, whatever its name says"
    assert str(errors[12]) == f"image {paths[12]} does not exist (looked in {paths[12].parent})"
    assert isinstance(errors[12].reason, FileNotFoundError)
    assert f"image {paths[19]} is damaged or cut short" in str(errors[19])
    for number, answer in enumerate(answers):
        if number not in errors:
            assert answer.token_ids == florence.run(paths[number], "<OD>", **SHORT).token_ids


def test_errors_stand_for_the_whole_list_of_prompts(florence, paths):
    fine, bad = florence.run_each(paths[4:6], ["<OD>", "<CAPTION>"], **SHORT)
    assert len(fine) == 2 and isinstance(bad, ImageError)


def test_only_broken_images(florence, paths, looks):
    assert [type(answer) for answer in florence.run_each([paths[5], None, 7], "<OD>")] == [ImageError] * 3
    assert looks == []


def test_a_region_outside_is_the_fault_of_that_image(florence, looks):
    images = [noise_image(0, (40, 40)), noise_image(1), noise_image(2, (30, 90))]
    answers = list(florence.run_each(images, "<REGION_TO_CATEGORY>", region=(3, 4, 35, 30), **SHORT))
    assert [type(answer) for answer in answers] == [Result, Result, ImageError]
    assert str(answers[2]).startswith("image 2 (counted from 0): task <REGION_TO_CATEGORY>: region=(3, 4, 35, 30)")
    assert looks == [2]  # it is not encoded in vain


def test_an_error_cannot_be_mistaken_for_an_answer(florence, paths):
    [error] = florence.run_each([paths[5]], "<OD>")
    assert isinstance(error, Exception) and isinstance(error, ValueError) and not isinstance(error, Result)
    for attribute in ("labels", "boxes_xyxy", "instances", "text", "draw", "to_dict", "score"):
        with pytest.raises(AttributeError, match=f"ImageError has no '{attribute}': .*photo 5.png holds no image"):
            getattr(error, attribute)
    with pytest.raises(TypeError):
        len(error)
    with pytest.raises(TypeError):
        _, _ = error
    with pytest.raises(ImageError, match="photo 5.png"):
        raise error


def test_errors_can_be_sent_to_other_processes(florence, paths):
    [error] = florence.run_each([paths[12]], "<OD>")
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (same.name, same.index, str(same)) == (error.name, error.index, str(error))
        assert isinstance(same.reason, FileNotFoundError)


def test_names_of_images_without_a_path(florence, tmp_path):
    noise_image(0).save(tmp_path / "opened.png")
    opened = Image.open(tmp_path / "opened.png")
    (tmp_path / "opened.png").write_bytes((tmp_path / "opened.png").read_bytes()[:300])
    opened = Image.open(tmp_path / "opened.png")
    first, second = florence.run_each([np.zeros((2, 2, 7)), opened], "<OD>")
    assert first.name == "0 (counted from 0)" and str(first).startswith(
        "image 0 (counted from 0): image array has shape"
    )
    assert second.name == str(tmp_path / "opened.png") and second.name in str(second)


def test_run_raises_what_run_each_yields(florence, paths):
    with pytest.raises(FileNotFoundError, match="photo 12.png does not exist"):
        florence.run(paths[10:14], "<OD>")
    with pytest.raises(ValueError, match="photo 5.png holds no image") as caught:
        florence.run(paths, "<OD>", **SHORT)
    assert not isinstance(caught.value, ImageError)


def test_detect_raises_too(florence, paths):
    with pytest.raises(ValueError, match="photo 5.png holds no image"):
        florence.detect(paths[3:7], phrases=["dog", "cat"])


# ---- mistakes


@pytest.mark.parametrize(
    "images",
    ["photo.jpg", noise_image(0), np.zeros((4, 4, 3), np.uint8), None, 7, b"\x89PNG", io.BytesIO(b"\x89PNG")],
    ids=["path", "picture", "array", "None", "number", "bytes", "stream"],
)
def test_one_image_is_no_collection(florence, images):
    with pytest.raises(
        ValueError, match=r"images is one \w+; run_each takes a list or another iterable, run takes one"
    ):
        florence.run_each(images, "<OD>")


def test_an_encoded_image_is_no_collection(florence):
    with pytest.raises(ValueError, match="images is one EncodedImage"):
        florence.run_each(florence.encode(noise_image(0)), "<OD>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": "<OBJECTS>"}, "unknown task '<OBJECTS>'"),
        ({"prompts": None}, "prompts is None; it must be a task marker"),
        ({"prompts": "<VQA>"}, "task <VQA> needs text"),
        ({"prompts": "<OD>", "max_tokens": 5}, "unknown option 'max_tokens'"),
        ({"prompts": [Prompt("<OD>")], "text": "dog"}, "text, phrases and region belong to prompts given as strings"),
    ],
)
def test_mistakes_are_told_at_the_call_before_an_image_is_taken(florence, arguments, message):
    taken = []
    with pytest.raises(ValueError, match=message):
        florence.run_each((taken.append(n) for n in range(3)), **arguments)
    assert not taken


def test_too_long_a_prompt_is_no_fault_of_an_image(florence):
    with pytest.raises(ValueError, match=r"the prompt .*has 2\d\d tokens.*shorten"):
        next(florence.run_each([noise_image(0)], "<VQA>", text="\x07" * 200))


# ---- as they are needed, and nothing is kept


def test_images_are_taken_when_they_are_needed(florence, loaded):
    taken = []

    def photos():
        for seed in range(10**9):
            taken.append(seed)
            yield noise_image(seed)

    answers = florence.run_each(photos(), "<OD>", **SHORT)
    assert taken == [] and loaded == []
    for number in range(2 * IMAGES_AHEAD):
        next(answers)
        assert number < len(taken) == len(loaded) <= number + IMAGES_AHEAD
        assert number or len(taken) == READ_AHEAD
    told = f"{IMAGES_AHEAD} at most are on their way at a time, and {READ_AHEAD} (of encoded ones, {IMAGES_AHEAD})"
    assert told in Florence.run_each.__doc__


def test_every_image_is_loaded_once(florence, paths, loaded):
    list(florence.run_each(paths, ["<OD>", "<CAPTION>"], **SHORT))
    assert loaded == paths


def test_the_error_of_a_generator_comes_behind_the_answers(florence):
    def photos():
        yield from (noise_image(seed) for seed in range(IMAGES_AT_ONCE + 3))
        raise RuntimeError("the camera was unplugged")

    answers = florence.run_each(photos(), "<OD>", **SHORT)
    for _ in range(IMAGES_AT_ONCE + 3):
        assert isinstance(next(answers), Result)
    with pytest.raises(RuntimeError, match="the camera was unplugged"):
        next(answers)


class Alive:
    """Counts how many of the objects that it was shown are still there."""

    def __init__(self):
        self.references, self.most = [], 0

    def see(self, thing):
        self.references.append(weakref.ref(thing))
        self.most = max(self.most, sum(reference() is not None for reference in self.references))
        return thing


def test_hundreds_of_images_run_in_constant_memory(toy_tokenizer, monkeypatch):
    """However many there are, only the pictures, encoded images and results of a few are there at a time."""
    florence = tiny_florence(toy_tokenizer, "decoder")
    pictures, made, results = Alive(), Alive(), Alive()

    def load(source, enough_wh):
        picture, size_wh = load_enough(source, enough_wh)
        return pictures.see(picture), size_wh

    monkeypatch.setattr(encoded_module, "load_enough", load)
    initialise = EncodedImage.__init__
    monkeypatch.setattr(
        EncodedImage, "__init__", lambda self, *args: initialise(self, *args) or made.see(self) and None
    )
    gc.disable()  # nothing may hang in a circle until the collector comes by
    try:
        sources = (np.full((6, 8, 3), seed % 255, np.uint8) for seed in range(300))
        answered = 0
        for answer in florence.run_each(sources, "<CAPTION>", max_new_tokens=2):
            answered += 1
            results.see(answer)
            assert answer.image is None
        del answer
    finally:
        gc.enable()
    assert answered == 300 and [len(each.references) for each in (pictures, made, results)] == [300] * 3
    assert pictures.most == 1  # of whole pictures
    assert made.most <= IMAGES_AHEAD
    assert results.most <= IMAGES_AHEAD
    assert not any(reference() for each in (pictures, made, results) for reference in each.references)


def test_kept_errors_keep_no_pictures(florence, monkeypatch):
    """Tracebacks would: their frames hold the half-read picture."""
    alive = Alive()

    def broken(source, enough_wh):
        picture = alive.see(Image.new("RGB", (9, 9)))
        try:
            raise OSError("the file is cut short")
        except OSError as error:
            raise ValueError(f"{picture.size} cannot be read") from error

    monkeypatch.setattr(encoded_module, "load_enough", broken)
    kept = list(florence.run_each(range(30), "<OD>"))
    gc.collect()
    assert len(kept) == len(alive.references) == 30 and not any(reference() for reference in alive.references)
    assert isinstance(kept[0].reason.__cause__, OSError)  # what happened is still told


def test_results_keep_their_pictures_only_if_asked(florence):
    images = [noise_image(0), noise_image(1)]
    assert [answer.image for answer in florence.run_each(images, "<OD>", **SHORT)] == [None, None]
    for answer, image in zip(florence.run_each(images, "<OD>", keep_image=True, **SHORT), images, strict=True):
        assert np.array_equal(np.asarray(answer.image), np.asarray(image))
        assert answer.draw().width >= 640


# ---- parts


def test_batches():
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches(range(6), 3)) == [[0, 1, 2], [3, 4, 5]]
    assert list(batches([], 3)) == []


@pytest.mark.parametrize("before", [0, 2, 3, 4])
def test_batches_of_what_breaks(before):
    def items():
        yield from range(before)
        raise KeyError("broken")

    seen = []
    with pytest.raises(KeyError, match="broken"):
        for batch in batches(items(), 3):
            seen += batch
    assert seen == list(range(before))


def test_is_image():
    images = ["a.jpg", noise_image(0), np.zeros((2, 2)), types.SimpleNamespace(movedim=None), b"", io.BytesIO()]
    assert all(map(is_image, images))
    assert not any(map(is_image, [images, tuple(images), iter(images), {}, None, 3]))
