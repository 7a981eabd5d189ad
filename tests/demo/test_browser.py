"""The page in a browser without a window, as a visitor uses it."""

import re
import shutil
from pathlib import Path

import pytest

from florence_lite.demo.answering import FREE

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'florence-lite[demo]'")
playwright = pytest.importorskip("playwright.sync_api", reason="a browser is led by playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium", allow_module_level=True)

MEADOW = Path(__file__).parents[2] / "examples" / "meadow.png"
PATIENCE = 20_000  # milliseconds until a test gives up


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, nano):
    """The page with `MEADOW` in it. Afterwards: it asked no other machine for anything, and no script of it failed."""
    from florence_lite.demo.page import served
    from florence_lite.images import load_image

    asked, faults = [], []
    with served(nano, load_image(MEADOW)) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE)
        playwright.expect.set_options(timeout=PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.get_by_role("button", name="Ask").wait_for()
        yield page
        page.close()
    assert asked and not faults
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def choose(page, task: str) -> None:
    page.get_by_label("task", exact=True).click()
    page.get_by_role("option", name=task).click()


def ask(page) -> None:
    page.get_by_role("button", name="Ask").click()


def words(page):
    """To be compared: they come a little later."""
    return playwright.expect(page.get_by_role("textbox", name="words"))


def test_objects_appear_with_their_scores(page, nano, tmp_path):
    ask(page)
    words(page).to_have_value("3 found")
    for item in nano.run(MEADOW, "<OD>"):  # the picture lost nothing on its way
        for cell in (item.label, f"{item.score:.3f}".rstrip("0"), *(f"{number:.1f}" for number in item.box)):
            playwright.expect(page.get_by_role("gridcell", name=cell.removesuffix(".0")).first).to_be_visible()
    page.get_by_text("JSON").click()
    playwright.expect(page.get_by_text("size_wh")).to_be_visible()
    assert page.screenshot(path=tmp_path / "page.png")


def test_two_clicks_are_a_region(page):
    choose(page, "<REGION_TO_CATEGORY>")
    region = page.get_by_role("textbox", name="region")
    playwright.expect(region).to_be_visible()
    page.wait_for_function("document.images[0].complete && document.images[0].naturalWidth == 224")
    picture = page.locator("img").first
    box = picture.bounding_box()
    left, top = (box["width"] - 224) / 2, (box["height"] - 224) / 2  # it is not enlarged
    for x, y in ((18, 58), (83, 126)):
        before = region.input_value()
        picture.click(position={"x": left + x, "y": top + y})
        playwright.expect(region).not_to_have_value(before)
    assert [float(each) for each in region.input_value().split()] == pytest.approx([18, 58, 83, 126], abs=2)
    ask(page)
    words(page).to_have_value(re.compile("^penguin"))


def test_phrases_and_the_threshold_that_moves(page):
    choose(page, "<OPEN_VOCABULARY_DETECTION>")
    page.get_by_role("textbox", name="phrases").fill("the penguin\nthe bicycle")
    ask(page)
    words(page).to_have_value(re.compile(r"^not in the image: the bicycle \(0\.\d+\)$"))
    slider = page.get_by_role("slider")
    slider.fill("0")
    slider.dispatch_event("pointerup")
    words(page).to_have_value(re.compile(r"^[2-9] found$"))
    page.get_by_role("spinbutton").fill("1")  # typed
    words(page).to_have_value(re.compile("the penguin"))


def test_a_mistake_is_told(page):
    choose(page, FREE)
    ask(page)
    playwright.expect(page.get_by_text("a sentence of your own needs the field text")).to_be_visible()
    page.get_by_role("textbox", name="text a caption").fill("how many objects are there?")
    page.get_by_role("textbox", name="text a caption").press("Enter")
    words(page).to_have_value(re.compile("^3"))
