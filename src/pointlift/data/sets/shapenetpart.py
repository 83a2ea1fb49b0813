"""ShapeNetPart with normals: a text file per shape with a part per point, JSON lists of the parts of the set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pointlift.core.errors import DataError
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.cloud import PointCloud
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, joined
from pointlift.data.files import read
from pointlift.data.sets.known import SHAPENETPART_PARTS, SHAPENETPART_PARTS_OF
from pointlift.data.sets.places import checked_name, find_folder
from pointlift.data.small_files import read_json, read_lines
from pointlift.data.stores import NAMES_AND_SIZES, FileStore

FOLDER = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
CATEGORIES = "synsetoffset2category.txt"
COLUMNS = ("x", "y", "z", "nx", "ny", "nz", "part")


def _find(root: Path) -> Path | None:
    return find_folder(root, (FOLDER,), lambda folder: (folder / CATEGORIES).is_file())


def detect(root: Path) -> bool:
    """`synsetoffset2category.txt` lies in the folder or in its customary place below."""
    return _find(root) is not None


def load(root: Path, *, trainval: bool = False, up_axis: Axis | None = None, unit: str | None = None) -> CloudDataset:
    """Open ShapeNetPart; samples carry `part` (0 to 49 over all categories) and can carry `normals`.

    The label of a shape is its category, in the order of `synsetoffset2category.txt`.

    Args:
        root: The folder, or what holds it.
        trainval: Train on the train and validation lists together, as is customary; there is no validation part then.
        up_axis: The axis that points up; the files do not say.
        unit: Unit of the coordinates; they have none.

    Raises:
        DatasetNotFoundError: The list of categories, a list of shapes or files of shapes are missing.
        DataError: A list that names what is not there, or a file with parts outside 0 to 49.
    """
    folder = _find(root)
    if folder is None:
        raise DATASETS.get("shapenetpart").missing(f"no ShapeNetPart in {root.resolve()}")
    synsets = _categories(folder / CATEGORIES)
    splits = {part: _split(folder, part, synsets) for part in ("train", "val", "test")}
    train, val = (joined([splits["train"], splits["val"]]), None) if trainval else (splits["train"], splits["val"])
    known = all(name in SHAPENETPART_PARTS_OF for name in synsets.values())
    meta = DatasetMeta(
        name="shapenetpart",
        variant="normal, train and validation lists" if trainval else "normal",
        classes=tuple(synsets.values()),
        up_axis=up_axis,
        native_points=None,
        unit=unit,
        note=NAMES_AND_SIZES,
        point_classes=SHAPENETPART_PARTS if known else (),
        parts_of={name: SHAPENETPART_PARTS_OF[name] for name in synsets.values()} if known else None,
    )
    return CloudDataset(meta, train, splits["test"], root, val)


def _categories(path: Path) -> dict[str, str]:
    """Synset number -> name, in the order of the file."""
    rows = [line.split() for line in read_lines(path)]
    wrong = next((i for i, row in enumerate(rows) if len(row) != 2), None)
    if wrong is not None or not rows:
        raise DataError(f"{path}, line {(wrong or 0) + 1}", "<name> <synset> on every line")
    return {checked_name(synset, path): name for name, synset in rows}


def _split(folder: Path, part: str, synsets: dict[str, str]) -> CloudSplit:
    path = folder / "train_test_split" / f"shuffled_{part}_file_list.json"
    shapes = _listed(path, synsets)
    held = {s: set(os.listdir(folder / s)) for s in {s for s, _ in shapes} if (folder / s).is_dir()}
    absent = [f"{s}/{name}.txt" for s, name in shapes if f"{name}.txt" not in held.get(s, ())]
    if absent:
        raise DATASETS.get("shapenetpart").missing(
            f"{len(absent)} of {len(shapes)} files of {path.name} are not in {folder}, the first is {absent[0]}"
        )
    index = {synset: i for i, synset in enumerate(synsets)}
    store = FileStore(
        [folder / s / f"{name}.txt" for s, name in shapes],
        fields=("part", "normals"), reader=_read_shape, hash_bytes=False,
    )  # fmt: skip
    labels = np.array([index[s] for s, _ in shapes], np.int64)
    return CloudSplit(store, labels, [f"{s}/{name}" for s, name in shapes], fields=("part",))


def _listed(path: Path, synsets: dict[str, str]) -> list[tuple[str, str]]:
    """(synset, name of the shape) for every entry `shape_data/<synset>/<name>` of a list."""
    if not path.is_file():
        raise DATASETS.get("shapenetpart").missing(f"no list {path}")
    shapes = []
    for entry in read_json(path, list, "a list of shape_data/<synset>/<name>"):
        pieces = entry.split("/") if isinstance(entry, str) else []
        if len(pieces) != 3 or pieces[1] not in synsets or pieces[2] in ("", ".", "..") or "\\" in pieces[2]:
            raise DataError(f"{path} names {str(entry)[:80]!r}", f"shape_data/<synset of {CATEGORIES}>/<name>")
        shapes.append((pieces[1], pieces[2]))
    return shapes


def _read_shape(path: Path) -> PointCloud:
    cloud = read(path, columns=COLUMNS)
    part = cloud.feats["part"]
    if part.dtype.kind not in "iu" or int(part.min()) < 0 or int(part.max()) >= len(SHAPENETPART_PARTS):
        raise DataError(f"{path}: parts of type {part.dtype} from {part.min()} to {part.max()}",
                        f"whole numbers from 0 to {len(SHAPENETPART_PARTS) - 1} in the last column")  # fmt: skip
    return cloud


DATASETS.register(
    "shapenetpart",
    DatasetEntry(
        title="ShapeNetPart with normals: 16 categories, 50 parts",
        layout="synsetoffset2category.txt with <name> <synset> on every line; "
        "train_test_split/shuffled_train_file_list.json, …_val_…, …_test_…; "
        f"<synset>/<shape>.txt with x y z nx ny nz part; the folder is {FOLDER}, or what holds it",
        get=f"{FOLDER}.zip from Stanford (the link is dead for many; mirrors exist); unpack it",
        terms="ShapeNet: non-commercial research and education",
        load=load,
        detect=detect,
        official=True,
    ),
)
