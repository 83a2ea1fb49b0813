"""What the first bytes of a file say it is, to name a file with the wrong ending."""

from __future__ import annotations

import re
from pathlib import Path

from pointlift.core.errors import FileFormatError

# first bytes, what they mean, endings that such a file may have
SIGNATURES: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"ply\n", "a PLY file", (".ply",)),
    (b"ply\r", "a PLY file", (".ply",)),
    (b"# .PCD", "a PCD file", (".pcd",)),
    (b"LASF", "a LAS file", (".las", ".laz")),
    (b"\x89HDF\r\n", "an HDF5 file", (".h5", ".hdf5")),
    (b"\x93NUMPY", "a numpy array", (".npy",)),
    (b"PK\x03\x04", "a zip or .npz archive", (".npz",)),
    (b"OFF\n", "an OFF mesh", (".off",)),
    (b"OFF\r", "an OFF mesh", (".off",)),
    (b"\x1f\x8b", "a gzip archive", ()),
    (b"\xfd7zXZ\x00", "an xz archive", ()),
    (b"BZh", "a bzip2 archive", ()),
    (b"7z\xbc\xaf", "a 7z archive", ()),
    (b"glTF", "a binary glTF model", ()),
)
TEXT_ENDINGS = (".xyz", ".txt", ".asc", ".csv", ".pts", ".xyzn", ".xyzrgb")
BEGINNING = 1024  # bytes that are looked at
BINARY_ENDINGS = (".bin", ".pcd.bin")  # plain float32 numbers: any bytes may stand first


def check_signature(path: Path, ending: str) -> None:
    """Raise `FileFormatError` when the first bytes are those of another format than the ending says."""
    with path.open("rb") as stream:
        head = stream.read(BEGINNING)
    if ending not in TEXT_ENDINGS and is_table(head):
        raise FileFormatError(
            f"{path} is text with numbers in every line", f"what {ending} stands for", "Rename it to end in .xyz"
        )
    if ending in BINARY_ENDINGS:
        return
    for first, what, endings in SIGNATURES:
        if head.startswith(first) and ending not in endings:
            fix = f"Rename it to end in {' or '.join(endings)}" if endings else "Unpack it first"
            if what.endswith("model"):
                fix = "Convert it to .obj, .off or .stl"
            raise FileFormatError(f"{path} looks like {what}", f"what {ending} stands for", fix)


def is_table(head: bytes) -> bool:
    """Whether a file that begins so is text whose first line, comments and a count apart, is a row of numbers."""
    if not head.isascii() or b"\0" in head:
        return False
    lines = [line.strip() for line in head.decode("ascii").splitlines()[:-1]]  # the last may be cut
    rows = [line for line in lines if line and not line.startswith(("#", "//")) and not line.isdecimal()]
    words = re.split(r"[,;\s]+", rows[0]) if rows else []
    return len(words) >= 3 and all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", word) for word in words)
