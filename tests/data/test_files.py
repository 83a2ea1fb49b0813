"""Every format: what is written is read; everything that can be wrong with a file is said."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pointlift.core.errors import DataError, FileFormatError, PointLiftError, UsageError
from pointlift.data.cloud import PointCloud
from pointlift.data.files import FORMATS, find_clouds, read, read_many, write

ENDINGS = list(FORMATS)
WRITTEN = [ending for ending in FORMATS if FORMATS.get(ending).write]
READERS = sorted({FORMATS.get(ending).read: ending for ending in WRITTEN}.values())  # one ending for each
ROUNDED = {".las", ".laz"}  # steps of a power of ten, finer than float32 over the extent of the cloud
FLOAT32 = {".bin", ".pcd.bin"}  # no room for far coordinates
NO_RETURN = {".pcd"}  # NaN stands for a ray without an echo


@pytest.fixture
def cloud() -> PointCloud:
    rng = np.random.default_rng(3)
    feats = {
        "colors": rng.integers(0, 256, (40, 3), dtype=np.uint8),
        "normals": rng.normal(size=(40, 3)).astype(np.float32),
        "intensity": rng.random(40).astype(np.float32),
        "label": rng.integers(0, 9, 40).astype(np.int64),
        "semantic": rng.integers(0, 300, 40).astype(np.int64),
        "instance": rng.integers(0, 70, 40).astype(np.int64),
        "curvature": rng.random(40).astype(np.float32),
        "ring": rng.integers(0, 32, 40).astype(np.float32),
    }
    return PointCloud(rng.normal(size=(40, 3)).astype(np.float32), feats)


@pytest.mark.parametrize("ending", WRITTEN)
def test_what_is_written_is_read(cloud, ending, tmp_path):
    path = write(cloud, tmp_path / f"a{ending}")
    back = read(path)
    np.testing.assert_allclose(back.xyz, cloud.xyz, rtol=0, atol=1e-8 if ending in ROUNDED else 0)
    assert back.path == path
    assert not back.offset.any()
    keeps = FORMATS.get(ending).keeps
    assert set(back.feats) == (set(cloud.feats) if keeps is None else set(keeps))
    for name, values in back.feats.items():
        np.testing.assert_allclose(values, cloud.feats[name], rtol=1e-7, err_msg=name)
        assert values.dtype == cloud.feats[name].dtype, name


@pytest.mark.parametrize("ending", WRITTEN)
def test_one_point_without_features(ending, tmp_path):
    cloud = PointCloud(np.array([[0.1, -2.5, 3]], np.float32))
    back = read(write(cloud, tmp_path / f"a{ending}"))
    np.testing.assert_allclose(back.xyz, cloud.xyz, rtol=0, atol=1e-8 if ending in ROUNDED else 0)
    assert not any(values.any() for values in back.feats.values())


@pytest.mark.parametrize("ending", WRITTEN)
def test_far_coordinates_survive(ending, tmp_path):
    far = np.random.default_rng(0).normal(size=(20, 3)) + np.array([4.5e5, 5.4e6, 120.0])
    cloud = PointCloud.from_array(far, "x")
    if ending in FLOAT32:
        with pytest.raises(FileFormatError, match="float32 does not resolve"):
            write(cloud, tmp_path / f"far{ending}")
        assert not list(tmp_path.iterdir())
        return
    np.testing.assert_allclose(read(write(cloud, tmp_path / f"far{ending}")).world_xyz, far, atol=2e-6)


@pytest.mark.parametrize("ending", WRITTEN)
def test_upper_case_endings(cloud, ending, tmp_path):
    path = write(cloud, tmp_path / f"A{ending.upper()}")
    np.testing.assert_allclose(read(path).xyz, cloud.xyz, rtol=0, atol=1e-8 if ending in ROUNDED else 0)


@pytest.mark.parametrize("ending", [e for e in ENDINGS if e not in WRITTEN])
def test_what_is_only_read_says_so(cloud, ending, tmp_path):
    with pytest.raises(FileFormatError, match="is only read, not written"):
        write(cloud, tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_file(ending, tmp_path):
    path = tmp_path / f"empty{ending}"
    path.touch()
    with pytest.raises(FileFormatError, match=r"empty.* is empty \(0 bytes\)"):
        read(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_file(ending, tmp_path):
    with pytest.raises(FileFormatError, match="no file"):
        read(tmp_path / f"gone{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"\x00\xff\x17garbage\xfe" * 50, b"<html>not a cloud</html>\n", b"\n\n\n", b"ply"])
def test_garbage(ending, content, tmp_path):
    path = tmp_path / f"junk{ending}"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="junk"):
        read(path)


@pytest.mark.parametrize("ending", WRITTEN)
def test_cut_short(cloud, ending, tmp_path):
    path = write(cloud, tmp_path / f"cut{ending}")
    whole = path.read_bytes()
    for keep in (len(whole) // 4 + 1, len(whole) // 2 + 1, len(whole) - 2):
        path.write_bytes(whole[:keep])
        if ending in {".xyz", ".txt", ".csv", ".asc", ".obj", ".pts", ".off"} and keep != len(whole) // 2 + 1:
            continue  # text cut between lines or digits is shorter text
        if ending == ".obj":
            continue  # the normals come last: half of them are simply missing
        with pytest.raises(FileFormatError, match="cut"):
            read(path)


@pytest.mark.parametrize("ending", WRITTEN)
def test_nan_names_row_and_count(cloud, ending, tmp_path):
    cloud.xyz[5, 2] = np.nan
    path = tmp_path / f"nan{ending}"
    with pytest.raises(FileFormatError, match=r"nan.*: 1 of 40 points .* row 5"):
        write(cloud, path)
    if ending in ROUNDED | NO_RETURN:
        return
    FORMATS.get(ending).write(cloud, path)
    with pytest.raises(FileFormatError, match=r"nan.*: 1 of 40 points .* row 5"):
        read(path)


def test_a_folder_is_not_a_file(tmp_path):
    folder = tmp_path / "clouds.ply"
    folder.mkdir()
    for path in (folder, tmp_path):
        with pytest.raises(FileFormatError, match=r"is a folder.*load_dataset"):
            read(path)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.xyz")
    with pytest.raises(FileFormatError, match="not a regular file"):
        read(tmp_path / "pipe.xyz")


def test_unknown_endings_name_the_nearest(tmp_path):
    with pytest.raises(FileFormatError, match=r"'\.plyy'.*\.npy .*Did you mean '\.ply'"):
        read(tmp_path / "a.plyy")
    with pytest.raises(FileFormatError, match="no file ending"):
        read(tmp_path / "a")
    with pytest.raises(FileFormatError, match="unknown file ending"):
        write(PointCloud(np.zeros((1, 3), np.float32)), tmp_path / "a.docx")


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("kind", ["npy", "npz", "raw pickle"])
def test_pickles_are_never_executed(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("a.npz" if kind == "npz" else "a.npy")
    objects = np.array([_Bomb()], dtype=object)
    if kind == "npy":
        np.save(path, objects, allow_pickle=True)
    elif kind == "npz":
        np.savez(path, points=objects, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(FileFormatError):
        read(path)
    assert not (tmp_path / "executed").exists()


def _npy_header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(10**12, 3), (10**400, 3), (5, 3), (-4, 3)])
def test_lying_npy_headers(shape, tmp_path):
    path = tmp_path / "lie.npy"
    path.write_bytes(_npy_header(shape) + b"\0" * 48)
    with pytest.raises(FileFormatError, match="lie"):
        read(path)


@pytest.mark.parametrize("header", [b"{'descr'", b"{'shape': (" + b"(" * 4000, b"\0" * 50, b"{'a': 1}"])
def test_npy_headers_that_do_not_parse(header, tmp_path):
    path = tmp_path / "odd.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(FileFormatError, match="not a numpy array file"):
        read(path)


def test_a_lying_header_inside_npz(tmp_path):
    path = tmp_path / "lie.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("points.npy", _npy_header((10**11, 3)) + b"\0" * 48)
    with pytest.raises(FileFormatError, match="promises"):
        read(path)


def test_a_zip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("pointlift.data.formats.limits.UNPACKED_FLOOR", 1 << 20)
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", _npy_header((200_000, 3)) + bytes(4_800_000))
    with pytest.raises(FileFormatError, match="would unpack to 4,800,"):
        read(path)


@pytest.mark.parametrize(
    "array", [np.zeros((5, 2)), np.zeros(9), np.zeros((3, 100)), np.zeros((2, 5, 3)), np.float32(1)]
)
def test_wrong_columns_in_npy(array, tmp_path):
    np.save(tmp_path / "w.npy", array)
    with pytest.raises(FileFormatError, match=r"w\.npy"):
        read(tmp_path / "w.npy")


def test_zero_points(tmp_path):
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    with pytest.raises(FileFormatError, match="no points"):
        read(tmp_path / "none.npy")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "<i4", "u1", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_types_and_orders(dtype, order, tmp_path):
    array = np.arange(30).reshape(10, 3).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    np.testing.assert_array_equal(read(tmp_path / "a.npy").xyz, array.astype(np.float32))


def test_more_columns_come_as_extra_or_by_name(tmp_path):
    table = np.random.default_rng(0).normal(size=(12, 7)).astype(np.float32)
    np.save(tmp_path / "a.npy", table)
    plain = read(tmp_path / "a.npy")
    np.testing.assert_array_equal(plain.feats["extra"], table[:, 3:])
    named = read(tmp_path / "a.npy", columns=("intensity", "z", "y", "x", "nx", "ny", "nz"))
    np.testing.assert_array_equal(named.xyz, table[:, [3, 2, 1]])
    np.testing.assert_array_equal(named.feats["normals"], table[:, 4:])
    skipped = read(tmp_path / "a.npy", columns=("x", "y", "z", "_", "_", "_", "_"))
    assert not skipped.feats


@pytest.mark.parametrize("columns", [("x", "y"), ("x", "y", "y"), ("a", "b", "c")])
def test_wrong_column_names(columns, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    with pytest.raises((UsageError, FileFormatError), match=r"columns|named twice"):
        read(tmp_path / "a.npy", columns=columns)


def test_structured_npy(tmp_path):
    table = np.zeros(5, dtype=[("intensity", "f4"), ("x", "f8"), ("y", "f8"), ("z", "f8")])
    table["y"] = 7
    np.save(tmp_path / "s.npy", table)
    cloud = read(tmp_path / "s.npy")
    np.testing.assert_array_equal(cloud.xyz[:, 1], 7)
    assert set(cloud.feats) == {"intensity"}


@pytest.mark.parametrize("key", ["points", "xyz", "anything"])
def test_npz_keys(key, tmp_path):
    np.savez(tmp_path / "a.npz", **{key: np.ones((4, 3))})
    assert read(tmp_path / "a.npz").xyz.shape == (4, 3)


def test_npz_integers_are_scaled(tmp_path):
    np.savez(tmp_path / "a.npz", points_i16=np.full((4, 3), 32767, np.int16), normals_i8=np.full((4, 3), 127, np.int8))
    cloud = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(cloud.xyz, 1)
    np.testing.assert_array_equal(cloud.feats["normals"], 1)


def test_npz_without_coordinates(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.zeros((4, 3)), two=np.zeros((4, 3)))
    with pytest.raises(FileFormatError, match=r"one, two.*points_i16"):
        read(tmp_path / "a.npz")


def test_a_failed_write_leaves_nothing(tmp_path):
    bad = PointCloud(np.zeros((3, 3), np.float32), {"name": np.array(["ä", "b", "c"])})
    with pytest.raises(DataError, match="'name' of type <U1"):
        write(bad, tmp_path / "a.ply")
    with pytest.raises(PointLiftError, match=r"could not write .*none/a\.ply"):
        write(PointCloud(np.zeros((3, 3), np.float32)), tmp_path / "none" / "a.ply")
    assert not list(tmp_path.iterdir())


def test_the_docs_name_every_ending():
    section = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8").split("## ")
    table = next(part for part in section if part.startswith("Files"))
    assert [ending for ending in ENDINGS if f"`{ending}`" not in table] == []


@pytest.mark.parametrize("ending", WRITTEN)
@pytest.mark.parametrize("name", ["x", "Points", "höhe", "two\nlines", "a b", "a/b", ""])
def test_names_of_features(name, ending, tmp_path):
    cloud = PointCloud(np.eye(3, dtype=np.float32), {name: np.float32([1, 2, 3])})
    with contextlib.suppress(DataError):  # a format may refuse a name, but not write something else
        write(cloud, tmp_path / f"a{ending}")
    if not list(tmp_path.iterdir()):
        return
    back = read(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(back.xyz, cloud.xyz)
    for values in back.feats.values():
        np.testing.assert_array_equal(values[values != 0], cloud.feats[name][: (values != 0).sum()])


def test_find_clouds_and_read_many(cloud, tmp_path):
    for name in ("b.ply", "a.npy", ".hidden.npy"):
        write(cloud, tmp_path / name)
    (tmp_path / "notes.md").write_text("no cloud")
    (tmp_path / "none").mkdir()
    below = tmp_path / "deep" / "er"
    for folder in (below, tmp_path / ".git"):
        folder.mkdir(parents=True)
        write(cloud, folder / "c.pcd.bin")
    (below / "c.label").touch()
    (below / "round").symlink_to(tmp_path, target_is_directory=True)
    assert [p.name for p in find_clouds([tmp_path])] == ["a.npy", "b.ply", "c.pcd.bin"]
    assert [p.name for p in find_clouds([str(tmp_path / "*.ply"), tmp_path / "a.npy"])] == ["b.ply", "a.npy"]
    assert len(list(read_many([tmp_path]))) == 3
    for empty in (tmp_path / "none", tmp_path / "*.xyz"):
        with pytest.raises(FileFormatError, match="no point clouds"):
            find_clouds([empty])


@pytest.mark.parametrize("ending", READERS)
def test_damaged_files_give_a_cloud_or_an_error_for_the_user(cloud, ending, tmp_path):
    rng = np.random.default_rng(11)
    whole = write(cloud, tmp_path / f"good{ending}").read_bytes()
    path = tmp_path / f"bad{ending}"
    for _ in range(60):  # `python -m fuzz` does this at length
        data = bytearray(whole)
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(min(len(data), 200 if rng.random() < 0.5 else len(data))))
            if rng.random() < 0.6:
                data[at] = rng.integers(256)
            else:
                del data[at : at + int(rng.integers(1, 20))]
        path.write_bytes(data)
        try:
            read_back = read(path)
        except FileFormatError:
            continue
        assert np.isfinite(read_back.xyz).all()
