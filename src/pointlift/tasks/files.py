"""Result files: complete or not there, and readable anywhere (JSON without NaN, arrays without pickle)."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.engine.files import cannot_write, write_atomic
from pointlift.engine.logs import finite

HINT = "Free some space or choose another place"


def write_json(path: Path, document: Any, *, hint: str = HINT) -> Path:
    """Write one JSON document; numbers that are not finite become null.

    Raises:
        PointLiftError: The place cannot be written.
    """
    text = json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _write(path, text.encode(), hint)


def write_text(path: Path, text: str, *, hint: str = HINT) -> Path:
    """Write a text in UTF-8; raises `PointLiftError` when the place cannot be written."""
    return _write(path, text.encode(), hint)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, hint: str = HINT) -> Path:
    """Write a compressed `.npz`; raises `PointLiftError` when the place cannot be written."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return _write(path, buffer.getvalue(), hint)


def _write(path: Path, data: bytes, hint: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error, hint) from error
    write_atomic(path, data, hint=hint)
    return path
