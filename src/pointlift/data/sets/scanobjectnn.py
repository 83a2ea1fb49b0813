"""ScanObjectNN: OBJ_BG, OBJ_ONLY and PB_T50_RS, from the authors' HDF5 files."""

from __future__ import annotations

from pathlib import Path

from pointlift.core.errors import DataError, UsageError, unknown_name
from pointlift.data.catalog import DATASETS, DatasetEntry
from pointlift.data.config import Axis
from pointlift.data.dataset import CloudDataset, CloudSplit, DatasetMeta, checked_labels, common_size
from pointlift.data.formats.hdf5 import read_arrays
from pointlift.data.sets.places import find_folder
from pointlift.data.stores import ArrayStore

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door",
    "shelf", "table", "bed", "pillow", "sink", "sofa", "toilet",
)  # fmt: skip
# Edition -> folder and what the file names end in.
VARIANTS = {
    "OBJ_BG": ("main_split", "objectdataset.h5"),
    "OBJ_ONLY": ("main_split_nobg", "objectdataset.h5"),
    "PB_T50_RS": ("main_split", "objectdataset_augmentedrot_scale75.h5"),
}
ALIASES = {"OBJ": "OBJ_ONLY", "PB": "PB_T50_RS", "HARDEST": "PB_T50_RS", "SCANOBJECTNN_HARDEST": "PB_T50_RS"}
PLACES = ("h5_files", "ScanObjectNN", "ScanObjectNN/h5_files")
FOLDERS = ("main_split", "main_split_nobg")


def _find(root: Path) -> Path | None:
    """The folder that holds `main_split` or `main_split_nobg`; `root` may be one of these two."""
    if root.resolve().name in FOLDERS and _there(root.resolve().parent):
        return root.resolve().parent
    return find_folder(root, PLACES, lambda folder: bool(_there(folder)))


def _files(folder: Path, variant: str) -> tuple[Path, Path]:
    place, ending = VARIANTS[variant]
    return folder / place / f"training_{ending}", folder / place / f"test_{ending}"


def _there(folder: Path) -> list[str]:
    return [name for name in VARIANTS if any(path.is_file() for path in _files(folder, name))]


def detect(root: Path) -> bool:
    """Files of some edition lie in `main_split` or `main_split_nobg`, here or in the customary place below."""
    return _find(root) is not None


def load(
    root: Path, *, variant: str | None = None, up_axis: Axis | None = None, unit: str | None = None
) -> CloudDataset:
    """Open one edition of ScanObjectNN; samples can carry `mask` where the files have it.

    Args:
        root: The folder of `main_split`, what holds it, or `main_split` itself.
        variant: OBJ_BG, OBJ_ONLY or PB_T50_RS (also OBJ-BG, OBJ, PB, hardest); may be omitted when one is there.
        up_axis: The axis that points up; the files do not say.
        unit: Unit of the coordinates; the files do not say.

    Raises:
        UsageError: Several editions are there and none was asked for, or an unknown one was.
        DatasetNotFoundError: A file is missing.
        DataError: A file that does not hold what it should.
    """
    folder = _find(root)
    if folder is None:
        raise DATASETS.get("scanobjectnn").missing(f"no ScanObjectNN in {root.resolve()}")
    chosen = _chosen(variant, folder, root)
    missing = [path for path in _files(folder, chosen) if not path.is_file()]
    if missing:
        raise DATASETS.get("scanobjectnn").missing(f"no file {missing[0]}")
    train, test = (_split(path) for path in _files(folder, chosen))
    meta = DatasetMeta("scanobjectnn", chosen, CLASSES, up_axis, common_size(train, test), unit)
    return CloudDataset(meta, train, test, root)


def _chosen(variant: str | None, folder: Path, root: Path) -> str:
    if variant is None:
        own = root.resolve().name
        fits = [name for name in _there(folder) if own not in FOLDERS or VARIANTS[name][0] == own]
        if len(fits) != 1:
            raise UsageError(
                f"{root} holds {len(fits)} editions of ScanObjectNN", f"one of {', '.join(fits)}",
                f"--data.variant {fits[-1]}",
            )  # fmt: skip
        return fits[0]
    name = variant.upper().replace("-", "_")
    name = ALIASES.get(name, name)
    if name not in VARIANTS:
        raise unknown_name("edition of ScanObjectNN", variant, VARIANTS)
    return name


def _split(path: Path) -> CloudSplit:
    arrays = read_arrays(path, ("data", "label"), ("mask",))
    points, labels, mask = arrays["data"], arrays["label"], arrays.get("mask")
    fields = {} if mask is None else {"mask": (mask, 1.0)}
    store = ArrayStore(points, fields=fields, where=path)
    checked = checked_labels(labels, CLASSES, path)
    if len(checked) != len(store):
        raise DataError(f"{path}: {len(checked)} labels for {len(store)} clouds", "one label per cloud")
    return CloudSplit(store, checked)


DATASETS.register(
    "scanobjectnn",
    DatasetEntry(
        title="ScanObjectNN, 2,048 points: OBJ_BG, OBJ_ONLY, PB_T50_RS (real indoor scans, 15 classes)",
        layout="main_split/training_objectdataset.h5 and test_objectdataset.h5 (OBJ_BG); "
        "main_split_nobg/training_objectdataset.h5 and test_objectdataset.h5 (OBJ_ONLY); "
        "main_split/training_objectdataset_augmentedrot_scale75.h5 and test_… (PB_T50_RS); "
        "the folder is ScanObjectNN, its h5_files, or what holds either",
        get="h5_files.zip, asked for by the form on the ScanObjectNN page of its authors (HKUST); unpack it",
        terms="ScanObjectNN terms of use: research only",
        load=load,
        detect=detect,
        classes=CLASSES,
        native_points=2048,
        official=True,
    ),
)
