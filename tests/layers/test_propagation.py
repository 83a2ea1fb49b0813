"""Features carried to finer points: by the formula, and when a layer was swapped."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.propagation import FeaturePropagation, ResidualMlp
from pointlift.ops import interpolate

TOLERANCE = {"rtol": 0, "atol": 1e-5}


class Swapped(nn.Linear):
    """As LoRA would: it must be called, not read."""


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 9, 3), torch.randn(2, 4, 3), torch.randn(2, 9, 5), torch.randn(2, 4, 6)


@pytest.mark.parametrize("act", [F.relu, F.gelu])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("swapped", [True, False])
def test_propagation(batch, act, training: bool, swapped: bool) -> None:
    xyz, centers, skip, feats = batch
    layer = FeaturePropagation(5, 6, (8, 7), act=act).train(training)
    joined = torch.cat([skip, interpolate(xyz, centers, feats)], -1).flatten(0, 1)
    expected = joined
    for fc, bn in zip(layer.mlp.fcs, layer.mlp.bns, strict=True):
        expected = act(bn(fc(expected)))
    if swapped:
        first = Swapped(11, 8)
        first.load_state_dict(layer.mlp.fcs[0].state_dict())
        layer.mlp.fcs[0] = first
    torch.testing.assert_close(layer(xyz, centers, skip, feats), expected.view(2, 9, 7), **TOLERANCE)


@pytest.mark.parametrize("training", [True, False])
def test_residual(training: bool) -> None:
    torch.manual_seed(0)
    layer, x = ResidualMlp(6).train(training), torch.randn(2, 9, 6)
    rows = x.flatten(0, 1)
    inner = layer.bn2(layer.fc2(F.gelu(layer.bn1(layer.fc1(rows)))))
    torch.testing.assert_close(layer(x), F.gelu(inner + rows).view_as(x), **TOLERANCE)
