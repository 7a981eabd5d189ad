"""What is near a threshold."""

import re

import numpy as np
import pytest
from PIL import Image

from florence_lite.refine import RefineConfig, refine
from florence_lite.refine.judged import PERSON, ImageRows, JudgedRow
from florence_lite.refine.near import DROPPED, KEPT, NearThreshold
from florence_lite.refine.quality import Presence, Scores
from florence_lite.results.pictures import paler
from tests.refine.answers import item, judged, listed, nowhere, picture, query, said, write_answers


def near(most, *images):
    stages = Scores(threshold=0.5), Presence()
    found = NearThreshold(stages, most)
    for rows in images:
        image = ImageRows([JudgedRow.of(row) for row in rows])
        for stage in stages:
            stage.judge(image)
        found.offer(image)
    return [[(round(each.margin, 2), each.is_kept) for each in group] for group in found.found()]


def photo(number, *scores):
    return [listed(nowhere(f"{number}.jpg"), *(item("dog", score=score) for score in scores))]


def test_the_nearest_images_come_first_on_both_sides_of_the_threshold():
    images = photo(0, 0.9, 0.1), photo(1, 0.52), photo(2, 0.45, 0.6, 0.99), photo(3, None), photo(4, 0.5)
    assert near(9, *images) == [[(0, True)], [(0.02, True)], [(-0.05, False), (0.1, True)], [(0.4, True)]]
    assert near(2, *images) == [[(0, True)], [(0.02, True)]] and near(0, *images) == []


def test_words_and_phrases_have_margins_too():
    ask = query("<OPEN_VOCABULARY_DETECTION>", phrases=("dog",))
    image = [said(nowhere(), "a dog", score=0.55), listed(nowhere(), item("dog"), ask=ask, presence={"dog": 0.48})]
    assert near(9, image) == [[(-0.02, False), (0.05, True)]]


def test_what_was_dropped_for_another_reason_or_is_a_persons_is_not_near():
    found = NearThreshold([Scores(threshold=0.5)], 9)
    rows = judged(Scores(threshold=0.5), *photo(0, 0.51, 0.52))
    rows[0].drop("twins", "twin, same label", place=0)
    found.offer(ImageRows(rows))
    found.offer(
        ImageRows(
            judged(Scores(threshold=0.5), listed(nowhere("x"), item("cat", score=0.5), ask=query(checkpoint=PERSON)))
        )
    )
    [[only]] = found.found()
    assert only.place == 1


@pytest.fixture
def page(tmp_path):
    """The folder of a run over four photos, one of which is gone; one has a label that is no plain text."""
    labels = "dog", "cat", "<script>\x1b[31m", "cow"
    rows = []
    for number, label in enumerate(labels):
        image = picture(tmp_path, f"{number}.png", number)
        rows.append(listed(image, item(label, score=0.26 + 0.03 * number), item("far", (60, 10, 90, 40), 0.99)))
    write_answers(tmp_path / "in", rows)
    (tmp_path / "3.png").unlink()
    report = refine(tmp_path / "in", tmp_path / "out", RefineConfig(sheet=4))
    return report, tmp_path / "out"


def test_the_page_shows_what_is_near_and_says_how_corrections_come_back(page):
    report, folder = page
    text = (folder / "near.html").read_text(encoding="utf-8")
    assert report.sheet == 4 and text.count("data:image/jpeg;base64,") == 4 and "http" not in text
    verdicts = re.findall(r"<tr class=\"(\w+)\"><td>([+-]0\.\d+)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", text)
    assert [(kind, margin, label) for kind, margin, label, *_ in verdicts] == [
        ("dropped", "-0.010", "cat"),
        ("kept", "+0.020", r"&lt;script&gt;\x1b[31m"),
        ("dropped", "-0.040", "dog"),
        ("kept", "+0.050", "cow"),
    ]
    assert verdicts[0][-1] == "score: 0.290 is below 0.3"
    assert "--corrections FILE" in text and str(folder / "to_check.jsonl") in text
    assert any("3.png" in note for note in report.notes)


def test_the_picture_has_the_colours_of_the_verdicts(page):
    _, folder = page
    pixels = np.array(Image.open(folder / "near.png").convert("RGB"))
    for color in (paler(DROPPED, 0.29), paler(KEPT, 0.32)):
        assert (pixels == color).all(-1).any()
    assert pixels.shape[1] > 2 * 360


def test_no_page_where_nothing_has_a_score(tmp_path):
    write_answers(tmp_path / "in", [listed(picture(tmp_path, "a.png", 1), item("dog", score=None))])
    assert refine(tmp_path / "in", tmp_path / "out").sheet == 0
    assert not (tmp_path / "out" / "near.html").exists()


def test_words_about_a_region_are_drawn_on_it(tmp_path):
    row = said(picture(tmp_path, "a.png", 1), "dog", "<REGION_TO_CATEGORY>", 0.31, region=(20.0, 15.0, 60.0, 45.0))
    write_answers(tmp_path / "in", [row])
    refine(tmp_path / "in", tmp_path / "out", RefineConfig(sheet=1))
    pixels = np.array(Image.open(tmp_path / "out" / "near.png").convert("RGB"))
    assert (pixels == paler(KEPT, 0.31)).all(-1).any()
