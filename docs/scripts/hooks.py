"""Hooks of mkdocs: what the site has beside the pages of docs/.

- Pages that lie elsewhere in the repository, where they are read too: `ELSEWHERE`. The README is the first page.
- Files of the repository that a page links to, such as a configuration of examples/. Links are written as they work in
  the repository, and are turned to the site here.
- Beside each page PAGE.html its Markdown, PAGE.md, named in the page's head; and `llms.txt`, a list of them all.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
from docstrings import as_markdown  # noqa: E402

ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/README.md": "benchmarks/README.md",
    "examples/README.md": "examples/README.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")
DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)

written: dict[str, str] = {}  # the Markdown of each page, by its place in the site
order: list[tuple[str, str]] = []  # title and place of the pages, as in the navigation


def place_in_site(link: str, page: str, root: Path) -> str | None:
    """Where a link of a page leads, both given as places of the repository; None where no file is there."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if target in ELSEWHERE or not (root / target).is_file():
        return ELSEWHERE.get(target)
    return target.removeprefix("docs/")


def place_in_repository(page: str) -> str:
    """The inverse, of a page."""
    return {uri: source for source, uri in ELSEWHERE.items()}.get(page, f"docs/{page}")


def repository(config) -> Path:
    return Path(config.config_file_path).parent


def on_files(files, config):
    root = repository(config)
    for source, uri in ELSEWHERE.items():
        files.append(File.generated(config, uri, abs_src_path=str(root / source)))
    for page in list(files.documentation_pages()):
        source = place_in_repository(page.src_uri)
        for link in LINK.findall((root / source).read_text(encoding="utf-8")):
            uri = place_in_site(link, source, root)
            if uri is not None and files.get_file_from_path(uri) is None:
                linked = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
                files.append(File.generated(config, uri, abs_src_path=str(root / linked)))
    return files


def on_nav(nav, config, files):
    order[:] = [(page.title or "", page.file.src_uri) for page in nav.pages]


def on_page_markdown(markdown, page, config, files):
    source, here = place_in_repository(page.file.src_uri), posixpath.dirname(page.file.src_uri) or "."

    def turned(link: re.Match) -> str:
        uri = place_in_site(link[0], source, repository(config))
        return link[0] if uri is None else posixpath.relpath(uri, here)

    markdown = LINK.sub(turned, markdown)
    written[page.file.src_uri] = markdown
    return markdown


def on_post_page(output, page, config):
    twin = posixpath.relpath(page.file.src_uri, posixpath.dirname(page.file.dest_uri) or ".")
    return output.replace("</head>", f'<link rel="alternate" type="text/markdown" href="{twin}"></head>', 1)


def on_post_build(config):
    site = Path(config.site_dir)
    for uri, markdown in written.items():
        (site / uri).parent.mkdir(parents=True, exist_ok=True)
        (site / uri).write_text(DIRECTIVE.sub(lambda found: as_markdown(found[1]), markdown), encoding="utf-8")
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", "", "## Pages", ""]
    lines += [f"- [{title}]({uri}): {summary(written[uri])}" for title, uri in order]
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def summary(markdown: str) -> str:
    """The first sentence of a page."""
    paragraphs = (" ".join(part.split()) for part in markdown.split("\n\n"))
    first = next(part for part in paragraphs if part[:1].isalpha() or (part[:1] in "`*" and part[:3] != "```"))
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", re.split(r"(?<=[.?]) ", first)[0].rstrip(":"))
