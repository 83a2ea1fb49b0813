"""Options and fixtures that every test folder shares."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def shared_folder() -> Path | None:
    """Real data and further reference tensors beside the checkout, where a machine has them."""
    folder = Path(os.environ.get("POINTLIFT_SHARED", ROOT.parent / "shared"))
    return folder if (folder / "parity").is_dir() else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-dir", type=Path, help="folder of reference tensors, instead of the usual ones")
    parser.addoption("--parity-prefix", help="only reference files whose names start so: a,b")


def pytest_configure(config: pytest.Config) -> None:
    """Tests send Ctrl-C; a shell that started us in the background has it ignored, and children inherit that."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that this machine cannot run are deselected, and the reason is printed."""
    reasons = {}
    if chromium() is None:
        reasons["browser"] = "no Chromium on this machine (apt-get install chromium)"
    if shared_folder() is None:
        reasons["shared"] = "no ../shared beside the checkout"
    gone = [item for item in items if any(item.get_closest_marker(m) for m in reasons)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in set(gone)]
        config.stash[_NOTES] = [f"deselected tests marked {m!r}: {why}" for m, why in reasons.items()]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests keep features in a folder of their own, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POINTLIFT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


_NOTES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for note in config.stash.get(_NOTES, []):
        terminalreporter.write_line(note)


def chromium() -> str | None:
    """The Chromium that page tests drive."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )


@pytest.fixture
def shared() -> Path:
    """`../shared`; for tests marked `shared`, which are deselected where it is absent."""
    folder = shared_folder()
    assert folder is not None, "mark the test with @pytest.mark.shared"
    return folder


@pytest.fixture(scope="session", name="chromium")
def chromium_fixture() -> str:
    """Path of Chromium; for tests marked `browser`, which are deselected where it is absent."""
    path = chromium()
    assert path is not None, "mark the test with @pytest.mark.browser"
    return path
