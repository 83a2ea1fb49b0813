"""Text: one point per line, columns split by spaces, tabs, commas or semicolons (`.xyz`, `.txt`, `.csv`)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.columns import flat_columns, names_coordinates, split_table

COMMENTS = ("#", "//")


@dataclass(frozen=True)
class _Layout:
    """What the first lines tell; `skip` lines come before the data, delimiter None is white space."""

    skip: int
    delimiter: str | None
    names: list[str] | None
    promised: int | None


def read_text(path: Path, columns: Sequence[str] | None) -> PointCloud:
    """A cloud from a text file; `#` and `//` start comments, one header line may name the columns."""
    text = _decode(path)
    layout = _look(text, path)
    table = parse_table(io.StringIO(text), path, skip=layout.skip, delimiter=layout.delimiter, slashes="//" in text)
    if layout.promised is not None and layout.promised != len(table):
        raise FileFormatError(
            f"{path}: its first line promises {layout.promised} points, {len(table)} follow", "as many"
        )
    names = columns
    if names is None and layout.names is not None and len(layout.names) == table.shape[1]:
        names = layout.names
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
            delimiter = next((d for d in ",;" if d in body), None)
            return _Layout(number, delimiter, names, promised)
    raise FileFormatError(f"{path}: no line with numbers", "one point per line: x y z")


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
    """Space-separated text under a comment line with the column names; 9 digits, 17 with an offset."""
    columns = flat_columns(cloud.feats)
    far = bool(cloud.offset.any())
    table = [cloud.world_xyz if far else cloud.xyz, *(v[:, None] for v in columns.values())]
    formats = ["%.17g" if far else "%.9g"] * 3 + ["%d" if v.dtype.kind in "biu" else "%.9g" for v in columns.values()]
    header = " ".join(["x", "y", "z", *columns])
    np.savetxt(path, np.concatenate(table, axis=1, dtype=np.float64), fmt=formats, header=header, encoding="utf-8")
