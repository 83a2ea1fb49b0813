"""Fixtures of the report tests: a finished run folder, and a browser to look at its page."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def helper(name: str) -> ModuleType:
    """A module beside this file; pytest's importlib mode leaves this folder off the path."""
    spec = importlib.util.spec_from_file_location(f"report_tests_{name}", Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


runs = helper("runs")


@pytest.fixture(scope="session")
def write_run() -> Any:
    """`runs.write_run(folder, **options) -> record`."""
    return runs.write_run


@pytest.fixture(scope="session")
def write_pretraining() -> Any:
    """`runs.write_pretraining(folder, **options) -> record`."""
    return runs.write_pretraining


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    """Open pages, and close them after the test; no page may log an error, throw, or ask for anything."""
    opened = []

    def open_page(path: Path, size: tuple[int, int] = (1280, 900), **options: bool) -> Any:
        page = browser.open(path, width=size[0], height=size[1], **options)
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        assert page.problems() == []
        page.close()


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """One headless Chromium for all page tests."""
    browser = helper("chromium").Chromium(chromium)
    yield browser
    browser.close()
