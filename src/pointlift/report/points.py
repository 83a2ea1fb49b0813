"""Clouds as they travel inside a page: thinned, in random order, packed as base64 of small integers.

The order is random so that any first part of the points is a fair sample: a page draws as many as it has time for.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pointlift.core.seeds import generator

NEIGHBOURS = 12
MOST_POINTS = 200_000


@dataclass(frozen=True)
class Colouring:
    """One way to colour the points.

    Attributes:
        kind: "rgb": values uint8 (N, 3). "ramp": values (N,) of any real dtype, drawn from blue over grey to orange
            around zero. "classes": values (N,) integers, an index into `names`.
        title: What the page calls it.
        values: Per point.
        names: Of the classes.
        ends: What the two ends of the ramp mean.
        palette: Red, green and blue (0 to 255) of each class; without one, twelve colours in turn.
    """

    kind: str
    title: str
    values: np.ndarray
    names: Sequence[str] = ()
    ends: tuple[str, str] = ("", "")
    palette: Sequence[Sequence[int]] = ()


def bytes_per_point(colourings: Sequence[Colouring]) -> int:
    """Raw bytes of one packed point: int16 coordinates, int8 normals, and its colourings."""
    return 9 + sum(3 if c.kind == "rgb" else 1 for c in colourings)


def pack(
    xyz: np.ndarray,
    *,
    limit: int = MOST_POINTS,
    colourings: Sequence[Colouring] = (),
    of: int | None = None,
    frame: np.ndarray | None = None,
) -> dict[str, Any]:
    """A cloud for the page's script.

    Args:
        xyz: (N, 3) floats, N >= 1. Points that are not finite are left out.
        limit: How many points are kept at most, a fixed random choice.
        colourings: Ways to colour the points, with a value for each of the N.
        of: How many points the cloud had before it was thinned; N when omitted.
        frame: (M, 3) points that decide place and scale instead of the cloud itself, so that clouds that stand side
            by side fit together; the cloud must lie within their bounding box.

    Returns:
        n: points kept. of: points given. xyz: base64 of n x 3 little-endian int16, scaled so that the cloud fills
        the unit ball (times 32767). normal: base64 of n x 3 int8 (times 127). low, high: of each axis in the cloud's
        own units. colours: one dict per colouring.
    """
    xyz = np.asarray(xyz, np.float64)
    good = np.flatnonzero(np.isfinite(xyz).all(axis=1))
    order = generator("report", "points", len(xyz)).permutation(good)[:limit]
    kept = xyz[order] if len(order) else np.zeros((1, 3))
    low, high = kept.min(axis=0), kept.max(axis=0)
    around = kept if frame is None else np.asarray(frame, np.float64)
    middle = (around.min(axis=0) + around.max(axis=0)) / 2
    radius = float(np.linalg.norm(around - middle, axis=1).max()) or 1.0
    centred = kept - middle
    coordinates = np.round(centred / radius * 32767).astype("<i2")
    return {
        "n": len(coordinates),
        "of": len(xyz) if of is None else of,
        "xyz": encode(coordinates),
        "normal": encode(np.round(normals(coordinates) * 127).astype("i1")),
        "low": [float(f"{v:.6g}") for v in low],
        "high": [float(f"{v:.6g}") for v in high],
        "colours": [pack_colouring(c, order) for c in colourings] if len(order) else [],
    }


def pack_colouring(colouring: Colouring, order: np.ndarray) -> dict[str, Any]:
    """Values of the kept points as bytes; a ramp is 0 to 255 around 128, which is zero."""
    packed: dict[str, Any] = {"kind": colouring.kind, "title": colouring.title}
    values = np.asarray(colouring.values)[order]
    if colouring.kind == "rgb":
        return packed | {"data": encode(values.astype(np.uint8))}
    if colouring.kind == "classes":
        index = np.clip(values, 0, 255).astype(np.uint8)
        palette = [[int(v) for v in colour] for colour in colouring.palette]
        return packed | {"data": encode(index), "names": [str(name) for name in colouring.names], "palette": palette}
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(np.abs(values).max(initial=0.0))
    scaled = np.round(128 + 127 * values / (largest or 1.0)).astype(np.uint8)
    return packed | {"data": encode(scaled), "largest": float(f"{largest:.4g}"), "ends": list(colouring.ends)}


def encode(array: np.ndarray) -> str:
    """Base64 of an array's bytes."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def normals(xyz: np.ndarray) -> np.ndarray:
    """Unit normals (P, 3) of the plane through each point's nearest neighbours; their side is arbitrary."""
    from scipy.spatial import cKDTree

    # A tree over many equal points has one leaf that holds them all, and every query would read it.
    places, back = np.unique(xyz, axis=0, return_inverse=True)
    _, near = cKDTree(places).query(places, k=min(NEIGHBOURS, len(places)))
    patches = places[near.reshape(len(places), -1)].astype(np.float64)
    patches -= patches.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("pki,pkj->pij", patches, patches))
    return axes[back.reshape(-1), :, 0]
