"""Weights that come with the package: small, whole, and what their entry says."""

from __future__ import annotations

import pytest
import torch

from pointlift.models.registry import create_model
from pointlift.weights.entries import PACKAGED, WEIGHTS
from pointlift.weights.hashing import file_sha256, state_hash
from pointlift.weights.modelfile import read_model_file

NAMES = [name for name in WEIGHTS if WEIGHTS.get(name).packaged]


def test_the_folder_holds_what_the_entries_say_and_nothing_else() -> None:
    assert NAMES == ["point_mae_tiny.procedural"]
    assert sorted(path.name for path in PACKAGED.iterdir()) == [f"{name}.safetensors" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_file(name: str) -> None:
    entry = WEIGHTS.get(name)
    path = entry.local_file()
    assert path.stat().st_size <= 4 << 20
    assert file_sha256(path) == entry.sha256
    file = read_model_file(path)
    assert file.classes is None
    assert not any(key.startswith("head.") for key in file.state)
    matrices = [v for v in file.state.values() if v.ndim > 1]
    assert all(v.dtype == torch.float16 for v in matrices)


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_model(name: str) -> None:
    arch = name.partition(".")[0]
    model = create_model(arch, pretrained=True, num_classes=0).eval()
    assert model.origin == name
    assert all(p.dtype == torch.float32 for p in model.parameters())
    with torch.no_grad():
        features = model({"xyz": torch.rand(2, 1024, 3, generator=torch.Generator().manual_seed(0)) - 0.5})
    assert torch.isfinite(features).all()
    assert (features[0] - features[1]).abs().max() > 1e-3
    fresh = create_model(arch, class_token=False, pooling="mean+max", num_classes=0)
    assert state_hash(fresh.state_dict()) != state_hash(model.state_dict())


def test_a_head_on_packaged_weights_starts_anew() -> None:
    model = create_model("point_mae_tiny", pretrained=True, num_classes=4).eval()
    assert model.classes is None
    assert model({"xyz": torch.rand(1, 1024, 3)}).shape == (1, 4)
    assert model.load_report is not None
    assert {key.partition(".")[0] for key in model.load_report.new} == {"head"}
