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
def browser(chromium: str) -> Iterator[Any]:
    """One headless Chromium for all page tests."""
    browser = helper("chromium").Chromium(chromium)
    yield browser
    browser.close()
