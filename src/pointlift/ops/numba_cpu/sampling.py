"""Farthest point sampling on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointlift.ops.numba_cpu import tree
from pointlift.ops.numba_cpu.runtime import bits, inline, jit, spread

_BLOCK = 256
_INF = 0x7F800000


@inline
def _update(x, y, z, nearest, cx, cy, cz):
    """Lower `nearest` by the distances to (cx, cy, cz); return its largest entry."""
    best = np.int32(-1)
    for i in range(x.shape[0]):
        dx = x[i] - cx
        dy = y[i] - cy
        dz = z[i] - cz
        value = min(bits(dx * dx + dy * dy + dz * dz), nearest[i])
        nearest[i] = value
        best = max(best, value)
    return best


@jit
def _fps_scan(xyz, start, skip, out, first, last):
    n, num = xyz.shape[1], out.shape[1]
    x = np.empty(n, np.float32)
    y = np.empty(n, np.float32)
    z = np.empty(n, np.float32)
    nearest = np.empty(n, np.int32)
    for b in range(first, last):
        for i in range(n):
            x[i] = xyz[b, i, 0]
            y[i] = xyz[b, i, 1]
            z[i] = xyz[b, i, 2]
        for i in range(n):
            near = skip and x[i] * x[i] + y[i] * y[i] + z[i] * z[i] <= np.float32(1e-3)
            nearest[i] = -1 if near else _INF
        current = start[b]
        out[b, 0] = current
        for step in range(1, num):
            cx, cy, cz = x[current], y[current], z[current]
            best = np.int32(-1)
            where = 0
            for low in range(0, n, _BLOCK):
                high = min(low + _BLOCK, n)
                top = _update(x[low:high], y[low:high], z[low:high], nearest[low:high], cx, cy, cz)
                if top > best:
                    best = top
                    where = low
            current = 0
            if best >= 0:
                block = nearest[where : min(where + _BLOCK, n)]
                offset = np.int32(_BLOCK)
                for i in range(block.shape[0]):
                    offset = min(offset, np.int32(i) if block[i] == best else np.int32(_BLOCK))
                current = where + offset
            out[b, step] = current


def farthest_point_sample(xyz: Tensor, num: int, start: Tensor, skip_near_origin: bool) -> Tensor:
    if tree.sampling_pays(xyz.shape[1], num):
        return tree.farthest_point_sample(xyz, num, start, skip_near_origin)
    out = torch.empty((xyz.shape[0], num), dtype=torch.int64)
    spread(_fps_scan, xyz.shape[0], xyz.shape[1] * num, xyz.numpy(), start.numpy(), skip_near_origin, out.numpy())
    return out
