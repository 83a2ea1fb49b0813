"""In a world of one; `test_distributed.py` compares two processes with one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pointlift.engine import batchnorm
from pointlift.engine.batchnorm import AllReducedBatchNorm, convert_sync_batchnorm

SHAPES = {"1d rows": (nn.BatchNorm1d, (9, 4)), "1d": (nn.BatchNorm1d, (3, 4, 5)), "2d": (nn.BatchNorm2d, (2, 4, 3, 5))}


@pytest.fixture
def two_equal_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The own formulas run, as with two processes that hold the same batch."""
    monkeypatch.setattr(batchnorm, "world_size", lambda: 2)
    monkeypatch.setattr(batchnorm, "all_reduce_sum", lambda tensor: tensor.mul_(2))


def pair(kind: type[nn.Module], **options: object) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain, other = kind(4, **options), kind(4, **options)
    if plain.affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
    other.load_state_dict(plain.state_dict())
    return plain.double(), convert_sync_batchnorm(other.double())


@pytest.mark.usefixtures("two_equal_processes")
@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_equals_the_plain_layer_on_the_doubled_batch(case: str, options: dict[str, object]) -> None:
    kind, shape = SHAPES[case]
    plain, other = pair(kind, **options)
    for seed in range(2):
        x = 100 + torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        grad = torch.randn_like(x)
        ours, doubled = x.clone().requires_grad_(), torch.cat([x, x]).requires_grad_()
        out, expected = other(ours), plain(doubled)
        torch.testing.assert_close(out, expected[: len(x)])
        out.backward(grad)
        expected.backward(torch.cat([grad, grad]))
        torch.testing.assert_close(ours.grad, doubled.grad[: len(x)])
    for (name, a), b in zip(plain.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad * 2, msg=name)  # each process has its half
    for (name, a), b in zip(plain.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.usefixtures("two_equal_processes")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_keeps_its_type_and_fp32_statistics(dtype: torch.dtype) -> None:
    layer = convert_sync_batchnorm(nn.BatchNorm1d(4))
    x = (torch.randn(512, 4) * 3 + 50).to(dtype).requires_grad_()
    out = layer(x)
    assert out.dtype == dtype
    assert layer.running_mean.dtype == torch.float32
    torch.testing.assert_close(layer.running_mean, 0.1 * x.detach().float().mean(0))
    out.float().square().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype


def test_conversion_keeps_objects_names_and_values() -> None:
    class Own(nn.BatchNorm1d):
        def forward(self, input: Tensor) -> Tensor:
            return input

    net = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm2d(3)), nn.LayerNorm(3), Own(3))
    children, state = list(net.modules()), dict(net.state_dict())
    assert convert_sync_batchnorm(net) is net
    assert all(a is b for a, b in zip(children, net.modules(), strict=True))
    assert net.state_dict().keys() == state.keys()
    assert type(net[0]) is type(net[1][0]) is AllReducedBatchNorm
    assert type(net[3]) is Own  # someone else's forward is not replaced


def test_evaluation_and_a_world_of_one_are_the_plain_layer() -> None:
    plain, other = pair(nn.BatchNorm1d)
    x = torch.randn(8, 4, dtype=torch.float64)
    assert torch.equal(plain(x), other(x))
    assert torch.equal(plain.running_var, other.running_var)
    assert torch.equal(plain.eval()(x), other.eval()(x))


@pytest.mark.usefixtures("two_equal_processes")
def test_a_vector_is_no_batch() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, C\)"):
        convert_sync_batchnorm(nn.BatchNorm1d(4))(torch.zeros(4))
