"""Text: one point per line, columns split by spaces, tabs, commas or semicolons (`.xyz`, `.csv`, `.pts` ...)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.columns import flat_columns, header_names, names_coordinates, split_table
from pointlift.data.formats.options import ReadOptions

COMMENTS = ("#", "//")
_FORMATS = {"f2": "%.9g", "f4": "%.9g", "f8": "%.17g"}  # enough digits to read the same number back


@dataclass(frozen=True)
class _Layout:
    """What the first lines tell; `skip` lines come before the data, delimiter None is white space."""

    skip: int
    delimiter: str | None
    names: list[str] | None
    promised: int | None


NORMALS = {6: ("x", "y", "z", "nx", "ny", "nz")}  # .xyzn
COLORS = {6: ("x", "y", "z", "red", "green", "blue")}  # .xyzrgb
PTS = {
    4: ("x", "y", "z", "intensity"),
    6: ("x", "y", "z", "red", "green", "blue"),
    7: ("x", "y", "z", "intensity", "red", "green", "blue"),
}


def read_text(path: Path, options: ReadOptions, usual: Mapping[int, Sequence[str]] | None = None) -> PointCloud:
    """A cloud from a text file; `#` and `//` start comments, one header line may name the columns.

    Args:
        path: The file.
        options: `columns` go before what the file says, that before `usual`.
        usual: What the columns of such files are, by their number, where nothing else names them.
    """
    text = _decode(path)
    layout = _look(text, path)
    table = parse_table(io.StringIO(text), path, skip=layout.skip, delimiter=layout.delimiter, slashes="//" in text)
    if layout.promised is not None and layout.promised != len(table):
        raise FileFormatError(
            f"{path}: its first line promises {layout.promised} points, {len(table)} follow", "as many"
        )
    names = options.columns
    if names is None and layout.names is not None and len(layout.names) == table.shape[1]:
        names = layout.names
    if names is None and usual:
        names = usual.get(table.shape[1])
    xyz, feats = split_table(table, names, path)
    return PointCloud.from_array(xyz, path, feats=feats)


def _decode(path: Path) -> str:
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FileFormatError(f"{path} is UTF-16 text", "UTF-8 or ASCII", "Save it as UTF-8")
    if b"\0" in data[:65536]:
        raise FileFormatError(f"{path} holds binary data", "text: one point per line, x y z")
    return data.decode("utf-8-sig", errors="replace")


def _look(text: str, path: Path) -> _Layout:
    """Read comments, header line and count line from the beginning of the text."""
    names: list[str] | None = None
    promised: int | None = None
    header_seen = False
    for number, line in enumerate(io.StringIO(text)):
        body = line.strip()
        if body.startswith(COMMENTS):
            words = _words(body.lstrip("#/ \t"))
            names = words if names is None and names_coordinates(words) else names
            continue
        body = re.split("#|//", body, maxsplit=1)[0].strip()
        if not body:
            continue
        words = _words(body)
        if len(words) == 1 and words[0].isdecimal() and promised is None:
            promised = int(words[0][:18])
        elif not header_seen and not any(_is_number(w) for w in words):
            header_seen = True
            names = words if names_coordinates(words) else names
        else:
            _check_decimals(body, path)
            delimiter = next((d for d in ",;" if d in body), None)
            return _Layout(number, delimiter, names, promised)
    raise FileFormatError(f"{path}: no line with numbers", "one point per line: x y z")


def _check_decimals(line: str, path: Path) -> None:
    """That a row is not `0,5 1,5 2,5` or `0,5;1,5;2,5`: no such row can be read as anything else."""
    words = re.split(r"[;\s]+", line[:10_000].rstrip(";"))
    with_comma = [word for word in words if re.fullmatch(r"[+-]?\d+,\d+([eE][+-]?\d+)?", word)]
    if len(words) > 1 and with_comma and all(word in with_comma or _is_number(word) for word in words):
        raise FileFormatError(
            f"{path} has decimal commas ({with_comma[0]!r})",
            "decimal points",
            "Replace them: sed 'y/,/./' FILE > NEW.xyz",
        )


def _words(line: str) -> list[str]:
    return [w for w in re.split(r"[,;\s]+", line[:10_000]) if w]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def parse_table(
    stream: io.TextIOBase,
    path: Path,
    *,
    skip: int = 0,
    delimiter: str | None = None,
    rows: int | None = None,
    slashes: bool = False,
) -> np.ndarray:
    """A float64 table (N, C) from lines of numbers; the line at fault is named when one cannot be read."""
    comments = COMMENTS if slashes else "#"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "no data": told by the caller, with the file's name
            return np.loadtxt(
                stream,
                delimiter=delimiter,
                comments=comments,
                skiprows=skip,
                max_rows=rows,
                ndmin=2,
                dtype=np.float64,
            )
    except ValueError as error:
        reason = re.sub(r"; use `usecols`.*", "", " ".join(str(error).split()))[:200]
        raise FileFormatError(
            f"{path}: {reason} (rows counted after {skip} line(s) of heading)",
            "the same number of numbers in every line",
        ) from error


def write_text(cloud: PointCloud, path: Path) -> None:
    """Space-separated text under a comment line with the column names; 9 digits, 17 for float64."""
    columns = _columns(cloud, cloud.feats)
    path.write_text("# " + " ".join(columns) + "\n" + table_text(columns), encoding="utf-8")


def write_csv(cloud: PointCloud, path: Path) -> None:
    """Commas between the columns, their names in the first line, as spreadsheets and pandas read it."""
    columns = _columns(cloud, cloud.feats)
    path.write_text(",".join(columns) + "\n" + table_text(columns, ","), encoding="utf-8")


def write_pts(cloud: PointCloud, path: Path) -> None:
    """The number of points, then `x y z [intensity] [r g b]`: the columns that `.pts` files have."""
    kept = {name: cloud.feats[name] for name in ("intensity", "colors") if name in cloud.feats}
    path.write_text(f"{len(cloud)}\n" + table_text(_columns(cloud, kept)), encoding="utf-8")


def _columns(cloud: PointCloud, feats: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    xyz = cloud.world_xyz if cloud.offset.any() else cloud.xyz
    return {axis: xyz[:, i] for i, axis in enumerate("xyz")} | header_names(flat_columns(feats), "the header")


def table_text(columns: Mapping[str, np.ndarray], delimiter: str = " ") -> str:
    """Columns (N,) as lines; every number is written so that reading gives it back exactly."""
    line = delimiter.join(_FORMATS.get(values.dtype.str[1:], "%d") for values in columns.values()) + "\n"
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return "".join([line % row for row in rows])
