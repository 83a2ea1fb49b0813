"""Clouds or scenes without a label per cloud: one file each, in one folder or under `train/`, `val/`, `test/`."""

from __future__ import annotations

from pathlib import Path

from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, common_size
from pointlift.data.files import is_cloud_file
from pointlift.data.sets.class_folders import beside, left_out, opened, part_folders
from pointlift.data.stores import FileStore

POINT_LABELS = ("semantic", "instance", "part")


def _listings(root: Path) -> dict[str, list[Path]]:
    """Files by part: those of the folder itself, else those directly under `train/`, `val/`, `test/`."""
    own = _files(root)
    parts = {"train": own} if own else {part: _files(folder) for part, folder in part_folders(root).items()}
    return {part: files for part, files in parts.items() if files}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_cloud_file(path))


def detect(root: Path) -> bool:
    """Readable files lie in the folder itself, or directly under `train/` or `test/`."""
    return bool(_listings(root))


def load(
    root: Path,
    *,
    mesh_points: int = 8192,
    mesh_seed: int = 0,
    up_axis: Axis | None = None,
    unit: str | None = None,
) -> CloudDataset:
    """Open files as clouds without labels; samples carry `semantic`, `instance`, `part` where every file has them.

    Of sets above 2 GiB, the first file of each part tells which it has. The note names folders that are not read.

    Args:
        root: The folder.
        mesh_points: Points drawn on the surface of each mesh.
        mesh_seed: Decides which points.
        up_axis: The axis that points up.
        unit: Unit of the coordinates.

    Raises:
        DatasetNotFoundError: No readable files there.
        FileFormatError: Files that cannot be read, named.
    """
    listings = _listings(root)
    if not listings:
        raise DATASETS.get("cloud_files").missing(f"no readable files in {root}")
    read = [path for paths in listings.values() for path in paths]
    splits: dict[str, CloudSplit] = {}
    for part, paths in listings.items():
        store = opened(paths, mesh_points, mesh_seed)
        names = [path.relative_to(root).as_posix() for path in paths]
        splits[part] = CloudSplit(store, None, names, fields=[name for name in POINT_LABELS if name in store.fields])
    native = common_size(*splits.values())
    meta = DatasetMeta(
        name=root.resolve().name,
        variant=f"files, {native or 'differing numbers of'} points",
        classes=(),
        up_axis=up_axis,
        native_points=native,
        unit=unit,
        note=left_out(root, beside(root, (root / path.relative_to(root).parts[0] for path in read))),
    )
    empty = CloudSplit(FileStore([]), None, ())
    return CloudDataset(meta, splits.get("train", empty), splits.get("test"), root, splits.get("val"))


DATASETS.register(
    "cloud_files",
    DatasetEntry(
        title="your own clouds or scenes without class folders: one file each",
        layout="<cloud>.ply, or train/<cloud>.ply and test/<cloud>.ply (and val/); labels of points (`semantic`, "
        "`instance`) come from the files; formats may be mixed, meshes are sampled",
        get="put your files into one folder",
        terms="yours",
        load=load,
        detect=detect,
    ),
)
