"""Compilation and threads of the numba kernels."""

from __future__ import annotations

import pytest

pytest.importorskip("numba")

import numpy as np

from pointlift.ops.numba_cpu import runtime


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    real = runtime.njit

    def without_cache(function, *, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(function, **options)

    monkeypatch.setattr(runtime, "njit", without_cache)
    assert runtime.jit(lambda x: x + 1)(2) == 3


def test_every_item_is_done_once_by_any_number_of_threads(monkeypatch):
    def kernel(seen, first, last):
        seen[first:last] += 1

    for threads in (1, 2, 5):
        monkeypatch.setattr(runtime, "threads", lambda threads=threads: threads)
        for items in (0, 1, 3, 64):
            seen = np.zeros(items, dtype=int)
            runtime.spread(kernel, items, 1e9, seen)
            assert (seen == 1).all()


def test_an_error_in_a_thread_is_raised(monkeypatch):
    def kernel(first, last):
        raise ZeroDivisionError

    monkeypatch.setattr(runtime, "threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        runtime.spread(kernel, 8, 1e9)
