"""`read` and `write` one cloud, by the file's ending."""

from __future__ import annotations

import glob
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pointlift.core.errors import FileFormatError, PointLiftError, UsageError, did_you_mean
from pointlift.core.registry import Registry
from pointlift.data.cloud import PointCloud
from pointlift.data.formats.arrays import read_npy, read_npz, write_npy, write_npz
from pointlift.data.formats.ply import read_ply, write_ply
from pointlift.data.formats.text import read_text, write_text


@dataclass(frozen=True)
class FileFormat:
    """How files of one ending are read and written.

    Args:
        title: What it is, in a few words.
        read: `read(path, columns) -> PointCloud`; raises `FileFormatError`.
        write: `write(cloud, path)`; None when we only read it.
        named: The format names its own columns, so `columns` does not apply.
    """

    title: str
    read: Callable[[Path, Sequence[str] | None], PointCloud]
    write: Callable[[PointCloud, Path], None] | None = None
    named: bool = False


FORMATS: Registry[FileFormat] = Registry("file ending")
FORMATS.register(".npy", FileFormat("numpy array (N, 3+)", read_npy, write_npy))
FORMATS.register(".npz", FileFormat("numpy archive", read_npz, write_npz))
FORMATS.register(".ply", FileFormat("PLY, ascii or binary", read_ply, write_ply, named=True))
for _ending in (".xyz", ".txt", ".csv"):
    FORMATS.register(_ending, FileFormat("text, one point per line", read_text, write_text))


def read(path: str | os.PathLike[str], *, columns: Sequence[str] | None = None) -> PointCloud:
    """Read one cloud; the ending says the format. Nothing in the file is ever executed.

    Args:
        path: `.npy`, `.npz`, `.ply`, `.xyz`, `.txt` or `.csv`.
        columns: Names of the columns of a file that does not name them, in order, for example
            `("x", "y", "z", "intensity")`; `_` skips one. Default: the first three are x, y, z.

    Raises:
        FileFormatError: The file is missing, a folder, empty, of an unknown ending, cut short, not what its
            ending says, has fewer than three columns, no points, or NaN or infinite coordinates.
    """
    file = Path(path)
    chosen = _format_of(file)
    _check_file(file)
    if columns is not None and chosen.named:
        raise UsageError(f"columns for {file}", f"none: {chosen.title} names its own columns")
    try:
        return chosen.read(file, columns)
    except PointLiftError:
        raise
    except (
        OSError,
        ValueError,
        OverflowError,
        MemoryError,
        RecursionError,
        struct.error,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FileFormatError(f"{file} cannot be read ({reason})", f"a file of the kind: {chosen.title}") from error


def _format_of(file: Path) -> FileFormat:
    ending = file.suffix.lower()
    if ending in FORMATS:
        return FORMATS.get(ending)
    if file.is_dir():
        raise _folder(file)
    known = " ".join(FORMATS)
    raise FileFormatError(
        f"{file}: unknown file ending {ending!r}" if ending else f"{file}: no file ending",
        f"one of {known}",
        did_you_mean(ending, FORMATS).strip(),
    )


def _folder(file: Path) -> FileFormatError:
    return FileFormatError(
        f"{file} is a folder", "one file", f"pl.load_dataset({str(file)!r}) reads a folder of labelled clouds"
    )


def _check_file(file: Path) -> None:
    """Exists, is a regular file (reading a pipe or a device might never end), and is not empty."""
    if file.is_dir():
        raise _folder(file)
    if not file.exists():
        raise FileFormatError(
            f"no file {str(file)!r}", "the path of a point cloud", f"Looked in {file.parent.resolve()}"
        )
    if not file.is_file():
        raise FileFormatError(f"{file} is not a regular file", "a file on disk")
    if file.stat().st_size == 0:
        raise FileFormatError(f"{file} is empty (0 bytes)", "a point cloud")


def write(cloud: PointCloud, path: str | os.PathLike[str]) -> Path:
    """Write one cloud; the ending says the format. The file appears complete or not at all.

    `.npz`, `.ply` and text keep the features; `.npy` holds coordinates only.

    Raises:
        FileFormatError: The ending is unknown or only readable.
    """
    file = Path(path)
    chosen = _format_of(file)
    if chosen.write is None:
        raise FileFormatError(f"{file}: {chosen.title} is only read, not written", "another ending")
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        chosen.write(cloud, partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def find_clouds(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files that paths, folders (their files with a known ending) and patterns (`scans/*.ply`) stand for.

    Raises:
        FileFormatError: A folder or a pattern without a readable file (`read` reports a missing file).
    """
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if is_cloud_file(p))
        elif path.exists() or not glob.has_magic(str(given)):
            inside = [path]
        else:
            inside = sorted(p for p in map(Path, glob.glob(str(given), recursive=True)) if is_cloud_file(p))
        if not inside:
            raise FileFormatError(f"{given}: no point clouds there", f"files ending in {' '.join(FORMATS)}")
        found += inside
    return found


def read_many(paths: Iterable[str | os.PathLike[str]], *, columns: Sequence[str] | None = None) -> Iterator[PointCloud]:
    """`read` for every file that `find_clouds` finds, one after the other."""
    for path in find_clouds(paths):
        yield read(path, columns=columns)


def is_cloud_file(path: Path) -> bool:
    """A visible file with a known ending."""
    return path.suffix.lower() in FORMATS and not path.name.startswith(".") and path.is_file()
