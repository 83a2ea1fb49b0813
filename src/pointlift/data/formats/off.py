"""OFF meshes, with colours (`COFF`) or normals (`NOFF`), and ModelNet's files without a line break after `OFF`."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.columns import flat_columns
from pointlift.data.formats.mesh import Mesh, cloud_from_mesh, polygons_by_size, triangulate
from pointlift.data.formats.options import ReadOptions
from pointlift.data.formats.text import parse_table, table_text

HEADER = re.compile(r"\s*(ST)?(C)?(N)?(4)?(n)?OFF\b|\s*OFF(?=\d)", re.ASCII)


def read_off(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from an OFF mesh: points sampled on its faces, or its vertices where it has none."""
    text = path.read_bytes().decode("ascii", errors="replace")
    if "#" in text:
        text = re.sub(r"#[^\n]*", "", text)
    header = HEADER.match(text)
    if header is None:
        raise FileFormatError(f"{path} is not an OFF file (it does not start with OFF)", "OFF, then the counts")
    textured, colored, normals, four, other = header.groups()
    body = text[header.end() :]
    if textured or four or other or body.lstrip().startswith("BINARY"):
        raise FileFormatError(f"{path}: a variant of OFF that is not read", "ascii OFF, COFF or NOFF")
    lines = [stripped for line in body.splitlines() if (stripped := line.strip())]
    vertices, faces = _counts(lines, path)
    table = parse_table(io.StringIO("\n".join(lines[1 : vertices + 1])), path)
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if normals else []), *(["red", "green", "blue"] if colored else [])]
    if len(table) != vertices or table.shape[1] < len(names):
        raise FileFormatError(
            f"{path}: {len(table)} vertices of {table.shape[1]} numbers", f"{vertices} of {len(names)}: {names}"
        )
    rows = [line.split() for line in lines[vertices + 1 : vertices + 1 + faces]]
    triangles = triangulate(polygons_by_size([_corners(row, path) for row in rows], path))
    feats = {name: table[:, names.index(first) :][:, :3] for name, first in _groups(names)}
    return cloud_from_mesh(Mesh(table[:, :3], triangles, faces, feats), options, path)


def _groups(names: list[str]) -> list[tuple[str, str]]:
    return [(name, first) for name, first in (("normals", "nx"), ("colors", "red")) if first in names]


def _counts(lines: list[str], path: Path) -> tuple[int, int]:
    """Vertices and faces, as the first line says and the following lines bear out."""
    words = lines[0].split() if lines else []
    if len(words) < 2 or not all(word.isdecimal() and len(word) < 19 for word in words[:2]):
        raise FileFormatError(f"{path}: counts {' '.join(words)[:60]!r}", "three numbers: vertices, faces, edges")
    vertices, faces = int(words[0]), int(words[1])
    if vertices == 0:
        raise FileFormatError(f"{path}: the mesh has no vertices", "at least one")
    if vertices + faces > len(lines) - 1:
        raise FileFormatError(
            f"{path}: promises {vertices} vertices and {faces} faces, {len(lines) - 1} lines follow",
            "one line for each",
            "The file is cut short or damaged: copy it again",
        )
    return vertices, faces


def _corners(row: list[str], path: Path) -> list[str]:
    """The indices of a face row `k i_1 … i_k [colour]`."""
    count = int(row[0]) if row[0].isdecimal() and len(row[0]) < 10 else -1
    if count < 1 or count >= len(row):
        raise FileFormatError(f"{path}: the face {' '.join(row)[:60]!r}", "a count and as many vertex numbers")
    return row[1 : count + 1]


def write_off(cloud: PointCloud, path: Path) -> None:
    """The points as vertices without faces; with normals (`NOFF`) and colours (`COFF`)."""
    colored, normals = "colors" in cloud.feats, "normals" in cloud.feats
    xyz = cloud.world_xyz if cloud.offset.any() else cloud.xyz
    columns = {axis: xyz[:, i] for i, axis in enumerate("xyz")}
    for name in ("normals", "colors"):
        columns |= flat_columns({name: cloud.feats[name]}) if name in cloud.feats else {}
    if colored:
        columns["alpha"] = np.full(len(cloud), 255 if cloud.feats["colors"].dtype.kind in "iu" else 1)
    head = f"{'C' * colored}{'N' * normals}OFF\n{len(cloud)} 0 0\n"
    path.write_text(head + table_text(columns), encoding="ascii")
