"""Good files by hand: what other programs write and our own writers do not. Bytes, or several files by name."""

from __future__ import annotations

import struct

from fuzz import Files

_FACES_FIRST = (
    b"ply\nformat ascii 1.0\ncomment made by hand\nobj_info x\nelement face 2\nproperty list uchar int vertex_indices\n"
    b"element vertex 4\nproperty double x\nproperty float y\nproperty float z\nproperty uchar red\n"
    b"property uchar green\nproperty uchar blue\nproperty int label\nend_header\n3 0 1 2\n3 0 2 3\n"
    b"0 0 0 255 0 0 1\n1 0 0 0 255 0 1\n0 1 0 0 0 255 2\n0 0 1 9 9 9 2\n"
)
_BIG_ENDIAN = (
    b"ply\nformat binary_big_endian 1.0\nelement face 1\nproperty uchar flag\nproperty list uchar int vertex_indices\n"
    b"element vertex 4\nproperty float z\nproperty float y\nproperty float x\nproperty short s\nend_header\n"
    + struct.pack(">BBiii", 1, 3, 0, 1, 2)
    + b"".join(struct.pack(">fffh", i, i * 2, 1.5, -i) for i in range(4))
)
_CRLF = (
    b"ply\r\nformat ascii 1.0\r\nelement vertex 3\r\nproperty float x\r\nproperty float y\r\nproperty float z\r\n"
    b"end_header\r\n0 0 0\r\n1 0 0\r\n0 1 0\r\n"
)
_CUBE = b"0 0 0\n1 0 0\n1 1 0\n0 1 0\n0 0 1\n1 0 1\n1 1 1\n0 1 1\n"
_CUBE_OFF = b"8 6 12\n" + _CUBE + b"4 0 1 2 3\n4 4 5 6 7\n4 0 1 5 4\n4 1 2 6 5\n4 2 3 7 6\n4 3 0 4 7\n"
_TRIANGLES = (((0, 0, 1), (0, 0, 0), (1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, 0), (1, 0, 0), (0, 0, 1)))
_STL = (
    b"made by hand".ljust(80)
    + struct.pack("<I", 2)
    + b"".join(struct.pack("<12fH", *(v for p in t for v in p), 0) for t in _TRIANGLES)
)
_STL_TEXT = b"solid box\n" + b"".join(
    b"facet normal %d %d %d\n outer loop\n" % t[0]
    + b"".join(b"  vertex %d %d %d\n" % p for p in t[1:])
    + b" endloop\nendfacet\n"
    for t in _TRIANGLES
) + b"endsolid box\n"  # fmt: skip
_OBJ = (
    b"# by hand\nmtllib ../../etc/passwd\no thing\nv 0 0 0\nv 1 0 0 1.0\nv 1 1 0 0.5 0.2 0.9\nv 0 1 0\nv 0 0 1\n"
    b"vt 0 0\n"
    b"vn 0 0 1\ng part\nusemtl m\ns off\nf 1/1/1 2/1/1 3/1/1 4/1/1\nf 1//1 2//1 5//1\nf -1 -2 -3\nl 1 2\n"
)
_PCD = (
    b"# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb label\nSIZE 4 4 4 4 4\nTYPE F F F U U\nCOUNT 1 1 1 1 1\n"
    b"WIDTH 3\nHEIGHT 1\n"
    b"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 3\nDATA ascii\n0 0 0 4278190335 1\n1 0 0 16711680 2\nnan nan nan 0 0\n"
)
_PCD_BINARY = (
    b"VERSION 0.7\nFIELDS x y z _ intensity normal_x normal_y normal_z curvature\nSIZE 4 4 4 1 2 4 4 4 4\n"
    b"TYPE F F F U U F F F F\nCOUNT 1 1 1 4 1 1 1 1 1\nWIDTH 2\nHEIGHT 2\nPOINTS 4\nDATA binary\n"
    + b"".join(struct.pack("<3f4xH4f", i, 1, 2, 7 * i, 0, 0, 1, 0.5) for i in range(4))
)


def _lzf_stored(data: bytes) -> bytes:
    """LZF without matches: runs of literals."""
    runs = (data[i : i + 32] for i in range(0, len(data), 32))
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


_COLUMNS = struct.pack("<12f", *range(12))
_PCD_LZF = (
    b"VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 4\nHEIGHT 1\nPOINTS 4\n"
    b"DATA binary_compressed\n"
    + struct.pack("<II", len(_lzf_stored(_COLUMNS)), len(_COLUMNS)) + _lzf_stored(_COLUMNS)
)  # fmt: skip
# Four zero floats as one literal and one long match that overlaps itself.
_PCD_MATCH = (
    b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 8\nHEIGHT 1\nPOINTS 8\nDATA binary_compressed\n"
    + struct.pack("<II", 5, 96) + bytes((0, 0, 0xE0, 95 - 9, 0))
)  # fmt: skip
_SCAN = struct.pack("<20f", *(0.5 * i for i in range(20)))
_LABELS = struct.pack("<5I", 10, 40, 40 | 3 << 16, 0, 99)
_ROWS = b"0 0 0\n1 0 0\n0 1 0\n0 0 1\n"

BY_HAND: dict[str, tuple[bytes | Files, ...]] = {
    ".ply": (_FACES_FIRST, _BIG_ENDIAN, _CRLF),
    ".xyz": (_ROWS, b"# x y z label\n1 2 3 4\n5 6 7 8\n", b"4\n" + _ROWS,
             b"x y z intensity\n1 2 3 4\n", b"1,2,3 // end\n4,5,6\n"),
    ".txt": (b"1.5,2,3,0.1,0.2,0.3\n4,5,6,0,0,1\n", b"//X Y Z R G B\n1 2 3 255 0 9\n4 5 6 0 255 9\n"),
    ".csv": (b"x,y,z,label\n1,2,3,0\n4,5,6,1\n", b"x;y;z\r\n1;2;3\r\n", b"\xef\xbb\xbfX,Y,Z\n1e0,2.,.3\n"),
    ".pts": (b"4\n" + _ROWS, b"2\n1 2 3 -1200 255 0 0\n4 5 6 0 0 255 0\n", b"2\n1 2 3 0.5\n4 5 6 0.7\n"),
    ".asc": (_ROWS,),
    ".xyzn": (b"0 0 0 0 0 1\n1 0 0 0 1 0\n0 1 0 1 0 0\n",),
    ".xyzrgb": (b"0 0 0 255 0 9\n1 0 0 0 0.5 1\n", b"0 0 0 0 0.5 1\n1 0 0 0 0.5 1\n"),
    ".off": (b"OFF\n" + _CUBE_OFF, b"OFF" + _CUBE_OFF,
             b"COFF\n3 1 0\n0 0 0 255 0 0 255\n1 0 0 0 255 0 255\n0 1 0 0 0 255 255\n3 0 1 2\n",
             b"# c\nNOFF\n3 1 0\n0 0 0 0 0 1\n1 0 0 0 0 1\n0 1 0 0 0 1\n3 0 1 2 255 0 0\n",
             b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n"),
    ".obj": (_OBJ, b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
    ".stl": (_STL, _STL_TEXT),
    ".pcd": (_PCD, _PCD_BINARY, _PCD_LZF, _PCD_MATCH),
    ".bin": (_SCAN, {"cloud.bin": _SCAN, "cloud.label": _LABELS},
             {"velodyne/000000.bin": _SCAN, "labels/000000.label": _LABELS}),
    ".pcd.bin": (_SCAN,),
}  # fmt: skip
