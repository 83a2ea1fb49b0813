"""Saliency points at what a decision rests on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_runs import MODEL, cloud

import pointlift as pl
from pointlift.core.errors import UsageError
from pointlift.models.base import PointModel
from pointlift.models.features import Level, PointFeatures
from pointlift.tasks.saliency import gradient, occlusion


class Corner(PointModel):
    """Class 1 where points lie near (1, 1, 1): a decision that rests on one place."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_classes=2, pooling="max", head="linear")
        self.arch, self.preprocess = "corner", {"points": 256, "normalize": "none"}
        self.weight = torch.nn.Parameter(torch.tensor(20.0))

    embed_dim = num_features = property(lambda self: 1)
    min_points = property(lambda self: 16)

    def parts(self):
        return {"head": ("weight",)}

    def new_head(self):
        return torch.nn.Identity()

    def groups(self, xyz):
        return []

    def forward_features(self, batch, *, mask=None, groups=None, taps=()):
        return PointFeatures((Level(batch["xyz"], batch["xyz"]),))

    def forward(self, batch):
        near = torch.exp(-4 * (batch["xyz"] - 1).square().sum(-1)).mean(1)
        return torch.stack([torch.zeros_like(near), self.weight * near - 0.5], 1)


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (900, 3)).astype(np.float32)


@pytest.mark.parametrize("how", [occlusion, gradient])
def test_the_place_that_decides_is_found(cube: np.ndarray, how) -> None:
    values = how(Corner(), cube, 1)
    assert values.shape == (900,)
    assert values.dtype == np.float32
    near = np.linalg.norm(cube - 1, axis=1) < 0.7
    far = np.linalg.norm(cube - 1, axis=1) > 2
    assert values[near].mean() > 10 * np.abs(values[far]).mean()
    np.testing.assert_array_equal(how(Corner(), cube, 1), values)


def test_points_speak_against_the_other_class(cube: np.ndarray) -> None:
    np.testing.assert_allclose(occlusion(Corner(), cube, 0), -occlusion(Corner(), cube, 1), atol=1e-6)


def test_batches_do_not_matter(cube: np.ndarray) -> None:
    np.testing.assert_allclose(occlusion(Corner(), cube, 1, batch_size=5), occlusion(Corner(), cube, 1), atol=1e-6)


def test_values_follow_the_points(cube: np.ndarray) -> None:
    """Input order is output order; only the first point, where sampling starts, must stay in front."""
    order = np.r_[0, np.random.default_rng(1).permutation(np.arange(1, 256))]
    few = cube[:256]
    np.testing.assert_allclose(occlusion(Corner(), few[order], 1), occlusion(Corner(), few, 1)[order], atol=1e-6)


@pytest.fixture(scope="module")
def model() -> PointModel:
    torch.manual_seed(0)
    made = pl.create_model(MODEL["name"], num_classes=4, **MODEL["options"])
    made.preprocess = {"points": 64}
    return made


@pytest.mark.parametrize("count", [1, 2, 5, 64, 20_000])
def test_clouds_of_any_size(model: PointModel, count: int) -> None:
    xyz = cloud(0, np.random.default_rng(0), count)
    for values in (occlusion(model, xyz, 2), gradient(model, xyz, 2)):
        assert values.shape == (count,)
        assert np.isfinite(values).all()


def test_unit_and_place_do_not_matter(model: PointModel) -> None:
    xyz = cloud(1, np.random.default_rng(0), 300)
    expected = occlusion(model, xyz, 0)
    assert np.abs(expected).max() > 1e-5
    np.testing.assert_allclose(occlusion(model, xyz.astype(float) * 1000 + 1e8, 0), expected, atol=1e-4)


def test_wrong_use(model: PointModel) -> None:
    xyz = cloud(1, np.random.default_rng(0), 300)
    for index in (-1, 4):
        with pytest.raises(UsageError, match="0 to 3"):
            occlusion(model, xyz, index)
    for share in (0.0, 0.95, 1.0):
        with pytest.raises(UsageError, match="8 left"):
            occlusion(model, xyz, 0, share=share)
    with pytest.raises(UsageError, match="no classifier head"):
        gradient(pl.create_model(MODEL["name"], **MODEL["options"]), xyz, 0)
