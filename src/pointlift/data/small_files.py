"""The lists and tables that come with a data set: small files, read no further than they may be large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pointlift.core.errors import DataError, FileFormatError

LARGEST_LIST = 64 << 20


def read_lines(path: Path) -> list[str]:
    """The lines of a text list, without blanks around them and without empty ones.

    Raises:
        DataError: No such file, or it is no list.
    """
    expected = "a text file with one name per line"
    text = _text(path, expected, LARGEST_LIST, errors="replace")
    if "\0" in text:
        raise FileFormatError(f"{path} holds binary data", expected)
    return [line for line in map(str.strip, text.splitlines()) if line]


def read_json(path: Path, kind: type, expected: str, *, largest: int = LARGEST_LIST) -> Any:
    """What a JSON file holds.

    Args:
        path: The file.
        kind: `dict` or `list`: what it must hold.
        expected: What should be there, for messages.
        largest: Bytes that it may have.

    Raises:
        DataError: No such file, or it cannot be read.
        FileFormatError: Too large, not JSON, or not of this kind.
    """
    text = _text(path, expected, largest)
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is not JSON", expected) from error
    if not isinstance(held, kind):
        raise FileFormatError(f"{path} holds no {kind.__name__}", expected)
    return held


def _text(path: Path, expected: str, largest: int, errors: str = "strict") -> str:
    if not path.is_file():
        raise DataError(f"no file {str(path)!r}", expected)
    try:
        with path.open("rb") as stream:
            data = stream.read(largest + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", expected) from error
    if len(data) > largest:
        raise FileFormatError(f"{path} has more than {largest:,} bytes", expected)
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not text in UTF-8", expected) from error
