"""Which of many images show what a phrase names."""

import weakref

import pytest

from florence_lite.inference import IMAGES_AT_ONCE
from tests.tiny import noise_image

IMAGES = [noise_image(seed) for seed in range(6)]
PHRASE = "the dog"


def test_the_best_images_with_their_boxes(florence):
    presences = [florence.detect(image, [PHRASE], threshold=0).presence[PHRASE] for image in IMAGES]
    order = sorted(range(6), key=lambda index: -presences[index])
    search = florence.find(IMAGES, PHRASE, top=3, threshold=0)
    assert [found.index for found in search] == order[:3] and len(search) == 3 and search.images == 6
    assert [found.presence for found in search] == pytest.approx(sorted(presences)[:-4:-1], rel=1e-4)
    for found in search:
        expected = florence.detect(IMAGES[found.index], [PHRASE], threshold=0)
        assert found.result.token_ids == expected.token_ids and found.result.image is not None
        assert found.result.presence == pytest.approx({PHRASE: found.presence})
        assert found.to_dict()["image"] == found.name == f"{found.index} (counted from 0)"


def test_a_threshold_leaves_boxes_out_but_not_images(florence):
    search = florence.find(IMAGES[:2], PHRASE, threshold=1.0, keep_image=False)
    assert len(search) == 2 and not any(len(found.result) for found in search)
    assert search[0].result.image is None and search[0].presence >= search[1].presence


def test_images_that_cannot_be_read_are_told(florence, tmp_path):
    IMAGES[0].save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    search = florence.find(sorted(tmp_path.iterdir()), PHRASE)
    assert [found.name for found in search] == [str(tmp_path / "a.png")] and search.images == 2
    assert [(error.index, error.name) for error in search.errors] == [(1, str(tmp_path / "b.png"))]
    assert len(florence.find([tmp_path / "b.png"], PHRASE)) == 0


def test_a_few_images_are_in_memory(florence):
    """Of those that a generator gives, those of a batch and the best."""
    given, most = [], 0

    def images():
        nonlocal most
        for seed in range(5 * IMAGES_AT_ONCE):
            image = noise_image(seed % 7)
            given.append(weakref.ref(image))
            most = max(most, sum(each() is not None for each in given))
            yield image
            del image

    search = florence.find(images(), PHRASE, top=2, keep_image=False)
    assert search.images == 5 * IMAGES_AT_ONCE and most <= 2 * IMAGES_AT_ONCE + 2


@pytest.mark.parametrize(
    ("images", "phrase", "more", "message"),
    [
        ([], PHRASE, {}, "there are no images; give at least one"),
        (iter([]), PHRASE, {}, "there are no images; give at least one"),
        (IMAGES, "", {}, r"phrases\[0\]='' must be a string with something in it"),
        (IMAGES, " ", {}, r"phrases\[0\]=' ' must be a string with something in it"),
        (IMAGES, None, {}, r"phrases\[0\]=None must be a string with something in it"),
        (IMAGES, PHRASE, {"top": 0}, "top is 0; it must be a whole number of at least 1"),
        (IMAGES, PHRASE, {"top": 2.5}, "top is 2.5; it must be a whole number of at least 1"),
        (IMAGES, PHRASE, {"top": True}, "top is True; it must be a whole number"),
        (IMAGES, PHRASE, {"threshold": 2}, "threshold is 2; it must be a number from 0 to 1"),
        (IMAGES, PHRASE, {"choices": ["a", "b"]}, "does not answer in words alone: leave choices=… out"),
        (IMAGES, PHRASE, {"keep_image": "no"}, "keep_image is 'no'; it must be True or False"),
    ],
)
def test_mistakes(florence, images, phrase, more, message):
    with pytest.raises(ValueError, match=message):
        florence.find(images, phrase, **more)
