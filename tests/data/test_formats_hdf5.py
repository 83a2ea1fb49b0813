"""One cloud in an HDF5 file, and what such a file must not be able to do."""

from __future__ import annotations

import resource

import h5py
import numpy as np
import pytest

from pointlift.core.errors import DataError, FileFormatError
from pointlift.data.files import read
from pointlift.data.formats.hdf5 import read_arrays

POINTS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def save(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


@pytest.mark.parametrize("key", ["data", "points", "xyz"])
@pytest.mark.parametrize("shape", [(20, 3), (1, 20, 3)])
@pytest.mark.parametrize("ending", [".h5", ".hdf5"])
def test_one_cloud(key, shape, ending, tmp_path):
    path = save(tmp_path / f"a{ending}", **{key: POINTS.reshape(shape), "name": "a chair", "label": np.array([3])})
    cloud = read(path)
    np.testing.assert_array_equal(cloud.xyz, POINTS)
    assert not cloud.feats


def test_arrays_with_a_row_per_point_are_features(tmp_path):
    normals, part = np.ones((1, 20, 3)), np.arange(20)[None]
    cloud = read(save(tmp_path / "a.h5", data=POINTS[None], normal=normals, part=part, other=np.zeros(7)))
    np.testing.assert_array_equal(cloud.feats["normals"], normals[0])
    np.testing.assert_array_equal(cloud.feats["part"], part[0])
    assert set(cloud.feats) == {"normals", "part"}
    assert cloud.feats["normals"].dtype == np.float32


def test_a_single_point_is_not_a_batch(tmp_path):
    cloud = read(save(tmp_path / "a.h5", points=POINTS[:1], normals=POINTS[:1]))
    np.testing.assert_array_equal(cloud.feats["normals"], POINTS[:1])


def test_columns_name_what_follows_the_coordinates(tmp_path):
    path = save(tmp_path / "a.h5", data=np.hstack([POINTS, POINTS]))
    np.testing.assert_array_equal(read(path).feats["extra"], POINTS)
    named = read(path, columns=("x", "y", "z", "nx", "ny", "nz"))
    np.testing.assert_array_equal(named.feats["normals"], POINTS)


def test_many_clouds_are_a_data_set(tmp_path):
    path = save(tmp_path / "a.h5", data=np.zeros((5, 20, 3)), label=np.zeros(5))
    with pytest.raises(FileFormatError, match=r"many clouds.*load_dataset"):
        read(path)


def test_what_reaches_out_of_the_file_is_refused(tmp_path):
    save(tmp_path / "secret.h5", data=POINTS)
    (tmp_path / "raw").write_bytes(POINTS.tobytes())
    source = h5py.VirtualSource(str(tmp_path / "secret.h5"), "data", shape=(20, 3))
    layout = h5py.VirtualLayout((20, 3), "f4")
    layout[:] = source
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("secret.h5", "data")
        file["soft"] = h5py.SoftLink("/link")
        file.create_dataset("outside", (20, 3), "f4", external=[("raw", 0, 240)])
        file.create_virtual_dataset("virtual", layout)
        file.create_group("group")
        file["text"] = "abc"
    for key in ("link", "soft", "outside", "virtual"):
        with pytest.raises(FileFormatError, match="another place"):
            read_arrays(tmp_path / "a.h5", (key,))
    for key, says in {"group": "is a group", "text": "of type", "none": "group, link"}.items():
        with pytest.raises(DataError, match=says):
            read_arrays(tmp_path / "a.h5", (key,))


@pytest.mark.parametrize("arrays", [1, 40])
def test_chunks_that_were_never_written_take_no_memory(arrays, tmp_path):
    rows = 10**10 if arrays == 1 else 10**6
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(arrays):
            file.create_dataset("data" if i == 0 else f"f{i:02}", (rows, 3), "f4", chunks=(1000, 3))
    with pytest.raises(FileFormatError, match="at most"):
        read(tmp_path / "a.h5")


def test_chunks_cost_memory_even_where_they_are_empty(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (1_000_000, 3), "f4", chunks=(1, 1))
        file["pad"] = np.random.default_rng(0).integers(0, 256, 260_000, np.uint8)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(FileFormatError, match="at most"):
        read(tmp_path / "a.h5")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_small_chunks_are_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=POINTS, chunks=(1, 3), compression="gzip")
    np.testing.assert_array_equal(read(tmp_path / "a.h5").xyz, POINTS)


def test_there_is_memory_for_the_filters_of_a_large_chunk(tmp_path):
    shape = (4_000_000, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(
            "data",
            data=np.ones(shape),
            chunks=shape,
            compression="gzip",
            shuffle=True,
            fletcher32=True,
        )
        file["pad"] = np.random.default_rng(0).integers(0, 256, 1_000_000, np.uint8)
    assert read_arrays(tmp_path / "a.h5", ("data",))["data"].min() == 1


def test_chunks_larger_than_the_array(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (4, 3), "f4", chunks=(10**8, 3), maxshape=(None, 3))
    with pytest.raises(FileFormatError, match=r"chunks \(100000000, 3\)"):
        read(tmp_path / "a.h5")
