"""Class folders: one folder per class, one file per cloud, optionally under `train/` and `test/`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from pointlift.core.errors import DataError
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.files import FORMATS, is_cloud_file
from pointlift.data.sets.known import name_for
from pointlift.data.stores import FileStore

IGNORED = {"__MACOSX", "__pycache__"}
PARTS = ("train", "test")
# Up to this many bytes of files are read when the set is opened, so that a bad file is found before training.
READ_AHEAD_BYTES = 2 << 30

Listing = dict[str, list[Path]]


def detect(root: Path) -> bool:
    """Some folder below holds readable files: `<class>/`, `train/<class>/` or `<class>/train/`."""
    return any(listing for listing in _listings(root).values())


def load(root: Path, *, up_axis: Axis | None = None, unit: str | None = None) -> CloudDataset:
    """Open class folders; the classes are the folder names in alphabetical order, formats may be mixed.

    Hidden files and files whose ending is not a point-cloud format are left out (the note counts the latter).

    Raises:
        FileFormatError: Files that cannot be read, named.
        DataError: A class folder without readable files, or a test class that train does not have.
    """
    listings = _listings(root)
    train, test = listings["train"], listings["test"]
    classes = tuple(sorted(train or test))
    unknown = sorted(set(test) - set(classes))
    if unknown:
        raise DataError(
            f"{root}: test has a class {unknown[0]!r} that train does not have",
            f"the classes {', '.join(classes[:8])}",
            "Rename or remove the folder",
        )  # fmt: skip
    splits = {part: _split(root, listing, classes) for part, listing in listings.items() if listing}
    counts = [split.counts() for split in splits.values()]
    sizes = {int(n) for c in counts if c is not None for n in np.unique(c)}
    native = sizes.pop() if len(sizes) == 1 and all(c is not None for c in counts) else None
    meta = DatasetMeta(
        name=name_for(classes, root.resolve().name),
        variant=f"class folders, {native or 'differing numbers of'} points",
        classes=classes,
        up_axis=up_axis,
        native_points=native,
        unit=unit,
        note=_left_out(root),
    )
    empty = CloudSplit(FileStore([]), np.empty(0, np.int64), ())
    return CloudDataset(meta, splits.get("train", empty), splits.get("test"), root)


def _split(root: Path, listing: Listing, classes: tuple[str, ...]) -> CloudSplit:
    paths = [p for name in classes for p in listing.get(name, [])]
    labels = [i for i, name in enumerate(classes) for _ in listing.get(name, [])]
    store = FileStore(paths)
    if sum(p.stat().st_size for p in paths) <= READ_AHEAD_BYTES:
        store.read_all()
    return CloudSplit(store, np.array(labels, np.int64), [p.relative_to(root).as_posix() for p in paths])


def _folders(root: Path) -> list[Path]:
    return sorted(
        (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in IGNORED),
        key=lambda p: p.name,
    )


def _listings(root: Path) -> dict[str, Listing]:
    """`{"train": {class: files}, "test": {class: files}}` for whichever arrangement is there."""
    folders = {p.name: p for p in _folders(root)}
    if any(_folders(folders[part]) for part in PARTS if part in folders):
        return {part: _classes(folders[part]) if part in folders else {} for part in PARTS}
    nested = {name: {p.name: p for p in _folders(path)} for name, path in folders.items()}
    if nested and all("train" in below for below in nested.values()):
        return {part: {name: _clouds(below[part]) for name, below in nested.items() if part in below} for part in PARTS}
    return {"train": _classes(root), "test": {}}


def _classes(folder: Path) -> Listing:
    """Files by class; none at all when no folder has any, an error when only some do."""
    listing = {p.name: sorted(f for f in p.iterdir() if is_cloud_file(f)) for p in _folders(folder)}
    if not any(listing.values()):
        return {}
    for name in listing:
        if not listing[name]:
            _clouds(folder / name)
    return listing


def _clouds(folder: Path) -> list[Path]:
    files = sorted(f for f in folder.iterdir() if is_cloud_file(f))
    if not files:
        endings = Counter(p.suffix.lower() or "(none)" for p in folder.iterdir() if not p.name.startswith("."))
        there = ", ".join(f"{n} x {ending}" for ending, n in endings.most_common(4)) or "nothing"
        raise DataError(
            f"class folder {folder} has no readable file ({there})", f"files ending in {' '.join(FORMATS)}",
            "Fill or remove the folder",
        )  # fmt: skip
    return files


def _left_out(root: Path) -> str:
    """How many visible files below class folders have an ending that we do not read."""
    others = Counter(
        p.suffix.lower() or "(none)"
        for p in root.glob("*/**/*")
        if p.is_file() and p.suffix.lower() not in FORMATS and not p.name.startswith(".")
    )
    shown = ", ".join(f"{n} x {ending}" for ending, n in others.most_common(4))
    return f"{sum(others.values())} file(s) left out for their ending ({shown})" if others else ""


DATASETS.register(
    "class_folders",
    DatasetEntry(
        title="your own clouds: one folder per class, one file per cloud",
        layout="<class>/<cloud>.ply, or train/<class>/<cloud>.ply and test/<class>/<cloud>.ply, or "
        "<class>/train/<cloud>.ply and <class>/test/<cloud>.ply; formats may be mixed",
        get="put your files into folders named after their classes",
        terms="yours",
        load=load,
        detect=detect,
    ),
)
