"""`read` and `write` one cloud, by the file's ending."""

from __future__ import annotations

import glob
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pointlift.core.errors import DataError, FileFormatError, PointLiftError, UsageError, did_you_mean
from pointlift.core.registry import Registry
from pointlift.data.cloud import PointCloud, checked_xyz
from pointlift.data.formats import text
from pointlift.data.formats.arrays import read_npy, read_npz, write_npy, write_npz
from pointlift.data.formats.hdf5 import read_hdf5, write_hdf5
from pointlift.data.formats.kitti import label_file, read_kitti, read_nuscenes, write_kitti, write_nuscenes
from pointlift.data.formats.las import read_las, write_las
from pointlift.data.formats.obj import read_obj, write_obj
from pointlift.data.formats.off import read_off, write_off
from pointlift.data.formats.options import ReadOptions
from pointlift.data.formats.pcd import read_pcd, write_pcd
from pointlift.data.formats.ply import read_ply, write_ply
from pointlift.data.formats.signatures import check_signature
from pointlift.data.formats.stl import read_stl
from pointlift.engine.files import cannot_write


@dataclass(frozen=True)
class FileFormat:
    """How files of one ending are read and written.

    Args:
        title: What it is, in a few words.
        read: `read(path, options) -> PointCloud`; raises `FileFormatError`.
        write: `write(cloud, path)`; None when we only read it.
        named: The format names its own columns, so `columns` does not apply.
        keeps: The features that it has room for; None is any.
        companion: The file beside it that belongs to it, where there is one (the labels of a KITTI scan).
    """

    title: str
    read: Callable[[Path, ReadOptions], PointCloud]
    write: Callable[[PointCloud, Path], None] | None = None
    named: bool = False
    keeps: tuple[str, ...] | None = None
    companion: Callable[[Path], Path | None] | None = None


FORMATS: Registry[FileFormat] = Registry("file ending")
FORMATS.register(".npy", FileFormat("numpy array (N, 3+)", read_npy, write_npy, keeps=()))
FORMATS.register(".npz", FileFormat("numpy archive", read_npz, write_npz))
FORMATS.register(".ply", FileFormat("PLY, ascii or binary", read_ply, write_ply, named=True))
FORMATS.register(".pcd", FileFormat("PCD, ascii, binary or compressed", read_pcd, write_pcd, named=True))
for _ending in (".las", ".laz"):
    FORMATS.register(_ending, FileFormat("LAS, plain or compressed", read_las, write_las, named=True))
_KITTI = ("intensity", "semantic", "instance")
FORMATS.register(".bin", FileFormat("KITTI scan", read_kitti, write_kitti, keeps=_KITTI, companion=label_file))
FORMATS.register(".pcd.bin", FileFormat("nuScenes scan", read_nuscenes, write_nuscenes, keeps=("intensity", "ring")))
for _ending in (".h5", ".hdf5"):
    FORMATS.register(_ending, FileFormat("HDF5 with one cloud", read_hdf5, write_hdf5))
_VERTEX = ("colors", "normals")
FORMATS.register(".off", FileFormat("OFF mesh", read_off, write_off, named=True, keeps=_VERTEX))
FORMATS.register(".obj", FileFormat("OBJ mesh", read_obj, write_obj, named=True, keeps=_VERTEX))
FORMATS.register(".stl", FileFormat("STL mesh, ascii or binary", read_stl, named=True))
for _ending in (".xyz", ".txt", ".asc"):
    FORMATS.register(_ending, FileFormat("text, one point per line", text.read_text, text.write_text))
FORMATS.register(".csv", FileFormat("comma-separated text", text.read_text, text.write_csv))
_read_pts = partial(text.read_text, usual=text.PTS)
FORMATS.register(".pts", FileFormat("text, a count first", _read_pts, text.write_pts, keeps=("intensity", "colors")))
FORMATS.register(".xyzn", FileFormat("text with normals", partial(text.read_text, usual=text.NORMALS)))
FORMATS.register(".xyzrgb", FileFormat("text with colours", partial(text.read_text, usual=text.COLORS)))


def read(
    path: str | os.PathLike[str], *, columns: Sequence[str] | None = None, points: int = 8192, seed: int = 0
) -> PointCloud:
    """Read one cloud; the ending says the format. Nothing in the file is ever executed.

    Args:
        path: A file with one of the endings in `FORMATS`: `.ply`, `.pcd`, `.las`, `.npz`, `.obj`, `.xyz`, ...
        columns: Names of the columns of a file that does not name them, in order, for example
            `("x", "y", "z", "intensity")`; `_` skips one. Default: the first three are x, y, z.
        points: How many points to sample on a mesh with faces (`.off`, `.obj`, `.stl`), evenly over its area.
            Other files give the points that they hold.
        seed: Seed of that sampling.

    Raises:
        FileFormatError: The file is missing, a folder, empty, of an unknown ending, cut short, not what its
            ending says, has fewer than three columns, no points, or NaN or infinite coordinates.
        UsageError: `columns` for a format that names its own, or `points` below 1.
    """
    file, options = Path(path), ReadOptions(columns, points, seed)
    ending, chosen = _format_of(file)
    _check_file(file)
    if columns is not None and chosen.named:
        raise UsageError(f"columns for {file}", f"none: {chosen.title} names its own columns")
    try:
        check_signature(file, ending)
        # Numbers that do not fit their type warn on conversion; those that matter are refused by `checked_xyz`.
        with np.errstate(invalid="ignore", over="ignore"):
            return chosen.read(file, options)
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


def ending_of(path: Path) -> str:
    """The ending of a file as `FORMATS` has it, in lower case: `.ply`, `.pcd.bin`."""
    double = "".join(path.suffixes[-2:]).lower()
    return double if double in FORMATS else path.suffix.lower()


def _format_of(file: Path) -> tuple[str, FileFormat]:
    ending = ending_of(file)
    if ending in FORMATS:
        return ending, FORMATS.get(ending)
    if os.path.isdir(file):  # `Path.is_dir` raises for a name that is too long
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
    try:
        there = file.exists()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise FileFormatError(f"{str(file)!r} cannot be opened ({error.strerror})", "the path of a file") from error
    if file.is_dir():
        raise _folder(file)
    if not there:
        raise FileFormatError(
            f"no file {str(file)!r}", "the path of a point cloud", f"Looked in {file.parent.resolve()}"
        )
    if not file.is_file():
        raise FileFormatError(f"{file} is not a regular file", "a file on disk")
    if file.stat().st_size == 0:
        raise FileFormatError(f"{file} is empty (0 bytes)", "a point cloud")


RESERVED = {"", "x", "y", "z", "points", "points_i16", "offset"}


def write(cloud: PointCloud, path: str | os.PathLike[str]) -> Path:
    """Write one cloud; the ending says the format. The file appears complete or not at all.

    `.npz`, `.h5`, `.ply`, `.pcd`, `.las`, `.laz`, `.csv` and `.xyz` keep the features; docs/data.md says what the
    others keep. `.bin` writes `semantic` and `instance` into a `.label` file beside it.

    Raises:
        FileFormatError: The ending is unknown or only readable, or the format cannot hold this cloud.
        DataError: A feature that is not one number, or row of numbers, per point.
        PointLiftError: The folder is missing, full or protected.
    """
    file = Path(path)
    _, chosen = _format_of(file)
    if chosen.write is None:
        raise FileFormatError(f"{file}: {chosen.title} is only read, not written", "another ending")
    for name, values in cloud.feats.items():
        if values.dtype.kind not in "biuf" or len(values) != len(cloud):
            raise DataError(f"{file}: {name!r} of type {values.dtype}, shape {values.shape}", "a number per point")
        if name.lower() in RESERVED:
            raise DataError(f"{file}: a feature called {name!r}", "a name that does not stand for the coordinates")
    checked_xyz(cloud.xyz, file)
    # In a folder of its own, so that a writer may add a companion, and the ending is the final one.
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
            partial_file = Path(folder) / file.name
            chosen.write(cloud, partial_file)
            _check_companion(chosen, partial_file, file)
            for written in sorted(Path(folder).iterdir(), key=lambda p: p == partial_file):  # companions first
                os.replace(written, file.with_name(written.name))
    except OSError as error:
        raise cannot_write(file, error) from error
    return file


def _check_companion(chosen: FileFormat, written: Path, file: Path) -> None:
    """A companion of an earlier file would be taken for that of the new one."""
    old = chosen.companion(file) if chosen.companion else None
    if old is not None and not (written.parent / old.name).exists():
        raise FileFormatError(
            f"{file}: {old} would be taken for its labels", "no such file", "Remove it, or write elsewhere"
        )


def find_clouds(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files that paths, folders and patterns (`scans/*.ply`) stand for.

    A folder stands for the files with a known ending in it and in all folders below, sorted by path; hidden files
    and folders are left out.

    Raises:
        FileFormatError: A folder or a pattern without a readable file (`read` reports a missing file).
    """
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = _below(path)
        elif path.exists() or not glob.has_magic(str(given)):
            inside = [path]
        else:
            inside = sorted(p for p in map(Path, glob.glob(str(given), recursive=True)) if is_cloud_file(p))
        if not inside:
            raise FileFormatError(f"{given}: no point clouds there", f"files ending in {' '.join(FORMATS)}")
        found += inside
    return found


def _below(folder: Path) -> list[Path]:
    """Cloud files in a folder and below; links to folders are not followed (they may lead in circles)."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for name in names if is_cloud_file(path := Path(parent, name))]
    return sorted(found)


def read_many(
    paths: Iterable[str | os.PathLike[str]],
    *,
    columns: Sequence[str] | None = None,
    points: int = 8192,
    seed: int = 0,
) -> Iterator[PointCloud]:
    """`read` for every file that `find_clouds` finds, one after the other."""
    for path in find_clouds(paths):
        yield read(path, columns=columns, points=points, seed=seed)


def is_cloud_file(path: Path) -> bool:
    """A visible file with a known ending."""
    return ending_of(path) in FORMATS and not path.name.startswith(".") and path.is_file()
