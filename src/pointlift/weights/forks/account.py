"""A released configuration on its way to a recipe: no key of it is left without a word on what became of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pointlift.core.config import shown
from pointlift.core.errors import FileFormatError

Fate = Literal["kept", "ignored", "not understood"]
LARGEST = 2**53  # of numbers in a configuration


@dataclass(frozen=True)
class Line:
    """What became of one key.

    Attributes:
        key: With dots: "optimizer.kwargs.lr".
        value: As written, shortened.
        fate: "kept": the recipe says it too; "ignored": on purpose; "not understood": nobody here knows this key.
        ours: The recipe's key that says it.
        why: Why it is ignored, or how it is said differently.
    """

    key: str
    value: str
    fate: Fate
    ours: str = ""
    why: str = ""


@dataclass(frozen=True)
class Translation:
    """A released configuration as ours.

    Attributes:
        system: Whose model class it names ("point-mae").
        upstream: The class's address in the released code.
        holds: What a checkpoint that was trained with it holds: "classifier" or "objective".
        recipe: Plain values for `finetune` or `pretrain`.
        comments: On keys of the recipe, by dotted key.
        lines: What became of every key, in the order of the file.
        notes: What the configuration does not say and its code does, in whole sentences.
        classes: Class names in label order, where the data set and the head tell.
    """

    system: str
    upstream: str
    holds: str
    recipe: dict[str, Any]
    comments: dict[str, str]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None

    def with_fate(self, fate: Fate) -> list[Line]:
        """Those keys of which this became."""
        return [line for line in self.lines if line.fate == fate]


# Kinds of values: each returns the value or raises a ValueError that says what it should be.
Kind = Callable[[Any], Any]


def whole(value: Any) -> int:
    if type(value) is not int or abs(value) > LARGEST:
        raise ValueError("a whole number")
    return value


def number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError("a number")
    return value


def flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def word(value: Any) -> str:
    if type(value) is not str or len(value) > 300:
        raise ValueError("a short text")
    return value.strip()


def several(kind: Kind) -> Kind:
    """A list of values of a kind."""

    def each(value: Any) -> list[Any]:
        if type(value) is not list or not 1 <= len(value) <= 100:
            raise ValueError("a list")
        return [kind(item) for item in value]

    return each


_REQUIRED, _ABSENT = object(), object()


@dataclass
class Account:
    """The values of a configuration, the recipe that is being made of them, and what was said of each key.

    Args:
        file: The configuration's name, for messages.
        tree: What it holds, `_base_` files in their places.
    """

    file: str
    tree: Mapping[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _lines: dict[str, Line] = field(default_factory=dict)

    def has(self, key: str) -> bool:
        """Whether the configuration says something at this key (with dots)."""
        return self._at(key) is not None

    def read(self, key: str, kind: Kind, default: Any = _REQUIRED) -> Any:
        """The value at a key, checked; nothing is said of it yet. Nothing and null are the default.

        Raises:
            FileFormatError: It is missing, or of another kind.
        """
        value = self._at(key)
        if value is None:
            if default is _REQUIRED:
                raise FileFormatError(f"{self.file} has no {key}", "a configuration of the Point-BERT family")
            return default
        try:
            return kind(value)
        except ValueError as error:
            raise FileFormatError(f"{self.file}: {key} is {shown(value)}", str(error)) from error

    def section(self, key: str) -> Mapping[str, Any]:
        """The mapping at a key; empty when there is none.

        Raises:
            FileFormatError: Something else stands there.
        """
        value = self._at(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise FileFormatError(f"{self.file}: {key} is {shown(value)}", "keys and values")
        return value

    def keep(
        self, key: str, kind: Kind, ours: str, *, default: Any = _REQUIRED, comment: str = "", why: str = ""
    ) -> Any:
        """Read a value, put it into the recipe as it is, and say so."""
        value = self.read(key, kind, default)
        if value is not None:
            self.put(ours, value, comment)
        self.kept(key, ours, why)
        return value

    def kept(self, key: str, ours: str, why: str = "") -> None:
        """Say that the recipe's `ours` holds what the configuration says at `key`."""
        self._say(key, "kept", ours, why)

    def ignored(self, key: str, why: str) -> None:
        """Say why a key, and all below it, has no place in the recipe."""
        self._say(key, "ignored", "", why)

    def not_understood(self, key: str, why: str = "") -> None:
        """Say that a key, and all below it, means something that the recipe cannot say."""
        self._say(key, "not understood", "", why)

    def put(self, ours: str, value: Any, comment: str = "") -> None:
        """A value of the recipe; a comment where the configuration does not say it or our default is another."""
        *path, leaf = ours.split(".")
        node = self.recipe
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
        if comment:
            self.comments[ours] = comment

    def lines(self) -> tuple[Line, ...]:
        """What became of every key, in the order of the file; what nobody asked for was not understood."""
        found: dict[str, Line] = {}
        for key, value in _leaves(self.tree):
            parts = key.split(".")
            said = next((k for i in range(len(parts), 0, -1) if (k := ".".join(parts[:i])) in self._lines), None)
            line = Line(key, shown(value), "not understood") if said is None else self._lines[said]
            found.setdefault(line.key, line)
        return tuple(found.values())

    def _say(self, key: str, fate: Fate, ours: str, why: str) -> None:
        value = self._at(key, _ABSENT)
        if value is not _ABSENT:
            text = "" if isinstance(value, Mapping) else shown(value)
            self._lines[key] = Line(key, text, fate, ours, why)

    def _at(self, key: str, absent: Any = None) -> Any:
        node: Any = self.tree
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return absent
            node = node[part]
        return node


def _leaves(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is not a mapping itself (an empty one counts), in order."""
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, Mapping) and (value or not where):
            inner = [(f"{where}.{_name(key)}".removeprefix("."), below) for key, below in value.items()]
            waiting += reversed(inner)
        else:
            yield where, value


def _name(key: Any) -> str:
    """A key inside a dotted one: its own dots part nothing."""
    return (key[:80] if isinstance(key, str) else shown(key)).replace(".", "\\.")
