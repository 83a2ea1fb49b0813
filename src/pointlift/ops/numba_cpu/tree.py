"""Searches through a balanced tree of boxes, for clouds too large to scan for every query.

The tree halves the points at the median of the widest axis; node i has children 2i+1 and 2i+2, and ranges follow from
the node number alone. Results are those of the scan to the last index: a box's distance, rounded step by step as a
point's is, never exceeds the rounded distance of a point inside, so pruning by it loses nothing, ties included.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointlift.ops.numba_cpu.runtime import bits, jit, spread

_LEAF = 32  # points per leaf when searching
_SAMPLING_LEAF = 64
_NONE = np.int64(0x7FFFFFFFFFFFFFFF)
_INF = 0x7F800000


def search_pays(queries: int, n: int, scan_ns: float, tree_us: float) -> bool:
    """Whether building a tree over n points and asking it beats scanning them.

    Args:
        queries: How many queries there are per cloud.
        n: Points per cloud.
        scan_ns: Nanoseconds that the scan takes per query and point.
        tree_us: Microseconds that the tree takes per query.
    """
    build_us = 0.2 * n
    return queries * (scan_ns * 1e-3 * n - tree_us) > build_us


def sampling_pays(n: int, num: int) -> bool:
    """Whether pruned sampling beats rescanning the cloud for each of `num` points."""
    return n >= 16384 and num >= 1024


def _depth(n: int, leaf: int) -> int:
    """Levels of halving after which no leaf holds more than `leaf` of n points."""
    return max(0, (n - 1).bit_length() - leaf.bit_length() + 1)


@jit
def _swap(planes, order, i, j):
    for axis in range(3):
        planes[axis, i], planes[axis, j] = planes[axis, j], planes[axis, i]
    order[i], order[j] = order[j], order[i]


@jit
def _split(planes, order, axis, low, high, middle):
    """Reorder points low .. high-1 so that those before `middle` are not above those after it (quickselect)."""
    values = planes[axis]
    last = high - 1
    while low < last:
        pivot = values[(low + last) >> 1]
        i, j = low, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                _swap(planes, order, i, j)
                i += 1
                j -= 1
        if middle <= j:
            last = j
        elif middle >= i:
            low = i
        else:
            return


@jit
def _build(points, depth, planes, order, boxes):
    """Fill planes (3,N) and order (N,) with the points in tree order, boxes (nodes,6) with lower and upper corners."""
    n = points.shape[0]
    for i in range(n):
        order[i] = i
        for axis in range(3):
            planes[axis, i] = points[i, axis]
    for level in range(depth + 1):
        for p in range(1 << level):
            node = (1 << level) - 1 + p
            low, high = n * p >> level, n * (p + 1) >> level
            widest, width = 0, np.float32(-1)
            for axis in range(3):
                bottom = top = planes[axis, low]
                for i in range(low, high):
                    bottom = min(bottom, planes[axis, i])
                    top = max(top, planes[axis, i])
                boxes[node, axis], boxes[node, axis + 3] = bottom, top
                if top - bottom > width:
                    widest, width = axis, top - bottom
            if level < depth:
                _split(planes, order, widest, low, high, n * (2 * p + 1) >> (level + 1))


@jit
def _bound(boxes, node, x, y, z):
    """Bits of the squared distance from a point to a box."""
    zero = np.float32(0)
    dx = max(max(boxes[node, 0] - x, x - boxes[node, 3]), zero)
    dy = max(max(boxes[node, 1] - y, y - boxes[node, 4]), zero)
    dz = max(max(boxes[node, 2] - z, z - boxes[node, 5]), zero)
    return bits(dx * dx + dy * dy + dz * dz)


@jit
def _offer_leaf(planes, order, low, high, x, y, z, distance, keys):
    """Insert the points of a leaf into the ascending `keys`, each (bits of the distance, index)."""
    for i in range(high - low):
        dx = x - planes[0, low + i]
        dy = y - planes[1, low + i]
        dz = z - planes[2, low + i]
        distance[i] = bits(dx * dx + dy * dy + dz * dz)
    last = keys.shape[0] - 1
    for i in range(high - low):
        key = (np.int64(distance[i]) << 32) | order[low + i]
        if key < keys[last]:
            place = last
            while place > 0 and keys[place - 1] > key:
                keys[place] = keys[place - 1]
                place -= 1
            keys[place] = key


@jit
def _search(planes, order, boxes, depth, x, y, z, distance, stack, keys):
    n, first_leaf = order.shape[0], (1 << depth) - 1
    stack[0] = 0  # (bits of the bound, node)
    top = 1
    while top > 0:
        top -= 1
        node, bound = stack[top] & 0xFFFFFFFF, stack[top] >> 32
        while node < first_leaf and bound <= keys[-1] >> 32:
            near, far = 2 * node + 1, 2 * node + 2
            bound, far_bound = np.int64(_bound(boxes, near, x, y, z)), np.int64(_bound(boxes, far, x, y, z))
            if far_bound < bound:
                near, far, bound, far_bound = far, near, far_bound, bound
            if far_bound <= keys[-1] >> 32:
                stack[top] = (far_bound << 32) | far
                top += 1
            node = near
        if bound <= keys[-1] >> 32:
            p = node - first_leaf
            _offer_leaf(planes, order, n * p >> depth, n * (p + 1) >> depth, x, y, z, distance, keys)


@jit
def _knn_tree(query, planes, order, boxes, depth, out_distance, out_index, first, last):
    k = out_index.shape[1]
    distance = np.empty(_LEAF, np.int32)
    stack = np.empty(depth + 2, np.int64)
    keys = np.empty(k, np.int64)
    for q in range(first, last):
        keys[:] = _NONE
        _search(planes, order, boxes, depth, query[q, 0], query[q, 1], query[q, 2], distance, stack, keys)
        for j in range(k):
            out_index[q, j] = keys[j] & 0xFFFFFFFF
            out_distance[q, j] = keys[j] >> 32


@jit
def _touch_leaf(planes, order, nearest, low, high, x, y, z):
    """Lower the distances of a leaf; return (largest, lowest index that has it) as one integer to maximise."""
    best = np.int32(-1)
    for i in range(low, high):
        dx = planes[0, i] - x
        dy = planes[1, i] - y
        dz = planes[2, i] - z
        value = min(bits(dx * dx + dy * dy + dz * dz), nearest[i])
        nearest[i] = value
        best = max(best, value)
    if best < 0:
        return np.int64(-1)
    index = np.int32(0x7FFFFFFF)
    for i in range(low, high):
        index = min(index, order[i] if nearest[i] == best else np.int32(0x7FFFFFFF))
    return (np.int64(best) << 32) | (0x7FFFFFFF - index)


@jit
def _touch(planes, order, boxes, depth, nearest, best, stack, trail, x, y, z):
    """Account for a newly taken point in every box that it can matter to; best[0] is then the next choice."""
    n, first_leaf = order.shape[0], (1 << depth) - 1
    stack[0] = 0
    top, visited = 1, 0
    while top > 0:
        top -= 1
        node = stack[top]
        if best[node] >> 32 <= _bound(boxes, node, x, y, z):
            continue
        if node >= first_leaf:
            p = node - first_leaf
            low, high = n * p >> depth, n * (p + 1) >> depth
            best[node] = _touch_leaf(planes, order, nearest, low, high, x, y, z)
        else:
            trail[visited] = node
            visited += 1
            stack[top], stack[top + 1] = 2 * node + 1, 2 * node + 2
            top += 2
    for i in range(visited - 1, -1, -1):  # children come after their parents on the trail
        node = trail[i]
        best[node] = max(best[2 * node + 1], best[2 * node + 2])


@jit
def _fps_tree(xyz, start, skip, depth, out, first, last):
    n, nodes = xyz.shape[1], (2 << depth) - 1
    planes = np.empty((3, n), np.float32)
    order = np.empty(n, np.int32)
    boxes = np.empty((nodes, 6), np.float32)
    nearest = np.empty(n, np.int32)
    best = np.empty(nodes, np.int64)
    stack = np.empty(depth + 2, np.int32)
    trail = np.empty(nodes, np.int32)
    for b in range(first, last):
        _build(xyz[b], depth, planes, order, boxes)
        for i in range(n):
            x, y, z = planes[0, i], planes[1, i], planes[2, i]
            nearest[i] = -1 if skip and x * x + y * y + z * z <= np.float32(1e-3) else _INF
        best[:] = _NONE
        current = start[b]
        out[b, 0] = current
        for step in range(1, out.shape[1]):
            x, y, z = xyz[b, current, 0], xyz[b, current, 1], xyz[b, current, 2]
            _touch(planes, order, boxes, depth, nearest, best, stack, trail, x, y, z)
            current = 0x7FFFFFFF - (best[0] & 0xFFFFFFFF) if best[0] >= 0 else 0
            out[b, step] = current


def farthest_point_sample(xyz: Tensor, num: int, start: Tensor, skip_near_origin: bool) -> Tensor:
    """As `reference.farthest_point_sample`."""
    out = torch.empty((xyz.shape[0], num), dtype=torch.int64)
    depth = _depth(xyz.shape[1], _SAMPLING_LEAF)
    arrays = xyz.numpy(), start.numpy(), skip_near_origin, depth, out.numpy()
    spread(_fps_tree, xyz.shape[0], xyz.shape[1] * num / 8, *arrays)
    return out


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices (B,M,k) of the k nearest points."""
    (clouds, m, _), n = query.shape, points.shape[1]
    distance = torch.empty((clouds, m, k), dtype=torch.int32)
    index = torch.empty((clouds, m, k), dtype=torch.int64)
    depth = _depth(n, _LEAF)
    planes, order = np.empty((3, n), np.float32), np.empty(n, np.int32)
    boxes = np.empty(((2 << depth) - 1, 6), np.float32)
    for b in range(clouds):
        _build(points[b].numpy(), depth, planes, order, boxes)
        found = distance[b].numpy(), index[b].numpy()
        spread(_knn_tree, m, 1000, query[b].numpy(), planes, order, boxes, depth, *found)
    return distance.view(torch.float32), index
