"""One test item per reference file; files of systems that are not built yet are deselected."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the harness modules beside this file
FILES = HERE / "files"


def pending() -> tuple[str, ...]:
    lines = (HERE / "pending.txt").read_text().splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def reference_files(config: pytest.Config, pattern: str) -> list[Path]:
    """Files by stem: the committed ones and `../shared/parity`, or `--parity-dir` alone."""
    given = config.getoption("--parity-dir")
    folders = [given] if given else [FILES, HERE.parents[2] / "shared" / "parity"]
    if given and not given.is_dir():
        raise pytest.UsageError(f"--parity-dir {given} is not a folder")
    found = {f.name: f for folder in reversed(folders) if folder.is_dir() for f in folder.glob(pattern)}
    prefixes = config.getoption("--parity-prefix")
    wanted = tuple(p for p in prefixes.split(",") if p) if prefixes else ("",)
    return [found[name] for name in sorted(found) if name.startswith(wanted)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, pattern in (("case", "*.safetensors"), ("keys_file", "*.keys.json")):
        if fixture in metafunc.fixturenames:
            files = reference_files(metafunc.config, pattern)
            ids = [f.name.removesuffix(pattern[1:]) for f in files]
            metafunc.parametrize(fixture, files, ids=ids)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    waiting = pending()

    def is_pending(item: pytest.Item) -> bool:
        params = getattr(getattr(item, "callspec", None), "params", {})
        file = params.get("case", params.get("keys_file"))
        if not item.path.is_relative_to(HERE) or file is None:
            return False
        # Where no file has the wanted prefix, pytest makes one item without a file.
        return not isinstance(file, Path) or file.name.startswith(waiting)

    gone = [item for item in items if is_pending(item)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in set(gone)]
