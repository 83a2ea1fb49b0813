"""Small runs made through the command line, that several tests read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

import tiny_runs

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four classes; read only."""
    return tiny_runs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def recipe(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe file for a tiny model on `data`."""
    return tiny_runs.write_recipe(tmp_path_factory.mktemp("recipes") / "tiny.yaml", data)


@pytest.fixture(scope="session")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; read only."""
    out = tmp_path_factory.mktemp("runs") / "run"
    ended = tiny_runs.cli("finetune", recipe, "--out", out)
    assert ended.code == 0, ended.err
    return out


@pytest.fixture
def clouds(tmp_path: Path) -> dict[str, Path]:
    """One cloud in every format, by ending (`.ply` twice: ascii and binary)."""
    import numpy as np
    from plyfile import PlyData, PlyElement

    xyz = tiny_runs.cloud(2, np.random.default_rng(5), 100)
    folder = tmp_path / "clouds"
    folder.mkdir()
    np.save(folder / "one.npy", xyz)
    np.savez(folder / "one.npz", points=xyz)
    np.savetxt(folder / "one.xyz", xyz, fmt="%.9g")
    np.savetxt(folder / "one.txt", xyz, fmt="%.9g", delimiter=",")
    rows = np.array([tuple(p) for p in xyz], dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    for name, text in (("ascii", True), ("binary", False)):
        PlyData([PlyElement.describe(rows, "vertex")], text=text).write(folder / f"{name}.ply")
    return {path.name: path for path in sorted(folder.iterdir())}
