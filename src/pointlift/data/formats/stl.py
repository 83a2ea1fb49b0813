"""STL meshes, ascii and binary: triangles without shared vertices, sampled by area."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.mesh import Mesh, cloud_from_mesh
from pointlift.data.formats.options import ReadOptions

HEADER = 80  # bytes of any content, often a name
TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
VERTEX = re.compile(r"^[ \t]*vertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)[ \t\r]*$", re.MULTILINE | re.IGNORECASE)
KEYWORD = re.compile(r"^[ \t]*(vertex|facet|endfacet|endsolid)\b", re.MULTILINE | re.IGNORECASE)


def read_stl(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud sampled on the triangles of an STL mesh."""
    data = path.read_bytes()
    # Binary files may start with "solid" too: the size decides first.
    count = int.from_bytes(data[HEADER : HEADER + 4], "little")
    start = HEADER + 4
    if len(data) >= start and len(data) == start + count * TRIANGLE.itemsize:
        corners = np.frombuffer(data, TRIANGLE, count, start)["corners"].astype(np.float64)
    elif data[:HEADER].lstrip()[:5].lower() == b"solid" and b"\0" not in data[: 1 << 16]:
        corners = _ascii(data.decode("ascii", errors="replace"), path)
    else:
        raise FileFormatError(
            f"{path}: {len(data):,} bytes that promise {count:,} triangles"
            if len(data) >= start
            else f"{path}: {len(data)} bytes",
            "'solid …' as text, or a header of 84 bytes and 50 bytes per triangle",
            "The file is cut short, damaged, or no STL",
        )
    if not len(corners):
        raise FileFormatError(f"{path}: the mesh has no triangles", "at least one")
    triangles = np.arange(3 * len(corners)).reshape(-1, 3)
    return cloud_from_mesh(Mesh(corners.reshape(-1, 3), triangles, len(corners)), options, path)


def _ascii(text: str, path: Path) -> np.ndarray:
    """Corners (F, 3, 3) from `facet … vertex x y z … endfacet` lines."""
    words = [word.lower() for word in KEYWORD.findall(text)]
    facets = words.count("facet")
    vertices = VERTEX.findall(text)
    complete = words.count("endfacet") == facets and words.count("endsolid") > 0
    if not complete or len(vertices) != 3 * facets or words.count("vertex") != 3 * facets:
        raise FileFormatError(
            f"{path}: {facets} facets with {len(vertices)} readable vertices"
            + ("" if complete else ", and no end ('endfacet' for each, then 'endsolid')"),
            "three vertices 'vertex x y z' per facet",
        )
    try:
        return np.array(vertices, dtype=np.float64).reshape(-1, 3, 3)
    except ValueError as error:
        raise FileFormatError(f"{path}: a vertex that is no number ({error})", "vertex x y z") from error
