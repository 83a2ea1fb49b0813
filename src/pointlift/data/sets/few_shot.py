"""ModelNet40 few-shot folds: `5way_10shot/0.pkl` as published, or `.npz` as `make_few_shot` writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from pointlift.core.errors import DataError, UsageError
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, common_size, label_of
from pointlift.data.formats.arrays import NpzFile
from pointlift.data.sets.known import MODELNET40_CLASSES
from pointlift.data.sets.pickles import read_pickle
from pointlift.data.sets.places import find_folder
from pointlift.data.stores import ListStore

PLACES = ("ModelNetFewshot", "ModelNetFewShot")
# Documentation says `5way10shot`, released code opens `5way_10shot`.
_FOLDER = re.compile(r"(\d+)way_?(\d+)shot")
ENDINGS = (".npz", ".pkl")

# One cloud of a fold: points (N, 3 or 6), label 0..way-1, and the class that it had in the whole set.
Item = tuple[np.ndarray, int, int]


@dataclass(frozen=True)
class _Fold:
    """One file: its clouds by part, and the set that they are from (published folds do not say: ModelNet40)."""

    items: dict[str, list[Item]]
    classes: tuple[str, ...] = MODELNET40_CLASSES
    name: str = "modelnet40"
    up_axis: Axis | None = "y"


def settings(folder: Path) -> dict[tuple[int, int], Path]:
    """(way, shot) -> folder, for what lies in `folder`."""
    if not folder.is_dir():
        return {}
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(folder.iterdir()):
        match = _FOLDER.fullmatch(path.name)
        if match and path.is_dir():
            found[int(match[1]), int(match[2])] = path
    return found


def _find(root: Path) -> Path | None:
    if _FOLDER.fullmatch(root.resolve().name) and any(root.glob(f"*{e}") for e in ENDINGS):
        return root.resolve().parent
    return find_folder(root, PLACES, lambda folder: bool(settings(folder)))


def detect(root: Path) -> bool:
    """Folders like `5way_10shot` (or `5way10shot`) lie in the folder or in `ModelNetFewshot` below."""
    return _find(root) is not None


def load(
    root: Path,
    *,
    way: int | None = None,
    shot: int | None = None,
    fold: int = 0,
    up_axis: Axis | None = None,
    unit: str | None = None,
) -> CloudDataset:
    """Open one fold; labels are 0 to way - 1, the classes are those of the fold in that order.

    Args:
        root: `ModelNetFewshot`, what holds it, or one `5way_10shot` in it.
        way: Number of classes; may be omitted when only one setting is there.
        shot: Training clouds per class; likewise.
        fold: Which fold, from 0.
        up_axis: The axis that points up; "y" in the published folds, our own say it.
        unit: Unit of the coordinates.

    Raises:
        UsageError: A setting or a fold that is not there.
        DataError: A fold that does not hold what it should.
    """
    folder = _find(root)
    if folder is None:
        raise DATASETS.get("modelnet40_few_shot").missing(f"no few-shot folders in {root.resolve()}")
    here = _FOLDER.fullmatch(root.resolve().name)
    fixed = (int(here[1]), int(here[2])) if here else (None, None)
    way, shot = way or fixed[0], shot or fixed[1]
    fits = {k: v for k, v in settings(folder).items() if way in (None, k[0]) and shot in (None, k[1])}
    if len(fits) != 1:
        there = ", ".join(f"way {w} shot {s}" for w, s in settings(folder))
        raise UsageError(
            f"way {way}, shot {shot} in {folder}", f"one of: {there}", "--data.options.way 5 --data.options.shot 10"
        )
    (way, shot), place = next(iter(fits.items()))
    path = next((p for e in ENDINGS if (p := place / f"{fold}{e}").is_file()), None)
    if path is None:
        folds = sorted(p.stem for p in place.iterdir() if p.suffix in ENDINGS)
        raise UsageError(f"fold {fold} in {place}", f"one of {', '.join(folds) or 'none'}", "--data.options.fold 0")
    fold_of = _read_npz(path) if path.suffix == ".npz" else _read_pkl(path)
    items = fold_of.items
    classes = _classes(items, fold_of.classes, way, path)
    train, test = (_split(items[part], path, part) for part in ("train", "test"))
    meta = DatasetMeta(
        name=f"{fold_of.name}_few_shot",
        variant=f"{way}-way {shot}-shot, fold {fold}",
        classes=classes,
        up_axis=up_axis or fold_of.up_axis,
        native_points=common_size(train, test),
        unit=unit,
    )
    return CloudDataset(meta, train, test, root)


def _split(items: list[Item], path: Path, part: str) -> CloudSplit:
    labels = np.array([label for _, label, _ in items], dtype=np.int64)
    names = [f"{part}/{i}" for i in range(len(items))]
    return CloudSplit(ListStore([cloud for cloud, _, _ in items], where=path), labels, names)


def _classes(items: dict[str, list[Item]], names: tuple[str, ...], way: int, path: Path) -> tuple[str, ...]:
    """The class behind each new label: every label has one, the same in both parts."""
    behind: dict[int, int] = {}
    for item in (item for part in items.values() for item in part):
        _, label, original = item
        if not 0 <= label < way or behind.setdefault(label, original) != original:
            raise DataError(f"{path}: label {label} of class {original}", f"labels 0 to {way - 1}, one class each")
    absent = sorted(set(range(way)) - set(behind))
    if absent:
        raise DataError(f"{path} has no cloud of label {absent[0]}", f"{way} classes")
    return tuple(names[c] if 0 <= (c := behind[k]) < len(names) else str(c) for k in range(way))


def _read_pkl(path: Path) -> _Fold:
    """`{"train": [(points, label, class), …], "test": […]}`, read by a machine that executes nothing."""
    held = read_pickle(path)
    if not isinstance(held, dict):
        raise DataError(f"{path} does not hold a dict", "{'train': [...], 'test': [...]}")
    held = {str(k, "latin1") if isinstance(k, bytes) else k: v for k, v in held.items()}
    if not all(isinstance(held.get(part), list) for part in ("train", "test")):
        raise DataError(f"{path} lacks 'train' or 'test'", "{'train': [...], 'test': [...]}")
    return _Fold({part: [_item(value, path) for value in held[part]] for part in ("train", "test")})


def _item(value: Any, path: Path) -> Item:
    if isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[0], np.ndarray):
        label, original = map(label_of, value[1:])
        if label is not None and original is not None:
            return value[0], label, original
    raise DataError(f"{path} has an entry of another form", "(points, label, class) for every cloud")


def _read_npz(path: Path) -> _Fold:
    with NpzFile(path) as arrays:
        wanted = [f"{part}_{key}" for part in ("train", "test") for key in ("points", "offset", "label", "original")]
        missing = [key for key in (*wanted, "classes", "name", "up_axis") if key not in arrays]
        if missing:
            raise DataError(f"{path} has no array {missing[0]!r}", "a fold written by make_few_shot")
        items = {part: _unpacked(arrays, part, path) for part in ("train", "test")}
        name, axis = ("".join(map(str, arrays[key].reshape(-1)[:1])) for key in ("name", "up_axis"))
        classes = tuple(str(name) for name in arrays["classes"].reshape(-1))
    if axis not in ("", *get_args(Axis)):
        raise DataError(f"{path}: up_axis {axis!r}", "x, y, z or nothing")
    return _Fold(items, classes, name, cast(Axis, axis) if axis else None)


def _unpacked(arrays: NpzFile, part: str, path: Path) -> list[Item]:
    points, offset = arrays[f"{part}_points"], arrays[f"{part}_offset"]
    label, original = arrays[f"{part}_label"].reshape(-1), arrays[f"{part}_original"].reshape(-1)
    whole = offset.ndim == 1 and len(offset) == len(label) + 1 == len(original) + 1
    if not whole or any(a.dtype.kind not in "iu" for a in (offset, label, original)) or points.ndim != 2:
        raise DataError(f"{path}: the arrays of {part} do not fit each other", "a fold written by make_few_shot")
    if offset[0] != 0 or offset[-1] != len(points) or (np.diff(offset.astype(np.int64)) < 1).any():
        raise DataError(f"{path}: the offsets of {part}", f"rising from 0 to {len(points)}")
    bounds = offset.astype(np.int64)
    return [(points[bounds[i] : bounds[i + 1]], int(label[i]), int(original[i])) for i in range(len(label))]


DATASETS.register(
    "modelnet40_few_shot",
    DatasetEntry(
        title="few-shot folds (ModelNetFewshot)",
        layout="5way_10shot/0.pkl … 9.pkl, 5way_20shot/, 10way_10shot/, 10way_20shot/ (also spelt 5way10shot); "
        "or .npz folds as `pointlift prepare few-shot` writes them; the folder is ModelNetFewshot, or what holds it",
        get="the published folds come from the Point-BERT authors (numbers are comparable on them only); "
        "`pointlift prepare few-shot` makes others from any labelled set",
        terms="ModelNet: academic research only; the CAD models belong to their authors",
        load=load,
        detect=detect,
        official=True,
    ),
)
