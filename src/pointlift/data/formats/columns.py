"""Which column of a table is what, and in which type it comes: shared by all formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError, UsageError

SYNONYMS = {
    "r": "red",
    "g": "green",
    "b": "blue",
    "normal_x": "nx",
    "normal_y": "ny",
    "normal_z": "nz",
    "normalx": "nx",
    "normaly": "ny",
    "normalz": "nz",
    "classification": "semantic",
}
GROUPS = {"normals": ("nx", "ny", "nz"), "colors": ("red", "green", "blue")}
CLASSES = {"semantic", "instance"}
INTEGER_COLUMNS = CLASSES | {"label", "class", "part"}
TIMES = {"gps_time", "gpstime", "time", "timestamp"}  # seconds since years: float32 would lose them
SKIP = "_"


def canonical(name: str) -> str:
    """Lower case, one spelling per thing (`R` is `red`; CloudCompare's `scalar_Intensity` is `intensity`)."""
    lowered = name.strip().lower()
    plain = SYNONYMS.get(lowered.removeprefix("scalar_"), lowered.removeprefix("scalar_"))
    known = INTEGER_COLUMNS | TIMES | {"intensity"}
    return plain if plain in known else SYNONYMS.get(lowered, lowered)


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
        many = "Many clouds are a data set: pl.load_dataset reads a folder of such files" if table.ndim == 3 else ""
        raise FileFormatError(
            f"{where}: an array of shape {table.shape}", "(N, C) with C >= 3: one row per point", many
        )
    if table.shape[1] < 3:
        raise FileFormatError(f"{where}: {table.shape[1]} column(s)", "at least three: x y z")
    if names is None:
        if table.shape[0] == 3 and table.shape[1] > 6:
            raise FileFormatError(f"{where}: shape {table.shape}", "(N, C): one row per point", "Transpose the array")
        return table[:, :3], ({"extra": table[:, 3:]} if table.shape[1] > 3 else {})
    if len(names) != table.shape[1]:
        raise FileFormatError(f"{where}: {table.shape[1]} columns", f"{len(names)}, for the names {' '.join(names)}")
    return split_named({canonical(n): table[:, i] for i, n in enumerate(checked_names(names)) if n != SKIP}, where)


def checked_names(names: Sequence[str]) -> Sequence[str]:
    """`names` when they can name the columns of a cloud, else `UsageError`."""
    kept = [canonical(n) for n in names if n != SKIP]
    twice = sorted({n for n in kept if kept.count(n) > 1})
    if twice:
        raise UsageError(f"column {twice[0]!r} is named twice", "each name once (`_` skips a column)")
    if not names_coordinates(kept):
        raise UsageError(f"columns {' '.join(names)}", "x, y and z among them")
    return names


def by_canonical_name(columns: Iterable[tuple[str, np.ndarray]], where: str | Path) -> dict[str, np.ndarray]:
    """Columns by canonical name.

    Raises:
        FileFormatError: Two that mean the same (`x` and `X`, `r` and `red`): nothing says which one counts.
    """
    named: dict[str, tuple[str, np.ndarray]] = {}
    for name, values in columns:
        known = named.setdefault(canonical(name), (name, values))
        if known[1] is not values:
            raise FileFormatError(f"{where}: columns {known[0]!r} and {name!r}", f"one column for {canonical(name)!r}")
    return {name: values for name, (_, values) in named.items()}


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
    return xyz, {name: tidy(name, values, where) for name, values in feats.items()}


def tidy(name: str, values: np.ndarray, where: str | Path) -> np.ndarray:
    """One feature in the shape and type that its name promises.

    `colors` (N, 3), or (N, 4) with opacity, become uint8 (N, 3) (see `as_colors`), `normals` (N, 3) float32,
    whole-numbered labels int64 (N,), `intensity` float32 (N,) (uint16 stays, as LAS stores it), times keep float64,
    other floats become float32, and other integers stay as they are.

    Raises:
        FileFormatError: A known name with values that cannot be what it says.
    """
    if values.dtype.kind not in "biuf":
        if name in INTEGER_COLUMNS | TIMES | {"colors", "normals", "intensity"}:
            raise FileFormatError(f"{where}: {name!r} of type {values.dtype}", "numbers")
        return values
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if name == "colors" and values.shape[1:] == (4,):
        values = values[:, :3]  # without their opacity
    wanted = (3,) if name in GROUPS else () if name in CLASSES | {"intensity"} else values.shape[1:]
    if values.shape[1:] != wanted:
        raise FileFormatError(f"{where}: {name!r} of shape {values.shape}", f"{(len(values), *wanted)}")
    if name == "colors":
        return as_colors(values)
    if name in INTEGER_COLUMNS:
        labels = _as_labels(values)
        if name in CLASSES and labels.dtype != np.int64:
            raise FileFormatError(f"{where}: {name!r} with values that are not whole numbers", "one class per point")
        return labels
    if name == "normals" or (name == "intensity" and values.dtype != np.uint16):
        return values.astype(np.float32)
    return values if name in TIMES or values.dtype.kind in "biu" else values.astype(np.float32)


def as_colors(values: np.ndarray) -> np.ndarray:
    """Colours as uint8, 0..255, where the values allow it.

    Where the file gives a type, it tells: integers up to 255 are taken as they are, so that 1 stays 1, and integers
    up to 65535 are 16-bit colours. Floats, and numbers of text files, which have no type, are fractions when they all
    lie in 0..1 (a text cloud whose 0..255 colours are all 0 or 1 is taken for black and full colours), otherwise
    whole numbers up to 255 as they are. Anything else comes as float32.
    """
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if low >= 0 and high <= 1:
            return np.rint(values * 255).astype(np.uint8)
        whole = low >= 0 and high <= 255 and np.array_equal(values, np.rint(values))
        return values.astype(np.uint8 if whole else np.float32)
    if values.dtype.kind in "iu" and low >= 0 and high <= 65535:
        return (values if high <= 255 else values >> 8).astype(np.uint8)
    return values.astype(np.float32)


def _as_labels(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        if not (np.abs(values) <= 2.0**53).all() or not np.array_equal(values, np.rint(values)):
            return values.astype(np.float32)
        return values.astype(np.int64)
    too_large = values.dtype == np.uint64 and values.size > 0 and int(values.max()) >= 2**63
    return values if too_large else values.astype(np.int64)


def typed(values: np.ndarray, dtype: np.dtype, name: str, where: str | Path) -> np.ndarray:
    """A column that was read as text, in the type that the header of the file gives it.

    Raises:
        FileFormatError: An integer column with values that are not whole numbers of that type.
    """
    if dtype.kind in "iu" and values.size:
        limits = np.iinfo(dtype)
        fits = np.isfinite(values).all() and values.min() >= limits.min and values.max() <= limits.max
        if not (fits and np.array_equal(values, np.rint(values))):
            raise FileFormatError(f"{where}: {name!r} has values that do not fit {dtype}", f"whole numbers of {dtype}")
    return values.astype(dtype)


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


def header_names(columns: Mapping[str, np.ndarray], where: str | Path) -> dict[str, np.ndarray]:
    """Columns under names that stand in a header of ascii words.

    Raises:
        FileFormatError: A name that is not ascii, or the same for two columns.
    """
    named: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        word = "_".join(name.split())
        if not word.isascii() or not word.isprintable() or not word or word in named:
            raise FileFormatError(f"{where}: no column can be called {name!r}", "ascii letters, each name once")
        named[word] = values
    return named


def plain_numbers(values: np.ndarray) -> np.ndarray:
    """For formats without booleans and halves: uint8 and float32 hold them exactly."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    return values.astype(np.float32) if values.dtype == np.float16 else values
