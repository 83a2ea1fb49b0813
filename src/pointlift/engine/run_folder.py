"""The folder of a run: empty at the start, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pointlift.core.errors import UsageError
from pointlift.engine.files import cannot_write

_LOCK = ".lock"
_held: set[Path] = set()  # folders this process has locked: its own record locks never exclude it


@contextmanager
def claim(out: Path, *, resume: bool = False) -> Iterator[Path]:
    """Make the folder `out`, refuse one that holds something, and lock it until the end of the block.

    A block that fails before it wrote anything leaves no folder behind, unless it was there before.

    Args:
        out: The run folder.
        resume: Whether `out` may hold an earlier part of the run.

    Raises:
        UsageError: It is not empty and `resume` is off, it is not a folder, or another process writes it.
        PointLiftError: It cannot be made.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make(out)
    with lock(out):
        if not resume and any(path.name != _LOCK for path in out.iterdir()):
            raise UsageError(
                f"{out} is not empty", "a new or empty folder", "Choose another --out, or go on with --resume"
            )
        try:
            yield out
        except BaseException:
            if out in made and [path.name for path in out.iterdir()] == [_LOCK]:
                (out / _LOCK).unlink()
                _remove_empty(made)
            raise


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, up to the first that holds something by now."""
    for folder in folders:
        if any(folder.iterdir()):
            return
        folder.rmdir()


def make(out: Path) -> None:
    """Make the folder `out` if it is absent; raises `UsageError` for a file, `PointLiftError` if it cannot be."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", "a folder for the run")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error


@contextmanager
def lock(out: Path) -> Iterator[None]:
    """Keep other processes from writing the existing folder `out`.

    The lock belongs to the process: it ends with it however it dies, and data-loader workers that survive a
    killed parent for some seconds do not hold it. A process may nest locks on one folder.

    Raises:
        UsageError: Another process holds it.
    """
    key = out.resolve()
    if key in _held:
        yield
        return
    descriptor = _locked(out)
    try:
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
    finally:
        os.close(descriptor)


def _locked(out: Path) -> int:
    """A descriptor of the folder's lock file, locked."""
    path = out / _LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock_or_raise(descriptor, out)
            # Its last holder may have removed the file after we opened it: then others lock another one.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        make(out)


def _lock_or_raise(descriptor: int, out: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise cannot_write(out / _LOCK, error) from error
        owner = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise UsageError(
            f"{out} is being written by {owner}",
            "one run per folder",
            "Wait for it, stop it, or choose another --out",
        ) from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
