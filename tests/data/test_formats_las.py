"""LAS and LAZ against laspy, what its dimensions become, and headers that lie."""

from __future__ import annotations

import builtins
import struct
import time

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.files import read, write

laspy = pytest.importorskip("laspy")
pytest.importorskip("lazrs")
BOTH = pytest.mark.parametrize("ending", [".las", ".laz"])


def save(path, point_format=3, points=50, **dimensions):
    rng = np.random.default_rng(points)
    header = laspy.LasHeader(point_format=point_format, version="1.4" if point_format > 5 else "1.2")
    header.scales, header.offsets = [0.001] * 3, [350_000, 5_400_000, 0]
    las = laspy.LasData(header)
    xyz = rng.integers(0, 100_000, (points, 3)) / 1000 + header.offsets
    las.x, las.y, las.z = xyz.T
    for name, values in dimensions.items():
        if name not in las.point_format.dimension_names:
            las.add_extra_dim(laspy.ExtraBytesParams(name, np.asarray(values).dtype))
        las[name] = values
    las.write(str(path))
    return path, xyz


@BOTH
@pytest.mark.parametrize("point_format", [0, 1, 2, 3, 6, 7, 8])
def test_what_laspy_writes(point_format, ending, tmp_path):
    classes, intensity = np.arange(50) % 7, np.arange(50) * 1000
    path, xyz = save(
        tmp_path / f"a{ending}", point_format, classification=classes, intensity=intensity, return_number=[1] * 50
    )
    cloud = read(path)
    np.testing.assert_allclose(cloud.world_xyz, xyz, atol=1e-5)
    assert cloud.offset[1] == pytest.approx(5_400_050, abs=100)
    np.testing.assert_array_equal(cloud.feats["semantic"], classes)
    np.testing.assert_array_equal(cloud.feats["intensity"], intensity)
    assert (cloud.feats["semantic"].dtype, cloud.feats["intensity"].dtype) == (np.int64, np.uint16)
    # what is zero for every point is left out: gps_time, colours, scan angle, ...
    assert set(cloud.feats) == {"semantic", "intensity", "return_number"}


@BOTH
@pytest.mark.parametrize("factor", [1, 257])
def test_colours_of_8_and_of_16_bits(factor, ending, tmp_path):
    colors = np.random.default_rng(0).integers(1, 256, (50, 3))
    red, green, blue = colors.T * factor
    path, _ = save(tmp_path / f"a{ending}", 2, red=red, green=green, blue=blue)
    cloud = read(path)
    np.testing.assert_array_equal(cloud.feats["colors"], colors)
    assert cloud.feats["colors"].dtype == np.uint8


@BOTH
def test_extra_dimensions_come_under_their_names(ending, tmp_path):
    heights, times = np.linspace(0, 1, 50), 3e8 + np.arange(50) / 1e4
    path, _ = save(
        tmp_path / f"a{ending}", 1, height=heights, NormalX=heights, NormalY=heights, NormalZ=heights, gps_time=times
    )
    cloud = read(path)
    np.testing.assert_allclose(cloud.feats["height"], heights, rtol=1e-6)
    np.testing.assert_allclose(cloud.feats["normals"], np.stack([heights] * 3, 1), rtol=1e-6)
    np.testing.assert_array_equal(cloud.feats["gps_time"], times)


@BOTH
def test_laspy_reads_what_we_write(ending, tmp_path):
    rng = np.random.default_rng(0)
    feats = {
        "colors": rng.integers(0, 256, (20, 3), dtype=np.uint8),
        "semantic": rng.integers(0, 20, 20),
        "intensity": rng.integers(0, 60_000, 20).astype(np.uint16),
        "return_number": rng.integers(1, 5, 20),
        "reflectance": rng.random(20).astype(np.float32),
        "extra": rng.random((20, 2)).astype(np.float32),
    }
    world = rng.normal(size=(20, 3)) + np.array([4.5e5, 5.4e6, 100])
    path = write(PointCloud.from_array(world, "a", feats=feats), tmp_path / f"a{ending}")
    las = laspy.read(str(path))
    np.testing.assert_allclose(las.xyz, world, atol=1e-8)
    np.testing.assert_array_equal(np.stack([las.red, las.green, las.blue], 1), feats["colors"].astype(np.uint16) * 257)
    for ours, theirs in {"semantic": "classification"}.items() | {(n, n) for n in list(feats)[2:5]}:
        np.testing.assert_array_equal(las[theirs], feats[ours])
    np.testing.assert_array_equal(las["extra_1"], feats["extra"][:, 1])


def test_values_beyond_a_standard_dimension_survive(tmp_path):
    feats = {
        "semantic": np.array([3, 1000, -1]),
        "intensity": np.float32([0.25, 0.5, 1e9]),
        "return_number": np.array([1, 2, 77]),
        "colors": np.float32([[0.5, 2.0, 3.0]] * 3),
    }
    cloud = PointCloud(np.eye(3, dtype=np.float32), feats)
    back = read(write(cloud, tmp_path / "a.laz"))
    assert set(back.feats) == set(feats)
    for name, values in feats.items():
        np.testing.assert_array_equal(back.feats[name], values)


@BOTH
@pytest.mark.parametrize(
    ("offset", "kind", "value", "says"),
    [
        (107, "<I", 2**32 - 1, "promises"),
        (96, "<I", 2**31, "points from byte"),
        (96, "<I", 1, "points from byte"),
        (100, "<I", 2**32 - 1, "records before the points"),
        (104, "<B", 99, "point format"),
        (105, "<H", 3, "of 3 bytes"),
        (131, "<d", 0.0, "scales"),
        (139, "<d", float("nan"), "scales"),
        (155, "<d", float("inf"), "scales"),
        (107, "<I", 0, "no points"),
    ],
)
def test_headers_that_lie(offset, kind, value, says, ending, tmp_path):
    path, _ = save(tmp_path / f"a{ending}")
    data = bytearray(path.read_bytes())
    struct.pack_into(kind, data, offset, value)
    path.write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(FileFormatError, match=says):
        read(path)
    assert time.perf_counter() - start < 2


@BOTH
@pytest.mark.parametrize("kept", [4, 100, 226, 300, 0.25, 0.5, 0.9])
def test_a_file_that_is_cut_short_says_so(kept, ending, tmp_path):
    path, _ = save(tmp_path / f"a{ending}", 6, points=2000)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(FileFormatError, match=r"Expected: a complete") as refused:
        read(path)
    assert "not a LAS file" not in str(refused.value)


def test_layers_of_a_chunk_larger_than_the_file(tmp_path):
    """lazrs takes memory for the size that stands in the file: 4 GiB for each layer here, were it not checked."""
    path, _ = save(tmp_path / "a.laz", 6)
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[96:100], "little")
    layers = start + 8 + 30 + 4  # after the place of the table, the first point, the number of points
    for i in range(9):
        struct.pack_into("<I", data, layers + 4 * i, 2**32 - 1)
    path.write_bytes(data)
    begin = time.perf_counter()
    with pytest.raises(FileFormatError, match="compressed chunk 0 of 1 promises to end at byte 38,654"):
        read(path)
    assert time.perf_counter() - begin < 1


def test_a_table_of_too_many_chunks(tmp_path):
    path, _ = save(tmp_path / "a.laz")
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[96:100], "little")
    table = int.from_bytes(data[start : start + 8], "little")
    struct.pack_into("<I", data, table + 4, 2**31)
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="2,147,483,648 chunks"):
        read(path)


def test_without_laspy_the_message_says_what_to_install(tmp_path, monkeypatch):
    path, _ = save(tmp_path / "a.las")
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "laspy":
            raise ModuleNotFoundError("No module named 'laspy'", name="laspy")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FileFormatError, match=r"need the package laspy.*pip install 'pointlift\[las\]'"):
        read(path)
