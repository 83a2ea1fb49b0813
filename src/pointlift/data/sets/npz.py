"""npz folders: `train.npz`, `val*.npz` and `test*.npz`, clouds or scenes of one size or packed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pointlift.core.errors import DataError, DatasetNotFoundError, first_few
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, checked_labels, common_size
from pointlift.data.formats.arrays import NpzFile
from pointlift.data.sets.known import name_for
from pointlift.data.sets.places import parts_named
from pointlift.data.small_files import read_json
from pointlift.data.stores import ArrayStore, ConcatStore, PointStore, RaggedStore

# Key of the coordinates -> (scale, unit). The first one present is used.
POINT_KEYS: dict[str, tuple[float, str | None]] = {
    "points_i16": (1 / 32767, None),
    "points_cm": (0.01, "m"),
    "points_01mm": (1e-4, "m"),
    "points": (1.0, None),
    "xyz": (1.0, None),
}
FIELD_KEYS: dict[str, tuple[str, float]] = {
    "normals_i8": ("normals", 1 / 127),
    "normals": ("normals", 1.0),
    "part": ("part", 1.0),
    "semantic": ("semantic", 1.0),
    "instance": ("instance", 1.0),
    "rgb": ("colors", 1.0),
    "intensity": ("intensity", 1.0),
}
OFFSET_KEYS = ("offset", "offsets")
# What makes a set without a label per cloud worth opening: samples carry these.
POINT_LABELS = ("semantic", "instance", "part")
POINT_CLASS_KEYS = ("semantic_classes", "parts")
PARTS_FILE = "category_parts.json"


@dataclass(frozen=True)
class _Part:
    """One file: its points, labels, names and what it says of itself."""

    path: Path
    store: PointStore
    labels: np.ndarray | None
    names: tuple[str, ...] | None
    classes: tuple[str, ...] | None
    up_axis: Axis | None
    unit: str | None
    key: str
    point_classes: tuple[str, ...]


def detect(root: Path) -> bool:
    """`train.npz` or some `test*.npz` lies in the folder."""
    return bool(_files(root))


def _files(root: Path) -> list[Path]:
    """`train.npz`, then the files whose names begin with a word for val or test (`values.npz` does not)."""
    train = [root / "train.npz"] if (root / "train.npz").is_file() else []
    return train + sorted(p for p in root.glob("*.npz") if _part(p) in ("val", "test") and p.is_file())


def _part(path: Path) -> str | None:
    """The part that the first word of the name stands for."""
    first = re.match(r"[^\W\d_]*", path.name)
    return next(iter(parts_named(first[0] if first else "")), None)


def load(root: Path, *, up_axis: Axis | None = None, unit: str | None = None) -> CloudDataset:
    """Open an npz folder; several `test*.npz` (or `val*.npz`) are joined in alphabetical order.

    Without `label` in the files, the set has no labels per cloud and samples carry `semantic`, `instance`, `part`:
    whichever are there. `category_parts.json`, when it is there, says which parts each class has; else each class has
    those that occur in its clouds.

    Args:
        root: The folder.
        up_axis: The axis that points up; overrides an array `up_axis` in the files.
        unit: Unit of the coordinates; overrides an array `unit` in the files.
    """
    files = [_open(path) for path in _files(root)]
    if not files:
        raise DatasetNotFoundError(f"no train.npz or test*.npz in {root}", "at least one of them")
    classes = _common_classes(files)
    first = files[0]
    for part in files:
        if (part.labels is None) != (first.labels is None):
            raise DataError(f"only one of {part.path} and {first.path} has `label`", "labels in all files or in none")
        if part.labels is not None:
            checked_labels(part.labels, classes, part.path)
    splits = {part: _split([f for f in files if _part(f.path) == part]) for part in ("train", "val", "test")}
    native = common_size(*splits.values())
    point_classes, parts_of = _parts(root, files, classes)
    meta = DatasetMeta(
        name=name_for(classes, root.resolve().name),
        variant=f"npz, {native or 'differing numbers of'} points",
        classes=classes,
        up_axis=up_axis or first.up_axis,
        native_points=native,
        unit=unit or first.unit,
        note="stored as int16 in the unit sphere" if first.key == "points_i16" else "",
        point_classes=point_classes,
        parts_of=parts_of,
    )
    none = None if first.labels is None else np.empty(0, np.int64)
    empty = CloudSplit(first.store, none, (), rows=np.empty(0, np.int64))
    return CloudDataset(meta, splits["train"] or empty, splits["test"], root, splits["val"])


def _split(files: list[_Part]) -> CloudSplit | None:
    if not files:
        return None
    store = files[0].store if len(files) == 1 else ConcatStore([f.store for f in files])
    names: list[str] = []
    for part in files:
        names += part.names or [f"{part.path.stem}/{i}" for i in range(len(part.store))]
    labels = [f.labels for f in files if f.labels is not None]
    carried = () if labels else tuple(name for name in POINT_LABELS if name in store.fields)
    return CloudSplit(store, np.concatenate(labels) if labels else None, names, fields=carried)


def _parts(
    root: Path, files: list[_Part], classes: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]] | None]:
    """Names of the parts (numbers where no file names them), and which of them each class has.

    Raises:
        DataError: A cloud with a part that is none of its class; files that name different parts.
    """
    names = _common_parts(files)
    listed = _parts_of(root / PARTS_FILE, classes, names)
    if any(part.labels is None or "part" not in part.store.fields for part in files):
        return names, listed
    found: dict[str, set[int]] = {name: set() for name in classes}
    for part in files:
        for i, label in enumerate(np.asarray(part.labels).reshape(-1)):
            values = np.unique(part.store.field("part", i))
            if values.dtype.kind not in "iu":
                raise DataError(f"{part.path}: parts of type {values.dtype}", "integers of shape (n, N)")
            own = set(values.tolist())
            known = range(len(names) or 1 << 16) if listed is None else listed.get(classes[label], ())
            strange = [number for number in own if number not in known]
            if strange:
                raise DataError(
                    f"{part.path}: cloud {i}, of class {classes[label]}, has part {min(strange)}",
                    f"parts among {first_few(map(str, sorted(known)))}",
                    f"Correct `part`, the names in `parts`, or {PARTS_FILE}",
                )
            found[classes[label]] |= own
    if listed is None:
        listed = {name: tuple(sorted(own)) for name, own in found.items() if own}
    return names or tuple(
        str(n) for n in range(1 + max((max(own) for own in listed.values() if own), default=-1))
    ), listed


def _common_parts(files: list[_Part]) -> tuple[str, ...]:
    """The names of parts that all files agree on; empty when no file names them."""
    named = [part for part in files if part.point_classes]
    for part in named[1:]:
        if part.point_classes != named[0].point_classes:
            raise DataError(f"{part.path} and {named[0].path} name different parts", "the same parts in the same order")
    return named[0].point_classes if named else ()


def _parts_of(
    path: Path, classes: tuple[str, ...], point_classes: tuple[str, ...]
) -> dict[str, tuple[int, ...]] | None:
    """The table of parts by class, or None when there is no such file."""
    if not path.is_file():
        return None
    table = read_json(path, dict, "{class: [numbers of its parts]}", largest=1 << 20)
    numbers = range(len(point_classes)) if point_classes else range(1 << 16)
    if not all(
        name in classes
        and isinstance(parts, list)
        and all(type(n) is int and n in numbers for n in parts)
        and len(set(parts)) == len(parts)
        for name, parts in table.items()
    ):
        raise DataError(f"{path} does not fit the classes and parts of the set", "{class: [numbers of its parts]}")
    return {name: tuple(parts) for name, parts in table.items()}


def _open(path: Path) -> _Part:
    with NpzFile(path) as arrays:
        key = next((k for k in POINT_KEYS if k in arrays), None)
        if key is None or not any(name in arrays for name in ("label", *POINT_LABELS)):
            raise DataError(
                f"{path}: arrays {', '.join(list(arrays)[:8])}",
                f"one of {', '.join(POINT_KEYS)}, and `label` (or {', '.join(POINT_LABELS)} per point)",
            )
        scale, unit = POINT_KEYS[key]
        fields = {name: (arrays[k], s) for k, (name, s) in FIELD_KEYS.items() if k in arrays}
        offsets = next((arrays[k] for k in OFFSET_KEYS if k in arrays), None)
        points = arrays[key]
        store: PointStore
        if points.ndim == 2 and offsets is None and "label" not in arrays:
            offsets = np.array([0, len(points)])  # one scene
        if offsets is not None and points.ndim == 2:
            store = RaggedStore(points, offsets, scale=scale, fields=fields, where=path)
        else:
            store = ArrayStore(points, scale=scale, fields=fields, where=path)
        label = arrays.get("label")
        if label is not None and label.dtype.kind not in "iu":
            given = f"{path}: labels of type {str(label.dtype)[:60]} and shape {label.shape}"
            raise DataError(given, "integers of shape (n,)")
        if label is not None and label.size != len(store):
            raise DataError(f"{path}: {label.size} labels for {len(store)} clouds", "one label per cloud")
        return _Part(
            path, store, label, _strings(arrays, "name"), _strings(arrays, "classes"),
            _axis(arrays, path), _scalar(arrays, "unit") or unit, key,
            next((names for k in POINT_CLASS_KEYS if (names := _strings(arrays, k))), ()),
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
    named = [p for p in parts if p.classes is not None and p.labels is not None]
    if not named:
        labels = [p.labels for p in parts if p.labels is not None]
        top = max((int(values.max()) for values in labels if values.size), default=-1)
        return tuple(str(i) for i in range(min(top + 1, sum(values.size for values in labels))))
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
        title="folder with train.npz and test*.npz, of clouds or of scenes",
        layout="train.npz, test*.npz (and val*.npz) with points_i16 (divided by 32767) or points (n, N, 3), "
        "label (n,), classes, optional name, normals, part, up_axis, unit; for clouds of differing size points (P, 3) "
        "and offset (n + 1,); for scenes semantic, instance (n, N) and semantic_classes instead of label",
        get="np.savez_compressed('train.npz', points=..., label=..., classes=[...])",
        terms="yours",
        load=load,
        detect=detect,
    ),
)
