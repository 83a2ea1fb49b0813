"""k nearest neighbours and ball query on the CPU, by exhaustive search over vectorised distances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointlift.ops.numba_cpu import tree
from pointlift.ops.numba_cpu.runtime import bits, inline, jit, spread

_NONE = 0x7FFFFFFF  # above the bits of any distance
_BLOCK = 32  # points per block of the ball query
_MANY = 64  # survivors beyond twice k for which an exact second threshold pays


@inline
def _load(points, x, y, z):
    """Copy a (N,3) cloud into three planes, which the inner loops read without strides."""
    for i in range(points.shape[0]):
        x[i] = points[i, 0]
        y[i] = points[i, 1]
        z[i] = points[i, 2]


@inline
def _distance_row(x, y, z, qx, qy, qz, row, column_min):
    """Squared distances of one row of points, and the running minimum per column."""
    for i in range(x.shape[0]):
        dx = qx - x[i]
        dy = qy - y[i]
        dz = qz - z[i]
        value = bits(dx * dx + dy * dy + dz * dz)
        row[i] = value
        column_min[i] = min(column_min[i], value)


@inline
def _threshold(values, k, slack):
    """A value that k to k + slack entries do not exceed; the k-th smallest where ties allow no such."""
    low, high = np.int64(-1), np.int64(_NONE)
    while high - low > 1:
        middle = np.int32((low + high) >> 1)
        count = np.int32(0)
        for i in range(values.shape[0]):
            count += np.int32(values[i] <= middle)
        if count < k:
            low = np.int64(middle)
            continue
        high = np.int64(middle)
        if count <= k + slack:
            break
    return np.int32(high)


@inline
def _collect(values, limit, keys):
    """Write (value, index) of every entry up to `limit` as one sortable integer; return how many."""
    found = np.int64(0)
    for i in range(values.shape[0]):
        keys[found] = (np.int64(values[i]) << 32) | i
        found += np.int64(values[i] <= limit)
    return found


@inline
def _first_ties(keys, found, limit, k):
    """Drop entries equal to `limit` beyond the k-th survivor, the highest indices first."""
    ties = k
    for i in range(found):
        ties -= np.int64(keys[i] >> 32 < limit)
    kept = 0
    for i in range(found):
        tie = keys[i] >> 32 == limit
        if not tie or ties > 0:
            keys[kept] = keys[i]
            kept += 1
            ties -= np.int64(tie)
    return kept


@inline
def _place_by_rank(keys, found, k, distance, index):
    """Put the k smallest of `keys[:found]` (all different) in ascending order."""
    for i in range(found):
        key = keys[i]
        rank = np.int64(0)
        for j in range(found):
            rank += np.int64(keys[j] < key)
        if rank < k:
            distance[rank] = np.int32(key >> 32)
            index[rank] = key & 0xFFFFFFFF


@jit
def _knn_scan(query, points, columns, distance, index, first, last):
    m, n, k = query.shape[1], points.shape[1], index.shape[2]
    x = np.empty(n, np.float32)
    y = np.empty(n, np.float32)
    z = np.empty(n, np.float32)
    row = np.empty(n, np.int32)
    column_min = np.empty(columns, np.int32)
    keys = np.empty(n + 1, np.int64)
    loaded = -1
    for item in range(first, last):
        b, q = item // m, item % m
        if b != loaded:
            _load(points[b], x, y, z)
            loaded = b
        qx, qy, qz = query[b, q, 0], query[b, q, 1], query[b, q, 2]
        for i in range(columns):
            column_min[i] = _NONE
        for low in range(0, n, columns):
            high = min(low + columns, n)
            _distance_row(x[low:high], y[low:high], z[low:high], qx, qy, qz, row[low:high], column_min)
        found = _collect(row, _threshold(column_min, k, k // 8), keys)
        if found > _MANY + 2 * k:  # many ties, or points so ordered that near ones share a column
            limit = _threshold(row, k, 0)
            found = _first_ties(keys, _collect(row, limit, keys), limit, k)
        _place_by_rank(keys, found, k, distance[b, q], index[b, q])


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    (b, m, _), n = query.shape, points.shape[1]
    if tree.search_pays(m, n, scan_ns=2.0, tree_us=0.6 + 0.08 * k):
        squared, index = tree.knn(query, points, k)
        return squared.sqrt_(), index
    distance = torch.empty((b, m, k), dtype=torch.int32)
    index = torch.empty((b, m, k), dtype=torch.int64)
    columns = min(n, max(64, 2 * k + -2 * k % 64))
    spread(_knn_scan, b * m, n, query.numpy(), points.numpy(), columns, distance.numpy(), index.numpy())
    return distance.view(torch.float32).sqrt_(), index


@inline
def _smallest_distance(x, y, z, qx, qy, qz):
    best = np.int32(_NONE)
    for i in range(x.shape[0]):
        dx = qx - x[i]
        dy = qy - y[i]
        dz = qz - z[i]
        best = min(best, bits(dx * dx + dy * dy + dz * dz))
    return best


@jit
def _ball_scan(query, points, limit, index, first, last):
    m, n, k = query.shape[1], points.shape[1], index.shape[2]
    x = np.empty(n, np.float32)
    y = np.empty(n, np.float32)
    z = np.empty(n, np.float32)
    loaded = -1
    for item in range(first, last):
        b, q = item // m, item % m
        if b != loaded:
            _load(points[b], x, y, z)
            loaded = b
        qx, qy, qz = query[b, q, 0], query[b, q, 1], query[b, q, 2]
        row = index[b, q]
        found = 0
        for low in range(0, n, _BLOCK):
            high = min(low + _BLOCK, n)
            if _smallest_distance(x[low:high], y[low:high], z[low:high], qx, qy, qz) >= limit:
                continue  # most blocks hold no point of the ball
            for i in range(low, high):
                dx, dy, dz = qx - x[i], qy - y[i], qz - z[i]
                if bits(dx * dx + dy * dy + dz * dz) < limit and found < k:
                    row[found] = i
                    found += 1
            if found == k:
                break
        padding = row[0] if found > 0 else 0
        for j in range(found, k):
            row[j] = padding


def ball_query(query: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    (b, m, _), n = query.shape, points.shape[1]
    limit = np.float32(radius) * np.float32(radius)
    index = torch.empty((b, m, k), dtype=torch.int64)
    spread(_ball_scan, b * m, n, query.numpy(), points.numpy(), limit.view(np.int32), index.numpy())
    return index
