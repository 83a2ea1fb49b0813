"""HDF5 files with `data` and `label`: `modelnet40_ply_hdf5_2048`, and every set in the same layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointlift.core.errors import DataError, first_few
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, checked_labels
from pointlift.data.formats.hdf5 import read_arrays
from pointlift.data.sets.known import MODELNET40_CLASSES, name_for
from pointlift.data.sets.places import find_folder, parts_named
from pointlift.data.small_files import read_lines
from pointlift.data.stores import ArrayStore, ConcatStore

CLASS_FILES = ("shape_names.txt", "classes.txt")
OFFICIAL = "ply_data_"
PLACES = ("modelnet40_ply_hdf5_2048",)


def _files(root: Path) -> dict[Path, list[str]]:
    """Files with the parts that their names name, sorted: not, as in the original loaders, as the file system lists."""
    files = sorted(p for p in root.glob("*.h5") if not p.name.startswith("."))
    return {path: parts_named(path.stem) for path in files}


def detect(root: Path) -> bool:
    """A `.h5` with the word train or test in its name lies in the folder, or in `modelnet40_ply_hdf5_2048` below."""
    return _find(root) is not None


def _find(root: Path) -> Path | None:
    def holds(folder: Path) -> bool:
        return any({"train", "test"} & set(parts) for parts in _files(folder).values())

    return find_folder(root, PLACES, holds)


def load(root: Path, *, up_axis: Axis | None = None, unit: str | None = None) -> CloudDataset:
    """Open a folder of HDF5 files with `data` (n, N, 3) and `label` (n,) or (n, 1).

    The words train, val and test in the name of a file say of which part it is; files without are left out, and the
    note names them. Class names come from `shape_names.txt` or `classes.txt`; files called `ply_data_*` are ModelNet40.

    Raises:
        DataError: A file whose name names two parts, or that does not hold what it should.
    """
    folder = _find(root)
    if folder is None:
        raise DATASETS.get("modelnet40_hdf5").missing(f"no .h5 file called train or test in {root}")
    files = _files(folder)
    torn = next((path for path, parts in files.items() if len(parts) > 1), None)
    if torn is not None:
        named = " and ".join(files[torn])
        raise DataError(f"{torn}: its name says {named}", "one part per file", "Rename the file, or move it away")
    train, val, test = ([_open(p) for p, parts in files.items() if part in parts] for part in ("train", "val", "test"))
    everything = train + val + test
    official = everything[0][0].name.startswith(OFFICIAL)
    classes = _classes(folder, everything, official)
    for path, _, label in everything:
        checked_labels(label, classes, path)
    sizes = {store.array.shape[1] for _, store, _ in everything}
    native = sizes.pop() if len(sizes) == 1 else None
    name = name_for(classes, folder.resolve().name)
    if up_axis is None and name == "modelnet40" and official:
        up_axis = "y"  # this edition is turned: the CAD models are z-up
    unread = [path.name for path, parts in files.items() if not parts]
    note = f"{len(unread)} file(s) of no part left out ({first_few(unread, 4)})" if unread else ""
    meta = DatasetMeta(name, f"hdf5, {native or 'differing numbers of'} points", classes, up_axis, native, unit, note)
    return CloudDataset(meta, _split(train), _split(test) if test else None, root, _split(val) if val else None)


def _open(path: Path) -> tuple[Path, ArrayStore, np.ndarray]:
    arrays = read_arrays(path, ("data", "label"))
    store, label = ArrayStore(arrays["data"], where=path), arrays["label"]
    if label.size != len(store):
        raise DataError(f"{path}: {label.size} labels for {len(store)} clouds", "one label per cloud")
    return path, store, label.reshape(-1)


def _split(parts: list[tuple[Path, ArrayStore, np.ndarray]]) -> CloudSplit:
    if not parts:
        none = np.empty(0, np.int64)
        return CloudSplit(ArrayStore(np.empty((0, 1, 3), np.float32)), none, ())
    names = [f"{path.stem}/{i}" for path, store, _ in parts for i in range(len(store))]
    return CloudSplit(ConcatStore([s for _, s, _ in parts]), np.concatenate([lab for _, _, lab in parts]), names)


def _classes(root: Path, parts: list[tuple[Path, ArrayStore, np.ndarray]], official: bool) -> tuple[str, ...]:
    for name in CLASS_FILES:
        if (root / name).is_file():
            return tuple(read_lines(root / name))
    if official:
        return MODELNET40_CLASSES
    labels = np.concatenate([label for _, _, label in parts])
    top = int(labels.max()) + 1 if labels.size and labels.dtype.kind in "iu" else 0
    return tuple(str(i) for i in range(min(top, labels.size)))


DATASETS.register(
    "modelnet40_hdf5",
    DatasetEntry(
        title="ModelNet40, 2,048 points (modelnet40_ply_hdf5_2048), and other sets in its HDF5 layout",
        layout="ply_data_train*.h5, ply_data_test*.h5 (any *.h5 with the word train, test or val in its name) with "
        "`data` (n, N, 3) and `label` (n,); optional shape_names.txt or classes.txt, one class a line",
        get="modelnet40_ply_hdf5_2048.zip from the PointNet authors (Stanford); unpack it",
        terms="ModelNet: academic research only; the CAD models belong to their authors",
        load=load,
        detect=detect,
        classes=MODELNET40_CLASSES,
        up_axis="y",
        native_points=2048,
    ),
)
