"""Arrays of a run folder: read without pickle, and refused with a line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.formats.arrays import NpzFile

# A run with a record counts as finished: --resume alone would leave it as it is.
_ANEW = "Copy it again; or remove record.json and give the run's command with --resume, which makes both anew"


def load_arrays(path: Path, fix: str = _ANEW) -> dict[str, np.ndarray]:
    """Every array of an `.npz` file; object arrays and headers that promise more than is there are refused."""
    try:
        with NpzFile(path) as archive:
            return dict(archive)
    except FileFormatError as error:
        raise FileFormatError(error.given, error.expected, fix) from error


def check(path: Path, name: str, array: np.ndarray, fits: bool, expected: str) -> None:
    """Raise `FileFormatError` unless `fits`."""
    if not fits:
        raise FileFormatError(f"{path}: {name} is {array.dtype} {array.shape}", expected)
