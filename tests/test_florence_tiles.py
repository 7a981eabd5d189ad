"""Class `Florence` with tiles, on tiny random networks: every tile is asked as an image of its own."""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import florence_lite.inference.encoded as encoded_module
from florence_lite import Florence, Instance, Result
from florence_lite.cards import checkpoints
from florence_lite.geometry import box_iou
from florence_lite.inference import EncodedImage, ImageError, Prompt
from florence_lite.inference.pipeline import READ_AHEAD
from tests.tiny import SIDES, noise_image, tiny_florence

TILE = (60, 20)
EXAMPLES = Path(__file__).parents[1] / "examples"
needs_embedded = pytest.mark.skipif(
    all(card.source != "embedded" for card in checkpoints()), reason="no checkpoint is embedded in this installation"
)
PLACES = [
    Prompt("<OD>"),
    Prompt("<OCR_WITH_REGION>"),
    Prompt("<OPEN_VOCABULARY_DETECTION>", phrases=["traffic light", "dog"]),
    Prompt("<REFERRING_EXPRESSION_SEGMENTATION>", text="a cat"),
    Prompt("<REGION_PROPOSAL>"),
    Prompt("<DENSE_REGION_CAPTION>"),
]


@pytest.fixture(scope="module", params=SIDES)
def florence(request, toy_tokenizer):
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return noise_image(3, (100, 90))


def tiles_of(image: Image.Image) -> list[Image.Image]:
    """The four tiles of `TILE` in an image of 100 × 90 pixels."""
    return [image.crop((x, y, x + 60, y + 60)) for y in (0, 30) for x in (0, 40)]


def same(one: Result | list[Result], other: Result | list[Result]) -> None:
    """Assert that results say the same: ids exactly, numbers within the noise of float32 in batches."""
    if isinstance(one, list):
        assert len(one) == len(other)
        for each in zip(one, other, strict=True):
            same(*each)
        return
    assert (one.task, one.size_wh, one.labels, one.token_ids) == (
        other.task,
        other.size_wh,
        other.labels,
        other.token_ids,
    )
    assert one.scores == [score and pytest.approx(score, abs=1e-4) for score in other.scores]
    assert one.boxes_xyxy == pytest.approx(other.boxes_xyxy, abs=1e-3, nan_ok=True) and one.dropped == other.dropped
    assert one.presence == pytest.approx(other.presence, abs=1e-4)


def test_every_tile_is_answered_as_an_image_of_its_own(florence, image):
    """And the whole image as one more, except for text."""
    for prompt, got in zip(PLACES, florence.run(image, PLACES, tile=TILE), strict=True):
        parts = tiles_of(image) + [image] * (prompt.task != "<OCR_WITH_REGION>")
        alone = florence.run(parts, prompt)
        assert got.token_ids == tuple(number for result in alone for number in result.token_ids)
        assert got.parse_errors == sum(result.parse_errors for result in alone)
        assert got.truncated == any(result.truncated for result in alone)
        assert (got.task, got.size_wh, got.image.size) == (prompt.task, (100, 90), (100, 90))
        labels = {label for result in alone for label in result.labels}
        assert set(got.labels) <= labels or prompt.task == "<OCR_WITH_REGION>"


def test_places_are_those_of_the_whole_image(florence, image):
    """Of a single tile's answer, which no other tile confirms, at its own place."""
    corner = tiles_of(image)[3]
    seen = [item for item in florence.run(corner, "<OD>") if max(item.box[2:]) < 60 and min(item.box[:2]) > 25]
    got = florence.run(image, "<OD>", tile=TILE)
    moved = [tuple(np.array(item.box) + (40, 30, 40, 30)) for item in seen]
    assert all(any(np.allclose(box, item.box) for item in got) for box in moved)
    assert all(0 <= x0 <= x1 <= 100 and 0 <= y0 <= y1 <= 90 for x0, y0, x1, y1 in got.boxes_xyxy)


@pytest.mark.parametrize("tile", [(100, 0), (100, 99), (5000, 100)])
def test_where_one_tile_is_enough_nothing_changes(florence, image, tmp_path, tile):
    image.save(tmp_path / "photo.png")
    with io.BytesIO() as stream:
        image.save(stream, "png")
        sources = [image, tmp_path / "photo.png", stream.getvalue(), np.asarray(image), florence.encode(image)]
        for prompt in PLACES:
            expected = florence.run(image, prompt)
            for source in [*sources, stream]:
                assert florence.run(source, prompt, tile=tile) == expected
        assert florence.run(image, "<OD>", tile=tile).image.size == image.size
        assert florence.segment(image, tile=tile) == florence.segment(image)
        assert florence.segment(image, "a dog", tile=tile) == florence.segment(image, "a dog")


def test_many_images_of_many_sizes(florence, tmp_path):
    """Large, small and unreadable ones, in their order; in a list and one after the other."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [noise_image(seed, size) for seed, size in enumerate([(100, 90), (30, 40), (60, 60), (61, 30)])]
    expected = [florence.run(image, "<OD>", tile=TILE) for image in images]
    same(florence.run(images, "<OD>", tile=TILE), expected)
    same(florence.detect(images, tile=TILE), expected)
    paths = [tmp_path / "broken.png", *images[:2], tmp_path / "missing.png", *images[2:], tmp_path / "missing.png"]
    answers = list(florence.run_each(iter(paths), "<OD>", tile=TILE))
    same([answer for answer in answers if not isinstance(answer, ImageError)], expected)
    faults = [answer for answer in answers if isinstance(answer, ImageError)]
    assert [fault.index for fault in faults] == [0, 3, 6] == [k for k, a in enumerate(answers) if a in faults]
    assert [fault.name for fault in faults] == [str(paths[k]) for k in (0, 3, 6)]
    assert all(answer.image is None for answer in answers if not isinstance(answer, ImageError))
    with pytest.raises(FileNotFoundError, match="missing.png"):
        florence.run(paths[1:], "<OD>", tile=TILE)


def test_pairs_of_images_and_prompts(florence, image):
    other = noise_image(1, (80, 80))
    got = florence.run([image, other], ["<OD>", "<OCR_WITH_REGION>"], tile=TILE)
    same(got, [florence.run(image, "<OD>", tile=TILE), florence.run(other, "<OCR_WITH_REGION>", tile=TILE)])


def test_methods_take_tiles(florence, image):
    assert florence.detect(image, tile=TILE) == florence.run(image, "<OD>", tile=TILE)
    assert florence.ocr(image, tile=TILE) == florence.run(image, "<OCR_WITH_REGION>", tile=TILE)
    assert florence.describe(image, tile=TILE) == florence.run(image, "<DENSE_REGION_CAPTION>", tile=TILE)


@pytest.mark.parametrize("threshold", [0, 0.3])
def test_phrases_are_as_present_as_in_the_tile_where_they_are_most(florence, image, threshold):
    phrases = ["traffic light", "dog", "a cat"]
    got = florence.detect(image, phrases, tile=TILE, threshold=threshold)
    parts = florence.detect([*tiles_of(image), image], phrases, threshold=threshold)
    most = {phrase: max(part.presence[phrase] for part in parts) for phrase in phrases}
    assert got.presence == pytest.approx(most, abs=1e-4)
    assert set(got.labels) <= set(phrases)
    assert got.absent == tuple(phrase for phrase in phrases if most[phrase] < threshold)
    same(florence.detect([image, image], phrases, tile=TILE, threshold=threshold), [got, got])


def test_outlines_of_tiles(florence, image):
    parts = florence.segment([*tiles_of(image), image])
    got = florence.segment(image, tile=TILE)
    assert got.token_ids == tuple(number for part in parts for number in part.token_ids)
    same(florence.segment([image, tiles_of(image)[0]], tile=TILE)[1], parts[0])
    sizes = []

    def refine(picture, box, polygons):
        sizes.append(picture.size)
        return np.ones(picture.size[::-1], dtype=bool)

    refined = florence.segment(image, refine=refine, tile=TILE)
    assert set(sizes) <= {(60, 60), (100, 90)} and (60, 60) in sizes
    assert any(item.polygons for item in refined)


def test_encoded_images_are_cut_where_they_keep_all_pixels(florence, image, monkeypatch):
    assert florence.run(florence.encode(image), "<OD>", tile=TILE) == florence.run(image, "<OD>", tile=TILE)
    message = "keeps no picture of all its 100×90 pixels, from which tiles could be cut: give the image itself"
    with pytest.raises(ValueError, match=message):
        florence.run(florence.encode(image, keep_image=False), "<OD>", tile=TILE)
    monkeypatch.setattr(encoded_module, "KEPT_PIXELS", 2000)
    shrunk = florence.encode(image)
    assert shrunk.image.size < image.size
    [fault] = florence.run_each([shrunk], "<OD>", tile=TILE)
    assert message in str(fault)
    assert florence.run(image, "<OD>", tile=TILE).image.size == shrunk.image.size


def test_tiles_have_all_the_pixels_of_a_large_jpeg(florence, tmp_path, monkeypatch):
    """Which is made smaller while it is decoded where nobody cuts tiles."""
    monkeypatch.setattr(encoded_module, "ENOUGH_WH", (16, 16))
    noise_image(0, (100, 90)).save(tmp_path / "large.jpg")
    decoded = Image.open(tmp_path / "large.jpg").convert("RGB")
    got = florence.run(tmp_path / "large.jpg", "<OCR_WITH_REGION>", tile=TILE)
    assert got == florence.run(decoded, "<OCR_WITH_REGION>", tile=TILE)
    assert florence.encode(tmp_path / "large.jpg").image.size != (100, 90)
    assert isinstance(florence.encode(decoded), EncodedImage)


def test_an_unreadable_image_is_told_although_the_images_break_off(florence, image, tmp_path):
    def images():
        yield tmp_path / "first"
        yield image
        yield noise_image(0, (40, 40))
        yield tmp_path / "last"
        raise RuntimeError("no more images")

    answers, seen = florence.run_each(images(), "<OD>", tile=TILE, max_new_tokens=6), []
    with pytest.raises(RuntimeError, match="no more images"):
        for answer in answers:
            seen.append(answer)
    assert [type(each) for each in seen] == [ImageError, Result, Result, ImageError]
    assert "last" in str(seen[-1])


def test_tiles_are_cut_when_they_are_needed(florence, monkeypatch):
    """Of many tiles only those of a batch or two are in memory."""
    cut, answered = [], []
    crop, encode = Image.Image.crop, florence.encoder.encode
    monkeypatch.setattr(Image.Image, "crop", lambda picture, box: cut.append(box) or crop(picture, box))
    monkeypatch.setattr(florence.encoder, "encode", lambda few: answered.append(len(cut)) or encode(few))
    florence.run(noise_image(0, (300, 300)), "<OCR_WITH_REGION>", tile=(60, 10))
    assert len(answered) >= 5 and all(
        cut_so_far <= 8 * number + READ_AHEAD for number, cut_so_far in enumerate(answered)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda f, i: f.caption(i, tile=TILE),
            "task <CAPTION> cannot be asked in tiles: its answer is no list of places",
        ),
        (lambda f, i: f.ground(i, "a dog", tile=TILE), "task <CAPTION_TO_PHRASE_GROUNDING> cannot be asked in tiles"),
        (lambda f, i: f.segment(i, region=(1, 1, 9, 9), tile=TILE), "task <REGION_TO_SEGMENTATION> cannot be asked"),
        (lambda f, i: f.ocr(i, regions=False, tile=TILE), "task <OCR> cannot be asked in tiles"),
        (lambda f, i: f.run(i, ["<OD>", "<VQA>"], text="who?", tile=TILE), "takes no input"),
        (lambda f, i: f.run(i, ["<OD>", "a free prompt"], tile=TILE), "task a free prompt cannot be asked in tiles"),
        (lambda f, i: f.run_each([i], "<CAPTION>", tile=TILE), "task <CAPTION> cannot be asked in tiles"),
        (lambda f, i: f.detect(i, tile=(20, 60)), r"tile=\(20, 60\): the overlap must be smaller than the size"),
        (lambda f, i: f.segment(i, tile=(20, 60)), r"tile=\(20, 60\): the overlap must be smaller than the size"),
        (lambda f, i: f.detect(i, tile=200), "tile=200 must be"),
        (lambda f, i: f.stream(i, "<OD>", tile=TILE), "unknown option .tile.: it belongs to other calls"),
        (lambda f, i: f.detect(i, tile=(11, 10)), "tiles, more than"),
    ],
)
def test_what_cannot_be_asked_in_tiles_is_told(florence, image, call, message):
    large = image if "more than" not in message else Image.new("RGB", (1000, 1000))
    with pytest.raises(ValueError, match=message):
        call(florence, large)


# ---- the embedded checkpoint


@needs_embedded
def test_the_embedded_checkpoint_finds_200_small_things_in_tiles():
    """The scenes of the examples, pasted together: each is a thousandth of the image or less for the network."""
    truth = json.loads((EXAMPLES / "truth.json").read_text(encoding="utf-8"))
    names, things = sorted(truth), []
    canvas = Image.new("RGB", (10 * 224, 5 * 224))
    for number in range(50):
        row, column = divmod(number, 10)
        scene = truth[names[(number + row) % len(names)]]
        with Image.open(EXAMPLES / names[(number + row) % len(names)]) as picture:
            canvas.paste(picture.resize((224, 224)), (224 * column, 224 * row))
        scale = 224 / scene["size_wh"][0]
        corner = np.tile((224 * column, 224 * row), 2)
        things += [Instance(thing["label"], box=np.array(thing["box"]) * scale + corner) for thing in scene["objects"]]
    assert len(things) >= 200
    florence = Florence.from_pretrained("scenes-nano")
    tiled = florence.detect(canvas, tile=(224, 70), keep_image=False)
    found, right = share_found(tiled, things), share_found(things, tiled)
    print(f"in tiles {found:.3f} of {len(things)} found, {right:.3f} right")
    assert found > 0.8 and right > 0.6
    assert share_found(florence.detect(canvas, keep_image=False), things) < 0.05


def share_found(found: Iterable[Instance], things: Iterable[Instance]) -> float:
    """How many of the things another list has, with the label, at IoU 0.5."""
    found, things = list(found), list(things)
    ious = box_iou([item.bounds for item in things], [item.bounds for item in found])
    same = np.array([[one.label == other.label for other in found] for one in things], bool).reshape(ious.shape)
    return float((same & (ious >= 0.5)).any(1).mean())
