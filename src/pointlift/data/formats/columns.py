"""Which column of a table is what: shared by all formats that store rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError, UsageError

SYNONYMS = {"r": "red", "g": "green", "b": "blue", "normal_x": "nx", "normal_y": "ny", "normal_z": "nz"}
GROUPS = {"normals": ("nx", "ny", "nz"), "colors": ("red", "green", "blue")}
INTEGER_COLUMNS = {"label", "class", "classification", "semantic", "instance", "part"}
SKIP = "_"


def canonical(name: str) -> str:
    """Lower case, one spelling per thing (`R` is `red`)."""
    lowered = name.strip().lower()
    return SYNONYMS.get(lowered, lowered)


def names_coordinates(names: Sequence[str]) -> bool:
    """Do these column names include x, y and z?"""
    return {"x", "y", "z"} <= {canonical(n) for n in names}


def split_table(
    table: np.ndarray, names: Sequence[str] | None, where: str | Path
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Coordinates (N, 3) and the other columns of a table (N, C).

    Args:
        table: Rows of numbers.
        names: One name per column; `_` skips one. Without names the first three columns are x, y, z and the
            rest, if any, comes as `extra` (N, C - 3), because nothing says what it is.
        where: The file, for messages.
    """
    if table.ndim != 2:
        raise FileFormatError(f"{where}: an array of shape {table.shape}", "(N, C) with C >= 3: one row per point")
    if table.shape[1] < 3:
        raise FileFormatError(f"{where}: {table.shape[1]} column(s)", "at least three: x y z")
    if names is None:
        if table.shape[0] == 3 and table.shape[1] > 6:
            raise FileFormatError(f"{where}: shape {table.shape}", "(N, C): one row per point", "Transpose the array")
        return table[:, :3], ({"extra": table[:, 3:]} if table.shape[1] > 3 else {})
    if len(names) != table.shape[1]:
        raise FileFormatError(f"{where}: {table.shape[1]} columns", f"{len(names)}, for the names {' '.join(names)}")
    return split_named({canonical(n): table[:, i] for i, n in enumerate(_checked(names)) if n != SKIP}, where)


def _checked(names: Sequence[str]) -> Sequence[str]:
    kept = [canonical(n) for n in names if n != SKIP]
    twice = sorted({n for n in kept if kept.count(n) > 1})
    if twice:
        raise UsageError(f"column {twice[0]!r} is named twice", "each name once (`_` skips a column)")
    if not names_coordinates(kept):
        raise UsageError(f"columns {' '.join(names)}", "x, y and z among them")
    return names


def split_named(columns: Mapping[str, np.ndarray], where: str | Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Coordinates (N, 3) and features from columns by canonical name; normals and colours come as (N, 3)."""
    missing = [axis for axis in "xyz" if axis not in columns]
    if missing:
        raise FileFormatError(f"{where}: no column {missing[0]!r} among {', '.join(columns) or 'none'}", "x, y and z")
    xyz = np.stack([columns[axis] for axis in "xyz"], axis=1)
    rest = {name: values for name, values in columns.items() if name not in {"x", "y", "z"}}
    feats: dict[str, np.ndarray] = {}
    for group, parts in GROUPS.items():
        if all(part in rest for part in parts):
            feats[group] = np.stack([rest.pop(part) for part in parts], axis=1)
    feats |= rest
    return xyz, {name: _tidy(name, values) for name, values in feats.items()}


def _tidy(name: str, values: np.ndarray) -> np.ndarray:
    """Colours that are whole numbers of 0..255 as uint8, labels as int64, other floats as float32."""
    if values.dtype.kind != "f":
        return values
    if name in INTEGER_COLUMNS | {"colors"} and values.size and np.array_equal(values, np.rint(values)):
        top = 255 if name == "colors" else 2**53
        if values.min() >= (0 if name == "colors" else -top) and values.max() <= top:
            return values.astype(np.uint8 if name == "colors" else np.int64)
    return values.astype(np.float32)


def flat_columns(feats: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse for writers: every feature as named columns (N,), `extra` and other matrices numbered."""
    columns: dict[str, np.ndarray] = {}
    for name, values in feats.items():
        if values.ndim == 1:
            columns[name] = values
        elif name in GROUPS and values.shape[1:] == (3,):
            columns |= {part: values[:, i] for i, part in enumerate(GROUPS[name])}
        else:
            matrix = values.reshape(len(values), -1)
            columns |= {f"{name}_{i}": matrix[:, i] for i in range(matrix.shape[1])}
    return columns
