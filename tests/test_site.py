"""The documentation site builds without a warning, fetches nothing from elsewhere, and has each page as Markdown."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs")
pytest.importorskip("material", reason="needs the extra docs")
pytest.importorskip("mkdocstrings", reason="needs the extra docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, str]:
    return {
        path.relative_to(site).as_posix(): path.read_text(encoding="utf-8")
        for path in site.rglob("*.html")
        if path.name != "404.html"
    }


def test_every_page_has_a_twin_that_it_names(site, pages):
    assert {"index.html", "benchmarks/index.html", "reference.html", "questions/mac.html"} <= pages.keys()
    for name, html in pages.items():
        [twin] = re.findall(r'<link rel="alternate" type="text/markdown" href="([^"]+)">', html)
        assert (site / name).with_name(twin).read_text(encoding="utf-8").startswith("# "), name


def test_llms_txt_lists_the_pages(site):
    lines = (site / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# florence-lite" and lines[2].startswith("> ")
    listed = [re.fullmatch(r"- \[(.+)\]\((.+)\): (.+)", line) for line in lines[6:]]
    assert all(listed) and len(listed) >= 20
    assert all((site / found[2]).is_file() and "```" not in found[3] for found in listed)


def test_links_of_the_twins_lead_somewhere(site):
    for twin in site.rglob("*.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", twin.read_text(encoding="utf-8")):
            assert (twin.parent / link).is_file(), f"{twin.relative_to(site)}: {link}"


def test_nothing_is_fetched_from_elsewhere(pages):
    tags = re.compile(r"<(?:script|img|iframe|link)\b[^>]*>")
    elsewhere = re.compile(r'(?:src|href)="(?:https?:)?//')
    assert [name for name, html in pages.items() if any(map(elsewhere.search, tags.findall(html)))] == []


def test_markers_are_shown(pages):
    """`<OD>` in a docstring would else be a tag that no browser knows."""
    assert '&lt;OD&gt;"; ' in pages["reference.html"]
    unknown = re.compile(r"<(?:OD|CAPTION|mask|loc|and)\b[^>]*>")
    assert {name: found for name, html in pages.items() if (found := unknown.findall(html))} == {}


def test_every_argument_is_an_item_of_its_own(site):
    text = (site / "reference.md").read_text(encoding="utf-8")
    assert "\n- **`subfolder`**: of the repository or folder." in text


def test_no_page_stands_twice_in_the_navigation(pages):
    nav = re.search(r'<nav class="md-nav md-nav--primary".*?</nav>\s*</div>', pages["limits.html"], re.DOTALL)[0]
    links = re.findall(r'<a href="([^"#]+)" class="md-nav__link', nav)
    assert len(links) > 20 and len(links) == len(set(links))


def test_the_reference_is_made_of_docstrings(site, pages):
    for text in (pages["reference.html"], (site / "reference.md").read_text(encoding="utf-8")):
        assert "Run the vision tower once, for any number of prompts later." in text
        assert ":::" not in text
