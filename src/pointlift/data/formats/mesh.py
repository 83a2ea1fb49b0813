"""Triangle meshes, and points drawn evenly from their surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.core.seeds import generator
from pointlift.data.cloud import PointCloud, checked_xyz
from pointlift.data.formats.columns import tidy
from pointlift.data.formats.options import ReadOptions


@dataclass(frozen=True)
class Mesh:
    """A mesh as read from a file.

    Args:
        vertices: float64 (V, 3).
        triangles: int64 (F, 3), indices into `vertices`; F may be 0.
        faces: How many faces the file has: polygons count once.
        feats: Arrays with one row per vertex, by name.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    faces: int
    feats: Mapping[str, np.ndarray] = field(default_factory=dict)


def triangulate(polygons: Sequence[np.ndarray]) -> np.ndarray:
    """int64 (F, 3): polygons (n, k), one array per number of corners k, cut into fans; k < 3 has no area."""
    fans = [
        np.stack([np.broadcast_to(p[:, :1], (len(p), k - 2)), p[:, 1:-1], p[:, 2:]], axis=2).reshape(-1, 3)
        for p in polygons
        if (k := p.shape[1]) >= 3
    ]
    return np.concatenate(fans).astype(np.int64) if fans else np.empty((0, 3), np.int64)


def cloud_from_mesh(mesh: Mesh, options: ReadOptions, path: Path) -> PointCloud:
    """`options.points` points on the surface of a mesh with faces; of a mesh without, its vertices.

    Sampled clouds carry the unit normals of the faces and whatever the vertices carry, interpolated.

    Raises:
        FileFormatError: No vertices, coordinates that are no numbers, a face of vertices that are not there, or
            faces without any area.
    """
    checked_xyz(mesh.vertices, path)
    feats = {name: tidy(name, values, path) for name, values in mesh.feats.items()}
    if not mesh.faces:
        return PointCloud.from_array(mesh.vertices, path, feats=feats)
    low, high = (int(mesh.triangles.min()), int(mesh.triangles.max())) if mesh.triangles.size else (0, 0)
    if low < 0 or high >= len(mesh.vertices):
        wrong = low if low < 0 else high
        raise FileFormatError(
            f"{path}: a face of vertex {wrong} (counted from 0)", f"the {len(mesh.vertices)} vertices of the file"
        )
    meta = {"faces": mesh.faces, "vertices": len(mesh.vertices), "sampled": options.points}
    xyz, normals, corner, weight = sample(mesh, options, path)
    drawn = {name: _interpolated(feats[name], corner, weight) for name in feats if name != "normals"}
    return PointCloud.from_array(xyz, path, feats={"normals": normals, **drawn}, meta=meta)


def sample(mesh: Mesh, options: ReadOptions, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points that are even over the area.

    A triangle is drawn with a probability in proportion to its area, a place in it by two uniform numbers, folded
    back where they fall outside. Only `random` of numpy's PCG64 is called: the same points on every machine.

    Returns:
        xyz float64 (N, 3), unit normals float32 (N, 3), corners int64 (N, 3) and barycentric weights (N, 3).
    """
    corners = mesh.vertices[mesh.triangles] - mesh.vertices[0]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.sqrt((cross * cross).sum(axis=1))
    edges = np.cumsum(area)
    if not len(edges) or not edges[-1] > 0 or not np.isfinite(edges[-1]):
        raise FileFormatError(f"{path}: {mesh.faces} face(s) without area", "a mesh with a surface to sample")
    pick, u, v = generator(options.seed, "mesh").random((3, options.points))
    face = np.minimum(np.searchsorted(edges, pick * edges[-1], side="right"), len(edges) - 1)
    outside = u + v > 1
    u[outside], v[outside] = 1 - u[outside], 1 - v[outside]
    weight = np.stack([1 - u - v, u, v], axis=1)
    xyz = (corners[face] * weight[:, :, None]).sum(axis=1) + mesh.vertices[0]
    normals = cross[face] / area[face, None]
    return xyz, normals.astype(np.float32), mesh.triangles[face], weight


def _interpolated(values: np.ndarray, corner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    weight = weight.reshape(*weight.shape, *[1] * (values.ndim - 1))
    drawn = (values[corner].astype(np.float64) * weight).sum(axis=1)
    return np.rint(drawn).astype(values.dtype) if values.dtype.kind in "iu" else drawn.astype(values.dtype)


def polygons_by_size(rows: Sequence[Sequence[str]], path: Path) -> list[np.ndarray]:
    """int64 (n, k) for every number of corners k among rows of index words."""
    by_size: dict[int, list[Sequence[str]]] = {}
    for row in rows:
        by_size.setdefault(len(row), []).append(row)
    try:
        return [np.array(same, dtype=np.int64).reshape(len(same), size) for size, same in by_size.items()]
    except (ValueError, OverflowError) as error:
        raise FileFormatError(f"{path}: a face of no numbers ({str(error)[:80]})", "numbers of vertices") from error
