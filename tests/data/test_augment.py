"""Mirrored, turned and cropped images: what follows, what is gone, and what must stay as it is."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression, Region, TextLine
from florence_lite.data.augment import SMALLEST_CROP, Augmentation, Turn, can_crop, can_turn, crop, transpose, turned
from florence_lite.geometry import rasterize, thinned_outlines
from tests.data.annotated import rectangle
from tests.tiny import noise_image

SIZE = (90, 70)
DOG = ObjectAnnotation("dog", (10.0, 5.0, 40.0, 30.0), (((10.0, 5.0), (40.0, 5.0), (20.0, 30.0)),))
DOOR = ObjectAnnotation("door", (50.0, 20.0, 80.0, 60.0), (rectangle(50, 20, 80, 60), rectangle(60, 30, 70, 55)))
LAWN = Region("a lawn", (0.0, 40.0, 50.0, 70.0))
PLAIN = Annotation(SIZE, (DOG, DOOR), captions=("a bright dog",), regions=(LAWN,))  # English
ROUND_A_GAP = ((10, 10), (20, 10), (20, 50), (40, 50), (40, 10), (50, 10), (50, 60), (10, 60))
BARE = dataclasses.replace(PLAIN, captions=(), regions=())

PIXELS = {  # what a turn does to an array of pixels
    Turn.FLIP_LEFT_RIGHT: lambda a: a[:, ::-1],
    Turn.FLIP_TOP_BOTTOM: lambda a: a[::-1],
    Turn.ROTATE_90: np.rot90,  # counter-clockwise
    Turn.ROTATE_180: lambda a: np.rot90(a, 2),
    Turn.ROTATE_270: lambda a: np.rot90(a, 3),
    Turn.TRANSPOSE: lambda a: a.swapaxes(0, 1),
    Turn.TRANSVERSE: lambda a: np.rot90(a, 2).swapaxes(0, 1),
}
BACK = {turn: turn for turn in Turn} | {Turn.ROTATE_90: Turn.ROTATE_270, Turn.ROTATE_270: Turn.ROTATE_90}


def bounds(mask) -> tuple:
    ys, xs = np.nonzero(mask)
    return (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def covered(box, size_wh=SIZE):
    return rasterize([rectangle(*box)], size_wh)


def sense_of_rotation(ring) -> float:
    x, y = np.array(ring).T
    return np.sign(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def test_there_are_seven_turns():
    assert set(PIXELS) == set(Turn)


@pytest.mark.parametrize("turn", PIXELS, ids=lambda turn: turn.name)
def test_boxes_and_outlines_follow_the_pixels(turn):
    image, annotation = transpose(noise_image(0), PLAIN, turn, "en")
    assert np.array_equal(np.asarray(image), PIXELS[turn](np.asarray(noise_image(0))))
    assert annotation == turned(PLAIN, turn, "en")
    assert annotation.size_wh == image.size
    assert annotation.regions[0].box == bounds(PIXELS[turn](covered(LAWN.box)))
    for before, after in zip(PLAIN.objects, annotation.objects, strict=True):
        assert after.box == bounds(PIXELS[turn](covered(before.box)))
        mask = PIXELS[turn](rasterize(before.polygons, SIZE))
        assert np.array_equal(rasterize(after.polygons, annotation.size_wh), mask)
        assert list(map(sense_of_rotation, after.polygons)) == list(map(sense_of_rotation, before.polygons))


@pytest.mark.parametrize("turn", PIXELS, ids=lambda turn: turn.name)
def test_there_and_back(turn):
    image, annotation = transpose(*transpose(noise_image(0), PLAIN, turn, "en"), BACK[turn], "en")
    assert image == noise_image(0)
    assert annotation == PLAIN


@pytest.mark.parametrize(
    ("changes", "mirrored", "rotated"),
    [
        ({}, True, True),
        ({"captions": ("a dog on the left",)}, False, False),
        ({"captions": ("the Rightmost dog",)}, False, False),
        ({"captions": ("a left-handed catch", "", "")}, False, False),
        ({"captions": ("bright leftovers on a laptop",)}, True, True),
        ({"captions": ("a dog under a tree",)}, True, False),
        ({"captions": ("", "an UPPER and a lower row")}, True, False),
        ({"captions": ("horizontally striped",)}, True, False),
        ({"more_captions": ("the topmost dog",)}, True, False),
        ({"more_captions": ("right there",)}, False, False),
        ({"lines": (TextLine("OPEN", (0, 0, 9, 0, 9, 9, 0, 9)),)}, False, False),
        ({"expressions": (ReferringExpression("the leftmost dog", (0,)),)}, False, False),
        ({"expressions": (ReferringExpression("dog above the door", (0,)),)}, True, False),
        ({"questions": (Question("what is right of the door?", "dog"),)}, False, False),
        ({"questions": (Question("what is it?", "left"),)}, False, False),
        ({"questions": (Question("where is the dog?", "at the bottom"),)}, True, False),
        ({"regions": (Region("the left half of a lawn", LAWN.box),)}, False, False),
        ({"regions": (Region("what lies beneath", LAWN.box),)}, True, False),
        ({"objects": (dataclasses.replace(DOG, phrase="a dog at the top left"),)}, False, False),
        ({"objects": (dataclasses.replace(DOG, label="turn_left"),)}, False, False),
        ({"objects": (dataclasses.replace(DOG, label="arrow-up"),)}, True, False),
    ],
)
def test_what_may_be_turned(changes, mirrored, rotated):
    annotation = dataclasses.replace(PLAIN, **changes)
    for turn in Turn:
        possible = mirrored if turn == Turn.FLIP_LEFT_RIGHT else rotated
        assert can_turn(annotation, turn, "en") is possible
        if not possible:
            with pytest.raises(ValueError, match="would make wrong"):
                transpose(noise_image(0), annotation, turn, "en")


SENTENCES = (  # every one of them would be wrong in the mirror
    "der Hund links von der Tür",
    "le chien à gauche de la porte",
    "el perro a la izquierda de la puerta",
    "собака слева от двери",
    "门左边的狗",
    "ドアの左の犬",
    "الكلب على يسار الباب",
    "दरवाज़े के बाईं ओर कुत्ता",
    "chó ở bên trái cửa",
    "ci zuwa hagu na kofa",  # of a language that no list here has
)


@pytest.mark.parametrize("text", [*SENTENCES, "a dog", "ein Hund"])
def test_texts_keep_an_image_as_it_is(text):
    """Whatever they say: in which language that is, nobody told."""
    for changes in (
        {"captions": (text,)},
        {"captions": ("", text)},
        {"more_captions": (text,)},
        {"expressions": (ReferringExpression(text, (0,)),)},
        {"questions": (Question(text, "1"),)},
        {"questions": (Question("?", text),)},
        {"regions": (Region(text, LAWN.box),)},
        {"objects": (dataclasses.replace(DOG, phrase=text),)},
    ):
        described = dataclasses.replace(BARE, **changes)
        assert not any(can_turn(described, turn) for turn in Turn)
        for _, annotation in drawn(Augmentation(1, upright=False), described, draws=9):
            assert annotation == described


def test_texts_that_are_names_of_objects_are_names():
    """As detection data sets ask for their classes by phrases."""
    named = dataclasses.replace(
        BARE,
        objects=(dataclasses.replace(DOG, phrase="dog"),),
        expressions=(ReferringExpression("dog", (0,)),),
        questions=(Question("dog", "dog"),),
    )
    assert all(can_turn(named, turn) for turn in Turn)
    absent = dataclasses.replace(named, expressions=(ReferringExpression("cat"),))
    assert not any(can_turn(absent, turn) for turn in Turn)


@pytest.mark.parametrize(
    "text", ["a dog facing east", "the hand points to 3 o'clock", "it is 10:10", "a clockwise swirl"]
)
def test_english_texts_that_tell_sides_otherwise(text):
    described = dataclasses.replace(BARE, captions=(text,))
    assert not any(can_turn(described, turn, "en") for turn in Turn)


@pytest.mark.parametrize(
    "label",
    ["Linksabbieger", "flèche_gauche", "左转", "поворот налево", "turnLeft", "hand_L", "arrow E", "girar a la derecha"],
)
def test_names_of_classes_that_tell_sides(label):
    """In many languages, whatever the language of the texts."""
    named = dataclasses.replace(BARE, objects=(dataclasses.replace(DOG, label=label),))
    for language in (None, "en"):
        assert not any(can_turn(named, turn, language) for turn in Turn)


@pytest.mark.parametrize("label", ["oben", "arriba", "上", "верх", "north", "arrow-up"])
def test_names_of_classes_that_tell_heights(label):
    """They stay true in a mirror that stands beside the image."""
    named = dataclasses.replace(BARE, objects=(dataclasses.replace(DOG, label=label),))
    assert [turn for turn in Turn if can_turn(named, turn)] == [Turn.FLIP_LEFT_RIGHT]


def test_crop():
    part = (5, 10, 60, 60)
    annotation = dataclasses.replace(BARE, regions=(LAWN, Region("sky", (60.0, 0.0, 90.0, 20.0))))
    image, cropped = crop(noise_image(0), annotation, part, "en")
    assert np.array_equal(np.asarray(image), np.asarray(noise_image(0))[10:60, 5:60])
    assert cropped.size_wh == image.size == (55, 50)
    assert cropped.regions == (Region("a lawn", (0.0, 30.0, 45.0, 50.0)),)
    (dog, door) = cropped.objects
    assert dog.box == (7.0, 0.0, 31.0, 20.0)  # its outline is narrower below the cut than its box
    assert door.box == (45.0, 10.0, 55.0, 50.0)
    for before, after in zip(BARE.objects, cropped.objects, strict=True):
        assert after.label == before.label
        mask = rasterize(before.polygons, SIZE)[10:60, 5:60]
        assert np.array_equal(rasterize(after.polygons, (55, 50)), mask)


def test_a_crop_of_all_changes_nothing():
    image, annotation = crop(noise_image(0), BARE, (0, 0, *SIZE))
    assert image == noise_image(0)
    assert annotation == BARE


@pytest.mark.parametrize(
    ("ring", "part", "box"),
    [
        ((), (0, 0, 90, 70), (10, 10, 50, 60)),
        ((), (5, 5, 60, 65), (5, 5, 45, 55)),
        ((), (38, 10, 90, 60), (0, 0, 12, 50)),  # 30 %
        ((), (39, 10, 90, 60), None),
        ((), (30, 40, 90, 70), None),  # a quarter
        ((), (50, 0, 90, 70), None),
        ((), (60, 61, 90, 70), None),
        (((10, 10), (50, 10), (10, 60)), (0, 20, 90, 70), (10, 0, 42, 40)),  # narrower than the rest of its box
        (((10, 10), (50, 10), (10, 60)), (0, 35, 90, 70), None),  # narrower than 30 %
        (ROUND_A_GAP, (20, 10, 40, 50), None),  # the gap
        (ROUND_A_GAP, (21, 0, 39, 50), None),
    ],
)
def test_what_is_left_of_an_object(ring, part, box):
    item = ObjectAnnotation("dog", (10.0, 10.0, 50.0, 60.0), (ring,) if ring else ())
    _, annotation = crop(noise_image(0), Annotation(SIZE, (item,), exhaustive=frozenset({"objects"})), part)
    assert [item.box for item in annotation.objects] == ([] if box is None else [box])
    assert annotation.exhaustive == {"objects"}


def test_an_outline_loses_the_parts_that_are_gone():
    parts = (rectangle(10, 10, 50, 40), rectangle(10, 45, 50, 60))
    item = ObjectAnnotation("dog", (10.0, 10.0, 50.0, 60.0), parts)
    _, annotation = crop(noise_image(0), Annotation(SIZE, (item,)), (10, 10, 90, 45))
    (found,) = annotation.objects
    assert found.box == (0.0, 0.0, 40.0, 30.0)  # not up to the cut: there is nothing between the parts
    assert found.polygons == (rectangle(0, 0, 40, 30),)


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({}, True),
        ({"captions": ("", "")}, True),
        ({"regions": (LAWN,)}, True),
        ({"objects": (dataclasses.replace(DOG, label="left shoe"),)}, True),
        ({"objects": ()}, True),
        ({"captions": ("", "a bright dog")}, False),
        ({"more_captions": ("a bright dog",)}, False),
        ({"lines": (TextLine("OPEN", (0, 0, 9, 0, 9, 9, 0, 9)),)}, False),
        ({"expressions": (ReferringExpression("the cat"),)}, False),
        ({"questions": (Question("how many dogs?", "1"),)}, False),
        ({"objects": (dataclasses.replace(DOG, phrase="the larger dog"),)}, False),
        ({"regions": (Region("the left side of the picture", LAWN.box),)}, False),
        ({"regions": (Region("the bottom row", LAWN.box),)}, False),
    ],
)
def test_what_may_be_cropped(changes, possible):
    annotation = dataclasses.replace(BARE, **changes)
    assert can_crop(annotation, "en") is possible
    assert can_crop(annotation) is (possible and not annotation.regions)  # what may they say?
    if not possible:
        with pytest.raises(ValueError, match="words about the whole image"):
            crop(noise_image(0), annotation, (0, 0, 9, 9), "en")


def drawn(augmentation: Augmentation, annotation=BARE, image=None, draws=60) -> list:
    image = noise_image(0) if image is None else image
    return [augmentation(image, annotation, np.random.default_rng(seed)) for seed in range(draws)]


@pytest.mark.parametrize("augmentation", [Augmentation(0.5), Augmentation(upright=False), Augmentation(0.5, True, 0.5)])
def test_the_generator_decides(augmentation):
    once, again = drawn(augmentation), drawn(augmentation)
    assert once == again
    assert len({image.tobytes() for image, _ in once}) > 1


@pytest.mark.parametrize(("flips", "share"), [(0, 0), (0.25, 0.25), (1, 1)])
def test_flips_are_a_share(flips, share):
    mirrored = turned(BARE, Turn.FLIP_LEFT_RIGHT)
    found = [annotation for _, annotation in drawn(Augmentation(flips), draws=200)]
    assert all(annotation in (BARE, mirrored) for annotation in found)
    assert found.count(mirrored) / len(found) == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("flips", [0, 1])
def test_images_without_a_top_lie_in_all_eight_ways(flips):
    ways = [BARE, *(turned(BARE, turn) for turn in Turn)]
    found = [annotation for _, annotation in drawn(Augmentation(flips, upright=False), draws=400)]
    assert min(found.count(way) for way in ways) > 25
    assert sum(found.count(way) for way in ways) == 400


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 7), (2, 1), (3, 2), (90, 70)])
def test_a_drawn_part_lies_within_the_image(size_wh):
    width, height = size_wh
    pixels = np.stack([*np.meshgrid(np.arange(width), np.arange(height)), np.full((height, width), 9)], axis=-1)
    image = Image.fromarray(pixels.astype(np.uint8))  # every pixel tells its place
    found = set()
    for part, annotation in drawn(Augmentation(crops=1), Annotation(size_wh), image):
        assert annotation.size_wh == part.size
        assert all(1 <= side >= round(SMALLEST_CROP * whole) for side, whole in zip(part.size, size_wh, strict=True))
        left, top, _ = part.getpixel((0, 0))
        assert np.array_equal(np.asarray(part), pixels[top : top + part.height, left : left + part.width])
        found |= {("left", left), ("right", left + part.width), ("top", top), ("bottom", top + part.height)}
    assert {("left", 0), ("right", width), ("top", 0), ("bottom", height)} <= found  # up to every border


def test_crops_are_a_share():
    found = [image.size != SIZE for image, _ in drawn(Augmentation(crops=0.25), draws=200)]
    assert np.mean(found) == pytest.approx(0.25, abs=0.08)


def test_the_truth_follows_crops_and_turns():
    """An object painted white is where its annotation says, whatever is drawn."""
    ring = ((20, 10), (60, 10), (60, 20), (30, 20), (30, 60), (20, 60))
    item = ObjectAnnotation("hook", (20.0, 10.0, 60.0, 60.0), (ring,))
    image = Image.fromarray(rasterize([ring], SIZE))
    seen = 0
    for part, annotation in drawn(Augmentation(upright=False, crops=1), Annotation(SIZE, (item,)), image):
        for found in annotation.objects:
            assert np.array_equal(rasterize(found.polygons, annotation.size_wh), np.asarray(part))
            assert found.box == bounds(np.asarray(part))
            seen += 1
    assert 30 < seen < 60  # of some, too little is left


def test_text_never_changes():
    lines = (TextLine("OPEN", (0, 0, 9, 0, 9, 9, 0, 9)),)
    image = noise_image(0)
    for found, annotation in drawn(Augmentation(1, False, 1), Annotation(SIZE, (DOG,), lines), image):
        assert found is image
        assert annotation == Annotation(SIZE, (DOG,), lines)


def test_what_forbids_one_change_allows_the_others():
    described = dataclasses.replace(BARE, captions=("a dog under a tree",))
    found = [annotation for _, annotation in drawn(Augmentation(1, crops=1, language="en"), described)]
    assert found == [turned(described, Turn.FLIP_LEFT_RIGHT, "en")] * 60


def test_outlines_of_a_part_have_hardly_more_points_than_those_of_the_whole():
    """So that no answer about a part is longer than what was measured before training."""
    angles = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    radius = 300 + 6 * np.sin(23 * angles)
    points = tuple(zip(500 + radius * np.cos(angles), 500 + radius * np.sin(angles), strict=True))
    whole = Annotation((1000, 1000), (ObjectAnnotation("ring", (190.0, 190.0, 810.0, 810.0), (points,)),))
    most = len(thinned_outlines([points], whole.size_wh)[0])
    image = noise_image(0, whole.size_wh)
    for part in ((150, 150, 850, 850), (180, 180, 600, 830), (400, 150, 850, 850)):
        _, cropped = crop(image, whole, part)
        (outline,) = thinned_outlines(cropped.objects[0].polygons, cropped.size_wh)
        assert 3 <= len(outline) <= most + 4


def test_ignored_objects_follow():
    """Of an ignored object any part stays: nothing there may be taught to be no object."""
    box = (10.0, 10.0, 50.0, 60.0)
    item = ObjectAnnotation("dog", box, (rectangle(*box),))
    annotation = Annotation(SIZE, ignored=(item,))
    mirrored = turned(annotation, Turn.FLIP_LEFT_RIGHT)
    (moved,) = mirrored.ignored
    assert moved.box == (SIZE[0] - 50, 10, SIZE[0] - 10, 60) and sorted(moved.polygons[0])[0] == moved.box[:2]
    _, part = crop(noise_image(0), annotation, (48, 0, *SIZE))
    assert part.ignored[0].box == (0, 10, 2, 60) and not part.is_negative
    _, elsewhere = crop(noise_image(0), annotation, (50, 0, *SIZE))
    assert elsewhere.ignored == () and elsewhere.is_negative
