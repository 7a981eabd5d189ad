"""Docstrings as Markdown.

The library writes what an argument or a field is as a line `name: what it is`, or `one, other: what they are`, with
further lines indented. On a page these become the items of a list, and examples (`>>>`) blocks of code.
"""

import inspect
import re
from importlib import import_module

import griffe

ENTRY = re.compile(r"^(?!None\b)(\w+(?:, \w+)*): (?=\S)(.*)$")
BEHIND = re.compile(r"(?<=\.) (?=[a-z_]\w*(?:, [a-z_]\w*)*: \S)")  # another entry in the same line
PARAGRAPH = re.compile(r"(?!None\b)[A-Z]")  # begins one, directly behind an item


def listed(docstring: str) -> str:
    """A docstring, dedented, whose lines about arguments and fields are items of a list, and its examples blocks."""
    lines: list[str] = []
    item = example = False
    for line in BEHIND.sub("\n", docstring).splitlines():
        if example and not line.startswith((">>> ", "... ")):
            lines.append("```")
            example = False
        entry = ENTRY.match(line)
        if line.startswith(">>> ") and not example:
            lines += ["", "```py"]
            example = True
        elif entry and not item:  # a list begins
            lines.append("")
        elif item and not entry and (PARAGRAPH.match(line) or (line and not lines[-1] and line[0] != " ")):  # or ends
            lines.append("")
            item = False
        if example:
            line = line[4:]
        elif entry:
            names = ", ".join(f"**`{name}`**" for name in entry[1].split(", "))
            line = f"- {names}: {entry[2]}"
        lines.append(line)
        item = bool(entry) or item
    return "\n".join([*lines, "```"] if example else lines)


def escaped(markdown: str) -> str:
    """Markdown whose markers, `<OD>` say, are no tags of HTML; code is left as it is."""
    parts = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.DOTALL)
    return "".join(part if n % 2 else re.sub(r"<(?=[A-Za-z/])", "&lt;", part) for n, part in enumerate(parts))


class HouseStyle(griffe.Extension):
    """The docstrings of what is documented, as above."""

    def on_instance(self, *, obj, **_):
        if not obj.is_alias and obj.docstring and (obj.is_class or obj.is_function or obj.is_attribute):
            obj.docstring.value = escaped(listed(obj.docstring.value))


def as_markdown(name: str) -> str:
    """What the reference says of a name with its module, for readers of Markdown: signature, docstring, methods."""
    module, _, own = name.rpartition(".")
    described = getattr(import_module(module), own)
    parts = [f"### `{own}`"]
    if callable(described):
        parts += [f"```py\n{own}{signature(described)}\n```"]
        parts += [listed(inspect.getdoc(described) or "")]
    if inspect.isclass(described):
        for key, member in inspect.getmembers(described):
            text = inspect.getdoc(member)
            if not key.startswith("_") and text and (callable(member) or isinstance(member, property)):
                shown = signature(member) if callable(member) else ""
                parts += [f"#### `{own}.{key}{shown}`", listed(text)]
    return "\n\n".join(parts)


def signature(described) -> str:
    """Its arguments with their types, as they are written."""
    try:
        shown = str(inspect.signature(described))
    except (TypeError, ValueError):
        return ""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", shown).replace("(self, ", "(").replace("(self)", "()")
