"""Features on disk: what a frozen trunk said of a cloud once need not be computed again."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from pointlift.core.errors import PointLiftError, UsageError
from pointlift.engine.files import cannot_write, write_atomic
from pointlift.weights.entries import weights_folder

LIMIT_BYTES = 2 << 30
MERGE_ABOVE = 32  # shards of one space; many small files make every look-up slow
KEY_BYTES = 16

logger = logging.getLogger(__name__)


class RowCache(Protocol):
    """Where rows of float32 are looked up and kept by key."""

    def load(self, space: str, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]: ...

    def store(self, space: str, rows: Mapping[bytes, np.ndarray]) -> None: ...


class MemoryCache:
    """Rows in memory, over another cache or none: for passes that meet the same clouds again and again."""

    def __init__(self, below: RowCache | None = None) -> None:
        self.below = below
        self.rows: dict[tuple[str, bytes], np.ndarray] = {}

    def load(self, space: str, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The rows that are there, by key."""
        wanted = [key for key in keys if (space, key) not in self.rows]
        if wanted and self.below is not None:
            self._keep(space, self.below.load(space, wanted))
        return {key: self.rows[space, key] for key in keys if (space, key) in self.rows}

    def store(self, space: str, rows: Mapping[bytes, np.ndarray]) -> None:
        """Keep rows by key, here and below."""
        self._keep(space, rows)
        if self.below is not None:
            self.below.store(space, rows)

    def _keep(self, space: str, rows: Mapping[bytes, np.ndarray]) -> None:
        self.rows |= {(space, key): row for key, row in rows.items()}


class Shard(NamedTuple):
    """One file: keys (n,) of `KEY_BYTES` bytes, and a row (n, C) float32 for each."""

    keys: list[bytes]
    rows: np.ndarray


def features_folder() -> Path:
    """Where features are kept: `$POINTLIFT_HOME/features`, or the user's cache folder; beside the weights."""
    return weights_folder().parent / "features"


class FeatureCache:
    """Rows of float32 by key, in files that are complete or not there, and checked when read.

    A space is a folder for one model with one way of preparing clouds; it holds shards named after the sha256 of
    their bytes. A shard that is not what its name says is thrown away with a warning. When all shards of all spaces
    exceed `limit` bytes, those not used for the longest time go. Several processes may share a cache: at worst, two
    compute the same row.

    Args:
        folder: Where; made when something is stored.
        limit: Bytes.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, limit: int = LIMIT_BYTES) -> None:
        if limit < 1:
            raise UsageError(f"a cache of {limit} bytes", "at least 1")
        self.folder = features_folder() if folder is None else Path(folder).expanduser()
        self.limit = limit

    def load(self, space: str, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The rows (C,) float32 that are there, by key; reading a shard counts as using it."""
        wanted, found = set(keys), dict[bytes, np.ndarray]()
        for path in self._shards(space):
            shard = _read(path)
            if shard is None:
                continue
            here = {key: row for key, row in zip(shard.keys, shard.rows, strict=True) if key in wanted}
            if here:
                found.update(here)
                _touch(path)
        if len({row.shape for row in found.values()}) > 1:
            logger.warning("cached features in %s differ in length: computing them again", self.folder / space)
            return {}
        return found

    def store(self, space: str, rows: Mapping[bytes, np.ndarray]) -> None:
        """Keep rows (C,) float32 by key. Whatever goes wrong with the folder costs a warning, not the work."""
        if not rows:
            return
        try:
            self._write(space, rows)
            if len(self._shards(space)) > MERGE_ABOVE:
                self._merge(space)
            self._shrink()
        except (PointLiftError, OSError) as error:
            logger.warning("features are not cached: %s", error)

    def _shards(self, space: str) -> list[Path]:
        try:
            return sorted(p for p in (self.folder / space).glob("*.npz") if not p.name.startswith("."))
        except OSError as error:
            logger.warning("cached features in %s cannot be listed (%s)", self.folder / space, error)
            return []

    def _write(self, space: str, rows: Mapping[bytes, np.ndarray]) -> Path:
        buffer = io.BytesIO()
        keys = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), KEY_BYTES)
        np.savez(buffer, keys=keys, rows=np.stack([*rows.values()]).astype(np.float32))
        data = buffer.getvalue()
        path = self.folder / space / f"{hashlib.sha256(data).hexdigest()}.npz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        write_atomic(path, data)
        return path

    def _merge(self, space: str) -> None:
        """All shards of a space as one."""
        old = self._shards(space)
        shards = [shard for shard in map(_read, old) if shard is not None]
        merged = {key: row for shard in shards for key, row in zip(shard.keys, shard.rows, strict=True)}
        if len({row.shape for row in merged.values()}) != 1:  # nothing left, or rows that do not go together
            return
        kept = self._write(space, merged)
        for path in old:
            if path != kept:
                _remove(path)

    def _shrink(self) -> None:
        """Remove the shards that were not used for the longest time until the rest fits."""
        files = []
        for path in self.folder.glob("*/*.npz"):
            try:
                status = path.stat()
            except OSError:  # another process removed it, or it is not ours to look at
                continue
            files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                break
            if _remove(path):
                total -= size


def _read(path: Path) -> Shard | None:
    """A shard, or None where it has gone or is damaged (then it is removed)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # merged or removed by another process
        return None
    except OSError as error:
        logger.warning("cached features %s cannot be read (%s): computing them again", path, error)
        return None
    shard = _parsed(data) if hashlib.sha256(data).hexdigest() == path.stem else None
    if shard is None:
        logger.warning("cached features %s are damaged: computing them again", path)
        _remove(path)
    return shard


def _parsed(data: bytes) -> Shard | None:
    """The shard in `data`; None when it is none (a file that someone else put there under the right name)."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            keys, rows = arrays["keys"], arrays["rows"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None
    if keys.dtype != np.uint8 or rows.dtype != np.float32 or rows.ndim != 2 or keys.shape != (len(rows), KEY_BYTES):
        return None
    return Shard([key.tobytes() for key in keys], rows) if np.isfinite(rows).all() else None


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:  # read-only or gone: then its age stays what it is
        logger.debug("cannot touch %s", path)


def _remove(path: Path) -> bool:
    """Whether the file is gone now; in a folder that cannot be written it stays, with a warning."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("cached features %s cannot be removed (%s)", path, error)
        return False
    return True
