"""Wavefront OBJ: vertices (with colours), normals of point sets, and faces; materials are never opened."""

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

COLORED = {6: 3, 7: 4}  # numbers in a vertex line -> where its colour starts (x y z [w] r g b)


def read_obj(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from an OBJ mesh: points sampled on its faces, or its vertices where it has none."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    if "\\" in text:
        text = re.sub(r"\\\r?\n", " ", text)  # a backslash continues a line
    vertices: list[str] = []
    normals: list[str] = []
    faces: list[list[str]] = []
    seen: list[int] = []  # vertices before each face: negative indices count back from there
    for line in text.splitlines():
        match line.split("#", 1)[0].split(None, 1):
            case ["v", numbers]:
                vertices.append(numbers)
            case ["vn", numbers]:
                normals.append(numbers)
            case ["f", corners]:
                faces.append(_SLASHES.sub("", corners).split())
                seen.append(len(vertices))
    if not vertices:
        raise FileFormatError(f"{path}: no vertices (lines 'v x y z')", "an OBJ mesh")
    table = parse_table(io.StringIO("\n".join(vertices)), path)
    if table.shape[1] < 3:
        raise FileFormatError(f"{path}: vertices of {table.shape[1]} numbers", "x y z")
    feats = {}
    if first := COLORED.get(table.shape[1]):
        feats["colors"] = table[:, first : first + 3]
    if not faces and len(normals) == len(vertices):
        feats["normals"] = parse_table(io.StringIO("\n".join(normals)), path)
    triangles = _triangles(faces, seen, path)
    return cloud_from_mesh(Mesh(table[:, :3], triangles, len(faces), feats), options, path)


_SLASHES = re.compile(r"/\S*")  # `3/1/2` is vertex 3 with a texture coordinate and a normal


def _triangles(faces: list[list[str]], seen: list[int], path: Path) -> np.ndarray:
    """Indices from 0 of all triangles; OBJ counts from 1, or with negative numbers back from the latest vertex."""
    order: dict[int, list[int]] = {}
    for row, face in enumerate(faces):
        order.setdefault(len(face), []).append(row)
    polygons = polygons_by_size(faces, path)
    before = np.array(seen, dtype=np.int64)
    resolved = []
    for polygon, rows in zip(polygons, order.values(), strict=True):
        if (polygon == 0).any():
            raise FileFormatError(f"{path}: a face of vertex 0", "vertex numbers from 1, or negative ones")
        resolved.append(np.where(polygon > 0, polygon - 1, polygon + before[rows][:, None]))
    return triangulate(resolved)


def write_obj(cloud: PointCloud, path: Path) -> None:
    """The points as vertices without faces, with colours in 0..1 and normals where the cloud has them."""
    xyz = cloud.world_xyz if cloud.offset.any() else cloud.xyz
    vertices = {axis: xyz[:, i] for i, axis in enumerate("xyz")}
    if "colors" in cloud.feats:
        colors = cloud.feats["colors"]
        vertices |= flat_columns({"colors": colors / np.float32(255) if colors.dtype.kind in "iu" else colors})
    lines = _prefixed("v", table_text(vertices))
    if "normals" in cloud.feats:
        lines += _prefixed("vn", table_text(flat_columns({"normals": cloud.feats["normals"]})))
    path.write_text("# written by pointlift\n" + lines, encoding="ascii")


def _prefixed(prefix: str, text: str) -> str:
    return "".join(f"{prefix} {line}\n" for line in text.splitlines())
