"""What each operation promises, checked against the definition itself on small clouds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointlift import ops
from pointlift.core.errors import DataError, UsageError


@pytest.fixture(params=["numba", "reference"], autouse=True)
def backend(request):
    if request.param not in (ops.backends()["knn"], "reference"):
        pytest.skip("numba is not installed")
    with ops.use_backend(request.param):
        yield request.param


def line(*positions: float) -> torch.Tensor:
    """Points on the x axis."""
    return torch.tensor([[[p, 0.0, 0.0] for p in positions]])


def test_farthest_points_of_a_line():
    assert ops.farthest_point_sample(line(0, 1, 5, 2, 9), 4).tolist() == [[0, 4, 2, 3]]
    assert ops.farthest_point_sample(line(0, 1, 5, 2, 9), 2, start=2).tolist() == [[2, 0]]
    starts = torch.tensor([4, 1])
    pair = line(0, 1, 5, 2, 9).expand(2, -1, -1)
    assert ops.farthest_point_sample(pair, 2, start=starts).tolist() == [[4, 0], [1, 4]]


def test_equal_distances_take_the_lowest_index_or_the_block_order():
    points = line(0, 1, -1, 1, -1, 1, -1, 1)  # eight points, eight threads: 4 = 0b100 is reversed to 0b001
    assert ops.farthest_point_sample(points, 2).tolist() == [[0, 1]]
    assert ops.farthest_point_sample(points, 2, ties="block").tolist() == [[0, 4]]


def test_points_near_the_origin_are_skipped_on_request():
    points = line(0.01, 0.03, 0.5, 0.02)
    assert ops.farthest_point_sample(points, 4).tolist() == [[0, 2, 1, 3]]
    assert ops.farthest_point_sample(points, 3, skip_near_origin=True).tolist() == [[0, 2, 2]]
    assert ops.farthest_point_sample(points * 0.01, 3, skip_near_origin=True, start=2).tolist() == [[2, 0, 0]]


def test_more_points_than_there_are():
    with pytest.raises(DataError, match=r"num = 6 .* 5 points"):
        ops.farthest_point_sample(line(0, 1, 2, 3, 4), 6)
    with pytest.raises(DataError, match=r"k = 3 .* 2 points"):
        ops.knn(line(0), line(0, 1), 3)
    with pytest.raises(DataError, match="2 points"):
        ops.three_nn(line(0), line(0, 1))
    with pytest.raises(DataError, match=r"num = 3 .* 2 points"):
        ops.group(line(0, 1), 3, 1)


def test_nearest_first_and_ties_by_index():
    dist, idx = ops.knn(line(0), line(2, -1, 1, 0, -1), 4)
    assert idx.tolist() == [[[3, 1, 2, 4]]]
    assert dist.tolist() == [[[0, 1, 1, 1]]]
    assert torch.equal(ops.three_nn(line(0), line(2, -1, 1, 0, -1)).idx, idx[..., :3])


def test_ball_is_open_in_index_order_and_padded():
    points = line(3, 0.5, 1, -0.5, 0.1)
    assert ops.ball_query(line(0), points, 1.0, 2).tolist() == [[[1, 3]]]
    assert ops.ball_query(line(0), points, 1.0, 6).tolist() == [[[1, 3, 4, 1, 1, 1]]]
    assert ops.ball_query(line(50), points, 1.0, 3).tolist() == [[[0, 0, 0]]]


def test_interpolation_weights_and_values():
    dist = torch.tensor([[[1.0, 2.0, 2.0]]])
    assert ops.interpolation_weights(dist, power=1).flatten().tolist() == pytest.approx([0.5, 0.25, 0.25])
    weight = ops.interpolation_weights(dist)
    assert weight.flatten().tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    feats = torch.tensor([[[6.0], [12.0], [0.0]]])
    assert ops.three_interpolate(feats, torch.tensor([[[0, 1, 2]]]), weight).item() == pytest.approx(6.0)
    on_point = ops.interpolate(line(1), line(0, 1, 5), feats)
    assert on_point.item() == pytest.approx(12.0, rel=1e-4)


def test_gather_and_group():
    values = torch.arange(24.0).view(2, 4, 3)
    idx = torch.tensor([[[3, 0]], [[1, 1]]])
    assert torch.equal(ops.gather(values, idx), torch.stack([v[i] for v, i in zip(values, idx, strict=True)]))
    grouping = ops.group(line(0, 1, 5, 2, 9), 2, 2)
    assert grouping.center_idx.tolist() == [[0, 4]]
    assert grouping.idx.tolist() == [[[0, 1], [4, 2]]]
    assert grouping.neighborhoods[..., 0].tolist() == [[[0, 1], [0, -4]]]
    given = ops.group(line(0, 1, 5, 2, 9), 1, 1, center_idx=torch.tensor([[3]]))
    assert given.centers[..., 0].tolist() == [[2]]


def test_chamfer_values():
    a, b = line(0, 3), line(1)
    result = ops.chamfer(a, b)
    assert (result.dist_a.tolist(), result.dist_b.tolist()) == ([[1, 4]], [[1]])
    assert (result.idx_a.tolist(), result.idx_b.tolist()) == ([[0, 0]], [[0]])
    assert ops.chamfer_l2(a, b).item() == pytest.approx(2.5 + 1)
    assert ops.chamfer_l1(a, b).item() == pytest.approx((1.5 + 1) / 2)


def test_zeros_are_ignored_in_a_batch_of_one_only():
    a, b = line(0, 3), line(1)
    assert ops.chamfer_l2(a, b, ignore_zeros=True).item() == pytest.approx(4 + 4)
    pair = (a.expand(2, -1, -1), b.expand(2, -1, -1))
    assert ops.chamfer_l2(*pair, ignore_zeros=True).item() == pytest.approx(2.5 + 1)


def test_coincident_points_have_a_finite_gradient():
    a = line(0, 3).requires_grad_()
    ops.chamfer_l1(a, line(0, 4)).backward()
    assert a.grad is not None
    assert a.grad[0, :, 0].tolist() == [0, -0.5]


def test_distances_between_clouds_have_exact_gradients():
    a = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    for function in (ops.chamfer_l1, ops.chamfer_l2, lambda a, b: ops.emd_exact(a, b).cost):
        assert torch.autograd.gradcheck(function, (a, b))


def test_interpolation_has_exact_gradients():
    feats = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 4, 3, dtype=torch.float64, requires_grad=True)
    idx = torch.randint(0, 5, (2, 4, 3))
    assert torch.autograd.gradcheck(lambda f, w: ops.three_interpolate(f, idx, w), (feats, weight))
    assert torch.autograd.gradcheck(lambda f: ops.gather(f, idx), (feats,))


def test_transport():
    a, b = line(0, 1, 10), line(11, 0, 2)
    exact = ops.emd_exact(a, b)
    assert exact.assignment.tolist() == [[1, 2, 0]]
    assert exact.cost.tolist() == [2]
    approximate = ops.emd_approx(a, b)
    assert approximate.cost.item() >= 2 - 1e-4
    torch.testing.assert_close(approximate.match.sum(1), torch.ones(1, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(approximate.loss, approximate.cost.mean() / 3)


def test_autocast_leaves_coordinates_alone():
    xyz = torch.randn(2, 64, 3) + 100  # bfloat16 could not tell these points apart
    expected = ops.group(xyz, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ops.group(xyz, 8, 8)
        loss = ops.chamfer_l2(xyz, xyz + 0.01)
    assert torch.equal(found.idx, expected.idx)
    assert loss.dtype == torch.float32


def test_half_precision_features_keep_their_dtype():
    idx, weight = torch.zeros(1, 2, 3, dtype=torch.int64), torch.full((1, 2, 3), 1 / 3)
    out = ops.three_interpolate(torch.ones(1, 4, 5, dtype=torch.bfloat16), idx, weight)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, torch.ones_like(out))


@pytest.mark.parametrize("as_input", [torch.tensor, np.array])
def test_unit_sphere(as_input):
    cloud = as_input([[1.0, 0, 0], [3, 0, 0], [2, 0, 0], [2, 0, 0]])
    out = ops.normalize_unit_sphere(cloud)
    assert type(out) is type(cloud)
    assert out[:, 0].tolist() == [-1, 1, 0, 0]
    same = ops.normalize_unit_sphere(cloud[2:] * 0.1)
    assert same.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_unit_sphere_of_a_batch_keeps_float32():
    batch = np.random.default_rng(0).normal(size=(3, 50, 3)).astype(np.float32)
    out = ops.normalize_unit_sphere(batch)
    assert out.dtype == np.float32
    assert np.linalg.norm(out, axis=-1).max(1) == pytest.approx([1, 1, 1], abs=1e-6)
    np.testing.assert_allclose(ops.normalize_unit_sphere(torch.from_numpy(batch)).numpy(), out, atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.farthest_point_sample(x[0], 2),
        lambda x: ops.farthest_point_sample(x.long(), 2),
        lambda x: ops.farthest_point_sample(x.numpy(), 2),
        lambda x: ops.farthest_point_sample(x, 0),
        lambda x: ops.farthest_point_sample(x, 2, start=5),
        lambda x: ops.farthest_point_sample(x, 2, start=torch.tensor([0, 5])),
        lambda x: ops.farthest_point_sample(x, 2, start=torch.tensor([0])),
        lambda x: ops.farthest_point_sample(x, 2, ties="highest"),
        lambda x: ops.farthest_point_sample(x[:, :0], 1),
        lambda x: ops.knn(x[:1], x, 2),
        lambda x: ops.knn(x[..., :2], x, 2),
        lambda x: ops.knn(x, x, 0),
        lambda x: ops.ball_query(x, x, 0.0, 2),
        lambda x: ops.ball_query(x, x, 1.0, 0),
        lambda x: ops.interpolation_weights(x, power=3),
        lambda x: ops.three_interpolate(x, torch.zeros(2, 4, 2, dtype=torch.int64), x[:, :4]),
        lambda x: ops.gather(x, torch.zeros(3, 2, dtype=torch.int64)),
        lambda x: ops.gather(x, torch.zeros(2, 2)),
        lambda x: ops.group(x, 2, 2, center_idx=torch.zeros(2, 3, dtype=torch.int64)),
        lambda x: ops.chamfer(x, x[:1]),
        lambda x: ops.emd_exact(x, x[:, :3]),
        lambda x: ops.normalize_unit_sphere(x[..., :2]),
    ],
)
def test_wrong_calls_are_refused(call):
    with pytest.raises((UsageError, DataError)):
        call(torch.randn(2, 5, 3))


def test_indices_outside_the_cloud_are_refused_by_compiled_code(backend):
    idx = torch.tensor([[[0, 1, 7]]])
    with pytest.raises((UsageError, IndexError)):
        ops.three_interpolate(torch.ones(1, 5, 2), idx, torch.ones(1, 1, 3))


def test_an_empty_batch_is_not_an_error():
    grouping = ops.group(torch.zeros(0, 5, 3), 2, 2)
    assert grouping.neighborhoods.shape == (0, 2, 2, 3)


def test_broken_coordinates_never_lead_outside_the_cloud():
    """NaN and infinity give no meaningful answer, but compiled code must not read beyond an array for them."""
    xyz = torch.randn(2, 3000, 3)
    xyz[0, ::7, 1] = torch.nan
    xyz[1, ::5] = -torch.inf
    xyz[1, 3] = -torch.nan
    query = xyz[:, :700]
    found = [ops.farthest_point_sample(xyz, 40, skip_near_origin=True), ops.three_nn(query, xyz).idx]
    found += [ops.knn(query, xyz, 5).idx, ops.knn(query[:, :9], xyz[:, :90], 5).idx]
    found += [ops.ball_query(query, xyz, 0.3, 4), *ops.chamfer(xyz, query)[2:]]
    for idx in found:
        assert idx.min() >= 0
        assert idx.max() < 3000
