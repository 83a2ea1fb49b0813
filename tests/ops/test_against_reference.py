"""Every back end gives what the reference gives: integers exactly, for clouds made to cause trouble."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pointlift import ops
from pointlift.core.errors import UsageError

if ops.backends()["knn"] == "reference":
    pytest.skip("numba is not installed", allow_module_level=True)

from pointlift.ops import reference
from pointlift.ops.numba_cpu import tree

quick = settings(max_examples=20, deadline=None, derandomize=True)

KINDS = ("generic", "duplicates", "same", "near_origin", "offset", "grid")


def make_cloud(kind: str, batch: int, n: int, seed: int) -> Tensor:
    """Clouds with the ties, scales and degeneracies that break searches."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(batch, n, 3, generator=generator)
    if kind == "duplicates":
        xyz = xyz[:, torch.randint(0, max(1, n // 3), (n,), generator=generator)]
    elif kind == "same":
        xyz = xyz[:, :1].expand(-1, n, -1)
    elif kind == "near_origin":
        xyz = torch.where(torch.rand(batch, n, 1, generator=generator) < 0.6, xyz * 0.01, xyz)
    elif kind == "offset":
        xyz = xyz * 0.05 + torch.tensor([3000.0, -70.0, 9.0])
    elif kind == "grid":
        xyz = (xyz * 2).round() / 2
    return xyz


@st.composite
def clouds(draw, least: int = 1, most: int = 200) -> Tensor:
    kind = draw(st.sampled_from(KINDS))
    return make_cloud(kind, draw(st.integers(1, 3)), draw(st.integers(least, most)), draw(st.integers(0, 99)))


def both(function, *arguments, **options):
    """Results of the active fast back end and of the reference."""
    fast = function(*arguments, **options)
    with ops.use_backend("reference"):
        return fast, function(*arguments, **options)


def assert_same(fast, truth) -> None:
    for ours, theirs in zip(fast, truth, strict=True):
        assert torch.equal(ours, theirs)


@given(clouds(), st.data())
@quick
def test_farthest_point_sample(xyz, data):
    n = xyz.shape[1]
    options = {
        "start": data.draw(st.integers(0, n - 1)),
        "skip_near_origin": data.draw(st.booleans()),
        "ties": data.draw(st.sampled_from(["lowest", "block"])),
    }
    fast, truth = both(ops.farthest_point_sample, xyz, data.draw(st.integers(1, n)), **options)
    assert torch.equal(fast, truth)


@given(clouds(), st.data())
@quick
def test_knn(points, data):
    n = points.shape[1]
    query = points[:, : data.draw(st.integers(1, n))]
    assert_same(*both(ops.knn, query, points, data.draw(st.integers(1, n))))


@given(clouds(), st.floats(0.01, 3), st.integers(1, 40))
@quick
def test_ball_query(points, radius, k):
    fast, truth = both(ops.ball_query, points[:, ::3] + 0.1, points, radius, k)
    assert torch.equal(fast, truth)


@given(clouds(least=3), clouds(least=3))
@quick
def test_three_nn(points, others):
    batch = min(len(points), len(others))
    assert_same(*both(ops.three_nn, others[:batch], points[:batch]))


@given(clouds(), clouds())
@quick
def test_chamfer(a, b):
    batch = min(len(a), len(b))
    assert_same(*both(ops.chamfer, a[:batch], b[:batch]))


@pytest.mark.parametrize("loss", [ops.chamfer_l1, ops.chamfer_l2])
@pytest.mark.parametrize("kind", KINDS)
def test_chamfer_gradient(loss, kind):
    """The kernel's backward pass against autograd through the float64 formula."""
    a, b = make_cloud(kind, 2, 70, 0), make_cloud(kind, 2, 45, 1)
    found = torch.autograd.functional.vjp(loss, (a, b))[1]
    exact = torch.autograd.functional.vjp(loss, (a.double(), b.double()))[1]
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_three_interpolate_and_gradients(dtype):
    feats = torch.randn(2, 9, 17, dtype=dtype, requires_grad=True)
    weight = torch.rand(2, 31, 3, dtype=dtype, requires_grad=True)
    idx = torch.randint(0, 9, (2, 31, 3))

    def run():
        out = ops.three_interpolate(feats, idx, weight)
        return out, *torch.autograd.grad(out.square().sum(), (feats, weight))

    for ours, theirs in zip(*both(run), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_large_clouds_go_through_the_tree(monkeypatch):
    """Where a tree pays it is used, and gives the same points."""
    points = make_cloud("grid", 1, 4500, 3)
    query = torch.cat([points[:, :150], points[:, 150:300] + 0.01], 1)
    used = []
    search = tree.knn
    monkeypatch.setattr(tree, "knn", lambda *arguments: used.append(arguments[2]) or search(*arguments))
    assert_same(*both(ops.knn, query, points, 17))
    assert_same(*both(ops.three_nn, query, points))
    assert_same([ops.chamfer(points.flip(1), points).dist_a], [torch.zeros(1, 4500)])
    assert used == [17, 3, 1, 1]
    monkeypatch.setattr(tree, "sampling_pays", lambda n, num: True)
    fast, truth = both(ops.farthest_point_sample, points, 80, skip_near_origin=True, ties="block")
    assert torch.equal(fast, truth)


@given(clouds(), st.data())
@quick
def test_tree_at_any_size(points, data):
    """The tree itself, below the sizes at which it is chosen."""
    n = points.shape[1]
    points, k = points.contiguous(), data.draw(st.integers(1, n))
    query = (points[:, ::2] + data.draw(st.sampled_from([0.0, 0.5]))).contiguous()
    start = torch.full((len(points),), data.draw(st.integers(0, n - 1)))
    with ops.use_backend("reference"):
        dist, idx = ops.knn(query, points, k)
        sampled = ops.farthest_point_sample(points, k, start=start, skip_near_origin=True)
    squared, found = tree.knn(query, points, k)
    assert torch.equal(found, idx)
    assert torch.equal(squared.sqrt(), dist)
    assert torch.equal(tree.farthest_point_sample(points, k, start, True), sampled)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_strided_double_and_half_inputs(backend):
    xyz = make_cloud("generic", 2, 90, 5)
    strided = xyz.transpose(1, 2).contiguous().transpose(1, 2)
    half = xyz.half()
    with ops.use_backend(backend):
        expected = ops.group(xyz, 20, 8)
        for same in (strided, xyz.double()):
            found = ops.group(same, 20, 8)
            assert torch.equal(found.idx, expected.idx)
            assert torch.equal(found.center_idx, expected.center_idx)
        assert torch.equal(ops.knn(half, half, 5).idx, ops.knn(half.float(), half.float(), 5).idx)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_a_cloud_does_not_see_its_batch(backend):
    xyz = make_cloud("grid", 4, 80, 6)
    order = torch.tensor([2, 0, 3, 1])
    with ops.use_backend(backend):
        whole, moved = ops.group(xyz, 16, 9), ops.group(xyz[order], 16, 9)
        alone = ops.group(xyz[2:3], 16, 9)
    assert torch.equal(whole.idx[order], moved.idx)
    assert torch.equal(whole.idx[2:3], alone.idx)
    assert torch.equal(whole.neighborhoods[2:3], alone.neighborhoods)


def test_threads_do_not_change_the_result():
    xyz = make_cloud("grid", 5, 1500, 7)
    expected = ops.group(xyz, 200, 16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found = ops.group(xyz, 200, 16)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found.idx, expected.idx)
    assert torch.equal(found.center_idx, expected.center_idx)


@pytest.mark.parametrize("shape", [(7, 5, 3, 4), (40, 9, 130, 33), (3, 1, 64, 2), (0, 4, 3, 2)])
def test_linear_max_and_gradients(shape):
    p, k, inputs, outputs = shape
    x = torch.randn(p, k, inputs)
    if k > 1:
        x[:, -1] = x[:, 0]  # equally large: the first takes the gradient
    x.requires_grad_()
    weight, bias = torch.randn(outputs, inputs, requires_grad=True), torch.randn(outputs, requires_grad=True)

    def run():
        out = ops.linear_max(x, weight, bias)
        scale = torch.linspace(-1, 1, out.numel()).view_as(out)
        return out, *torch.autograd.grad((out * scale).sum(), (x, weight, bias))

    for ours, theirs in zip(*both(run), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    rows = F.linear(x, weight, bias)
    found = run()[0]
    torch.testing.assert_close(found, rows.amax(1) if p else rows[:, 0])
    with torch.no_grad():
        torch.testing.assert_close(ops.linear_max(x, weight, bias), found)


def test_linear_max_does_not_hide_what_is_not_finite():
    """A network that diverges must be seen to."""
    weight = torch.eye(2, requires_grad=True)
    for row in range(3):
        x = torch.zeros(2, 3, 2)
        x[1, row, 0] = torch.nan
        assert ops.linear_max(x, weight).isnan().tolist() == [[False, False], [True, True]]


def test_linear_max_has_a_gradient_of_its_gradient():
    x, weight = torch.randn(3, 4, 5, requires_grad=True), torch.randn(6, 5, requires_grad=True)

    def twice(out):
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, weight))

    expected = twice(F.linear(x, weight).max(1).values)
    for ours, theirs in zip(twice(ops.linear_max(x, weight)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "shape", [(2, 9, 5, 8, 6, 3), (3, 4, 1, 1, 2, 1), (1, 30, 4, 11, 1, 7), (2, 5, 3, 17, 3, 2), (2, 20, 70, 4, 2, 3)]
)
@pytest.mark.parametrize("spread", [1.0, 40.0])
def test_neighborhood_attention_and_its_gradient(shape, spread):
    """Against the usual formulation, too: gathered members and torch's attention."""
    b, rows, count, k, heads, depth = shape
    qkv = (torch.randn(b, rows, 3 * heads * depth) * spread**0.5).requires_grad_()
    idx = torch.randint(0, rows, (b, count, k))  # duplicates, within a neighbourhood and between them
    pull = torch.randn(b, count, k, heads * depth)

    def usual():
        members = ops.gather(qkv, idx).view(b * count, k, 3, heads, -1).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(*members, scale=0.3).transpose(1, 2).reshape(b, count, k, -1)

    def run(function=lambda: ops.neighborhood_attention(qkv, idx, heads, 0.3)):
        out = function()
        return out, *torch.autograd.grad(out, qkv, pull)

    fast, truth = both(run)
    for ours, truly, theirs in zip(fast, truth, run(usual), strict=True):
        torch.testing.assert_close(ours, truly, rtol=1e-4, atol=2e-5 * spread)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5 * spread)


def test_neighborhoods_on_several_threads():
    """Clouds are handed to threads, and each writes its own alone."""
    table, idx, x, weight = _neighborhoods(7, 40, 90, 8, 24, 18)
    qkv = torch.randn(7, 40, 54, requires_grad=True)
    results, threads = [], torch.get_num_threads()
    for count in (1, 3):
        try:
            torch.set_num_threads(count)
            mixed = ops.neighborhood_attention(qkv, idx, 6, 0.3)
            out = ops.neighborhood_max(table, idx, mixed + x, weight)
            results.append((out, *torch.autograd.grad(out.square().sum(), (qkv, table, x, weight))))
        finally:
            torch.set_num_threads(threads)
    for one, several in zip(*results, strict=True):
        largest = float(one.detach().abs().max())
        torch.testing.assert_close(one, several, rtol=1e-5, atol=1e-5 * largest)  # sums in another order


def test_neighborhood_attention_in_other_precisions_and_without_clouds():
    qkv, idx = torch.randn(2, 6, 12), torch.randint(0, 6, (2, 3, 4))
    exact = ops.neighborhood_attention(qkv.double(), idx, 2, 0.5)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(ops.neighborhood_attention(qkv, idx, 2, 0.5).double(), exact, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16), ops.use_backend("reference"):
        torch.testing.assert_close(ops.neighborhood_attention(qkv, idx, 2, 0.5).double(), exact, rtol=1e-5, atol=1e-6)
    half = ops.neighborhood_attention(qkv.bfloat16(), idx, 2, 0.5)
    assert half.dtype == torch.bfloat16
    truth = ops.neighborhood_attention(qkv.bfloat16().double(), idx, 2, 0.5)
    torch.testing.assert_close(half.double(), truth, rtol=2**-8, atol=1e-6)  # rounded once, at the end
    assert ops.neighborhood_attention(qkv[:0], idx[:0], 2, 0.5).shape == (0, 3, 4, 4)
    torch.autograd.gradcheck(lambda t: ops.neighborhood_attention(t, idx, 2, 0.5), qkv.double().requires_grad_())


def test_neighborhood_attention_does_not_hide_what_is_not_finite():
    qkv, idx = torch.randn(1, 4, 6), torch.tensor([[[0, 1], [2, 3]]])
    qkv[0, 1, 2] = torch.nan  # a key: both members look at it
    out = ops.neighborhood_attention(qkv, idx, 1, 1.0)
    assert out[0, 0].isnan().all()
    assert out[0, 1].isfinite().all()


def test_neighborhood_attention_has_a_gradient_of_its_gradient():
    qkv, idx = torch.randn(2, 6, 12, requires_grad=True), torch.randint(0, 6, (2, 3, 4))

    def twice():
        out = ops.neighborhood_attention(qkv, idx, 2, 0.5)
        (first,) = torch.autograd.grad(out.square().sum(), qkv, create_graph=True)
        return torch.autograd.grad(first.square().sum(), qkv)

    for ours, theirs in zip(twice(), _reference_twice(qkv, idx), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def _reference_twice(qkv, idx):
    out = reference.neighborhood_attention(qkv, idx, 2, 0.5)
    (first,) = torch.autograd.grad(out.square().sum(), qkv, create_graph=True)
    return torch.autograd.grad(first.square().sum(), qkv)


@pytest.mark.parametrize(
    ("width", "idx", "heads"),
    [
        (10, torch.zeros(2, 3, 4, dtype=torch.int64), 2),
        (12, torch.zeros(2, 3, 4), 2),
        (12, torch.zeros(1, 3, 4, dtype=torch.int64), 2),
        (12, torch.zeros(2, 3, 0, dtype=torch.int64), 2),
        (12, torch.full((2, 3, 4), 6), 2),
        (12, torch.full((2, 3, 4), -1), 2),
        (12, torch.zeros(2, 3, 4, dtype=torch.int64), 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighborhood_attention_refuses_what_does_not_fit(width, idx, heads, dtype):
    with pytest.raises(UsageError):
        ops.neighborhood_attention(torch.randn(2, 6, width, dtype=dtype), idx, heads, 1.0)
    with pytest.raises(UsageError, match=r"dtype torch\.int64"):
        ops.neighborhood_attention(torch.zeros(2, 6, 12).long(), torch.zeros(2, 3, 4).long(), 2, 1.0)


def test_linear_max_has_one_dtype_under_autocast():
    x, weight, bias = torch.randn(3, 4, 6), torch.randn(5, 6, requires_grad=True), torch.randn(5)
    with torch.autocast("cpu", torch.bfloat16):
        learning = ops.linear_max(x, weight, bias)
        with torch.no_grad():
            fixed = ops.linear_max(x, weight, bias)
    assert learning.dtype == fixed.dtype == torch.bfloat16
    torch.testing.assert_close(learning.detach(), fixed, rtol=0.02, atol=0.02)


def _neighborhoods(b, rows, count, k, channels, inputs):
    """A table, neighbourhoods in it with rows that stand in several and several times in one, members' own inputs."""
    learns = {"requires_grad": True}
    table, x = torch.randn(b, rows, channels, **learns), torch.randn(b, count, k, inputs, **learns)
    return table, torch.randint(0, rows, (b, count, k)), x, torch.randn(channels, inputs, **learns)


@pytest.mark.parametrize("sizes", [(2, 9, 5, 8, 24, 18), (1, 3, 1, 1, 1, 1), (3, 4, 7, 5, 13, 2), (2, 6, 3, 4, 8, 7)])
def test_neighborhood_max_and_its_gradient(sizes):
    """Against the usual formulation, too: gathered rows, the layer, the maximum."""
    table, idx, x, weight = _neighborhoods(*sizes)
    pull = torch.randn(*idx.shape[:2], table.shape[2])

    def run(function=lambda: ops.neighborhood_max(table, idx, x, weight)):
        out = function()
        return out, *torch.autograd.grad(out, (table, x, weight), pull)

    fast, truth = both(run)
    usual = run(lambda: (ops.gather(table, idx) + x @ weight.T).max(2).values)
    for ours, truly, theirs in zip(fast, truth, usual, strict=True):
        torch.testing.assert_close(ours, truly, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_neighborhood_max_gives_the_gradient_to_the_first_of_equals_and_hides_no_nan():
    table, idx = torch.zeros(1, 3, 2, requires_grad=True), torch.tensor([[[2, 0, 1]]])
    out = ops.neighborhood_max(table, idx, torch.zeros(1, 1, 3, 1), torch.zeros(2, 1))
    (gradient,) = torch.autograd.grad(out.sum(), table)
    assert gradient.tolist() == [[[0, 0], [0, 0], [1, 1]]]
    spoilt = torch.tensor([[[0.0, 1.0], [torch.nan, 5.0], [3.0, 2.0]]])
    out = ops.neighborhood_max(spoilt, idx, torch.zeros(1, 1, 3, 1), torch.zeros(2, 1))
    assert out[0, 0, 0].isnan()
    assert out[0, 0, 1] == 5


def test_neighborhood_max_in_other_precisions_without_clouds_and_twice_derived():
    table, idx, x, weight = _neighborhoods(2, 6, 3, 4, 5, 2)
    exact = ops.neighborhood_max(table.double(), idx, x.double(), weight.double())
    torch.testing.assert_close(ops.neighborhood_max(table, idx, x, weight).double(), exact, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = ops.neighborhood_max(table, idx, x, weight)
    torch.testing.assert_close(rounded.double(), exact, rtol=0.05, atol=0.05)
    assert ops.neighborhood_max(table[:0], idx[:0], x[:0], weight).shape == (0, 3, 5)

    def twice(out):
        (first,) = torch.autograd.grad(out.square().sum(), weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)

    usual = twice((ops.gather(table, idx) + x @ weight.T).max(2).values)
    for ours, theirs in zip(twice(ops.neighborhood_max(table, idx, x, weight)), usual, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "spoil",
    [
        {"idx": torch.full((2, 3, 4), 6)},
        {"idx": torch.full((2, 3, 4), -1)},
        {"idx": torch.zeros(2, 3, 4)},
        {"idx": torch.zeros(2, 3, 5, dtype=torch.int64)},
        {"table": torch.zeros(3, 6, 5)},
        {"weight": torch.zeros(5, 3)},
        {"weight": torch.zeros(4, 2)},
        {"weight": torch.zeros(5, 2).double()},
    ],
)
def test_neighborhood_max_refuses_what_does_not_fit(spoil):
    names = ("table", "idx", "x", "weight")
    with pytest.raises(UsageError):
        ops.neighborhood_max(**{**dict(zip(names, _neighborhoods(2, 6, 3, 4, 5, 2), strict=True)), **spoil})
