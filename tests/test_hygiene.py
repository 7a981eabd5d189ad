"""What a repository is expected to have beside its code: that it is right, not only there."""

from pathlib import Path

import pytest
import yaml

import florence_lite

ROOT = Path(__file__).parents[1]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == [{"name": "florence-lite contributors"}] and citation["license"] == "MIT"
    assert "version" not in citation, "the version has one home, florence_lite.__version__"
    [paper] = citation["references"]
    assert paper["type"] == "article" and {"title", "authors", "year", "url"} <= paper.keys()


@pytest.mark.parametrize("file", [each for each in TEMPLATES if each.stem != "config"], ids=lambda file: file.stem)
def test_issue_forms(file):
    form = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    assert all(field["type"] in ("textarea", "input") and field["attributes"]["label"] for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_contributing_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(TEMPLATES) == 4
    package = Path(florence_lite.__file__).parent
    rooms = {each.name for each in package.iterdir() if each.is_dir() and not each.name.startswith(("_", "."))}
    assert [room for room in sorted(rooms) if f"`{room}/`" not in text and f"`florence_lite/{room}/`" not in text] == []
    for name in ("tasks/od.toml", ".ci/run", "tests/test_architecture.py", "tests/cards", "tests/rules"):
        assert name in text and (ROOT / name).exists()
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert checks[-1] == "python -m pytest -n auto -q" and "ruff check --quiet ." in checks
