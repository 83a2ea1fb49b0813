"""Plain float32 records: KITTI's and SemanticKITTI's `.bin` with `.label`, and nuScenes' `.pcd.bin`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.columns import checked_names, split_table
from pointlift.data.formats.options import ReadOptions

KITTI = ("x", "y", "z", "intensity")
NUSCENES = ("x", "y", "z", "intensity", "ring")


def read_kitti(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from `.bin`: x y z intensity, and the labels of `label_file` where there are such."""
    cloud = _read(path, options.columns or KITTI)
    labels = label_file(path)
    return replace(cloud, feats={**cloud.feats, **read_labels(labels, len(cloud))}) if labels else cloud


def read_nuscenes(path: Path, options: ReadOptions) -> PointCloud:
    """A cloud from `.pcd.bin`: x y z intensity ring."""
    return _read(path, options.columns or NUSCENES)


def label_file(path: Path) -> Path | None:
    """The labels of a scan: `<stem>.label` beside it, or SemanticKITTI's `../labels/<stem>.label`."""
    beside = path.with_suffix(".label")
    return next((p for p in (beside, path.absolute().parent.parent / "labels" / beside.name) if p.is_file()), None)


def _read(path: Path, columns: Sequence[str]) -> PointCloud:
    size, row = path.stat().st_size, 4 * len(checked_names(columns))
    if size % row:
        widths = [n for n in range(3, 12) if size % (4 * n) == 0]
        others = f"Its size fits {', '.join(map(str, widths))} columns: name them with columns=" if widths else ""
        raise FileFormatError(
            f"{path}: {size:,} bytes", f"a multiple of {row}: float32 {' '.join(columns)} per point", others
        )
    table = np.fromfile(path, dtype="<f4").reshape(-1, len(columns))
    xyz, feats = split_table(table, columns, path)
    return PointCloud.from_array(xyz, path, feats=feats)


def read_labels(path: Path, points: int) -> dict[str, np.ndarray]:
    """`semantic` and `instance` int64 (N,) from a `.label` file: the lower and upper 16 bits of one uint32 per point.

    Raises:
        FileFormatError: Not one label for each of the `points` points.
    """
    size = path.stat().st_size
    if size != 4 * points:
        raise FileFormatError(
            f"{path}: {size:,} bytes, {size / 4:g} labels", f"{points:,} labels of 4 bytes, one per point of the scan"
        )
    packed = np.fromfile(path, dtype="<u4")
    return {"semantic": (packed & 0xFFFF).astype(np.int64), "instance": (packed >> 16).astype(np.int64)}


def write_kitti(cloud: PointCloud, path: Path) -> None:
    """float32 x y z intensity (zeros without any), and a `.label` beside it when the cloud has `semantic`."""
    _write(cloud, path, KITTI)
    if "semantic" in cloud.feats:
        parts = [_sixteen_bits(cloud, name, path) for name in ("semantic", "instance")]
        (parts[0] | parts[1] << np.uint32(16)).astype("<u4").tofile(path.with_name(path.stem + ".label"))


def write_nuscenes(cloud: PointCloud, path: Path) -> None:
    """float32 x y z intensity ring (zeros where the cloud has none)."""
    _write(cloud, path, NUSCENES)


def _write(cloud: PointCloud, path: Path, columns: Sequence[str]) -> None:
    if cloud.offset.any():
        raise FileFormatError(
            f"{path.name}: coordinates around {cloud.offset.tolist()}, which float32 does not resolve",
            "a cloud near the origin",
            "Write .ply, .las or .npz, which keep them, or subtract the offset",
        )
    table = np.zeros((len(cloud), len(columns)), dtype="<f4")
    table[:, :3] = cloud.xyz
    for i, name in enumerate(columns[3:], start=3):
        if name in cloud.feats:
            table[:, i] = cloud.feats[name]
    table.tofile(path)


def _sixteen_bits(cloud: PointCloud, name: str, path: Path) -> np.ndarray:
    values = cloud.feats.get(name)
    if values is None:
        return np.zeros(len(cloud), np.uint32)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 0xFFFF:
        raise FileFormatError(f"{path.name}: {name!r} beyond 0..65535", "what 16 bits of a .label file hold")
    return values.astype(np.uint32)
