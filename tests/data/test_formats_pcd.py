"""PCD against pypcd4's writer, LZF, packed colours, missing returns, and headers that lie."""

from __future__ import annotations

import time
from importlib import util

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError
from pointlift.data.cloud import PointCloud
from pointlift.data.files import read, write
from pointlift.data.formats import lzf

pypcd4 = pytest.importorskip("pypcd4")
KINDS = ("ascii", "binary", "binary_compressed")


def save(path, fields, arrays, kind):
    types = tuple(a.dtype.type for a in arrays)
    cloud = pypcd4.PointCloud.from_points(arrays, fields, types)
    cloud.save(
        str(path), encoding=getattr(pypcd4.Encoding, "BINARY_COMPRESSED" if kind == "compressed" else kind.upper())
    )


@pytest.mark.parametrize("points", [7, 20_000])
@pytest.mark.parametrize("kind", KINDS)
def test_what_pypcd4_writes(kind, points, tmp_path):
    rng = np.random.default_rng(points)
    z, y, x = (rng.integers(-500, 500, points).astype(np.float32) / 8 for _ in range(3))
    red, green, blue = rng.integers(0, 256, (3, points))
    rgb = pypcd4.PointCloud.encode_rgb(np.stack([red, green, blue], 1).astype(np.uint8))
    normal = [rng.integers(-8, 8, points).astype(np.float32) for _ in range(3)]
    arrays = [z, rgb, x, *normal, y, np.arange(points, dtype=np.uint16), np.arange(points, dtype=np.float64) * 1e9]
    fields = ("z", "rgb", "x", "normal_x", "normal_y", "normal_z", "y", "label", "timestamp")
    if kind == "ascii":  # pypcd4 prints too few digits for a float that carries bits
        arrays, fields = [a for a, f in zip(arrays, fields, strict=True) if f != "rgb"], fields[:1] + fields[2:]
    save(tmp_path / "a.pcd", fields, arrays, kind)
    cloud = read(tmp_path / "a.pcd")
    np.testing.assert_array_equal(cloud.xyz, np.stack([x, y, z], 1))
    np.testing.assert_array_equal(cloud.feats["normals"], np.stack(normal, 1))
    np.testing.assert_array_equal(cloud.feats["label"], np.arange(points))
    assert cloud.feats["label"].dtype == np.int64
    if kind != "ascii":
        np.testing.assert_array_equal(cloud.feats["timestamp"], arrays[-1])
        np.testing.assert_array_equal(cloud.feats["colors"], np.stack([red, green, blue], 1))
        assert cloud.feats["colors"].dtype == np.uint8
    assert not cloud.meta


def test_pypcd4_reads_what_we_write(tmp_path):
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (9, 3), dtype=np.uint8)
    feats = {"colors": colors, "normals": rng.normal(size=(9, 3)).astype(np.float32), "label": np.arange(9)}
    cloud = PointCloud(rng.normal(size=(9, 3)).astype(np.float32), feats)
    other = pypcd4.PointCloud.from_path(str(write(cloud, tmp_path / "a.pcd")))
    np.testing.assert_array_equal(other.numpy(("x", "y", "z")), cloud.xyz)
    np.testing.assert_array_equal(other.numpy(("normal_y",))[:, 0], feats["normals"][:, 1])
    np.testing.assert_array_equal(pypcd4.PointCloud.decode_rgb(other.pc_data["rgb"]), colors)


def header(
    *, fields="x y z", size="4 4 4", kind="F F F", count="1 1 1", width="2", height="1", points="2", data="ascii"
):
    lines = ["# .PCD v.7", "VERSION .7", f"FIELDS {fields}", f"SIZE {size}", f"TYPE {kind}"]
    lines += [f"COUNT {count}"] if count else []
    lines += [f"WIDTH {width}", f"HEIGHT {height}", "VIEWPOINT 0 0 0 1 0 0 0"]
    lines += [f"POINTS {points}"] if points else []
    return "\n".join([*lines, f"DATA {data}", ""]).encode()


GOOD = {
    "ascii": header() + b"1 2 3\n4 5 6\n",
    "no count, no points": header(count="", points="") + b"1 2 3\n4 5 6\n",
    "other cases": header(kind="f f f", data="ASCII").replace(b"\n", b"\r\n") + b"1 2 3\r\n4 5 6\r\n",
    "old name": header().replace(b"FIELDS", b"COLUMNS") + b"1 2 3\n4 5 6\n",
    "padding": header(fields="_ x y _ z", size="1 4 4 2 4", kind="U F F U F", count="3 1 1 2 1", data="binary")
    + b"".join(b"abc" + np.float32([i, i + 1]).tobytes() + b"defg" + np.float32(i + 2).tobytes() for i in (1, 4)),
    "integers and doubles": header(size="2 8 1", kind="I F U", data="binary")
    + b"".join(np.int16(i).tobytes() + np.float64(i + 1).tobytes() + np.uint8(i + 2).tobytes() for i in (1, 4)),
}


@pytest.mark.parametrize("name", GOOD)
def test_ways_to_write_a_cloud(name, tmp_path):
    (tmp_path / "a.pcd").write_bytes(GOOD[name])
    cloud = read(tmp_path / "a.pcd")
    np.testing.assert_array_equal(cloud.xyz, [[1, 2, 3], [4, 5, 6]])
    assert not cloud.feats


@pytest.mark.parametrize(("name", "kind"), [("rgb", "F"), ("rgb", "U"), ("rgba", "U"), ("rgba", "I")])
def test_packed_colours(name, kind, tmp_path):
    packed = np.array([0xFF0A1420, 0x00FF0001], np.uint32)
    text = packed.view({"F": np.float32, "U": np.uint32, "I": np.int32}[kind])
    head = header(fields=f"x y z {name}", size="4 4 4 4", kind=f"F F F {kind}", count="1 1 1 1", data="binary")
    (tmp_path / "a.pcd").write_bytes(head + b"".join(np.float32([1, 2, 3]).tobytes() + v.tobytes() for v in text))
    cloud = read(tmp_path / "a.pcd")
    np.testing.assert_array_equal(cloud.feats["colors"], [[10, 20, 32], [255, 0, 1]])
    assert set(cloud.feats) == ({"colors", "alpha"} if name == "rgba" else {"colors"})


def test_packed_colours_as_text(tmp_path):
    (tmp_path / "a.pcd").write_bytes(
        header(fields="x y z rgb", size="4 4 4 4", kind="F F F F", count="1 1 1 1") + b"1 2 3 4.2108e+06\n1 2 3 1e-40\n"
    )
    bits = np.float32([4.2108e06, 1e-40]).view(np.uint32)
    expected = np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], 1)
    np.testing.assert_array_equal(read(tmp_path / "a.pcd").feats["colors"], expected)


def cloud_of_fields(names, values, data="ascii", kinds=None):
    n = len(names.split())
    head = header(fields=names, size=" ".join("4" * n), kind=kinds or " ".join("F" * n), count=" ".join("1" * n),
                  width="1", points="1", data=data)  # fmt: skip
    return head + (values.encode() if data == "ascii" else np.float32(values.split()).tobytes())


@pytest.mark.parametrize("data", ["ascii", "binary"])
@pytest.mark.parametrize(
    ("names", "twice"),
    [("x y z X", "'x' and 'X'"), ("x y z r red", "'r' and 'red'"), ("x y z rgb red", "'red' and 'red'")],
)
def test_fields_that_mean_the_same(names, twice, data, tmp_path):
    (tmp_path / "a.pcd").write_bytes(cloud_of_fields(names, "1 2 3 4 5"[: 2 * len(names.split()) - 1], data))
    with pytest.raises(FileFormatError, match=rf"a\.pcd: columns {twice}"):
        read(tmp_path / "a.pcd")


@pytest.mark.parametrize("value", ["1.7", "-1", "nan"])
def test_integer_fields_hold_whole_numbers(value, tmp_path):
    for good in (False, True):
        text = cloud_of_fields("x y z ring", f"1 2 3 {'7.0' if good else value}", kinds="F F F U")
        (tmp_path / "a.pcd").write_bytes(text)
        if good:
            assert read(tmp_path / "a.pcd").feats["ring"].tolist() == [7]
        else:
            with pytest.raises(FileFormatError, match="'ring' has values that do not fit uint32"):
                read(tmp_path / "a.pcd")


def test_fields_of_several_numbers_stay_together(tmp_path):
    body = b"1 2 3 7 8 9\n4 5 6 10 11 12\n"
    head = header(fields="x y z fpfh", size="4 4 4 4", kind="F F F F", count="1 1 1 3")
    (tmp_path / "a.pcd").write_bytes(head + body)
    cloud = read(tmp_path / "a.pcd")
    np.testing.assert_array_equal(cloud.feats["fpfh"], [[7, 8, 9], [10, 11, 12]])
    np.testing.assert_array_equal(read(write(cloud, tmp_path / "b.pcd")).feats["fpfh"], cloud.feats["fpfh"])


def test_points_without_a_return_are_left_out_and_counted(tmp_path):
    body = b"1 2 3 7\nnan nan nan 8\n4 5 nan 9\n4 5 6 10\n"
    head = header(
        fields="x y z label", size="4 4 4 1", kind="F F F U", count="1 1 1 1", width="2", height="2", points="4"
    )
    (tmp_path / "a.pcd").write_bytes(head + body)
    cloud = read(tmp_path / "a.pcd")
    np.testing.assert_array_equal(cloud.xyz, [[1, 2, 3], [4, 5, 6]])
    assert cloud.feats["label"].tolist() == [7, 10]
    assert cloud.meta == {"organised": (2, 2), "no_return": 2}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header().replace(b"DATA", b"DATUM"), "header line 'DATUM ascii'"),
        (b"VERSION .7\nFIELDS x y z\n", "no header line DATA"),
        (header(fields="x y") + b"1 2 3\n4 5 6\n", "2 FIELDS, 3 SIZE"),
        (header(fields="x y y") + b"1 2 3\n4 5 6\n", "named twice"),
        (header(fields="x y w") + b"1 2 3\n4 5 6\n", "no column 'z'"),
        (header(size="4 4 3") + b"1 2 3\n4 5 6\n", "'z' of SIZE 3"),
        (header(kind="F F Q") + b"1 2 3\n4 5 6\n", "TYPE Q"),
        (header(count="1 1 0") + b"1 2 3\n4 5 6\n", "COUNT 0"),
        (header(count="1 1 -1") + b"1 2 3\n4 5 6\n", "COUNT -1"),
        (header(count="1 1 999999999", data="binary") + b"\0" * 24, "COUNT 999999999"),
        (header(points="3") + b"1 2 3\n4 5 6\n", "POINTS 3 for WIDTH 2 and HEIGHT 1"),
        (header(width="two") + b"1 2 3\n4 5 6\n", "WIDTH 'two'"),
        (header(width="0", points="0"), "no points"),
        (header(width="9" * 18, points="9" * 18) + b"1 2 3\n4 5 6\n", "promises 999,999"),
        (header(width="9" * 18, points="9" * 18, data="binary") + b"1 2 3\n4 5 6\n", "promises 999,999"),
        (header(width="9" * 40, points="") + b"1 2 3\n4 5 6\n", "WIDTH '9999"),
        (
            header(width="99999999", points="99999999", data="binary_compressed") + b"\x09\0\0\0\0\0\0\x7f" + b"1" * 9,
            "9 comp",
        ),
        (header(data="binary_compressed") + b"\x09\0\0", "promises 2 points"),
        (header(data="binary_compressed") + b"\x09\0\0\0\x18\0\0\0" + b"\0" * 9, "damaged"),
        (header(data="binary_compressed") + b"\x09\0\0\0\x18\0\0\0" + b"\xff" * 9, "damaged"),
        (header(data="zip") + b"1 2 3\n", "DATA 'zip'"),
        (header() + b"1.00 2.00 3.00\n", "1 rows of 3 numbers"),
        (header() + b"1.0 2 3\n4.0 5\n", "row 2"),
        (header() + b"1 2 3\n4 5 inf\n", "1 of 2 points"),
        (header() + b"nan 2 3\nnan 5 6\n", "no points"),
        (header(kind="F F U") + b"1 2 3\n4 5 -6\n", "'z' has values that do not fit uint32"),
        (header(data="binary") + b"\0" * 23, "promises 2 points, which take at least 24 bytes; 23"),
    ],
)
def test_headers_that_lie(content, says, tmp_path):
    path = tmp_path / "a.pcd"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(FileFormatError, match=says):
        read(path)
    assert time.perf_counter() - start < 2


PLAIN = {
    "empty runs": b"abcdefgh" * 3,
    "zeros": bytes(5000),
    "noise": np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8).tobytes(),
    "overlap": b"ab" * 700 + b"x" + b"abc" * 100,
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_lzf_undoes_the_compressor_of_pypcd4(name, compiled, monkeypatch):
    packed = _compress(PLAIN[name])
    if compiled and util.find_spec("numba"):
        monkeypatch.setattr(lzf, "SMALL", 0)
    size = len(PLAIN[name])
    assert lzf.decompress(packed, size) == PLAIN[name]
    assert lzf.decompress(packed, size + 1) is None
    assert lzf.decompress(packed, size - 1) is None
    for cut in (1, len(packed) // 2, len(packed) - 1):
        assert lzf.decompress(packed[:cut], size) is None


@pytest.mark.parametrize("seed", range(5))
def test_both_ways_to_run_lzf_agree_on_noise(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    for _ in range(40):
        data = rng.integers(0, 256, rng.integers(1, 40), dtype=np.uint8).tobytes()
        out = bytearray(400)
        size = lzf.decode(data, out)
        array = np.zeros(400, np.uint8)
        assert lzf._compiled()(np.frombuffer(data, np.uint8), array) == size
        assert array.tobytes() == out


def _compress(data: bytes) -> bytes:
    """Greedy LZF, to have something to undo: runs of up to 32 bytes, copies of up to 264 from up to 8 KiB before."""
    out, run, at, last = bytearray(), bytearray(), 0, {}

    def flush() -> None:
        for i in range(0, len(run), 32):
            part = run[i : i + 32]
            out.extend([len(part) - 1, *part])
        run.clear()

    while at < len(data):
        key = data[at : at + 3]
        before = last.get(key, -1)
        last[key] = at
        length = 0
        if before >= 0 and at - before <= 8192 and len(key) == 3:
            while length < 264 and at + length < len(data) and data[before + length] == data[at + length]:
                length += 1
        if length < 3:
            run.append(data[at])
            at += 1
            continue
        flush()
        distance, code = at - before - 1, length - 2
        out.append((min(code, 7) << 5) | distance >> 8)
        out.extend([code - 7] if code >= 7 else [])
        out.append(distance & 255)
        at += length
    flush()
    return bytes(out)
