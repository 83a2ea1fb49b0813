"""Fixtures of the data tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def trees() -> ModuleType:
    """`trees.py` beside this file; pytest's importlib mode leaves this folder off the path."""
    spec = importlib.util.spec_from_file_location("data_tests_trees", Path(__file__).parent / "trees.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
