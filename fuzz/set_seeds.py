"""Tiny data sets, one or more for every layout of `DATASETS`."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzz import Files, hostile

ROWS = b"0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
PLY = (
    b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"property int label\nend_header\n0 0 0 1\n1 0 0 2\n0 1 0 1\n"
)
OFF = b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def npz(**arrays: object) -> bytes:
    """The bytes of an `.npz`."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def hdf5(**arrays: np.ndarray) -> bytes:
    """The bytes of an HDF5 file with these arrays."""
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return out.getvalue()


def _points(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _npz_sets() -> list[Files]:
    points, label, classes = _points(4, 6, 3), np.array([0, 1, 0, 1]), np.array(["a", "b"])
    dense = npz(
        points=points, label=label, classes=classes, part=np.zeros((4, 6), np.int16), parts=np.array(["p", "q"])
    )
    i16 = npz(points_i16=(points * 1000).astype(np.int16), label=label, normals_i8=np.ones((4, 6, 3), np.int8))
    offset = np.array([0, 5, 6, 20, 24])
    packed = npz(
        points=points.reshape(-1, 3),
        offset=offset,
        label=label,
        name=np.array(list("wxyz")),
        up_axis=np.array("z"),
        unit=np.array("m"),
    )
    scenes = npz(
        points_01mm=(points.reshape(-1, 3) * 1000).astype(np.int16),
        offsets=offset,
        semantic=np.zeros(24, np.uint8),
        instance=np.zeros(24, np.int16),
        rgb=np.zeros((24, 3), np.uint8),
        semantic_classes=classes,
    )
    return [
        {"train.npz": dense, "test.npz": dense, "category_parts.json": b'{"a": [0], "b": [0, 1]}'},
        {"train.npz": i16, "val.npz": i16},
        {"train.npz": packed, "test_1.npz": packed, "test_2.npz": packed},
        {"train.npz": scenes, "test.npz": scenes},
    ]


def _hdf5_sets() -> list[Files]:
    good = hdf5(data=_points(4, 6, 3), label=np.array([[0], [1], [0], [1]], np.uint8))
    return [
        {"x_train.h5": good, "x_test.h5": good, "shape_names.txt": b"a\nb\n"},
        {"ply_data_train0.h5": good},
        *({"x_train.h5": data} for data in hostile.hdf5()),
    ]


def _scanobjectnn() -> list[Files]:
    good = hdf5(data=_points(4, 6, 3), label=np.array([0, 14, 0, 1], np.int32), mask=np.zeros((4, 6), np.int8))
    name = "objectdataset.h5"
    return [
        {f"main_split/training_{name}": good, f"main_split/test_{name}": good},
        {f"h5_files/main_split_nobg/training_{name}": good, f"h5_files/main_split_nobg/test_{name}": good},
        *({f"main_split/training_{name}": data, f"main_split/test_{name}": good} for data in hostile.hdf5()[5:14]),
    ]


def _class_folders() -> list[Files]:
    return [
        {"a/1.xyz": ROWS, "a/2.ply": PLY, "b/1.xyz": ROWS, "b/readme.md": b"hello"},
        {"train/a/1.xyz": ROWS, "train/b/1.off": OFF, "test/a/1.xyz": ROWS, "val/b/2.npy": _npy(_points(4, 3))},
    ]


def _cloud_files() -> list[Files]:
    scan = struct.pack("<8f", *range(8))
    return [
        {"1.xyz": ROWS, "2.ply": PLY, "3.off": OFF},
        {"train/1.bin": scan, "train/1.label": struct.pack("<2I", 1, 1 << 16 | 2), "test/2.ply": PLY},
    ]


def _kitti() -> list[Files]:
    scan, label = struct.pack("<12f", *range(12)), struct.pack("<3I", 10, 40, 1 << 16 | 2)
    return [
        {f"sequences/{s}/{part}": data for s in ("00", "08") for part, data in
         (("velodyne/000000.bin", scan), ("labels/000000.label", label))},
        {"dataset/sequences/11/velodyne/000001.bin": scan},
    ]  # fmt: skip


def _modelnet40() -> list[Files]:
    rows = b"0.1,0.2,0.3,0,0,1\n0.4,0.5,0.6,0,1,0\n"
    lists = {f"modelnet40_{part}.txt": b"chair_0001\nsofa_0001\n" for part in ("train", "test")}
    texts = {"chair/chair_0001.txt": rows, "sofa/sofa_0001.txt": rows}
    clouds = [_points(4, 6) for _ in range(2)]
    caches = [
        pickle.dumps([clouds, [np.array([k], np.int32) for k in range(2)]], protocol=protocol)
        for protocol in (0, 2, 3, 4, 5)
    ]
    names = {"modelnet40_shape_names.txt": b"chair\nsofa\n"}
    return [
        names | lists | texts,
        *({f"modelnet40_{part}_4pts_fps.dat": data for part in ("train", "test")} | names for data in caches),
        *(
            {"modelnet40_train_4pts_fps.dat": d, "modelnet40_test_4pts_fps.dat": caches[1]}
            for d in hostile.pickles()[4:]
        ),
    ]


def _few_shot() -> list[Files]:
    fold = {part: [(_points(4, 6), 0, 8), (_points(4, 6), 1, 30)] for part in ("train", "test")}
    arrays: dict[str, np.ndarray] = {"classes": np.array(["a", "b", "c"])}
    for part in fold:
        arrays |= {f"{part}_points": _points(8, 3), f"{part}_offset": np.array([0, 4, 8])}
        arrays |= {f"{part}_label": np.array([0, 1]), f"{part}_original": np.array([0, 2])}
    return [
        *({"2way_1shot/0.pkl": pickle.dumps(fold, protocol=protocol)} for protocol in (0, 2, 4)),
        {"ModelNetFewshot/2way1shot/0.npz": npz(**arrays)},
    ]


def _shapenet55() -> list[Files]:
    cloud = _npy(_points(5, 3))
    return [
        {
            "ShapeNet-55/train.txt": b"02691156-1a.npy\n02747177-2b.npy\n",
            "ShapeNet-55/test.txt": b"02691156-3c.npy\n",
            "shapenet_synset_dict.json": b'{"02691156": "airplane", "02747177": "trash bin"}',
            **{f"shapenet_pc/{name}.npy": cloud for name in ("02691156-1a", "02747177-2b", "02691156-3c")},
        }
    ]


def _shapenetpart() -> list[Files]:
    rows = b"0.1 0.2 0.3 0 0 1 6.0\n0.4 0.5 0.6 0 1 0 7.0\n"
    files = {"synsetoffset2category.txt": b"Cap\t02954340\nMug\t03797390\n"}
    for k, part in enumerate(("train", "val", "test")):
        listed = json.dumps([f"shape_data/02954340/{k}a"]).encode()
        files |= {f"train_test_split/shuffled_{part}_file_list.json": listed, f"02954340/{k}a.txt": rows}
    return [files]


def _procedural_cache() -> list[Files]:
    from pointlift.data.procedural.cache import write_procedural
    from pointlift.data.procedural.config import ProceduralConfig

    with tempfile.TemporaryDirectory() as folder:
        root = write_procedural(Path(folder) / "cache", count=3, shard=2, config=ProceduralConfig(points=16))
        return [{path.name: path.read_bytes() for path in sorted(root.iterdir(), reverse=True)}]


SETS: dict[str, Callable[[], list[Files]]] = {
    "modelnet40": _modelnet40,
    "modelnet40_few_shot": _few_shot,
    "scanobjectnn": _scanobjectnn,
    "shapenet55": _shapenet55,
    "shapenetpart": _shapenetpart,
    "kitti_sequences": _kitti,
    "npz": _npz_sets,
    "modelnet40_hdf5": _hdf5_sets,
    "class_folders": _class_folders,
    "procedural_cache": _procedural_cache,
    "cloud_files": _cloud_files,
}
