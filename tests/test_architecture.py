"""The direction of imports: every file of the package imports only what lies in its own room or in one below.

Imports inside of functions and those that only type checkers see count like any other. Nothing is excepted.
"""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import florence_lite

PACKAGE = Path(florence_lite.__file__).parent

# The rooms from the ground up: a file or a folder of the package each. A room that is not built yet may stand here.
ROOMS = (
    "checks",
    "garbage",
    "printable",
    "files",
    "geometry",
    "image_files",
    "images",
    "progress",
    "answers",
    "tokens",
    "model",
    "engine",
    "cards",
    "results",
    "inference",
    "checkpoint",
    "florence",
    "export",
    "data",
    "rules",
    "evaluate",
    "train",
    "scenes",
    "annotate",
    "refine",
    "serve",
    "demo",
    "cli",
    "__main__",
)
# Rooms that know of even less, by what they may import: of the package, and of others at the top of a file.
FEW_ROOMS = {"geometry": set(), "answers": set(), "model": set(), "engine": {"model", "checks"}}
FEW_PACKAGES = {
    "geometry": {"numpy"},
    "answers": set(),
    "model": {"torch"},
    "engine": {"torch"},
}
CORE = {"torch", "tokenizers", "safetensors", "huggingface_hub", "PIL", "numpy", "typer", "rich"}
MAY_NEED_EXTRAS = {"data", "rules", "evaluate", "train", "scenes", "serve"}


class Import(NamedTuple):
    """module: dotted name of what is imported; when: "always", "lazy" inside a function, "typing" for type checkers."""

    module: str
    when: str


def read_imports(source: str, package: str) -> list[Import]:
    """The imports of a module that lies directly in `package`."""

    def visit(node: ast.AST, when: str):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            when = "typing"
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (Import(f"{base}.{alias.name}", when) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, "lazy" if inside else when)

    return list(visit(ast.parse(source), "always"))


def file_of(module: str) -> Path | None:
    """The file, relative to the package, that a dotted name is found in; None for names of other packages and for
    what the package itself defines, such as its version."""
    root, _, rest = module.partition(".")
    if root != "florence_lite" or not rest:
        return None
    first, _, behind = rest.partition(".")
    parts = f"{florence_lite._HOME.get(first, first)}.{behind}".strip(".").split(".")
    for end in range(len(parts), 0, -1):
        path = Path(*parts[:end])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if (PACKAGE / file).is_file():
                return file
    return None


def room_of(file: Path) -> str:
    """The room of a file, named relative to the package."""
    return file.parts[0].removesuffix(".py")


def imports_of(file: Path) -> list[Import]:
    package = ".".join((PACKAGE.name, *file.parent.parts))
    return read_imports((PACKAGE / file).read_text(encoding="utf-8"), package)


def imported_files(file: Path) -> set[Path]:
    return {target for module, _ in imports_of(file) if (target := file_of(module)) is not None} - {file}


# The package's own __init__ names the homes of what it exports, as strings; nothing in it is a room.
FILES = sorted(
    file
    for path in PACKAGE.rglob("*.py")
    if (file := path.relative_to(PACKAGE)).parts[0] not in ("__init__.py", "_cards")
)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_only_what_lies_below(file):
    own = ROOMS.index(room_of(file))
    for target in imported_files(file):
        assert ROOMS.index(room_of(target)) <= own, f"{file} must not import {target}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_inside_a_room(room):
    graph = {
        file: {target for target in imported_files(file) if room_of(target) == room}
        for file in FILES
        if room_of(file) == room
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"{room}: {' imports '.join(map(str, error.args[1]))}")


@pytest.mark.parametrize("room", FEW_ROOMS)
def test_low_rooms_know_little_of_the_package(room):
    targets = {room_of(target) for file in FILES if room_of(file) == room for target in imported_files(file)}
    assert targets - {room} <= FEW_ROOMS[room]


@pytest.mark.parametrize("room", FEW_PACKAGES)
def test_low_rooms_need_few_packages(room):
    assert packages_of(room) <= FEW_PACKAGES[room]


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in MAY_NEED_EXTRAS])
def test_extras_are_imported_inside_functions(room):
    assert packages_of(room) <= CORE


def packages_of(room: str) -> set[str]:
    """Other packages that are imported as soon as a file of the room is."""
    used = {
        module.split(".")[0]
        for file in FILES
        if room_of(file) == room
        for module, when in imports_of(file)
        if when == "always"
    }
    return used - set(sys.stdlib_module_names) - {"florence_lite"}


def test_every_file_has_its_room():
    assert {room_of(file) for file in FILES} <= set(ROOMS)
    assert len(set(ROOMS)) == len(ROOMS)


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import torch", "florence_lite", [("torch", "always")]),
        ("import torch.nn as nn, numpy", "florence_lite", [("torch.nn", "always"), ("numpy", "always")]),
        ("from florence_lite import cards", "florence_lite", [("florence_lite.cards", "always")]),
        ("from . import cards", "florence_lite", [("florence_lite.cards", "always")]),
        ("from .codec import Codec", "florence_lite.tokens", [("florence_lite.tokens.codec.Codec", "always")]),
        ("from ..cards import task", "florence_lite.engine", [("florence_lite.cards.task", "always")]),
        ("def f():\n    import PIL", "florence_lite", [("PIL", "lazy")]),
        ("class A:\n    def f(self):\n        if 1:\n            import PIL", "florence_lite", [("PIL", "lazy")]),
        ("if TYPE_CHECKING:\n    import PIL", "florence_lite", [("PIL", "typing")]),
        ("if typing.TYPE_CHECKING:\n    from PIL import Image", "florence_lite", [("PIL.Image", "typing")]),
        ("try:\n    import PIL\nexcept ImportError:\n    pass", "florence_lite", [("PIL", "always")]),
    ],
)
def test_read_imports(source, package, expected):
    assert read_imports(source, package) == expected


@pytest.mark.parametrize(
    ("module", "file"),
    [
        ("florence_lite.tokens.codec.Codec", "tokens/codec.py"),
        ("florence_lite.tokens.Codec", "tokens/__init__.py"),
        ("florence_lite.tokens", "tokens/__init__.py"),
        ("florence_lite.geometry.box_area", "geometry.py"),
        ("florence_lite.Florence", "florence/__init__.py"),
        ("florence_lite.Prompt", "inference/prompts.py"),
        ("florence_lite.Result", "results/__init__.py"),
        ("florence_lite.__version__", None),
        ("florence_lite", None),
        ("torch.nn", None),
    ],
)
def test_file_of(module, file):
    assert file_of(module) == (None if file is None else Path(file))


def test_a_file_that_looks_up_is_found(monkeypatch):
    """The test above would see it."""
    monkeypatch.setattr(sys.modules[__name__], "imported_files", lambda file: {Path("cli/running.py")})
    with pytest.raises(AssertionError, match=r"geometry.py must not import cli/running.py"):
        test_imports_only_what_lies_below(Path("geometry.py"))
    assert ROOMS.index("evaluate") < ROOMS.index("train") and ROOMS.index("florence") < ROOMS.index("evaluate")
