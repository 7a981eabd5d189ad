"""The pages that people read, the README and those of docs/, as the tests see them: code in blocks and lines, tables.

How a block is marked says what is done with it:

- `python` is run, all blocks of a page one after the other with the same names; `py` needs the network, a GPU or files
  that are not here, and is compiled.
- `console` holds commands, of which those of florence-lite are run; `sh` those that cannot be run here, and they are
  parsed.
- `text` directly behind one of them is what it prints.
- `toml` and `json` are read.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    kind: str
    text: str
    follows: bool  # directly behind another block


class Page:
    """A Markdown file, by its place in the repository."""

    def __init__(self, name: str):
        self.name, self.file = name, ROOT / name
        self.text = self.file.read_text(encoding="utf-8")
        self.blocks, end = [], -1
        for found in FENCED.finditer(self.text):
            directly = end >= 0 and not self.text[end : found.start()].strip()
            self.blocks.append(Block(found[1], found[2], directly))
            end = found.end()
        self.inline = re.findall(r"`([^`\n]+)`", FENCED.sub("", self.text))

    def __repr__(self) -> str:
        return self.name

    def of(self, *kinds: str) -> list[str]:
        """The texts of the blocks of these kinds."""
        return [block.text for block in self.blocks if block.kind in kinds]

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of the first table under a heading, its header first and without its rule."""
        section = self.text.split(f"\n{heading}\n", 1)[1] if heading not in self.text.split("\n", 1)[0] else self.text
        table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)[0]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        return cells[:1] + cells[2:]


def commands(block: str) -> list[str]:
    """The commands of a block, those joined by && apart, without comments."""
    lines = (re.sub(r"\s+# .*$", "", line) for line in block.splitlines())
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def own_commands(page: Page) -> list[str]:
    """The commands of florence-lite on a page, in blocks and in its sentences."""
    lines = [line for block in page.of("console", "sh") for line in commands(block)] + page.inline
    return [line for line in lines if line.startswith("florence-lite ")]


README = Page("README.md")
DOCS = [Page(path.relative_to(ROOT).as_posix()) for path in sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [README, *DOCS]


def page(name: str) -> Page:
    """A page of docs/."""
    return next(page for page in DOCS if page.name == f"docs/{name}")
