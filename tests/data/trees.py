"""Tiny data sets in the official layouts, made for tests (the real ones may not be passed on)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import h5py
import numpy as np

KINDS = ("bowl", "night_stand", "xbox")
TRAIN, TEST = 4, 3  # clouds per class
PARTS = {"Cap": ("02954340", (6, 7)), "Airplane": ("02691156", (0, 1, 2, 3))}


def cloud(seed: int, size: int = 40, width: int = 3) -> np.ndarray:
    """float32 (size, width): off-centre coordinates and, with six columns, unit normals."""
    rng = np.random.default_rng(seed)
    columns = [rng.uniform(-1, 1, (size, 3)) + 0.5]
    if width == 6:
        normals = rng.normal(size=(size, 3))
        columns.append(normals / np.linalg.norm(normals, axis=1, keepdims=True))
    return np.concatenate(columns, axis=1).astype(np.float32)


def names(part: str) -> list[str]:
    first, count = (1, TRAIN) if part == "train" else (TRAIN + 1, TEST)
    return [f"{kind}_{i:04d}" for kind in KINDS for i in range(first, first + count)]


def modelnet(folder: Path, *, text: bool = True, number: int = 40) -> Path:
    """`modelnet40_normal_resampled` with three classes; cloud i of a part is `cloud(100 * is_test + i, width=6)`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"modelnet{number}_shape_names.txt").write_text("\n".join(KINDS) + "\n")
    for offset, part in ((0, "train"), (100, "test")):
        (folder / f"modelnet{number}_{part}.txt").write_bytes("\r\n".join([*names(part), ""]).encode())
        for i, name in enumerate(names(part) if text else ()):
            path = folder / name.rpartition("_")[0] / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            np.savetxt(path, cloud(offset + i, width=6), fmt="%.6f", delimiter=",")
    return folder


def modelnet_cache(folder: Path, part: str, points: int = 32, protocol: int = 3) -> Path:
    """A `.dat` as the released codes write it."""
    offset = 100 * (part == "test")
    clouds = [cloud(offset + i, points, width=6) for i in range(len(names(part)))]
    labels = [np.array([KINDS.index(name.rpartition("_")[0])]).astype(np.int32) for name in names(part)]
    path = folder / f"modelnet40_{part}_{points}pts_fps.dat"
    path.write_bytes(pickle.dumps([clouds, labels], protocol))
    return path


def few_shot(folder: Path, spelling: str = "{}way_{}shot", way: int = 2, shot: int = 3, folds: int = 2) -> Path:
    """Published folds: new labels 0..way-1 stand for the classes 22 and 3 + fold of ModelNet40."""
    place = folder / spelling.format(way, shot)
    place.mkdir(parents=True)
    for fold in range(folds):
        kinds = [22, 3 + fold, *range(10, 10 + way)]
        held = {
            part: [(cloud(1000 * fold + 10 * c + i, 20, 6), c, kinds[c]) for i in range(count) for c in range(way)]
            for part, count in (("train", shot), ("test", 4))
        }
        (place / f"{fold}.pkl").write_bytes(pickle.dumps(held, 3))
    return folder


def scanobjectnn(folder: Path, *editions: str) -> Path:
    """Editions OBJ_BG, OBJ_ONLY, PB_T50_RS with 5 training and 3 test clouds of 16 points each."""
    for seed, (edition, place, ending) in enumerate((
        ("OBJ_BG", "main_split", "objectdataset.h5"),
        ("OBJ_ONLY", "main_split_nobg", "objectdataset.h5"),
        ("PB_T50_RS", "main_split", "objectdataset_augmentedrot_scale75.h5"),
    )):  # fmt: skip
        if edition not in (editions or ("OBJ_BG", "OBJ_ONLY", "PB_T50_RS")):
            continue
        for part, count in (("training", 5), ("test", 3)):
            path = folder / place / f"{part}_{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                file["data"] = np.stack([cloud(1000 * seed + 100 * (part == "test") + i, 16) for i in range(count)])
                file["label"] = np.arange(count) * 3
                file["mask"] = np.tile(np.arange(16) % 3 - 1, (count, 1))
    return folder


def shapenet55(folder: Path) -> Path:
    """Two synsets; the third training cloud has fewer points than the others."""
    models = {"train": ["02691156-aa", "02691156-bb", "04379243-cc"], "test": ["04379243-dd"]}
    (folder / "ShapeNet-55").mkdir(parents=True)
    (folder / "shapenet_pc").mkdir()
    for part, listed in models.items():
        (folder / "ShapeNet-55" / f"{part}.txt").write_text("".join(f"{m}.npy\n" for m in listed))
        for i, model in enumerate(listed):
            np.save(folder / "shapenet_pc" / f"{model}.npy", cloud(i, 50 if i < 2 else 20))
    np.save(folder / "shapenet_pc" / "02691156-unlisted.npy", cloud(9))
    return folder


def shapenetpart(folder: Path) -> Path:
    """Caps and airplanes: 2 train, 1 val, 2 test each."""
    (folder / "train_test_split").mkdir(parents=True)
    (folder / "synsetoffset2category.txt").write_text("".join(f"{n}\t{s}\n" for n, (s, _) in PARTS.items()))
    for part, count in (("train", 2), ("val", 1), ("test", 2)):
        listed = []
        for synset, numbers in PARTS.values():
            (folder / synset).mkdir(exist_ok=True)
            for i in range(count):
                size = 30 + i
                table = np.column_stack([cloud(i, size, 6), np.resize(numbers, size)])
                np.savetxt(folder / synset / f"{part}{i}.txt", table, fmt="%.6f", delimiter=" ")
                listed.append(f"shape_data/{synset}/{part}{i}")
        (folder / "train_test_split" / f"shuffled_{part}_file_list.json").write_text(json.dumps(listed))
    return folder


def kitti(folder: Path, sequences: tuple[str, ...] = ("00", "08", "11")) -> Path:
    """Two scans a sequence; from 11 on without labels."""
    for sequence in sequences:
        for i in range(2):
            scan = folder / "sequences" / sequence / "velodyne" / f"{i:06d}.bin"
            scan.parent.mkdir(parents=True, exist_ok=True)
            np.column_stack([cloud(i, 12), np.arange(12)]).astype("<f4").tofile(scan)
            if int(sequence) < 11:
                label = folder / "sequences" / sequence / "labels" / f"{i:06d}.label"
                label.parent.mkdir(exist_ok=True)
                (np.arange(12, dtype="<u4") + 40 + (5 << 16)).astype("<u4").tofile(label)
    return folder
