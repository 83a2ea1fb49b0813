"""HDF5 files with `data` and `label`: `modelnet40_ply_hdf5_2048`, and every set in the same layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.errors import DataError, DatasetNotFoundError, FileFormatError
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, checked_labels
from pointlift.data.sets.known import MODELNET40_CLASSES, name_for
from pointlift.data.stores import ArrayStore, ConcatStore

CLASS_FILES = ("shape_names.txt", "classes.txt")
OFFICIAL = "ply_data_"


def _files(root: Path, part: str) -> list[Path]:
    """Sorted, so that the order does not depend on the file system as the original loaders' order does."""
    return sorted(p for p in root.glob("*.h5") if part in p.name.lower() and not p.name.startswith("."))


def detect(root: Path) -> bool:
    """`*train*.h5` or `*test*.h5` lies in the folder."""
    return bool(_files(root, "train") or _files(root, "test"))


def load(root: Path, *, up_axis: Axis | None = None, unit: str | None = None) -> CloudDataset:
    """Open a folder of HDF5 files with `data` (n, N, 3) and `label` (n,) or (n, 1).

    Class names come from `shape_names.txt` or `classes.txt`; files called `ply_data_*` are ModelNet40.
    """
    train, test = ([_open(p) for p in _files(root, part)] for part in ("train", "test"))
    if not train and not test:
        raise DatasetNotFoundError(f"no *train*.h5 or *test*.h5 in {root}", "ply_data_train*.h5, ply_data_test*.h5")
    everything = train + test
    official = everything[0][0].name.startswith(OFFICIAL)
    classes = _classes(root, everything, official)
    for path, _, label in everything:
        checked_labels(label, classes, path)
    sizes = {store.array.shape[1] for _, store, _ in everything}
    native = sizes.pop() if len(sizes) == 1 else None
    name = name_for(classes, root.resolve().name)
    if up_axis is None and name == "modelnet40" and official:
        up_axis = "y"  # this edition is turned: the CAD models are z-up
    meta = DatasetMeta(name, f"hdf5, {native or 'differing numbers of'} points", classes, up_axis, native, unit)
    return CloudDataset(meta, _split(train), _split(test) if test else None, root)


def _open(path: Path) -> tuple[Path, ArrayStore, np.ndarray]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            missing = [k for k in ("data", "label") if not isinstance(file.get(k), h5py.Dataset)]
            if missing:
                raise DataError(f"{path}: keys {', '.join(file)}", "datasets `data` and `label`")
            for key in ("data", "label"):
                _check_stored_here(file, key, path)
            data, label = np.asarray(file["data"]), np.asarray(file["label"])
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise FileFormatError(f"{path} cannot be read as HDF5 ({reason})", "a complete HDF5 file") from error
    if label.size != len(data):
        raise DataError(f"{path}: {label.size} labels for {len(data)} clouds", "one label per cloud")
    return path, ArrayStore(data, where=path), label.reshape(-1)


def _check_stored_here(file: Any, key: str, path: Path) -> None:
    """Refuse links to other files, and shapes beyond what the file can hold.

    Chunks that were never written take no room in the file: the shape alone could ask for any memory.
    """
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink) or file[key].external:
        raise FileFormatError(f"{path}: `{key}` points to another place", "data in the file itself")
    dataset, limit = file[key], max(256 << 20, 100 * path.stat().st_size)
    if dataset.size * dataset.dtype.itemsize > limit:
        raise FileFormatError(f"{path}: `{key}` of shape {dataset.shape}", f"at most {limit:,} bytes for this file")


def _split(parts: list[tuple[Path, ArrayStore, np.ndarray]]) -> CloudSplit:
    if not parts:
        none = np.empty(0, np.int64)
        return CloudSplit(ArrayStore(np.empty((0, 1, 3), np.float32)), none, ())
    names = [f"{path.stem}/{i}" for path, store, _ in parts for i in range(len(store))]
    return CloudSplit(ConcatStore([s for _, s, _ in parts]), np.concatenate([lab for _, _, lab in parts]), names)


def _classes(root: Path, parts: list[tuple[Path, ArrayStore, np.ndarray]], official: bool) -> tuple[str, ...]:
    for name in CLASS_FILES:
        if (root / name).is_file():
            text = (root / name).read_text(encoding="utf-8", errors="replace")
            return tuple(line.strip() for line in text.splitlines() if line.strip())
    if official:
        return MODELNET40_CLASSES
    labels = np.concatenate([label for _, _, label in parts])
    top = int(labels.max()) + 1 if labels.size and labels.dtype.kind in "iu" else 0
    return tuple(str(i) for i in range(min(top, labels.size)))


DATASETS.register(
    "modelnet40_hdf5",
    DatasetEntry(
        title="ModelNet40, 2,048 points (modelnet40_ply_hdf5_2048), and other sets in its HDF5 layout",
        layout="ply_data_train*.h5, ply_data_test*.h5 (any *train*.h5, *test*.h5) with `data` (n, N, 3) and "
        "`label` (n,); optional shape_names.txt or classes.txt, one class a line",
        get="modelnet40_ply_hdf5_2048.zip from the PointNet authors (Stanford); unpack it",
        terms="ModelNet: academic research only; the CAD models belong to their authors",
        load=load,
        detect=detect,
        classes=MODELNET40_CLASSES,
        up_axis="y",
        native_points=2048,
    ),
)
