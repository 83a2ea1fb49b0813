"""Files made to hurt: headers that promise, archives that swell, links that lead away, pickles that run code."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile

import numpy as np

from fuzz.containers import NPY


def clouds(ending: str) -> list[bytes]:
    """Hostile files of one ending."""
    made = {".npy": _npy, ".npz": _npz, ".ply": _ply, ".h5": hdf5, ".hdf5": hdf5, ".stl": _stl, ".pcd": _pcd}
    if ending in made:
        return made[ending]()
    return list(_TEXT) if ending in {".xyz", ".txt", ".csv", ".pts", ".asc", ".off", ".obj"} else []


_TEXT = (
    b"1 " * 100_000,
    b"1\n" * 100_000,
    b"999999999999\n1 2 3\n",
    b"1 2 3\n" * 1000 + b"1 2\n",
    b"#" * 100_000,
    b"//" * 50_000 + b"\n1 2 3\n",
    b"1,2,3" + b"," * 50_000 + b"\n",
    b"(" * 10_000,
    "١ ٢ ٣\n".encode(),
    "1 2 3\n4 5 6\n".encode("utf-16"),
    "1 2 3\n4 5 6\n".encode("utf-32"),
    b"1 2 3\n4 5 6\n" + b"\0" * 70_000,
    b"1" * 100_000 + b" 2 3\n",
    b"\x1b[2J 1 2 3\n\x1b]0;title\x07 x y\n",
)


def npy_header(text: str, body: bytes = b"") -> bytes:
    return NPY + b"\1\0" + struct.pack("<H", len(text)) + text.encode("latin-1") + body


def _npy() -> list[bytes]:
    lie = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"
    return [
        npy_header(lie.format("<f4", "(1000000000000, 3)")),
        npy_header(lie.format("<f4", "(4294967296, 4294967296, 4294967296)")),
        npy_header(lie.format("|V0", "(1000000000000, 3)")),
        npy_header(lie.format("|S0", "(1000000000000, 3)")),
        npy_header(lie.format("<U0", "(1000000000, 3)")),
        npy_header(lie.format("|O", "(1, 3)"), pickle.dumps([1, 2, 3])),
        npy_header("{" * 60_000),
        npy_header("1" + "+1" * 30_000),
        npy_header(
            "{'descr': [('x','<f4'),('y','<f4'),('z','<f4')], 'fortran_order': False, 'shape': (2,), }", bytes(24)
        ),
    ]


def _npz() -> list[bytes]:
    zeros = npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (700000, 3), }", bytes(700000 * 12))
    lying = npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (100000000, 3), }", bytes(120))
    return [
        _zip({"points.npy": zeros}),
        _zip({"points.npy": zeros} | {f"n{i}.npy": zeros for i in range(7)}),
        _zip({"points.npy": zeros}, zipfile.ZIP_BZIP2),
        _zip({"points.npy": zeros}, zipfile.ZIP_LZMA),
        _zip({"points.npy": lying}),
        _zip({f"{i}.npy": b"" for i in range(5000)}),
        _overlapping(zeros, 40),
        _zip(
            {"points.npy": npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 3), }", pickle.dumps([1]))}
        ),
    ]


def _zip(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, kind)
    return out.getvalue()


def _overlapping(data: bytes, times: int) -> bytes:
    """Many names in the central directory for one and the same member."""
    archive = _zip({"points.npy": data})
    start, end = archive.rfind(b"PK\1\2"), archive.rfind(b"PK\5\6")
    entry = archive[start:end]
    entries = b"".join(entry.replace(b"points", b"p%05d" % i) for i in range(times)).replace(b"p00000", b"points", 1)
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, times, times, len(entries), start, 0)
    return archive[:start] + entries + tail


_XYZ = b"property float x\nproperty float y\nproperty float z\n"


def _ply() -> list[bytes]:
    def made(elements: bytes, body: bytes = b"0 0 0\n", form: bytes = b"ascii") -> bytes:
        return b"ply\nformat " + form + b" 1.0\n" + elements + b"end_header\n" + body

    lists = b"element face 100000000000000000\nproperty list %s int i\nelement vertex 1\n" + _XYZ
    vertices = b"element vertex %d\n" + _XYZ
    many = b"".join(b"property float p%d\n" % i for i in range(20_000))
    little = b"binary_little_endian"
    return [
        made(vertices % 10**18),
        made(vertices % 10**18, bytes(36), little),
        made(vertices % 3, b"0 0 0\n" * 50_000),
        made(vertices % 0),
        made(lists % b"uchar", bytes(100_000), little),
        made(lists % b"int", b"\xff" * 100_000, little),
        made(lists % b"uint", b"\xff" * 100_000, little),
        made(lists % b"double", bytes(100_000), little),
        made(b"element a 999999999999\n" + vertices % 1),
        made(b"element a 999999999999\n" + vertices % 1, bytes(12), little),
        made(b"element vertex 1\n" + many + _XYZ),
        made(vertices % 1 + b"property float x\n"),
        made(b"element e 1\n" * 20_000),
        b"ply\n" + b"comment x\n" * 50_000 + b"end_header\n",
    ]


def _stl() -> list[bytes]:
    return [
        bytes(80) + struct.pack("<I", 2**32 - 1) + bytes(50),
        b"solid x\n" + b"facet normal 0 0 1\n" * 20_000,
        b"solid " + b"x" * 100_000,
        bytes(80) + struct.pack("<I", 2) + b"\xff" * 100,
    ]


def _pcd() -> list[bytes]:
    head = b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH %d\nHEIGHT %d\nPOINTS %d\nDATA %s\n"
    bomb = bytes([11] * 13) + bytes((0xE0, 0xFF, 0)) * 30_000
    points = 1 + 30_000 * 264 // 12
    return [
        head % (points, 1, points, b"binary_compressed") + struct.pack("<II", len(bomb), points * 12) + bomb,
        head % (10**12, 1, 10**12, b"ascii") + b"0 0 0\n",
        head % (10**12, 10**12, 10**12, b"binary") + bytes(36),
        head % (10**8, 1, 10**8, b"binary_compressed") + struct.pack("<II", 8, 12 * 10**8) + bytes(8),
        b"FIELDS x y z p\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 99999999\nWIDTH 1\nHEIGHT 1\nPOINTS 1\n"
        b"DATA ascii\n0 0 0 0\n",
        b"FIELDS " + b"x " * 50_000 + b"\nDATA ascii\n",
    ]


def hdf5(keys: tuple[str, str] = ("data", "label")) -> list[bytes]:
    """HDF5 files whose `data` lies elsewhere, is nowhere, swells, or is no array of numbers."""
    import h5py

    key, other = keys

    def made(fill, **options) -> bytes:
        out = io.BytesIO()
        with h5py.File(out, "w", **options) as file:
            fill(file)
            if other not in file:
                file[other] = np.zeros(1, np.int64)
        return out.getvalue()

    def create(*args, **options):
        return lambda file: file.create_dataset(key, *args, **options)

    def put(value):
        return lambda file: file.__setitem__(key, value)

    def virtual(file) -> None:
        layout = h5py.VirtualLayout((1, 4, 3), "f4")
        layout[0] = h5py.VirtualSource("/etc/passwd", "x", (4, 3))
        file.create_virtual_dataset(key, layout)

    def circle(file) -> None:
        file.create_group(key)[key] = h5py.SoftLink(f"/{key}")
        file[key]["up"] = file["/"]

    def crumbs(file) -> None:
        file.create_dataset(key, (1, 1_000_000, 3), "f4", chunks=(1, 1, 1))
        file["pad"] = np.random.default_rng(0).integers(0, 256, 60_000, np.uint8)

    points = np.zeros((1, 4, 3), np.float32)
    big = (1, 5_000_000, 3)
    return [
        made(put(points)),
        made(put(points), libver="latest"),
        made(create(data=points, chunks=(1, 2, 3), compression="gzip", shuffle=True, fletcher32=True)),
        made(create(data=points, chunks=(1, 2, 3), compression="lzf")),
        made(create(data=points.astype(">f8"), chunks=(1, 1, 3), maxshape=(None, None, 3))),
        made(put(h5py.SoftLink(f"/{key}"))),
        made(put(h5py.ExternalLink("/etc/passwd", "/x"))),
        made(virtual),
        made(circle),
        made(crumbs),
        made(create(big, "f4", chunks=(1, 1000, 3))),
        made(create(big, "f4", chunks=big)),
        made(create(big, "f4")),
        made(create((1, 2**40, 3), "f4", chunks=(1, 2**20, 3))),
        made(
            create(data=np.zeros((1, 700_000, 3), "f4"), chunks=(1, 700_000, 3), compression="gzip", compression_opts=9)
        ),
        made(create((1, 4, 3), "f4", external=[("/etc/passwd", 0, 48)])),
        made(create((1, 4, 3), h5py.vlen_dtype(np.float32))),
        made(create((1, 4, 3), h5py.string_dtype())),
        made(create((1, 4, 3), h5py.ref_dtype)),
        made(create((1, 4), np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4")]))),
        made(create((1, 4, 3), h5py.enum_dtype({"a": 0}))),
        made(create((1, 4), np.dtype(("f4", (3,))))),
        made(create((1, 0, 3), "f4")),
        made(create(data=h5py.Empty("f4"))),
        made(put(np.float32(1))),
        made(create((1, 4, 3), "f2")),
        made(create((1, 4, 3), "c8")),
    ]


class _Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickles() -> list[bytes]:
    """Pickles that call something, that swell, or that are no valid program."""
    import os

    lists = (
        b"(l"
        + b"p0\n"
        + b"".join(b"(l" + b"g%d\n" % (i - 1) + b"ag%d\n" % (i - 1) + b"ap%d\n" % i for i in range(1, 40))
        + b"."
    )
    return [
        pickle.dumps({"data": [1, 2.5, "x", None, (1, 2)], "n": np.arange(6.0).reshape(2, 3)}),
        pickle.dumps([np.zeros((2, 3), np.float32), np.array([0, 1])], protocol=2),
        pickle.dumps([np.zeros((2, 3), np.float32)], protocol=0),
        pickle.dumps(np.zeros((2, 3), np.float32), protocol=5),
        pickle.dumps(_Calls(os.system, "touch /tmp/fuzz_was_here")),
        pickle.dumps(_Calls(eval, "1+1"), protocol=0),
        pickle.dumps(_Calls(bytearray, 1 << 40)),
        pickle.dumps(_Calls(np.zeros, (1 << 40,))),
        pickle.dumps(np.array([object], dtype=object)[:0]),
        b"cos\nsystem\n(S'touch /tmp/fuzz_was_here'\ntR.",
        b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'true'\ntR.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"N.",
        b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"N.",
        b"\x80\x02r" + struct.pack("<I", 2**31) + b"N.",
        b"N" + b"0N" * 1000 + b"r\xff\xff\xff\x7f.",
        b"(" * 100_000 + b"l" * 50_000 + b".",
        b"]" * 50_000 + b"a" * 49_999 + b".",
        b"I" + b"9" * 20_000 + b"\n.",
        b"\x8b" + struct.pack("<I", 50_000) + b"\x7f" * 50_000 + b".",
        lists,
        bytes(ord(op.code) for op in pickletools.opcodes),
    ]


def swelling_checkpoint() -> bytes:
    """An archive of 15 KB whose pickle is ten million operations long."""
    numbers = b"\x80\x02" + b"K\x000" * 5_000_000 + b"N."
    return _zip({"archive/data.pkl": numbers, "archive/version": b"3\n"})


YAML = (
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    b"!!python/object/apply:os.system ['true']\n",
    b"[" * 5000,
    b"{" * 2000,
    b"epochs: " + b"9" * 5000 + b"\n",
    b"? [a, b]\n: c\n",
    b"<<: {a: 1}\nepochs: 2\n",
    b"epochs: 1\nepochs: 2\n",
    b"extends: recipe.yaml\n",
    b"extends: demo/shapes\nepochs: 3\n",
    b"a: 2026-13-01\n",
    b"- " * 3000,
    b"x: !!binary '===='\n",
    b"x: 1:2:3:4:5.6\n",
)
