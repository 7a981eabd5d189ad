"""florence-lite: one image, many prompts; every answer is a short text with coordinates, parsed and scored.

The names below are imported when first used, so that importing the package costs nothing and reads no file.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from florence_lite.garbage import uncollected

if TYPE_CHECKING:
    from florence_lite.answers import Answer, Instance
    from florence_lite.cards import TaskCard, checkpoints, register_task, tasks
    from florence_lite.florence import Florence
    from florence_lite.images import load_image
    from florence_lite.inference.prompts import Prompt
    from florence_lite.results import Result

__version__ = "0.1.0.dev0"

_HOME = {
    "Answer": "answers",
    "Florence": "florence",
    "Instance": "answers",
    "Prompt": "inference.prompts",
    "Result": "results",
    "TaskCard": "cards",
    "checkpoints": "cards",
    "load_image": "images",
    "register_task": "cards",
    "tasks": "cards",
}

__all__ = [
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


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with uncollected():
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
