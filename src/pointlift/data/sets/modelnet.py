"""ModelNet40 `normal_resampled`: text files of 10,000 points with normals, or the caches that released codes make."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from pointlift.core.errors import DataError, DatasetNotFoundError, UsageError
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, checked_labels, label_of
from pointlift.data.files import read
from pointlift.data.sets.known import MODELNET40_CLASSES
from pointlift.data.sets.pickles import read_pickle
from pointlift.data.sets.places import checked_name, find_folder
from pointlift.data.small_files import read_lines
from pointlift.data.stores import NAMES_AND_SIZES, FileStore, ListStore

PLACES = ("modelnet40_normal_resampled", "ModelNet/modelnet40_normal_resampled")
COLUMNS = ("x", "y", "z", "nx", "ny", "nz")
PARTS = ("train", "test")
Source = Literal["auto", "cache", "text"]


def shape_list(folder: Path, part: str, num_category: int = 40) -> Path:
    """The official list of a part ("shape_names", "train", "test")."""
    return folder / f"modelnet{num_category}_{part}.txt"


def cache_path(folder: Path, part: str, points: int, num_category: int = 40) -> Path:
    """Where the released codes keep their cache of a part."""
    return folder / f"modelnet{num_category}_{part}_{points}pts_fps.dat"


def _caches(folder: Path, num_category: int) -> dict[int, set[str]]:
    """Points per cloud -> the parts for which there is such a cache."""
    found: dict[int, set[str]] = {}
    for path in folder.glob(f"modelnet{num_category}_*pts_fps.dat"):
        match = re.fullmatch(rf"modelnet{num_category}_(train|test)_(\d+)pts_fps\.dat", path.name)
        if match:
            found.setdefault(int(match[2]), set()).add(match[1])
    return found


def find(root: Path, num_category: int = 40) -> Path | None:
    """The folder below `root` with the lists or a cache."""
    return find_folder(
        root,
        PLACES,
        lambda f: shape_list(f, "shape_names", num_category).is_file() or bool(_caches(f, num_category)),
    )


def detect(root: Path) -> bool:
    """`modelnet40_shape_names.txt` or a cache lies in the folder or its customary place below."""
    return find(root) is not None


def load(
    root: Path,
    *,
    num_category: int = 40,
    source: Source = "auto",
    cache_points: int | None = None,
    up_axis: Axis | None = "y",
    unit: str | None = None,
) -> CloudDataset:
    """Open ModelNet40 in its `normal_resampled` edition; samples can carry `normals`.

    Args:
        root: The folder, or its customary parent.
        num_category: 10 for the ModelNet10 lists of the same folder.
        source: "cache" reads `modelnet40_*_8192pts_fps.dat`, "text" the raw files; "auto" the cache when it is there
            for both parts.
        cache_points: Which cache, by its points; the largest by default.
        up_axis: This edition is y-up.
        unit: Unit of the coordinates; they have none.

    Raises:
        DatasetNotFoundError: Lists, files or the cache are missing.
        DataError: A list or a cache that does not fit.
    """
    if num_category not in (10, 40):
        raise UsageError(f"num_category {num_category}", "40 or 10")
    if source not in ("auto", "cache", "text"):
        raise UsageError(f"source {source!r}", "auto, cache or text")
    folder = find(root, num_category)
    if folder is None:
        raise _missing(f"no modelnet{num_category} lists in {root.resolve()}")
    points = _chosen_cache(folder, num_category, source, cache_points)
    classes = _classes(folder, num_category)
    if points is not None:
        splits = {part: _cached(cache_path(folder, part, points, num_category), classes, points) for part in PARTS}
        note, variant = "", f"normal_resampled, cache of {points:,} points"
    else:
        splits = {part: text_split(folder, part, classes, num_category) for part in PARTS}
        note, variant = NAMES_AND_SIZES, "normal_resampled, text, 10,000 points"
    meta = DatasetMeta(f"modelnet{num_category}", variant, classes, up_axis, points or 10_000, unit, note)
    return CloudDataset(meta, splits["train"], splits["test"], root)


def _missing(given: str) -> DatasetNotFoundError:
    return DATASETS.get("modelnet40").missing(given)


def _chosen_cache(folder: Path, num_category: int, source: Source, points: int | None) -> int | None:
    if source == "text":
        return None
    caches = _caches(folder, num_category)
    whole = [n for n, parts in caches.items() if parts == set(PARTS) and points in (None, n)]
    if whole:
        return max(whole)
    if source == "cache" or points is not None or not shape_list(folder, "shape_names", num_category).is_file():
        names = [cache_path(folder, part, points or 8192, num_category).name for part in PARTS]
        raise _missing(f"not both of {' and '.join(names)} in {folder}")
    return None


def _classes(folder: Path, num_category: int) -> tuple[str, ...]:
    path = shape_list(folder, "shape_names", num_category)
    if not path.is_file():
        if num_category == 40:
            return MODELNET40_CLASSES
        raise _missing(f"no {path.name} in {folder}")
    return tuple(read_lines(path))


def _cached(path: Path, classes: tuple[str, ...], points: int) -> CloudSplit:
    clouds, labels = read_cache(path)
    wrong = next((i for i, cloud in enumerate(clouds) if len(cloud) != points), None)
    if wrong is not None:
        raise DataError(f"{path}: cloud {wrong} has {len(clouds[wrong])} points", f"{points}, as the file's name says")
    split = CloudSplit(ListStore(clouds, where=path), checked_labels(labels, classes, path))
    lines = path.with_name(re.sub(r"_\d+pts_fps\.dat$", ".txt", path.name))
    if not lines.is_file():
        return split
    names = read_lines(lines)
    if len(names) != len(clouds):
        raise DataError(f"{path} has {len(clouds)} clouds, {lines.name} {len(names)} names", "as many")
    return CloudSplit(split.store, split.labels, names)


def read_cache(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """The clouds (N, 6) or (N, 3), as views of the file, and the labels (n,) of a `.dat` cache.

    Raises:
        FileFormatError: Not a pickle of plain arrays.
        DataError: Not `[list of clouds, list of labels]`.
    """
    held = read_pickle(path)
    if not (isinstance(held, list | tuple) and len(held) == 2 and all(isinstance(part, list) for part in held)):
        raise DataError(f"{path} does not hold two lists", "[list of clouds, list of labels]")
    clouds, labels = held
    if len(clouds) != len(labels):
        raise DataError(f"{path}: {len(labels)} labels for {len(clouds)} clouds", "one label per cloud")
    wrong = next((i for i, cloud in enumerate(clouds) if not isinstance(cloud, np.ndarray)), None)
    if wrong is not None:
        raise DataError(f"{path}: cloud {wrong} is of type {type(clouds[wrong]).__name__}", "an array (N, 6)")
    numbers = [label_of(value) for value in labels]
    if None in numbers:
        wrong = numbers.index(None)
        given = f"{path}: label {wrong} of type {type(labels[wrong]).__name__}"
        raise DataError(given, "an integer below 2^31, or an array of one")
    return clouds, np.array(numbers, dtype=np.int64)


def text_split(
    folder: Path, part: str, classes: tuple[str, ...], num_category: int = 40, *, cache_bytes: int = 2 << 30
) -> CloudSplit:
    """One part from its list and the raw files, which are read when asked for and kept up to `cache_bytes`."""
    path = shape_list(folder, part, num_category)
    if not path.is_file():
        raise _missing(f"no {path.name} in {folder}")
    names = [checked_name(name, path) for name in read_lines(path)]
    of_class = [name.rpartition("_")[0] for name in names]
    unknown = next((i for i, kind in enumerate(of_class) if kind not in classes), None)
    if unknown is not None:
        raise DataError(
            f"{path}: {names[unknown]!r} on line {unknown + 1} is of no class of the list of names",
            "<class>_<number> with a class of shape_names.txt",
        )
    absent = sorted(kind for kind in set(of_class) if not (folder / kind).is_dir())
    if absent:
        raise _missing(f"no folder {absent[0]} in {folder}" + (f", nor {len(absent) - 1} others" if absent[1:] else ""))
    paths = [folder / kind / f"{name}.txt" for kind, name in zip(of_class, names, strict=True)]
    reader = partial(read, columns=COLUMNS)
    store = FileStore(paths, fields=("normals",), reader=reader, cache_bytes=cache_bytes, hash_bytes=False)
    index = {kind: i for i, kind in enumerate(classes)}
    return CloudSplit(store, np.array([index[kind] for kind in of_class], np.int64), names)


DATASETS.register(
    "modelnet40",
    DatasetEntry(
        title="ModelNet40, 10,000 points with normals (modelnet40_normal_resampled), raw or cached",
        layout="modelnet40_shape_names.txt, modelnet40_train.txt, modelnet40_test.txt; "
        "<class>/<class>_NNNN.txt with x,y,z,nx,ny,nz, or instead of them; modelnet40_train_8192pts_fps.dat and "
        "modelnet40_test_8192pts_fps.dat; the folder is modelnet40_normal_resampled, or what holds it",
        get="modelnet40_normal_resampled.zip from the PointNet++ authors (Stanford); unpack it. The .dat files come "
        "from the Point-BERT authors, or from `pointlift prepare modelnet-cache`",
        terms="ModelNet: academic research only; the CAD models belong to their authors",
        load=load,
        detect=detect,
        classes=MODELNET40_CLASSES,
        up_axis="y",
        official=True,
    ),
)
