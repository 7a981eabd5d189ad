"""YAML files of settings, read as they are written: every value is a text, and nothing in them can grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from florence_lite.files import read_text

LARGEST = 2**22  # bytes; a list of a hundred thousand names is smaller


class _AsWritten(yaml.BaseLoader):
    """Values stay texts, so that a class called 010 or no keeps its name; a file cannot refer to parts of itself, which
    a few bytes can multiply to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it refers to another part of itself{self.peek_event().start_mark}")
        return super().compose_node(parent, index)


def read_yaml(file: Path) -> Any:
    """What a YAML file holds: dicts, lists and texts. Raises ValueError, naming the file, where it is none."""
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file} has {file.stat().st_size} bytes; a file of settings has at most {LARGEST}")
    try:
        return yaml.load(read_text(file), _AsWritten)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{file} is no YAML: {error or type(error).__name__}") from None
