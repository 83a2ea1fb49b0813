"""Class folders: one folder per class, one file per cloud, optionally under `train/`, `val/` and `test/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from pointlift.core.errors import DataError
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, common_size
from pointlift.data.files import FORMATS, ending_of, is_cloud_file, read
from pointlift.data.sets.known import name_for
from pointlift.data.sets.places import PARTS
from pointlift.data.stores import FileStore

IGNORED = {"__MACOSX", "__pycache__"}
# Per-point arrays that samples can carry when every file has them.
OFFERED = ("normals", "colors", "intensity", "part", "semantic", "instance")
# Files that belong to others: the labels of a scan, the materials of a mesh.
COMPANIONS = {".label", ".mtl"}
# Up to this many bytes of files are read when the set is opened, so that a bad file is found before training.
READ_AHEAD_BYTES = 2 << 30

Listing = dict[str, list[Path]]


def detect(root: Path) -> bool:
    """Some folder below holds readable files: `<class>/`, `train/<class>/` or `<class>/train/`.

    `train/` and `test/` with files directly in them are no classes.
    """
    classes = {name for listing in _listings(root).values() for name in listing}
    return bool(classes - {name for names in PARTS.values() for name in names})


def load(
    root: Path,
    *,
    mesh_points: int = 8192,
    mesh_seed: int = 0,
    up_axis: Axis | None = None,
    unit: str | None = None,
) -> CloudDataset:
    """Open class folders; the classes are the folder names in alphabetical order, formats may be mixed.

    Hidden files and files whose ending is not a point-cloud format are left out (the note counts the latter), and so
    are folders beside `train/` and `test/` that stand for no part (the note names them). Samples can carry `normals`,
    `colors`, … where every file has them; of sets above 2 GiB, the first file of each part tells.

    Args:
        root: The folder.
        mesh_points: Points drawn on the surface of each mesh (`.obj`, `.off`, `.stl`), once, when it is read.
        mesh_seed: Decides which points; the same on every machine.
        up_axis: The axis that points up.
        unit: Unit of the coordinates.

    Raises:
        FileFormatError: Files that cannot be read, named.
        DataError: A class folder without readable files, or a test class that train does not have.
    """
    listings = _listings(root)
    classes = tuple(sorted(listings["train"] or listings["test"]))
    for part in ("val", "test"):
        unknown = sorted(set(listings[part]) - set(classes))
        if unknown:
            raise DataError(
                f"{root}: {part} has a class {unknown[0]!r} that train does not have",
                f"the classes {', '.join(classes[:8])}",
                "Rename or remove the folder",
            )
    splits = {
        part: _split(root, listing, classes, mesh_points, mesh_seed) for part, listing in listings.items() if listing
    }
    native = common_size(*splits.values())
    meta = DatasetMeta(
        name=name_for(classes, root.resolve().name),
        variant=f"class folders, {native or 'differing numbers of'} points",
        classes=classes,
        up_axis=up_axis,
        native_points=native,
        unit=unit,
        note=left_out(root, _beside_parts(root)),
    )
    empty = CloudSplit(FileStore([]), np.empty(0, np.int64), ())
    return CloudDataset(meta, splits.get("train", empty), splits.get("test"), root, splits.get("val"))


def class_of_files(root: Path) -> dict[str, dict[Path, str]]:
    """`{"train": {file: class}, "val": …, "test": …}` of class folders, without reading a file."""
    return {
        part: {path: name for name, paths in listing.items() for path in paths}
        for part, listing in _listings(root).items()
    }


def _split(root: Path, listing: Listing, classes: tuple[str, ...], mesh_points: int, mesh_seed: int) -> CloudSplit:
    paths = [p for name in classes for p in listing.get(name, [])]
    labels = [i for i, name in enumerate(classes) for _ in listing.get(name, [])]
    store = opened(paths, mesh_points, mesh_seed)
    return CloudSplit(store, np.array(labels, np.int64), [p.relative_to(root).as_posix() for p in paths])


def opened(paths: list[Path], mesh_points: int, mesh_seed: int) -> FileStore:
    """A store of files of any format, all read now unless they are too large together."""
    usual = (mesh_points, mesh_seed) == (8192, 0)
    store = FileStore(
        paths,
        offered=OFFERED,
        reader=partial(read, points=mesh_points, seed=mesh_seed),
        sampling="" if usual else f"{mesh_points} points on meshes, seed {mesh_seed}",
    )
    if sum(path.stat().st_size for path in paths) <= READ_AHEAD_BYTES:
        store.read_all()
    else:
        store.read_first()
    return store


def _folders(root: Path) -> list[Path]:
    return sorted(
        (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in IGNORED),
        key=lambda p: p.name,
    )


def _listings(root: Path) -> dict[str, Listing]:
    """`{"train": {class: files}, "val": …, "test": …}` for whichever arrangement is there."""
    parted = _parted(root)
    if root in parted:
        above = parted[root]
        return {part: _classes(above[part]) if part in above else {} for part in PARTS}
    if parted:
        named = {path.name: parts for path, parts in parted.items()}
        return {part: {name: _clouds(parts[part]) for name, parts in named.items() if part in parts} for part in PARTS}
    return {"train": _classes(root), "val": {}, "test": {}}


def _parted(root: Path) -> dict[Path, dict[str, Path]]:
    """Which folders are divided into parts, and into which: the root, else all classes, else none."""
    above = part_folders(root)
    if any(_folders(above[part]) for part in ("train", "test") if part in above):
        return {root: above}
    nested = {path: part_folders(path) for path in _folders(root)}
    return nested if all("train" in parts for parts in nested.values()) else {}


def _beside_parts(root: Path) -> list[Path]:
    """Folders that lie beside those of the parts and stand for none."""
    return [path for folder, parts in _parted(root).items() for path in beside(folder, parts.values())]


def beside(folder: Path, read: Iterable[Path]) -> list[Path]:
    """The folders in `folder` other than those that are read."""
    return sorted(set(_folders(folder)) - set(read))


def part_folders(folder: Path) -> dict[str, Path]:
    """The folders below that stand for a part."""
    below = {path.name: path for path in _folders(folder)}
    found = {}
    for part, names in PARTS.items():
        spelt = [name for name in names if name in below]
        if len(spelt) > 1:
            raise DataError(
                f"{folder} has {spelt[0]}/ and {spelt[1]}/", f"one folder for {part}", "Join or rename them"
            )
        if spelt:
            found[part] = below[spelt[0]]
    return found


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


def left_out(root: Path, unread: list[Path]) -> str:
    """What is not read: how many visible files below are of endings that we do not know, and which folders."""
    known = COMPANIONS | set(FORMATS)
    others = Counter(
        p.suffix.lower() or "(none)"
        for p in root.glob("*/**/*")
        if not {ending_of(p), p.suffix.lower()} & known and not p.name.startswith(".") and p.is_file()
    )
    shown = ", ".join(f"{n} x {ending}" for ending, n in others.most_common(4))
    notes = [f"{sum(others.values())} file(s) left out for their ending ({shown})"] if others else []
    if unread:
        names = ", ".join(f"{path.relative_to(root).as_posix()}/" for path in unread[:4])
        notes.append(f"{len(unread)} folder(s) left out ({names}{', …' if len(unread) > 4 else ''})")
    return "; ".join(notes)


DATASETS.register(
    "class_folders",
    DatasetEntry(
        title="your own clouds: one folder per class, one file per cloud",
        layout="<class>/<cloud>.ply, or train/<class>/<cloud>.ply and test/<class>/<cloud>.ply (and val/), or "
        "<class>/train/<cloud>.ply and <class>/test/<cloud>.ply; formats may be mixed, meshes are sampled",
        get="put your files into folders named after their classes",
        terms="yours",
        load=load,
        detect=detect,
    ),
)
