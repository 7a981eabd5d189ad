"""Images that look alike."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from florence_lite.data.rows import ImageSource, int64_of
from florence_lite.refine.duplicates import FARTHEST, Duplicates, NearHashes, perceptual_hash
from florence_lite.refine.judged import PERSON, ImageRows, JudgedRow
from tests.refine.answers import item, listed, nowhere, picture, query, reasons


def encoded(image: Image.Image, format: str = "PNG", **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **more)
    return buffer.getvalue()


def test_copies_of_a_picture_are_near_it_and_other_pictures_far(tmp_path):
    photo = Image.open(picture(tmp_path, "a.png", 1, (400, 300)).source)
    other = Image.open(picture(tmp_path, "b.png", 2, (400, 300)).source)
    copies = (
        encoded(photo, "JPEG", quality=40),
        encoded(photo.resize((123, 92))),
        encoded(ImageEnhance.Contrast(photo).enhance(0.8)),
    )
    own = perceptual_hash(encoded(photo))
    assert all((own ^ perceptual_hash(copy)).bit_count() <= 7 for copy in copies)
    assert (own ^ perceptual_hash(encoded(other))).bit_count() > 15
    assert (own ^ perceptual_hash(encoded(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))).bit_count() > 15


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, FARTHEST), st.data())
def test_the_nearest_hash_is_found_as_by_looking_at_all(hashes, distance, data):
    """Also where the hash sought lies right at the distance from one of them."""
    sought = data.draw(st.integers(0, 2**64 - 1))
    if hashes and data.draw(st.booleans()):
        flipped = data.draw(st.lists(st.integers(0, 63), max_size=FARTHEST + 1))
        sought = hashes[0] ^ sum(1 << bit for bit in set(flipped))
    near = NearHashes(distance)
    for name, hash in enumerate(hashes):
        near.add(hash, name)
    nearest = min((((hash ^ sought).bit_count(), name) for name, hash in enumerate(hashes)), default=None)
    assert near.nearest(sought) == (nearest if nearest and nearest[0] <= distance else None)


def test_few_hashes_are_looked_at():
    """Of the four tables, together, less than a hundredth of what all hashes are."""
    near = NearHashes(7)
    for name, hash in enumerate(np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64).tolist()):
        near.add(hash, name)
    looked = [len(table.get(flip, ())) for table in near._tables for flip in near._flips]
    assert 0 < sum(looked) < 0.01 * 5000


def through(stage, *rows):
    images = [ImageRows([JudgedRow.of(row)]) for row in rows]
    for first in range(0, len(images), 2):
        stage.observe(images[first : first + 2])
    stage.settle()
    for image in images:
        stage.judge(image)
    return [image.rows[0] for image in images]


@pytest.fixture
def alike(tmp_path):
    """Three pictures: one, the same in another format, and another one."""
    first = picture(tmp_path, "a.png", 1)
    Image.open(first.source).save(tmp_path / "b.jpg", quality=80)
    content = (tmp_path / "b.jpg").read_bytes()

    return (
        first,
        ImageSource(int64_of(content), str(tmp_path / "b.jpg"), first.size_wh, 1),
        picture(tmp_path, "c.png", 2),
    )


@pytest.mark.parametrize(
    "prefer, counts, gone",
    [("first", (1, 3, 0), 1), ("instances", (1, 3, 0), 0), ("instances", (2, 2, 0), 1)],
)
def test_which_of_two_alike_stays(alike, prefer, counts, gone):
    rows = [listed(image, *[item("dog")] * count) for image, count in zip(alike, counts, strict=True)]
    judged = through(Duplicates(prefer=prefer), *rows)
    assert [row.is_out for row in judged] == [place == gone for place in range(3)]
    assert reasons(judged[gone])[0].startswith(f"near-duplicate: of {alike[1 - gone].source}, ")


def test_what_a_person_corrected_stays(alike):
    rows = [listed(alike[0], *[item("dog")] * 3), listed(alike[1], ask=query(checkpoint=PERSON))]
    assert [row.is_out for row in through(Duplicates(), *rows)] == [True, False]


@pytest.mark.parametrize("prefer", ["first", "instances"])
def test_of_two_pictures_that_one_file_held_the_one_that_is_there_stays(tmp_path, prefer):
    before = picture(tmp_path, "a.png", 1)
    now = picture(tmp_path, "a.png", 2)
    stage = Duplicates(prefer=prefer)
    judged = through(stage, listed(before, item("dog"), item("cat")), listed(now, item("bus")))
    assert [row.is_out for row in judged] == [True, False]
    assert reasons(*judged) == ["picture changed: its file holds another picture now, which has answers too"]
    assert list(stage.hashes) == [now.image_id]


def test_hashes_of_an_earlier_run_are_used(alike, monkeypatch):
    stage = Duplicates()
    stage.hashes = {image.image_id: number << 40 for number, image in enumerate(alike)}
    monkeypatch.setattr("florence_lite.refine.duplicates.read_source", lambda name: pytest.fail(f"{name} was read"))
    assert [row.is_out for row in through(stage, *map(listed, alike))] == [False, True, True]


def test_images_that_cannot_be_read_stay_and_are_told(alike):
    stage = Duplicates()
    judged = through(stage, *map(listed, alike[:2]), listed(nowhere()))
    assert [row.is_out for row in judged] == [False, True, False]
    assert stage.told() == ["1 images could not be read and stay, the first: image /photos/a.jpg does not exist"]


def test_none_can_be_read():
    with pytest.raises(ValueError, match="none of 2 images can be read"):
        through(Duplicates(), listed(nowhere("a.jpg")), listed(nowhere("b.jpg")))
