"""Scans in SemanticKITTI's folders: `sequences/SS/velodyne/NNNNNN.bin`, with `labels/NNNNNN.label` where there are."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.sets.places import find_folder
from pointlift.data.stores import NAMES_AND_SIZES, FileStore

VALIDATION = ("08",)
FIRST_TEST = 11


def _sequences(folder: Path) -> list[Path]:
    """`SS` folders with scans, in order."""
    above = folder / "sequences"
    if not above.is_dir():
        return []
    return sorted(p for p in above.iterdir() if re.fullmatch(r"\d\d", p.name) and (p / "velodyne").is_dir())


def _find(root: Path) -> Path | None:
    start = root.resolve().parent if root.resolve().name == "sequences" else root
    return find_folder(start, ("dataset",), lambda folder: bool(_sequences(folder)))


def detect(root: Path) -> bool:
    """`sequences/00/velodyne` or the like lies in the folder, or in `dataset` below."""
    return _find(root) is not None


def load(root: Path, *, up_axis: Axis | None = "z", unit: str | None = "m") -> CloudDataset:
    """Open scans as scenes: train 00 to 07, 09 and 10, validation 08, test from 11 on, whichever are there.

    Scenes have no label; samples carry `semantic` and `instance` in parts all of whose scans are labelled, and can
    carry `intensity`. `semantic` is the number in the files (40 is road), not an index of training classes. Returns
    that a sensor did not get, stored as (0, 0, 0), stay. The content hash covers names and sizes of scans and labels
    instead of their bytes, which are some 90 GB.

    Args:
        root: The folder of `sequences`, what holds it, or `sequences` itself.
        up_axis: The axis that points up.
        unit: Unit of the coordinates.
    """
    folder = _find(root)
    if folder is None:
        raise DATASETS.get("kitti_sequences").missing(f"no sequences in {root.resolve()}")
    parts: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for sequence in _sequences(folder):
        part = "val" if sequence.name in VALIDATION else "test" if int(sequence.name) >= FIRST_TEST else "train"
        parts[part].append(sequence)
    splits = {part: _split(folder, sequences) for part, sequences in parts.items() if sequences or part == "train"}
    meta = DatasetMeta(
        name=folder.resolve().name,
        variant="SemanticKITTI folders",
        classes=(),
        up_axis=up_axis,
        native_points=None,
        unit=unit,
        note=f"semantic holds the label numbers of the files; {NAMES_AND_SIZES}",
    )
    return CloudDataset(meta, splits["train"], splits.get("test"), root, splits.get("val"))


def _split(folder: Path, sequences: list[Path]) -> CloudSplit:
    scans, labelled = [], True
    for sequence in sequences:
        names = sorted(name for name in os.listdir(sequence / "velodyne") if name.endswith(".bin"))
        labels = set(os.listdir(sequence / "labels")) if (sequence / "labels").is_dir() else set()
        labelled &= all(f"{name.removesuffix('.bin')}.label" in labels for name in names)
        scans += [sequence / "velodyne" / name for name in names]
    carried = ("semantic", "instance") if labelled and scans else ()
    store = FileStore(scans, fields=("intensity", *carried), hash_bytes=False)
    names = [f"{path.parent.parent.name}/{path.stem}" for path in scans]
    return CloudSplit(store, None, names, fields=carried)


DATASETS.register(
    "kitti_sequences",
    DatasetEntry(
        title="LiDAR scans in SemanticKITTI's folders",
        layout="sequences/SS/velodyne/NNNNNN.bin with float32 x y z intensity; sequences/SS/labels/NNNNNN.label; "
        "the folder is that of sequences, or what holds it (dataset)",
        get="velodyne and labels archives from the KITTI odometry and SemanticKITTI pages; unpack them into one folder",
        terms="KITTI and SemanticKITTI: CC BY-NC-SA",
        load=load,
        detect=detect,
        up_axis="z",
        official=True,
    ),
)
