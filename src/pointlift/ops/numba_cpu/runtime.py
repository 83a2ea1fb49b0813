"""How numba kernels are compiled and spread over threads.

Kernels are compiled once, serial and without the GIL; several Python threads run one kernel on disjoint
ranges of work items. Numba's own `parallel=True` is not used on purpose: it doubles the compile time, and its
OpenMP pool kills data-loader workers that are forked after it ran. A worker process (and any forked child)
runs everything on its one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}
_MIN_WORK_PER_THREAD = 200_000  # distances; below it, handing work to a thread costs more than it saves


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`numba.njit` with the options of this package, kept on disk where a cache directory is writable.

    No fast-math: contraction or reassociation would change which index wins a near tie. The disk cache of a
    kernel is renewed when its own file changes, so a kernel and the helpers it inlines share a file wherever
    the helpers are likely to change.
    """
    try:
        return njit(function, cache=True, **_OPTIONS)
    except RuntimeError:  # numba found no writable cache directory
        return njit(function, **_OPTIONS)


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """A helper of kernels in the same file, pasted into them: it costs no compilation of its own."""
    return njit(function, inline="always", **_OPTIONS)


def _bits(typing_context, value):
    if value != types.float32:
        return None

    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), build


bits: Any = intrinsic(_bits)
"""The bit pattern of a float32 as int32, in kernels.

For numbers >= 0 it has the order of the numbers, and LLVM vectorises minimum and maximum over integers, which it
does not do over floats.
"""


def _unbits(typing_context, value):
    if value != types.int32:
        return None

    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


unbits: Any = intrinsic(_unbits)
"""The float32 of a bit pattern: the inverse of `bits`."""


_pool: ThreadPoolExecutor | None = None
_forked = False


def _after_fork() -> None:
    global _pool, _forked
    _pool, _forked = None, True  # threads do not survive a fork


os.register_at_fork(after_in_child=_after_fork)


def threads() -> int:
    """Threads that a kernel may use: torch's setting; one in a data-loader worker or forked child."""
    if _forked or torch.utils.data.get_worker_info() is not None:
        return 1
    return torch.get_num_threads()


def spread(kernel: Callable[..., None], items: int, work_per_item: float, *arguments: Any) -> None:
    """Run `kernel(*arguments, first, last)` over the ranges that partition `range(items)`.

    Args:
        kernel: A compiled function that writes only what belongs to its items.
        items: Number of independent items (clouds, or queries of all clouds).
        work_per_item: Rough number of distances per item, to decide whether threads pay.
        arguments: Passed on unchanged.
    """
    parts = min(threads(), items, int(items * work_per_item / _MIN_WORK_PER_THREAD) + 1)
    if parts <= 1:
        kernel(*arguments, 0, items)
        return
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="pointlift-ops")
    edges = [items * p // parts for p in range(parts + 1)]
    jobs = [_pool.submit(kernel, *arguments, first, last) for first, last in pairwise(edges)]
    for job in jobs:
        job.result()
