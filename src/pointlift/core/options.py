"""What can be set, in words: the fields of a config dataclass with their defaults and what the source says of each."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Of a section of a docstring: `name, other: text`, indented one step.
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")


@dataclass(frozen=True)
class Option:
    """One field.

    Attributes:
        name: As it is written behind `--….`, dotted where it belongs to a group (`prior.group_size`).
        default: A plain value, a tuple as a list.
        about: What the source says of it; "" where it says nothing.
    """

    name: str
    default: Any
    about: str


def options_of(config: Any) -> list[Option]:
    """The fields of `config`, an instance of a config dataclass, in order; groups (fields of fields) with dots."""
    return list(_options(config, ""))


def _options(config: Any, prefix: str) -> Iterator[Option]:
    said = field_texts(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _options(value, f"{prefix}{field.name}.")
        else:
            yield Option(prefix + field.name, list(value) if isinstance(value, tuple) else value, said[field.name])


def field_texts(cls: type[Any]) -> dict[str, str]:
    """What the source says of each field of a dataclass, in one line each.

    Read, the first that is there: its line in the class's docstring under `Attributes:` or `Args:`; the string right
    under the field; the comment above it. Where the source is not at hand the docstring alone is read.
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            said = _beside_fields(base) | _in_docstring(base)
            texts |= {name: text for name, text in said.items() if text}  # a new default alone keeps the old words
    return {field.name: " ".join(texts.get(field.name, "").split()) for field in dataclasses.fields(cls)}


def _in_docstring(cls: type[Any]) -> dict[str, str]:
    """Entries of `Attributes:` and `Args:`."""
    texts: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in inspect.cleandoc(cls.__doc__ or "").splitlines():
        if line and not line.startswith(" "):
            inside = line in ("Attributes:", "Args:")
            names = []
        elif inside and (entry := _ENTRY.match(line)):
            names = entry[1].split(", ")
            texts |= dict.fromkeys(names, entry[2])
        else:
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts


def _beside_fields(cls: type[Any]) -> dict[str, str]:
    """Strings under fields, and comments above them."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    (tree,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    lines = source.splitlines()
    texts: dict[str, str] = {}
    name = ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            texts[name] = _comment_above(lines, node.lineno - 1)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            texts[name], name = str(node.value.value), ""
        else:
            name = ""
    return texts


def _comment_above(lines: list[str], row: int) -> str:
    """The comment lines right above line `row`."""
    found: list[str] = []
    while row > 0 and (line := lines[row - 1].strip()).startswith("#"):
        found.insert(0, line.lstrip("# "))
        row -= 1
    return " ".join(found)
