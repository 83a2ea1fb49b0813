"""The one registry class: a name, an object, and a helpful error for a name that is not there."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, overload

from pointlift.core.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Named objects of one kind, in order of registration.

    Args:
        kind: What one entry is, in the singular, as error messages say it ("model").
        listing: The command that lists all entries ("`pointlift list models`").
    """

    def __init__(self, kind: str, listing: str = "") -> None:
        self.kind, self.listing = kind, listing
        self._entries: dict[str, T] = {}

    @overload
    def register(self, name: str) -> Callable[[T], T]: ...
    @overload
    def register(self, name: str, entry: T) -> T: ...
    def register(self, name, entry=None):
        """Add `entry` under `name`; without `entry`, a decorator. A name is taken once."""
        if entry is None:
            return lambda obj: self.register(name, obj)
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """The entry called `name`; raises `UnknownNameError` with the nearest name."""
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._entries, self.listing) from None

    def names(self, pattern: str | None = None) -> list[str]:
        """All names, or those that match a shell pattern (`*mae*`)."""
        return [n for n in self._entries if pattern is None or fnmatch.fnmatch(n, pattern)]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
