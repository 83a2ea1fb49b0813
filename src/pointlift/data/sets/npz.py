"""npz folders: `train.npz` and `test*.npz`, clouds of one size or packed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pointlift.core.errors import DataError, DatasetNotFoundError
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, checked_labels
from pointlift.data.formats.arrays import NpzFile
from pointlift.data.sets.known import name_for
from pointlift.data.stores import ArrayStore, ConcatStore, PointStore, RaggedStore

# Key of the coordinates -> (scale, unit). The first one present is used.
POINT_KEYS: dict[str, tuple[float, str | None]] = {
    "points_i16": (1 / 32767, None),
    "points_cm": (0.01, "m"),
    "points": (1.0, None),
    "xyz": (1.0, None),
}
FIELD_KEYS: dict[str, tuple[str, float]] = {
    "normals_i8": ("normals", 1 / 127),
    "normals": ("normals", 1.0),
    "part": ("part", 1.0),
    "rgb": ("colors", 1.0),
    "intensity": ("intensity", 1.0),
}
OFFSET_KEYS = ("offset", "offsets")


@dataclass(frozen=True)
class _Part:
    """One file: its points, labels, names and what it says of itself."""

    path: Path
    store: PointStore
    labels: np.ndarray
    names: tuple[str, ...] | None
    classes: tuple[str, ...] | None
    up_axis: Axis | None
    unit: str | None
    key: str


def detect(root: Path) -> bool:
    """`train.npz` or some `test*.npz` with labels lies in the folder."""
    files = _files(root)
    if not files:
        return False
    with NpzFile(files[0]) as arrays:
        return "label" in arrays


def _files(root: Path) -> list[Path]:
    train = [root / "train.npz"] if (root / "train.npz").is_file() else []
    return train + sorted(p for p in root.glob("test*.npz") if p.is_file())


def load(root: Path, *, up_axis: Axis | None = None, unit: str | None = None) -> CloudDataset:
    """Open an npz folder; several `test*.npz` are joined in alphabetical order.

    Args:
        root: The folder.
        up_axis: The axis that points up; overrides an array `up_axis` in the files.
        unit: Unit of the coordinates; overrides an array `unit` in the files.
    """
    parts = [_open(path) for path in _files(root)]
    if not parts:
        raise DatasetNotFoundError(f"no train.npz or test*.npz in {root}", "at least one of them")
    classes = _common_classes(parts)
    for part in parts:
        checked_labels(part.labels, classes, part.path)
    train = [p for p in parts if p.path.name == "train.npz"]
    test = [p for p in parts if p.path.name != "train.npz"]
    first = parts[0]
    sizes = {int(n) for p in parts for n in np.unique(p.store.counts())}  # type: ignore[arg-type]
    native = sizes.pop() if len(sizes) == 1 else None
    meta = DatasetMeta(
        name=name_for(classes, root.resolve().name),
        variant=f"npz, {native or 'differing numbers of'} points",
        classes=classes,
        up_axis=up_axis or first.up_axis,
        native_points=native,
        unit=unit or first.unit,
        note="stored as int16 in the unit sphere" if first.key == "points_i16" else "",
    )
    empty = CloudSplit(first.store, np.empty(0, np.int64), (), rows=np.empty(0, np.int64))
    return CloudDataset(meta, _split(train) if train else empty, _split(test) if test else None, root)


def _split(parts: list[_Part]) -> CloudSplit:
    store = parts[0].store if len(parts) == 1 else ConcatStore([p.store for p in parts])
    names: list[str] = []
    for part in parts:
        names += part.names or [f"{part.path.stem}/{i}" for i in range(len(part.store))]
    return CloudSplit(store, np.concatenate([p.labels for p in parts]), names)


def _open(path: Path) -> _Part:
    with NpzFile(path) as arrays:
        key = next((k for k in POINT_KEYS if k in arrays), None)
        if key is None or "label" not in arrays:
            raise DataError(
                f"{path}: arrays {', '.join(list(arrays)[:8])}", f"`label` and one of {', '.join(POINT_KEYS)}"
            )
        scale, unit = POINT_KEYS[key]
        fields = {name: (arrays[k], s) for k, (name, s) in FIELD_KEYS.items() if k in arrays}
        offsets = next((arrays[k] for k in OFFSET_KEYS if k in arrays), None)
        points = arrays[key]
        store: PointStore
        if offsets is not None and points.ndim == 2:
            store = RaggedStore(points, offsets, scale=scale, fields=fields, where=path)
        else:
            store = ArrayStore(points, scale=scale, fields=fields, where=path)
        label = arrays["label"]
        if label.size != len(store):
            raise DataError(f"{path}: {label.size} labels for {len(store)} clouds", "one label per cloud")
        return _Part(
            path, store, label, _strings(arrays, "name"), _strings(arrays, "classes"),
            _axis(arrays, path), _scalar(arrays, "unit") or unit, key,
        )  # fmt: skip


def _strings(arrays: NpzFile, key: str) -> tuple[str, ...] | None:
    if key not in arrays:
        return None
    values = arrays[key].reshape(-1)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return tuple(str(v) for v in values)


def _scalar(arrays: NpzFile, key: str) -> str | None:
    values = _strings(arrays, key)
    return values[0] if values else None


def _axis(arrays: NpzFile, path: Path) -> Axis | None:
    axis: Any = _scalar(arrays, "up_axis")
    if axis is not None and axis not in get_args(Axis):
        raise DataError(f"{path}: up_axis {axis!r}", "x, y or z")
    return axis


def _common_classes(parts: list[_Part]) -> tuple[str, ...]:
    """The classes that all files agree on; numbers when no file names them."""
    named = [p for p in parts if p.classes is not None]
    if not named:
        top = max((int(p.labels.max()) for p in parts if p.labels.size), default=-1)
        return tuple(str(i) for i in range(min(top + 1, sum(p.labels.size for p in parts))))
    for part in named[1:]:
        if part.classes != named[0].classes:
            raise DataError(
                f"{part.path} and {named[0].path} name different classes",
                "the same classes in the same order",
            )
    return named[0].classes or ()


DATASETS.register(
    "npz",
    DatasetEntry(
        title="folder with train.npz and test*.npz",
        layout="train.npz, test*.npz with points_i16 (divided by 32767) or points (n, N, 3), label (n,), "
        "classes, optional name, normals, part, up_axis, unit; for clouds of differing size points (P, 3) "
        "and offset (n + 1,)",
        get="np.savez_compressed('train.npz', points=..., label=..., classes=[...])",
        terms="yours",
        load=load,
        detect=detect,
    ),
)
