"""The direction of imports: a unit (a module or folder of the package) imports only what lies below it."""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import florence_lite

PACKAGE = Path(florence_lite.__file__).parent

# What each unit builds on; it may also import whatever those build on.
BUILDS_ON = {
    "values": (),
    "geometry": (),
    "images": (),
    "preprocess": ("values",),
    "progress": (),
    "results": ("geometry",),
    "tokens": ("results",),
    "cards": ("tokens", "values"),
    "model": (),
    "checkpoint": ("model", "cards", "preprocess"),
    "engine": ("model",),
    "display": ("results", "images"),
    "interop": ("results",),
    "scoring": ("results",),
    "answering": ("cards", "engine", "scoring"),
    "florence": ("answering", "checkpoint", "images", "preprocess", "progress", "display", "interop"),
    "data": ("cards", "images", "preprocess", "display"),
    "evaluate": ("florence", "data"),
    "train": ("data", "checkpoint", "progress"),
    "scenes": ("evaluate", "train"),
    "cli": ("scenes", "evaluate", "train", "data", "checkpoint", "progress"),
    "__main__": ("cli",),
}
# A result shows and converts itself; what does that is imported inside the method that needs it.
LAZILY = {("results", "display"), ("results", "interop"), ("train", "evaluate"), ("train", "florence")}
ONLY_THIRD_PARTY = {"geometry": {"numpy"}, "results": {"numpy"}, "model": {"torch"}, "engine": {"torch"}}
CORE = {"torch", "tokenizers", "safetensors", "huggingface_hub", "PIL", "numpy", "typer", "rich"}
MAY_NEED_EXTRAS = {"data", "train", "evaluate", "scenes"}


class Import(NamedTuple):
    """module: dotted name of what is imported; lazy: inside a function."""

    module: str
    lazy: bool


def read_imports(source: str, package: str) -> list[Import]:
    """The imports of a module that lies directly in `package`, without those that only type checkers see."""

    def visit(node: ast.AST, lazy: bool):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (Import(f"{base}.{alias.name}", lazy) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return list(visit(ast.parse(source), False))


def unit_of(module: str) -> str | None:
    """The unit that a dotted name belongs to; None for names outside of the package and for the package itself."""
    root, _, rest = module.partition(".")
    if root != "florence_lite" or not rest:
        return None
    name = rest.split(".")[0]
    return florence_lite._HOME.get(name, name if name in BUILDS_ON else None)


def below(unit: str) -> set[str]:
    """Everything that `unit` may import."""
    return {unit}.union(*(below(lower) for lower in BUILDS_ON[unit]))


def modules_of(unit: str) -> list[Path]:
    """The Python files of a unit; none for one that is not written yet."""
    single = PACKAGE / f"{unit}.py"
    return [single] if single.is_file() else sorted((PACKAGE / unit).rglob("*.py"))


def imports_of(unit: str) -> list[Import]:
    found = []
    for file in modules_of(unit):
        package = ".".join(file.relative_to(PACKAGE.parent).parent.parts)
        found += read_imports(file.read_text(encoding="utf-8"), package)
    return found


@pytest.mark.parametrize("unit", BUILDS_ON)
def test_imports_only_what_lies_below(unit):
    for module, lazy in imports_of(unit):
        target = unit_of(module)
        if target is not None and not (lazy and (unit, target) in LAZILY):
            assert target in below(unit), f"{unit} must not import {module}"


@pytest.mark.parametrize("unit", ONLY_THIRD_PARTY)
def test_low_units_need_little(unit):
    used = {module.split(".")[0] for module, lazy in imports_of(unit) if not lazy}
    assert used - set(sys.stdlib_module_names) - {"florence_lite"} <= ONLY_THIRD_PARTY[unit]


@pytest.mark.parametrize("unit", sorted(BUILDS_ON.keys() - MAY_NEED_EXTRAS))
def test_extras_are_imported_inside_functions(unit):
    used = {module.split(".")[0] for module, lazy in imports_of(unit) if not lazy}
    assert used - set(sys.stdlib_module_names) - {"florence_lite"} <= CORE


def test_every_unit_has_its_place():
    on_disk = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert on_disk - {"__init__", "_cards"} <= BUILDS_ON.keys()


def test_the_prohibitions_of_the_design_hold_by_construction():
    assert not {"tokens", "cards"} & (below("model") | below("engine"))
    assert "florence" not in below("train")
    assert below("geometry") == {"geometry"}


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import torch", "florence_lite", [("torch", False)]),
        ("import torch.nn as nn, numpy", "florence_lite", [("torch.nn", False), ("numpy", False)]),
        ("from florence_lite import cards", "florence_lite", [("florence_lite.cards", False)]),
        ("from . import cards", "florence_lite", [("florence_lite.cards", False)]),
        ("from .codec import Codec", "florence_lite.tokens", [("florence_lite.tokens.codec.Codec", False)]),
        ("from ..cards import task", "florence_lite.engine", [("florence_lite.cards.task", False)]),
        ("def f():\n    import PIL", "florence_lite", [("PIL", True)]),
        ("class A:\n    def f(self):\n        if 1:\n            import PIL", "florence_lite", [("PIL", True)]),
        ("if TYPE_CHECKING:\n    import PIL", "florence_lite", []),
        ("try:\n    import PIL\nexcept ImportError:\n    pass", "florence_lite", [("PIL", False)]),
    ],
)
def test_read_imports(source, package, expected):
    assert read_imports(source, package) == expected


@pytest.mark.parametrize(
    ("module", "unit"),
    [
        ("florence_lite.tokens.codec.Codec", "tokens"),
        ("florence_lite.Florence", "florence"),
        ("florence_lite.tasks", "cards"),
        ("florence_lite.__version__", None),
        ("florence_lite", None),
        ("torch.nn", None),
    ],
)
def test_unit_of(module, unit):
    assert unit_of(module) == unit
