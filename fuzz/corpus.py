"""Past failures: made small, kept under `tests/fuzz/corpus/<target>/<hash>/`, and read back for the tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from fuzz import Files

CORPUS = Path(__file__).parents[1] / "tests" / "fuzz" / "corpus"
LARGEST = 5000  # bytes of one kept failure


def kept(root: Path = CORPUS) -> list[tuple[str, Path]]:
    """`(target, folder)` of every kept failure."""
    return [(path.parent.name, path) for path in sorted(root.glob("*/*")) if path.is_dir()]


def load(folder: Path) -> Files:
    """The files of one kept failure; the one that is read first comes first."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names.sort(key=lambda name: name.endswith(".label"))
    return {name: (folder / name).read_bytes() for name in names}


def keep(target: str, files: Files, root: Path = CORPUS) -> Path | None:
    """Write a failure down; None when it is too large to be kept in the repository."""
    if sum(map(len, files.values())) > LARGEST:
        return None
    digest = hashlib.sha256(b"".join(n.encode() + b"\0" + d for n, d in sorted(files.items()))).hexdigest()
    folder = root / target / digest[:12]
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def shrink(files: Files, still_fails: Callable[[Files], bool], tries: int = 200) -> Files:
    """Smaller files with the same fault: ever smaller pieces are left out while it stays, at most `tries` times."""
    for name in sorted(files, key=lambda n: -len(files[n])):
        piece = len(files[name]) // 2
        while piece and tries > 0:
            at = 0
            while at < len(files[name]) and tries > 0:
                data = files[name]
                shorter = {**files, name: data[:at] + data[at + piece :]}
                tries -= 1
                if still_fails(shorter):
                    files = shorter
                else:
                    at += piece
            piece //= 2
    return files
