"""The installed package, seen from another folder, and the wheel that is built from this one."""

import ast
import json
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import florence_lite
from florence_lite.engine.fast import kernel
from florence_lite.evaluate.metrics import METRICS
from florence_lite.evaluate.metrics.panoptic import PACKAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}

# What stays from version to version, with `__version__`; docs/reference.md says so.
PUBLIC = [
    "Answer",
    "Florence",
    "Instance",
    "Prompt",
    "Result",
    "TaskCard",
    "checkpoints",
    "load_image",
    "register_task",
    "tasks",
]

# Imports the package in a fresh process and reports what that did.
PROBE = """
import importlib.util, json, sys, time
from importlib import resources
import torch
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
start = time.perf_counter()
import florence_lite
own_s = time.perf_counter() - start
read = [name for name in opened if not name.endswith((".py", ".pyc")) and ".pyc." not in name]
modules = sorted({name.split(".")[0] for name in sys.modules})
names = [card.name for card in florence_lite.tasks()]
print(json.dumps({
    "own_s": own_s,
    "read": read,
    "modules": modules,
    "tasks": names,
    "file": florence_lite.__file__,
    "cards": str(resources.files("florence_lite._cards.tasks")),
    "leaked": [name for name in ("tasks", "checkpoints", "tests") if importlib.util.find_spec(name)],
}))
"""


def probe(folder: Path, path: Path | None = None) -> dict:
    """What PROBE reports from a process started in `folder`, with `path` in front of the import path."""
    command = [sys.executable, "-c", (f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else "") + PROBE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"install the package first (pip install -e .)\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict:
    """The report on the package of this environment."""
    return probe(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what packaging reads, so that nothing is left in the repository."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("florence_lite", "tasks", "checkpoints"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    documents = ("MANIFEST.in", "LICENSE", "CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md")
    for name in ("pyproject.toml", PROJECT["project"]["readme"], *documents):
        shutil.copy(ROOT / name, copy / name)
    (copy / "tests").mkdir()
    (copy / "tests" / "test_none.py").touch()  # setuptools would take it along
    return copy


@pytest.fixture(scope="module")
def wheel(checkout) -> Path:
    """The wheel that is built from the repository."""
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return checkout / "dist" / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def sdist(checkout) -> list[str]:
    """What the source distribution holds, from its own folder on."""
    build = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(checkout / "dist" / done.stdout.split()[-1]) as archive:
        return [name.partition("/")[2] for name in archive.getnames()]


def test_sdist_holds_what_a_build_needs(sdist):
    kinds = (
        "florence_lite/**/*.py",
        "florence_lite/**/*.cpp",
        "florence_lite/**/*.h",
        "tasks/*.*",
        "checkpoints/**/*.*",
    )
    needed = {file.relative_to(ROOT).as_posix() for kind in kinds for file in ROOT.glob(kind)}
    needed = {name for name in needed if "__pycache__" not in name}
    needed |= {"pyproject.toml", "README.md", "LICENSE", "florence_lite/py.typed", "florence_lite/cli/sample.jpg"}
    needed |= {"CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md"}
    assert "florence_lite/engine/fast/lanes.h" in needed and needed <= set(sdist)
    assert not [name for name in sdist if name.split("/")[0] in ("tests", "benchmarks", "docs") or name.endswith(".so")]


def test_package_list_names_every_folder():
    on_disk = {
        ".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "florence_lite").rglob("__init__.py")
    } | FOLDERS.keys()
    assert sorted(SETUPTOOLS["packages"]) == sorted(on_disk)
    assert all((folder / "__init__.py").is_file() for folder in FOLDERS.values())


def test_every_folder_of_code_is_a_package():
    folders = {file.parent for file in (ROOT / "florence_lite").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_import_is_cheap_and_reads_nothing(installed):
    assert installed["own_s"] < 0.2
    assert installed["read"] == []
    heavy = {"transformers", "accelerate", "datasets", "peft", "rich", "typer", "tokenizers", "PIL"}
    assert not heavy & set(installed["modules"])


def test_installed_package_finds_its_cards_and_leaks_no_name(installed):
    assert len(installed["tasks"]) == len(list((ROOT / "tasks").glob("*.toml")))
    assert installed["leaked"] == []


def test_wheel_works_from_another_folder(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"florence_lite"}
    report = probe(tmp_path, site)
    assert report["file"] == str(site / "florence_lite" / "__init__.py")
    assert report["cards"] == str(site / "florence_lite" / "_cards" / "tasks")
    assert len(report["tasks"]) == len(list((ROOT / "tasks").glob("*.toml")))
    assert report["leaked"] == []


def test_checkout_works_without_installation(checkout, tmp_path):
    report = probe(tmp_path, checkout)
    assert report["file"] == str(checkout / "florence_lite" / "__init__.py")
    assert report["cards"] == str(checkout / "tasks")


def test_wheel_holds_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    expected = {"florence_lite/py.typed", "florence_lite/cli/sample.jpg"}
    files = (file for kind in ("*.py", "*.cpp", "*.h") for file in (ROOT / "florence_lite").rglob(kind))
    expected |= {file.relative_to(ROOT).as_posix() for file in files}
    for name, folder in FOLDERS.items():
        files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        expected |= {f"{name.replace('.', '/')}/{file.relative_to(folder).as_posix()}" for file in files}
    assert {name for name in packed if ".dist-info/" not in name and not name.endswith(".so")} == expected


@pytest.mark.skipif(shutil.which("g++") is None or platform.machine() != "x86_64", reason="no g++ for x86-64 here")
def test_wheel_holds_the_kernels(wheel):
    with zipfile.ZipFile(wheel) as archive:
        built = {Path(name).name.split(".")[0] for name in archive.namelist() if name.endswith(".so")}
    assert built == set(kernel.BUILDS)


@pytest.mark.skipif(shutil.which("g++") is None or platform.machine() != "x86_64", reason="no g++ for x86-64 here")
def test_tests_run_with_kernels():
    assert kernel.library() is not None, "install it anew, so that the kernels are built: pip install -e ."


def test_version_has_one_home():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PROJECT["project"]
    assert SETUPTOOLS["dynamic"]["version"]["attr"] == "florence_lite.__version__"


def test_exports_are_the_lazy_names():
    assert florence_lite.__all__ == sorted(florence_lite._HOME) == PUBLIC
    assert all(getattr(florence_lite, name) is not None for name in PUBLIC)
    assert set(florence_lite.__all__) <= set(dir(florence_lite))
    assert florence_lite.TaskCard.__module__ == "florence_lite.cards.task_card"
    with pytest.raises(AttributeError, match="module 'florence_lite' has no attribute 'Florenze'"):
        _ = florence_lite.Florenze


def distributions(requirements: list[str]) -> set[str]:
    """Their names, in the one spelling that counts."""
    return {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower() for requirement in requirements}


def test_core_dependencies_stay_few():
    core = distributions(PROJECT["project"]["dependencies"])
    assert core == {
        "torch",
        "tokenizers",
        "safetensors",
        "huggingface-hub",
        "pillow",
        "numpy",
        "typer",
        "rich",
        "defusedxml",
        "pyyaml",
    }
    assert EXTRAS.keys() == {
        "train",
        "eval",
        "annotate",
        "distributed",
        "serve",
        "export",
        "openvino",
        "demo",
        "vis",
        "docs",
        "scenes",
        "flash",
        "test",
        "all",
    }


def imported(file: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module)
    return {module.split(".")[0] for module in modules}


def test_every_import_is_a_dependency_by_name():
    """Not just what another package brings with it today."""
    modules = set().union(*(imported(file) for file in (ROOT / "florence_lite").rglob("*.py")))
    modules -= {*sys.stdlib_module_names, "florence_lite"}
    modules -= {"fiftyone", "transformers"}  # of who hands answers or networks over to them, and has them
    origins = metadata.packages_distributions()
    extras = (requirements for name, requirements in EXTRAS.items() if name != "test")
    named = distributions(PROJECT["project"]["dependencies"]).union(*map(distributions, extras))
    unnamed = {module for module in modules if not distributions(origins.get(module, [module])) & named}
    assert "numpy" in modules and not unnamed


def test_the_extra_eval_is_what_the_metrics_need():
    needs = [module for each in METRICS.values() for module in each.needs] + [*PACKAGES]
    modules = {module.split(".")[0] for module in needs}
    assert distributions(list(modules)) == distributions(EXTRAS["eval"])
