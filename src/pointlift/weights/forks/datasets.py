"""Which clouds a released configuration reads, and what its loaders and runners do to them (card `data-protocols`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pointlift.core.config import shown
from pointlift.core.errors import FileFormatError
from pointlift.data.sets.known import MODELNET40_CLASSES
from pointlift.weights.entries import SCANOBJECTNN_CLASSES, SCANOBJECTNN_CLASSES_OF_40
from pointlift.weights.forks.account import Account, flag, whole, word


@dataclass(frozen=True)
class Clouds:
    """What is known of a released data set.

    Attributes:
        name: A name of `pointlift list datasets`.
        labelled: Whether its loader gives labels.
        normalize: What its loader does to coordinates.
        clouds: In its training list.
        classes: In label order.
    """

    name: str
    labelled: bool = True
    normalize: str = "unit_sphere"
    clouds: int = 0
    classes: tuple[str, ...] = ()


MODELNET = Clouds("modelnet40", clouds=9843, classes=MODELNET40_CLASSES)
FEW_SHOT = Clouds("modelnet40_few_shot")
SCANOBJECTNN = Clouds("scanobjectnn", normalize="none", classes=SCANOBJECTNN_CLASSES)
SHAPENET = Clouds("shapenet55", labelled=False, clouds=41_952)
MODELNET_HDF5 = Clouds("modelnet40_hdf5", normalize="none", clouds=9840, classes=MODELNET40_CLASSES)
WHOLE_SHAPENET = 52_470  # clouds of both of its lists

SETS = {
    "ModelNet": MODELNET,
    "ModelNetFewShot": FEW_SHOT,
    "ScanObjectNN": SCANOBJECTNN,
    "ScanObjectNN_hardest": SCANOBJECTNN,
    "ShapeNet": SHAPENET,
    "ModelNet40_SVM": MODELNET_HDF5,
}
_SPLITS = {"OBJ": "OBJ_ONLY", "OBJ-BG": "OBJ_BG", "PB": "PB_T50_RS"}
_FOLDERS = {"main_split": "OBJ_BG", "main_split_nobg": "OBJ_ONLY"}

_SCAN = "data/ScanObjectNN/"
_MODELNET_FILE = {"N_POINTS": 8192, "NUM_CATEGORY": 40, "USE_NORMALS": False}
# What the `_base_` files of the three systems hold, by file name in lower case: for when they are not at hand.
KNOWN_BASES: dict[str, dict[str, Any]] = {
    "modelnet40": {"NAME": "ModelNet", "DATA_PATH": "data/ModelNet/modelnet40_normal_resampled", **_MODELNET_FILE},
    "modelnet40fewshot": {"NAME": "ModelNetFewShot", "DATA_PATH": "data/ModelNetFewshot", **_MODELNET_FILE},
    "modelnet40_svm": {"NAME": "ModelNet40_SVM", "DATA_DIR": "data/", **_MODELNET_FILE},
    "scanobjectnn_hardest": {"NAME": "ScanObjectNN_hardest", "ROOT": f"{_SCAN}main_split"},
    "scanobjectnn_objectbg": {"NAME": "ScanObjectNN", "ROOT": f"{_SCAN}main_split"},
    "scanobjectnn_objectonly": {"NAME": "ScanObjectNN", "ROOT": f"{_SCAN}main_split_nobg"},
    "scan_pb": {"NAME": "ScanObjectNN", "ROOT": f"{_SCAN}main_split", "SPLIT": "PB", "N_POINTS": 2048},
    "scan_obj-bg": {"NAME": "ScanObjectNN", "ROOT": f"{_SCAN}main_split", "SPLIT": "OBJ-BG", "N_POINTS": 2048},
    "scan_obj": {"NAME": "ScanObjectNN", "ROOT": f"{_SCAN}main_split_nobg", "SPLIT": "OBJ", "N_POINTS": 2048},
    "shapenet-55": {
        "NAME": "ShapeNet",
        "DATA_PATH": "data/ShapeNet55-34/ShapeNet-55",
        "N_POINTS": 8192,
        "PC_PATH": "data/ShapeNet55-34/shapenet_pc",
    },
}


def with_bases(
    values: Mapping[str, Any], bases: Mapping[str, Mapping[str, Any]], missing: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """A configuration with the `_base_` files in their places, and notes on those that were not at hand.

    A file that was not found and whose name is known is taken to be the released one; of others the name stays.
    """
    assumed = {written: base for written in missing if (base := known_base(written)) is not None}

    def filled(part: Mapping[str, Any]) -> dict[str, Any]:
        found = {**bases, **assumed}
        return {
            key: filled(value)
            if isinstance(value, Mapping)
            else found.get(value, value)
            if key == "_base_" and isinstance(value, str)
            else value
            for key, value in part.items()
        }

    notes = [
        f"{why}: taken to be the released file of that name" if written in assumed else why
        for written, why in missing.items()
    ]
    return filled(values), notes


def known_base(written: str) -> Mapping[str, Any] | None:
    """What a `_base_` file of this name holds in the released code; None for other names."""
    return KNOWN_BASES.get(PurePosixPath(written.replace("\\", "/")).stem.lower())


def take_clouds(account: Account, *, pretraining: bool) -> Clouds | None:
    """The data set of `dataset.train`, its points and preparation; None where it is not known."""
    clouds = _take_set(account)
    _take_points(account, pretraining)
    if clouds is not None:
        account.put("data.normalize", clouds.normalize)
    account.put(
        "data.val_fraction",
        0.0,
        "As released: nothing is held out of the training part; our default holds out a tenth of it.",
    )
    account.put(
        "data.resample.skip_near_origin",
        True,
        "As released: sampling never picks points within 0.0316 of the origin; new models of ours have no such rule.",
    )
    if clouds is SHAPENET:
        account.put("data.normalize_subset", True, "As released: the chosen points are centred and scaled, not all.")
    if pretraining:
        account.put("data.resample.pool", "all", "As released: a random subset of a cloud's points.")
    else:
        account.put(
            "data.resample.shared_subset",
            True,
            "As released: one random choice of points for a whole batch; ours: each.",
        )
    if clouds is MODELNET_HDF5:
        account.put("data.resample.test", "first")
    _take_other_parts(account, pretraining)
    return clouds


def classes_of(clouds: Clouds | None, outputs: int) -> tuple[str, ...] | None:
    """Names of a head's outputs; Point-BERT's models of ScanObjectNN have 40 of which 15 were ever trained for."""
    if clouds is SCANOBJECTNN and outputs == len(SCANOBJECTNN_CLASSES_OF_40):
        return SCANOBJECTNN_CLASSES_OF_40
    return clouds.classes if clouds is not None and outputs == len(clouds.classes) > 0 else None


_TRAIN = "dataset.train"


def _take_set(account: Account) -> Clouds | None:
    base = f"{_TRAIN}._base_"
    if not isinstance(account.section(_TRAIN).get("_base_"), Mapping):
        account.not_understood(base, "no file of this name was found, and the name is none of the released ones")
        account.notes.append("which clouds it learns from is not known: give --data.root DIR")
        return None
    name = account.read(f"{base}.NAME", word)
    clouds = SETS.get(name)
    if clouds is None:
        account.not_understood(base, f"no data set {name!r} is known here")
        account.notes.append(f"the data set {name!r} is not known here: give --data.root DIR")
        return None
    account.put("data.name", clouds.name, "Another labelled set: --data.name auto --data.root DIR.")
    account.kept(f"{base}.NAME", "data.name")
    _TAKERS[clouds.name](account, base)
    account.ignored(f"{base}.N_POINTS", "files tell how many points they have")
    if account.read(f"{base}.USE_NORMALS", flag, False):
        account.not_understood(f"{base}.USE_NORMALS", "the models read coordinates alone")
    else:
        account.ignored(f"{base}.USE_NORMALS", "normals are not read")
    _take_subset(account, f"{_TRAIN}.others", "train")
    return clouds


def _root(account: Account, key: str, folder: str | None = None) -> str:
    """Where the released code looks for the set, seen from its working directory."""
    written = account.read(key, word)
    account.put("data.root", folder or written, "Seen from the working directory; --data.root DIR for another place.")
    account.kept(key, "data.root")
    return written


def _modelnet(account: Account, base: str) -> None:
    _root(account, f"{base}.DATA_PATH")
    categories = account.read(f"{base}.NUM_CATEGORY", whole, 40)
    if categories != 40:
        account.put("data.options.num_category", categories)
        account.kept(f"{base}.NUM_CATEGORY", "data.options.num_category")
    else:
        account.kept(f"{base}.NUM_CATEGORY", "data.name")


def _few_shot(account: Account, base: str) -> None:
    _root(account, f"{base}.DATA_PATH")
    account.ignored(f"{base}.NUM_CATEGORY", "the fold tells its classes")
    for name in ("way", "shot", "fold"):
        account.keep(f"{_TRAIN}.others.{name}", whole, f"data.options.{name}", default=None)
    account.notes.append(
        "way, shot and fold come from the released command line: --data.options.way 5 --data.options.shot 10 "
        "--data.options.fold 0"
    )
    account.notes.append("a short last batch is kept here while an epoch has fewer than ten; released code drops it")


def _scanobjectnn(account: Account, base: str) -> None:
    root = _root(account, f"{base}.ROOT")
    split = account.read(f"{base}.SPLIT", word, None)
    if split is not None:
        if split not in _SPLITS:
            raise FileFormatError(f"{account.file}: {base}.SPLIT is {shown(split)}", f"one of {', '.join(_SPLITS)}")
        account.put("data.variant", _SPLITS[split])
        account.kept(f"{base}.SPLIT", "data.variant")
        return
    hardest = account.read(f"{base}.NAME", word) == "ScanObjectNN_hardest"
    variant = "PB_T50_RS" if hardest else _FOLDERS.get(PurePosixPath(root).name)
    if variant is None:
        account.notes.append(f"{shown(root)} does not tell the edition of ScanObjectNN: give --data.variant")
    else:
        account.put("data.variant", variant)


def _shapenet(account: Account, base: str) -> None:
    lists = _root(account, f"{base}.DATA_PATH")
    clouds = account.read(f"{base}.PC_PATH", word, None)
    if clouds is not None and PurePosixPath(clouds) != PurePosixPath(lists).parent / "shapenet_pc":
        account.not_understood(f"{base}.PC_PATH", "clouds are read from shapenet_pc, beside the folder of the lists")
    else:
        account.ignored(f"{base}.PC_PATH", "clouds lie beside the folder of the lists")
    whole_set = account.read(f"{_TRAIN}.others.whole", flag, False)
    if whole_set:
        account.put("data.options.whole", True)
        account.kept(f"{_TRAIN}.others.whole", "data.options.whole")
    else:
        account.ignored(f"{_TRAIN}.others.whole", "the training list alone, as when it is not said")


def _modelnet_hdf5(account: Account, base: str) -> None:
    folder = account.read(f"{base}.DATA_DIR", word)
    _root(account, f"{base}.DATA_DIR", str(PurePosixPath(folder) / "modelnet40_ply_hdf5_2048"))
    account.ignored(f"{base}.NUM_CATEGORY", "the files tell")


_TAKERS = {
    MODELNET.name: _modelnet,
    FEW_SHOT.name: _few_shot,
    SCANOBJECTNN.name: _scanobjectnn,
    SHAPENET.name: _shapenet,
    MODELNET_HDF5.name: _modelnet_hdf5,
}


def _take_points(account: Account, pretraining: bool) -> None:
    own = f"{_TRAIN}.others.{'npoints' if account.has(f'{_TRAIN}.others.npoints') else 'num_points'}"
    if pretraining and account.has(own):
        account.keep(own, whole, "data.points")
        account.ignored("npoints", f"pre-training reads {own}")
    elif pretraining:  # configurations for a linear SVM: all points of the files
        native = f"{_TRAIN}._base_.N_POINTS"
        account.keep("npoints", whole, "data.points", default=account.read(native, whole, None))
    else:
        account.keep("npoints", whole, "data.points")
        account.ignored(own, "fine-tuning reads npoints")


def _take_subset(account: Account, others: str, expected: str) -> None:
    """`subset`, or `partition` of the sets that call it so."""
    for key in (f"{others}.subset", f"{others}.partition"):
        if account.read(key, word, expected) == expected:
            account.kept(key, "data.root", f"the set's own {expected} part")
        else:
            account.not_understood(key, f"ours is the set's own {expected} part")
    account.ignored(f"{others}.bs", "released runners set it themselves")


def _take_other_parts(account: Account, pretraining: bool) -> None:
    """`val` and `test` name the test part of the same set; what else there is does not steer the training."""
    for part in ("val", "test"):
        where = f"dataset.{part}"
        if pretraining:
            account.ignored(where, "monitoring alone; ours: --monitor.data DIR, on that set's training part")
        elif account.section(where).get("_base_") == account.section(_TRAIN).get("_base_"):
            account.kept(f"{where}._base_", "data.name", "the same set")
            _take_subset(account, f"{where}.others", "test")
        elif part == "test":
            account.ignored(where, "read by --test alone")
        else:
            account.not_understood(where, "epochs are chosen and scored on the test part of the set of dataset.train")
    for part in ("extra_train", "svm"):
        account.ignored(f"dataset.{part}", "monitoring alone; ours: --monitor.data DIR, on that set's training part")
    if not pretraining:
        account.put(
            "select",
            "test",
            "As released: the epoch that scores best on the test part; our default looks at held-out training clouds.",
        )
        account.notes.append("random scale and shift of training clouds stand in the released code, with our defaults")
