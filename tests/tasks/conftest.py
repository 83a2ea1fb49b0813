"""Small runs that several tests read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny_runs

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four classes; read only."""
    return tiny_runs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; read only."""
    from pointlift.tasks.finetune import finetune

    out = tmp_path_factory.mktemp("finished") / "run"
    return finetune(
        tiny_runs.tiny_config(data), out=out, recipe="tiny.yaml", command="pointlift finetune tiny.yaml"
    ).out
