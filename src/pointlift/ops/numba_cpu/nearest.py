"""Nearest and three nearest points, and what is built on them: Chamfer distances and interpolation.

The inner loops run over queries, not over candidates: each query keeps its best so far in its own vector
lane, so no horizontal reduction is needed and the lowest index wins a tie by the order of the outer loop.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointlift.ops.checks import check_range
from pointlift.ops.numba_cpu import tree
from pointlift.ops.numba_cpu.runtime import bits, jit, spread

_LANES = 256  # queries per block: planes and running best stay in the L1 cache
_NONE = 0x7FFFFFFF  # above the bits of any distance, infinity included


@jit
def _nearest_of_four(planes, best, size, points, j):
    """Offer points j .. j+3 to a block of queries; `best` holds squared distances, then indices."""
    x0, y0, z0 = points[j, 0], points[j, 1], points[j, 2]
    x1, y1, z1 = points[j + 1, 0], points[j + 1, 1], points[j + 1, 2]
    x2, y2, z2 = points[j + 2, 0], points[j + 2, 1], points[j + 2, 2]
    x3, y3, z3 = points[j + 3, 0], points[j + 3, 1], points[j + 3, 2]
    start = np.int32(j)
    for i in range(size):
        x, y, z = planes[i], planes[i + _LANES], planes[i + 2 * _LANES]
        value, index = best[i], best[i + _LANES]
        d0 = bits((x - x0) * (x - x0) + (y - y0) * (y - y0) + (z - z0) * (z - z0))
        index = start if d0 < value else index
        value = min(d0, value)
        d1 = bits((x - x1) * (x - x1) + (y - y1) * (y - y1) + (z - z1) * (z - z1))
        index = start + np.int32(1) if d1 < value else index
        value = min(d1, value)
        d2 = bits((x - x2) * (x - x2) + (y - y2) * (y - y2) + (z - z2) * (z - z2))
        index = start + np.int32(2) if d2 < value else index
        value = min(d2, value)
        d3 = bits((x - x3) * (x - x3) + (y - y3) * (y - y3) + (z - z3) * (z - z3))
        index = start + np.int32(3) if d3 < value else index
        value = min(d3, value)
        best[i] = value
        best[i + _LANES] = index


@jit
def _nearest_of_one(planes, best, size, points, j):
    """Offer point j alone."""
    x0, y0, z0 = points[j, 0], points[j, 1], points[j, 2]
    for i in range(size):
        x, y, z = planes[i] - x0, planes[i + _LANES] - y0, planes[i + 2 * _LANES] - z0
        value = bits(x * x + y * y + z * z)
        best[i + _LANES] = np.int32(j) if value < best[i] else best[i + _LANES]
        best[i] = min(value, best[i])


@jit
def _nearest_scan(query, points, distance, index, first, last):
    m, n = query.shape[1], points.shape[1]
    planes = np.empty(3 * _LANES, np.float32)
    best = np.empty(2 * _LANES, np.int32)
    for b in range(first, last):
        for low in range(0, m, _LANES):
            size = min(_LANES, m - low)
            for i in range(size):
                for axis in range(3):
                    planes[i + axis * _LANES] = query[b, low + i, axis]
                best[i] = _NONE
                best[i + _LANES] = 0
            for j in range(0, n - 3, 4):
                _nearest_of_four(planes, best, size, points[b], j)
            for j in range(n - n % 4, n):
                _nearest_of_one(planes, best, size, points[b], j)
            for i in range(size):
                distance[b, low + i] = best[i]
                index[b, low + i] = best[i + _LANES]


@jit
def _offer_to_three(planes, best, size, px, py, pz, j):
    """Insert point j into the three nearest of each query; `best` holds distances, then indices."""
    for i in range(size):
        x, y, z = planes[i] - px, planes[i + _LANES] - py, planes[i + 2 * _LANES] - pz
        value = bits(x * x + y * y + z * z)
        d0, d1, d2 = best[i], best[i + _LANES], best[i + 2 * _LANES]
        i0, i1, i2 = best[i + 3 * _LANES], best[i + 4 * _LANES], best[i + 5 * _LANES]
        best[i + 5 * _LANES] = i1 if value < d1 else (j if value < d2 else i2)
        best[i + 2 * _LANES] = min(d2, max(value, d1))
        best[i + 4 * _LANES] = i0 if value < d0 else (j if value < d1 else i1)
        best[i + _LANES] = min(d1, max(value, d0))
        best[i + 3 * _LANES] = j if value < d0 else i0
        best[i] = min(d0, value)


@jit
def _three_scan(query, points, distance, index, first, last):
    m, n = query.shape[1], points.shape[1]
    planes = np.empty(3 * _LANES, np.float32)
    best = np.empty(6 * _LANES, np.int32)
    for b in range(first, last):
        for low in range(0, m, _LANES):
            size = min(_LANES, m - low)
            for i in range(size):
                for axis in range(3):
                    planes[i + axis * _LANES] = query[b, low + i, axis]
                    best[i + axis * _LANES] = _NONE
                    best[i + (3 + axis) * _LANES] = 0
            for j in range(n):
                _offer_to_three(planes, best, size, points[b, j, 0], points[b, j, 1], points[b, j, 2], np.int32(j))
            for i in range(size):
                for rank in range(3):
                    distance[b, low + i, rank] = best[i + rank * _LANES]
                    index[b, low + i, rank] = best[i + (3 + rank) * _LANES]


@jit
def _blend(feats, index, weight, out, first, last):
    channels = feats.shape[2]
    for b in range(first, last):
        for q in range(out.shape[1]):
            f0, f1, f2 = feats[b, index[b, q, 0]], feats[b, index[b, q, 1]], feats[b, index[b, q, 2]]
            w0, w1, w2 = weight[b, q, 0], weight[b, q, 1], weight[b, q, 2]
            row = out[b, q]
            for c in range(channels):
                row[c] = f0[c] * w0 + f1[c] * w1 + f2[c] * w2


@jit
def _blend_backward(grad, feats, index, weight, grad_feats, grad_weight, first, last):
    channels = feats.shape[2]
    for b in range(first, last):
        for q in range(grad.shape[1]):
            row = grad[b, q]
            for rank in range(3):
                source, target = feats[b, index[b, q, rank]], grad_feats[b, index[b, q, rank]]
                w = weight[b, q, rank]
                dot = w * 0
                for c in range(channels):
                    target[c] += row[c] * w
                    dot += row[c] * source[c]
                grad_weight[b, q, rank] = dot


@jit
def _pull(grad, a, b, index, grad_a, grad_b):
    """Add the gradient of the squared distances from each a to its nearest b."""
    for i in range(a.shape[0]):
        j = index[i]
        scale = grad[i] + grad[i]
        for axis in range(3):
            step = scale * (a[i, axis] - b[j, axis])
            grad_a[i, axis] += step
            grad_b[j, axis] -= step


@jit
def _chamfer_backward(grad_dist_a, grad_dist_b, a, b, idx_a, idx_b, grad_a, grad_b, first, last):
    for n in range(first, last):
        _pull(grad_dist_a[n], a[n], b[n], idx_a[n], grad_a[n], grad_b[n])
        _pull(grad_dist_b[n], b[n], a[n], idx_b[n], grad_b[n], grad_a[n])


def nearest(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to and index of the nearest point of each query."""
    b, m, _ = query.shape
    if tree.search_pays(m, points.shape[1], scan_ns=0.25, tree_us=0.65):
        distance, index = tree.knn(query, points, 1)
        return distance[..., 0], index[..., 0]
    distance, index = torch.empty((b, m), dtype=torch.int32), torch.empty((b, m), dtype=torch.int64)
    arrays = (t.numpy() for t in (query, points, distance, index))
    spread(_nearest_scan, b, m * points.shape[1], *arrays)
    return distance.view(torch.float32), index


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    b, m, _ = query.shape
    if tree.search_pays(m, points.shape[1], scan_ns=1.3, tree_us=1.0):
        distance, index = tree.knn(query, points, 3)
        return distance.sqrt_(), index
    distance, index = torch.empty((b, m, 3), dtype=torch.int32), torch.empty((b, m, 3), dtype=torch.int64)
    arrays = (t.numpy() for t in (query, points, distance, index))
    spread(_three_scan, b, m * points.shape[1], *arrays)
    return distance.view(torch.float32).sqrt_(), index


def three_interpolate(feats: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    check_range("idx", idx, feats.shape[1])  # compiled code would read outside the array
    out = torch.empty((*idx.shape[:2], feats.shape[2]), dtype=feats.dtype)
    arrays = (t.numpy() for t in (feats, idx, weight, out))
    spread(_blend, idx.shape[0], idx.shape[1] * feats.shape[2], *arrays)
    return out


def three_interpolate_backward(grad: Tensor, feats: Tensor, idx: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    grad_feats, grad_weight = torch.zeros_like(feats), torch.empty_like(weight)
    arrays = (t.numpy() for t in (grad, feats, idx, weight, grad_feats, grad_weight))
    spread(_blend_backward, idx.shape[0], idx.shape[1] * feats.shape[2], *arrays)
    return grad_feats, grad_weight


def chamfer(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (dist_a, idx_a), (dist_b, idx_b) = nearest(a, b), nearest(b, a)
    return dist_a, dist_b, idx_a, idx_b


def chamfer_backward(
    grad_dist_a: Tensor, grad_dist_b: Tensor, a: Tensor, b: Tensor, idx_a: Tensor, idx_b: Tensor
) -> tuple[Tensor, Tensor]:
    grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
    arrays = (t.numpy() for t in (grad_dist_a, grad_dist_b, a, b, idx_a, idx_b, grad_a, grad_b))
    spread(_chamfer_backward, a.shape[0], a.shape[1] + b.shape[1], *arrays)
    return grad_a, grad_b
