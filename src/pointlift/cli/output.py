"""What verbs print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns on stdout, readable in a file too."""
    cells = [list(columns), *[[str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say(message: str) -> None:
    """A message for the person at the terminal."""
    print(message, file=sys.stderr)


def percent(metrics: Mapping[str, float], name: str) -> str:
    """`overall_accuracy` as people write it."""
    return f"{100 * metrics[name]:.2f} %"


def command_line(verb: str, *words: str, extra: Sequence[str] = ()) -> str:
    """The command as it can be typed again, for the record."""
    import shlex

    return shlex.join(["pointlift", verb, *words, *extra])
