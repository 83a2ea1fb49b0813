"""Reading a released YAML: the file itself and the `_base_` files of its data sets. Nothing else is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pointlift.core.config import parse_yaml, recipe_text, shown
from pointlift.core.errors import ConfigError, FileFormatError, UsageError

ENDINGS = (".yaml", ".yml")
HIGHEST = 8  # folders above the YAML in which `_base_` files are looked for


@dataclass(frozen=True)
class ReleasedYaml:
    """A configuration with the files that it names.

    Attributes:
        path: Of the YAML.
        values: What it holds; `_base_` entries are as written.
        bases: By what is written as `_base_`: what that file holds.
        missing: What is written as `_base_` and was not found or not looked for, and why.
    """

    path: Path
    values: dict[str, Any]
    bases: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def read_released_yaml(path: str | Path) -> ReleasedYaml:
    """A YAML in the format of Point-BERT's released code, and its `_base_` files where they are found.

    Released code takes `_base_` paths from its working directory. They are looked for beside the YAML, in the folders
    above it, and in the present working directory; never outside of these (no absolute path, no `..`).

    Raises:
        UsageError: No such file.
        FileFormatError: Not plain YAML, or larger or deeper than any configuration.
    """
    path = Path(path)
    if path.suffix not in ENDINGS or not path.is_file():
        raise UsageError(f"no YAML file {str(path)[:300]!r}", "a configuration of released code (.yaml)")
    values = _parsed(path)
    bases: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for written in dict.fromkeys(_named(values)):
        found = _find(written, path)
        if isinstance(found, Path):
            bases[written] = _parsed(found)
        else:
            missing[written] = found
    return ReleasedYaml(path, values, bases, missing)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return parse_yaml(*recipe_text(path))
    except ConfigError as error:
        raise FileFormatError(error.given, "a configuration of released code in plain YAML", error.fix) from error


def _named(values: Mapping[str, Any]) -> Iterator[str]:
    """What stands at `_base_`, at any depth."""
    waiting: list[Any] = [values]
    while waiting:
        for key, value in waiting.pop().items():
            if isinstance(value, Mapping):
                waiting.append(value)
            elif key == "_base_" and isinstance(value, str):
                yield value


def _find(written: str, path: Path) -> Path | str:
    """The file, or why there is none."""
    inside = PurePosixPath(written)
    if inside.is_absolute() or ".." in inside.parts or inside.suffix not in ENDINGS or len(written) > 300:
        return f"{shown(written)} is no relative path of a YAML file, and was not looked for"
    folder = path.resolve().parent
    above = [folder, *list(folder.parents)[:HIGHEST]]
    places = [*(place / inside for place in above), Path.cwd() / inside, folder / inside.name]
    try:
        return next((place for place in places if place.is_file()), f"no {written} near {path.name}")
    except (OSError, ValueError):  # a name that no file can have
        return f"{shown(written)} is no name of a file"
