"""Attention among the members of small neighbourhoods: matrices too small for a library of matrices.

Some neighbourhoods at a time are the lanes of all inner loops, so that products, maximum and sums over members run
without a horizontal step. Of one head, what is computed with stands number by number with the lanes last: queries,
keys and values (3, K, D, lanes). The way back computes the weights again: they are more numbers than there are inputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointlift.ops.checks import check_range
from pointlift.ops.numba_cpu.runtime import jit, spread, unbits

_LANES = 64  # neighbourhoods at a time; where fewer are left the other lanes repeat the last one
_NONE = np.float32(-np.inf)
_SMALLEST = np.float32(-87)  # its exponential is the smallest normal number
_LOG2_E = np.float32(1.44269504)
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # multiples of the first are exact
_TAYLOR = tuple(np.float32(1 / n) for n in (720, 120, 24, 6, 2))
_HALF, _ONE = np.float32(0.5), np.float32(1)


@jit
def _exp(x):
    """e**x for x <= 0 to a few units in the last place. A loop of it vectorises; one of the C library's does not."""
    c6, c5, c4, c3, c2 = _TAYLOR
    x = _SMALLEST if x < _SMALLEST else x  # a NaN stays one
    power = np.int32(x * _LOG2_E - _HALF)
    whole = np.float32(power)
    rest = (x - whole * _LN_2_HIGH) - whole * _LN_2_LOW
    series = ((((c6 * rest + c5) * rest + c4) * rest + c3) * rest + c2) * rest * rest + rest + _ONE
    return series * unbits(np.int32((power + 127) << 23))


@jit
def _members(idx, rows, low, real, first):
    """Where each lane's members are in the flat table (K, lanes), counted in rows."""
    wide, k = np.uint64(_LANES), np.uint64(idx.shape[2])
    for i in range(wide):
        at = low + min(i, real - np.uint64(1))
        b, s = at // np.uint64(idx.shape[1]), at % np.uint64(idx.shape[1])
        for j in range(k):
            first[j * wide + i] = b * rows + np.uint64(idx[b, s, j])


@jit
def _read_head(flat, first, width, head, depth, scale, out):
    """Queries times `scale`, keys and values of one head: (3, K, D, lanes)."""
    wide, k = np.uint64(_LANES), np.uint64(len(first)) // np.uint64(_LANES)
    for part in range(np.uint64(3)):
        factor = scale if part == 0 else _ONE
        for d in range(depth):
            column = part * (width // np.uint64(3)) + head * depth + d
            for j in range(k):
                at = ((part * k + j) * depth + d) * wide
                for i in range(wide):
                    out[at + i] = flat[first[j * wide + i] * width + column] * factor


@jit
def _multiply(a, from_a, b, from_b, out, at, fresh):
    """out = a * b lane by lane where `fresh`, else out += a * b."""
    if fresh:
        for i in range(np.uint64(_LANES)):
            out[at + i] = a[from_a + i] * b[from_b + i]
    else:
        for i in range(np.uint64(_LANES)):
            out[at + i] += a[from_a + i] * b[from_b + i]


@jit
def _products(a, from_a, b, from_b, depth, out):
    """Of one vector per lane in `a` with each of the vectors in `b`: (K, lanes)."""
    wide = np.uint64(_LANES)
    for j in range(np.uint64(len(out)) // wide):
        for d in range(depth):
            _multiply(a, from_a + d * wide, b, from_b + (j * depth + d) * wide, out, j * wide, d == 0)


@jit
def _sums(shares, b, from_b, depth, out, at):
    """The vectors in `b`, summed by the lanes' shares: (D, lanes)."""
    wide = np.uint64(_LANES)
    for j in range(np.uint64(len(shares)) // wide):
        for d in range(depth):
            _multiply(shares, j * wide, b, from_b + (j * depth + d) * wide, out, at + d * wide, j == 0)


@jit
def _add_outer(shares, a, from_a, depth, out, at):
    """To each of the vectors in `out`: the lanes' one vector in `a`, by their shares."""
    wide = np.uint64(_LANES)
    for j in range(np.uint64(len(shares)) // wide):
        for d in range(depth):
            _multiply(shares, j * wide, a, from_a + d * wide, out, at + (j * depth + d) * wide, False)


@jit
def _softmax(shares, best, total):
    """Over all members, lane by lane, in place."""
    wide = np.uint64(_LANES)
    count = np.uint64(len(shares)) // wide
    for i in range(wide):
        best[i], total[i] = _NONE, 0
    for j in range(count):
        for i in range(wide):
            value = shares[j * wide + i]
            best[i] = value if value > best[i] else best[i]
    for j in range(count):
        for i in range(wide):
            shares[j * wide + i] -= best[i]
    for n in range(np.uint64(len(shares))):  # one long loop over one array: this is what vectorises
        shares[n] = _exp(shares[n])
    for j in range(count):
        for i in range(wide):
            total[i] += shares[j * wide + i]
    for i in range(wide):
        total[i] = _ONE / total[i]
    for j in range(count):
        for i in range(wide):
            shares[j * wide + i] *= total[i]


@jit
def _attend(qkv, idx, heads, scale, out, first, last):
    wide, width, k = np.uint64(_LANES), np.uint64(qkv.shape[2]), np.uint64(idx.shape[2])
    inner, rows = width // np.uint64(3), np.uint64(qkv.shape[1])
    depth = inner // np.uint64(heads)
    flat, written = qkv.reshape(-1), out.reshape(-1)
    members = np.empty(k * wide, np.uint64)
    head, shares = np.empty(np.uint64(3) * k * depth * wide, np.float32), np.empty(k * wide, np.float32)
    mixed, best, total = np.empty(depth * wide, np.float32), np.empty(wide, np.float32), np.empty(wide, np.float32)
    part = k * depth * wide
    end = np.uint64(last) * np.uint64(idx.shape[1])
    for low in range(np.uint64(first) * np.uint64(idx.shape[1]), end, wide):
        real = min(wide, end - low)
        _members(idx, rows, low, real, members)
        for h in range(np.uint64(heads)):
            _read_head(flat, members, width, h, depth, scale, head)
            for query in range(k):
                _products(head, query * depth * wide, head, part, depth, shares)
                _softmax(shares, best, total)
                _sums(shares, head, part + part, depth, mixed, np.uint64(0))
                for d in range(depth):
                    for i in range(real):
                        written[((low + i) * k + query) * inner + h * depth + d] = mixed[d * wide + i]


@jit
def _attend_backward(grad, qkv, idx, heads, scale, grad_qkv, first, last):
    wide, width, k = np.uint64(_LANES), np.uint64(qkv.shape[2]), np.uint64(idx.shape[2])
    inner, rows = width // np.uint64(3), np.uint64(qkv.shape[1])
    depth = inner // np.uint64(heads)
    flat, pulled, gained = qkv.reshape(-1), grad.reshape(-1), grad_qkv.reshape(-1)
    members = np.empty(k * wide, np.uint64)
    part = k * depth * wide
    head, gains = np.empty(np.uint64(3) * part, np.float32), np.empty(np.uint64(3) * part, np.float32)
    shares, pulls = np.empty(k * wide, np.float32), np.empty(k * wide, np.float32)
    pull, best, total = np.empty(depth * wide, np.float32), np.empty(wide, np.float32), np.empty(wide, np.float32)
    end = np.uint64(last) * np.uint64(idx.shape[1])
    for low in range(np.uint64(first) * np.uint64(idx.shape[1]), end, wide):
        real = min(wide, end - low)
        _members(idx, rows, low, real, members)
        for h in range(np.uint64(heads)):
            _read_head(flat, members, width, h, depth, scale, head)
            gains[:] = 0
            pull[:] = 0
            for query in range(k):
                at = query * depth * wide
                for d in range(depth):
                    for i in range(real):
                        pull[d * wide + i] = pulled[((low + i) * k + query) * inner + h * depth + d]
                _products(head, at, head, part, depth, shares)
                _softmax(shares, best, total)
                _add_outer(shares, pull, np.uint64(0), depth, gains, part + part)
                _products(pull, np.uint64(0), head, part + part, depth, pulls)
                # Through the softmax: a share's own pull less the mean pull of its query.
                for j in range(k):
                    _multiply(shares, j * wide, pulls, j * wide, total, np.uint64(0), j == 0)
                for j in range(k):
                    for i in range(wide):
                        pulls[j * wide + i] = shares[j * wide + i] * (pulls[j * wide + i] - total[i])
                _sums(pulls, head, part, depth, gains, at)
                _add_outer(pulls, head, at, depth, gains, part)
            for n in range(part):
                gains[n] *= scale  # of the queries; that of the keys came with the queries
            for j in range(k):
                for i in range(real):
                    row = members[j * wide + i] * width + h * depth
                    for d in range(depth):
                        own = (j * depth + d) * wide + i
                        gained[row + d] += gains[own]
                        gained[row + inner + d] += gains[part + own]
                        gained[row + inner + inner + d] += gains[part + part + own]


def _work(qkv: Tensor, idx: Tensor) -> float:
    """Of one cloud, in the unit of `spread`."""
    return idx.shape[1] * idx.shape[2] ** 2 * qkv.shape[2] / 12


def neighborhood_attention(qkv: Tensor, idx: Tensor, heads: int, scale: float) -> Tensor:
    check_range("idx", idx, qkv.shape[1])  # compiled code would read outside the array
    out = torch.empty((*idx.shape, qkv.shape[2] // 3))
    spread(_attend, len(qkv), _work(qkv, idx), qkv.numpy(), idx.numpy(), heads, np.float32(scale), out.numpy())
    return out


def neighborhood_attention_backward(grad: Tensor, qkv: Tensor, idx: Tensor, heads: int, scale: float) -> Tensor:
    grad_qkv = torch.zeros_like(qkv)
    arrays = (grad.numpy(), qkv.numpy(), idx.numpy(), heads, np.float32(scale), grad_qkv.numpy())
    spread(_attend_backward, len(qkv), 3 * _work(qkv, idx), *arrays)
    return grad_qkv
