"""Where in a given folder a published set lies, and which part of it a file or a folder is by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pointlift.core.errors import DataError

# Parts, with the words that stand for them.
PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def parts_named(name: str) -> list[str]:
    """The parts whose words a name has as whole words: `ply_data_train0.h5` has train, `latest.h5` none."""
    words = re.findall(r"[^\W\d_]+", name.lower())
    return [part for part, spellings in PARTS.items() if not set(spellings).isdisjoint(words)]


def find_folder(root: Path, places: Sequence[str], holds: Callable[[Path], bool]) -> Path | None:
    """The first of `root` and `root/place` that `holds` what is looked for."""
    return next((folder for folder in (root, *(root / place for place in places)) if holds(folder)), None)


def checked_name(name: str, where: Path) -> str:
    """`name` when it stays inside the folder that it is looked for in: a list must not lead elsewhere."""
    if name.startswith(("/", "\\")) or ":" in name or ".." in Path(name.replace("\\", "/")).parts:
        raise DataError(f"{where} names {name[:80]!r}", "names of files inside the data set")
    return name
