"""ShapeNet-55: one file per model and two lists; for pre-training, with the taxonomy number as class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointlift.core.errors import DataError
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta
from pointlift.data.sets.places import checked_name, find_folder
from pointlift.data.small_files import read_json, read_lines
from pointlift.data.stores import NAMES_AND_SIZES, FileStore

# The second spelling is that of Point-BERT's documentation for the same lists.
LISTS = ("ShapeNet-55", "ShapeNet-35")
CLOUDS = "shapenet_pc"
PLACES = ("ShapeNet55-34", "ShapeNet55")
NAMES = "shapenet_synset_dict.json"


def _lists(folder: Path) -> Path | None:
    return next((folder / name for name in LISTS if (folder / name / "train.txt").is_file()), None)


def _find(root: Path) -> Path | None:
    start = root.resolve().parent if root.resolve().name in (*LISTS, CLOUDS) else root
    return find_folder(start, PLACES, lambda folder: _lists(folder) is not None)


def detect(root: Path) -> bool:
    """`ShapeNet-55/train.txt` lies in the folder, or in `ShapeNet55-34` below."""
    return _find(root) is not None


def load(root: Path, *, whole: bool = False, up_axis: Axis | None = None, unit: str | None = None) -> CloudDataset:
    """Open ShapeNet-55. Nothing but the lists is read before a cloud is asked for.

    Clouds of any number of points are taken; the files of the authors have 8,192. The content hash covers the lists and
    the sizes of the files instead of their 5 GB.

    Args:
        root: `ShapeNet55-34`, or what holds it.
        whole: Train on the test list and the train list together, as Point-BERT and ACT do; there is no test part then.
        up_axis: The axis that points up; the files do not say.
        unit: Unit of the coordinates; they have none.

    Raises:
        DatasetNotFoundError: A list or the folder of clouds is missing.
        DataError: A list that names something else than clouds.
    """
    folder = _find(root)
    lists = None if folder is None else _lists(folder)
    if folder is None or lists is None:
        raise DATASETS.get("shapenet55").missing(f"no ShapeNet-55 in {root.resolve()}")
    clouds = folder / CLOUDS
    if not clouds.is_dir():
        raise DATASETS.get("shapenet55").missing(f"no folder {clouds}")
    train = _listed(lists / "train.txt")
    test = _listed(lists / "test.txt") if (lists / "test.txt").is_file() else []
    if whole and not test:
        raise DATASETS.get("shapenet55").missing(f"no list {lists / 'test.txt'}, which `whole` needs")
    synsets = sorted({_synset(name) for name in (*train, *test)})
    parts = {"train": test + train, "test": []} if whole else {"train": train, "test": test}
    splits = {part: _split(clouds, names, synsets) for part, names in parts.items() if names or part == "train"}
    meta = DatasetMeta(
        name="shapenet55",
        variant="train and test lists" if whole else "train list",
        classes=_names(folder, synsets),
        up_axis=up_axis,
        native_points=None,
        unit=unit,
        note=NAMES_AND_SIZES,
    )
    return CloudDataset(meta, splits["train"], splits.get("test"), root)


def _listed(path: Path) -> list[str]:
    names = [checked_name(name, path) for name in read_lines(path)]
    wrong = next((i for i, name in enumerate(names) if "-" not in name), None)
    if wrong is not None:
        raise DataError(f"{path}: {names[wrong]!r} on line {wrong + 1}", "<synset>-<model>.npy on every line")
    return names


def _synset(name: str) -> str:
    return name.split("-", 1)[0]


def _split(clouds: Path, names: list[str], synsets: list[str]) -> CloudSplit:
    index = {synset: i for i, synset in enumerate(synsets)}
    store = FileStore([clouds / name for name in names], hash_bytes=False)
    return CloudSplit(
        store, np.array([index[_synset(n)] for n in names], np.int64), [n.rpartition(".")[0] for n in names]
    )


def _names(folder: Path, synsets: list[str]) -> tuple[str, ...]:
    """Names of the synsets from `shapenet_synset_dict.json` beside the set, else their numbers."""
    path = next((p for p in (folder / NAMES, folder.parent / NAMES) if p.is_file()), None)
    if path is None:
        return tuple(synsets)
    names = read_json(path, dict, "a dict of synset numbers and names")
    found = tuple(str(names.get(synset, synset)) for synset in synsets)
    return found if len(set(found)) == len(found) else tuple(synsets)


DATASETS.register(
    "shapenet55",
    DatasetEntry(
        title="ShapeNet-55, 8,192 points, for pre-training",
        layout="ShapeNet-55/train.txt and test.txt with <synset>-<model>.npy on every line; "
        "shapenet_pc/<synset>-<model>.npy; optional shapenet_synset_dict.json with names; "
        "the folder is ShapeNet55-34, or what holds it",
        get="ShapeNet55-34 from the PoinTr and Point-BERT authors; unpack it",
        terms="ShapeNet: non-commercial research and education, after registration",
        load=load,
        detect=detect,
        official=True,
    ),
)
