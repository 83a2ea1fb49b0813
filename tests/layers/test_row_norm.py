"""BatchNorm over rows: PyTorch's results, with more digits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pointlift.layers import row_norm
from pointlift.layers.row_norm import norm_rows


def off_center(rows: int, channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(rows, channels, generator=generator) + 3 * torch.randn(channels, generator=generator)


def layer(channels: int, **options) -> nn.BatchNorm1d:
    torch.manual_seed(1)
    norm = nn.BatchNorm1d(channels, **options)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def run(call, norm: nn.BatchNorm1d, x: Tensor) -> list[Tensor]:
    """Output, gradients, and running statistics of one training pass."""
    x = x.clone().requires_grad_()
    y = call(norm, x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (y * weights).sum().backward()
    return [y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]


@pytest.mark.parametrize("chunk", [1, 64, 1 << 17])
def test_it_is_batch_norm(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_norm, "CHUNK", chunk)
    norm, x = layer(5), off_center(70, 5)
    found = run(norm_rows, copy.deepcopy(norm), x)
    expected = run(lambda m, v: m(v), copy.deepcopy(norm).double(), x.double())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-5)
    norm_rows(norm, x)
    assert norm.num_batches_tracked == 1


def test_statistics_of_many_rows_keep_their_digits() -> None:
    x = off_center(40_000, 8)
    norm = layer(8, momentum=1.0)
    found = run(norm_rows, norm, x)
    expected = run(lambda m, v: m(v), layer(8, momentum=1.0).double(), x.double())
    for ours, theirs in zip(found[-2:], expected[-2:], strict=True):
        assert (ours - theirs).abs().max() < 5e-7 * theirs.abs().max()
    assert (found[0] - expected[0]).abs().max() < 3e-6 * expected[0].abs().max()


@pytest.mark.parametrize("case", ["evaluation", "float64", "no momentum", "a subclass"])
def test_everything_else_is_left_to_the_module(case: str) -> None:
    class Counting(nn.BatchNorm1d):
        pass

    norm = Counting(3) if case == "a subclass" else layer(3, momentum=None if case == "no momentum" else 0.1)
    x = off_center(9, 3)
    if case == "float64":
        norm, x = norm.double(), x.double()
    if case == "evaluation":
        norm.eval()
    twin = copy.deepcopy(norm)
    assert torch.equal(norm_rows(norm, x), twin(x))
    assert torch.equal(norm.running_var, twin.running_var)


def test_frozen_weights_and_no_statistics() -> None:
    norm = layer(3, track_running_stats=False)
    norm.weight.requires_grad_(False)
    x = off_center(9, 3).requires_grad_()
    norm_rows(norm, x).square().sum().backward()
    assert norm.weight.grad is None
    assert norm.bias.grad is not None
    assert x.grad is not None
    with pytest.raises(ValueError, match="more than 1 value"):
        norm_rows(norm, x[:1])
