"""What must stay light: the command line and every configuration import without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = (
    "pointlift",
    "pointlift.core.config",
    "pointlift.core.errors",
    "pointlift.core.registry",
    "pointlift.core.seeds",
    "pointlift.cli",
    "pointlift.cli.app",
    "pointlift.tasks.config",
    "pointlift.data.config",
    "pointlift.engine.config",
    "pointlift.weights.entries",
)
HEAVY = ("torch", "numba", "scipy", "sklearn", "trimesh", "h5py", "plyfile", "safetensors", "jinja2")


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_the_package_is_quick() -> None:
    """Against an interpreter that imports nothing, so that a busy machine cannot fail it: measured 2 ms idle."""
    code = (
        "import time; a = time.process_time(); import argparse, json; b = time.process_time(); import pointlift; "
        "c = time.process_time(); print(c - b)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.1


def test_public_names_resolve() -> None:
    import pointlift

    assert set(pointlift.__all__) <= set(dir(pointlift))
    for name in pointlift.__all__:
        assert getattr(pointlift, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pointlift.nonsense
