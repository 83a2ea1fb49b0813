"""A linear layer under a maximum over rows. Its gradient is sparse: of a group's rows, one per output has any."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointlift.ops.checks import check_range
from pointlift.ops.numba_cpu.runtime import jit, spread

_COLUMNS = 64  # of the inputs at a time: their share of the weights and of its gradient stays in the L2 cache


@jit
def _max_rows(rows, best, index, first, last):
    """The first of the largest values of each column of rows (P, K, C); a NaN is larger than anything."""
    at = np.empty(rows.shape[2], np.int32)
    for p in range(first, last):
        row = best[p]
        for i in range(rows.shape[1]):
            _take_larger(row, at, rows[p, i], i)
        for c in range(len(at)):
            index[p, c] = at[c]


@jit
def _take_larger(row, at, other, i):
    """`row` and, of each of its values, where it is from, after seeing `other`, the i-th."""
    here = np.int32(i)
    if i == 0:
        for c in range(len(row)):
            row[c] = other[c]
            at[c] = 0
        return
    for c in range(len(row)):
        value = other[c]
        better = (value > row[c]) | (value != value)
        at[c] = here if better else at[c]
        row[c] = value if better else row[c]


@jit
def _max_members(table, idx, x, columns, best, index, first, last):
    """`_max_rows` of table[idx] + x @ columns, cloud by cloud; no row is ever written out."""
    at, row = np.empty(columns.shape[1], np.int32), np.empty(columns.shape[1], np.float32)
    for b in range(first, last):
        for s in range(idx.shape[1]):
            for i in range(idx.shape[2]):
                member = table[b, idx[b, s, i]]
                for c in range(len(row)):
                    row[c] = member[c]
                _add_columns(row, x[b, s, i], columns)
                _take_larger(best[b, s], at, row, i)
            for c in range(len(at)):
                index[b, s, c] = at[c]


@jit
def _add_columns(row, factors, columns):
    """row += factors @ columns, three of them at a time: each sight of the row costs as much as a product."""
    inputs = len(factors)
    for d in range(0, inputs - inputs % 3, 3):
        f, g, h = factors[d], factors[d + 1], factors[d + 2]
        one, two, three = columns[d], columns[d + 1], columns[d + 2]
        for c in range(len(row)):
            row[c] += f * one[c] + g * two[c] + h * three[c]
    for d in range(inputs - inputs % 3, inputs):
        f, one = factors[d], columns[d]
        for c in range(len(row)):
            row[c] += f * one[c]


@jit
def _spread_gradient(grad, index, x, weight, grad_x, grad_weight, first, last):
    """Blocks `first` to `last` of the inputs: what each output's gradient adds to its row and to its weights."""
    outputs, inputs = weight.shape
    k = x.shape[1]
    # Flat copies, and unsigned numbers throughout: indices that may be negative would be checked one by one.
    wide = np.uint64(_COLUMNS)
    weights, gained = np.zeros(outputs * _COLUMNS, np.float32), np.zeros(outputs * _COLUMNS, np.float32)
    rows, pulled = np.zeros(k * _COLUMNS, np.float32), np.zeros(k * _COLUMNS, np.float32)
    for block in range(np.uint64(first), np.uint64(last)):
        low = block * wide
        size = min(wide, np.uint64(inputs) - low)  # of the last block's copies the rest is computed and never read
        for c in range(np.uint64(outputs)):
            for j in range(size):
                weights[c * wide + j] = weight[c, low + j]
                gained[c * wide + j] = 0
        for p in range(np.uint64(len(grad))):
            for i in range(np.uint64(k)):
                for j in range(size):
                    rows[i * wide + j] = x[p, i, low + j]
                    pulled[i * wide + j] = 0
            for c in range(np.uint64(outputs)):
                g = grad[p, c]
                if g != 0:
                    row, own = np.uint64(index[p, c]) * wide, c * wide
                    for j in range(wide):
                        pulled[row + j] += g * weights[own + j]
                    for j in range(wide):
                        gained[own + j] += g * rows[row + j]
            for i in range(np.uint64(k)):
                for j in range(size):
                    grad_x[p, i, low + j] = pulled[i * wide + j]
        for c in range(np.uint64(outputs)):
            for j in range(size):
                grad_weight[c, low + j] = gained[c * wide + j]


def linear_max(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    (p, k, _), channels = x.shape, weight.shape[0]
    rows = torch.mm(x.flatten(0, 1), weight.t()).view(p, k, channels)
    best, index = torch.empty((p, channels)), torch.empty((p, channels), dtype=torch.int64)
    spread(_max_rows, p, k * channels, *(t.numpy() for t in (rows, best, index)))
    return best, index


def linear_max_backward(grad: Tensor, index: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
    arrays = (t.numpy() for t in (grad, index, x, weight, grad_x, grad_weight))
    blocks = -(-weight.shape[1] // _COLUMNS)
    spread(_spread_gradient, blocks, 2 * grad.numel() * _COLUMNS / 8, *arrays)
    return grad_x, grad_weight


def neighborhood_max(table: Tensor, idx: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    check_range("idx", idx, table.shape[1])  # compiled code would read outside the array
    shape = (*idx.shape[:2], table.shape[2])
    best, index = torch.empty(shape), torch.empty(shape, dtype=torch.int64)
    arrays = (t.numpy() for t in (table, idx, x, weight.t().contiguous(), best, index))
    spread(_max_members, len(idx), idx[0].numel() * weight.numel() / 8 if len(idx) else 0, *arrays)
    return best, index
