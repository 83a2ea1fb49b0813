"""LZF, the compression of PCD files: runs of plain bytes, and copies from at most 8 KiB before."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

LARGEST_RATIO = 88  # three bytes may stand for 264
SMALL = 1 << 16  # bytes: below it, plain Python is done before numba is loaded


def decompress(data: bytes, size: int) -> bytes | None:
    """The `size` bytes that `data` stands for, or None when it does not stand for exactly so many.

    The caller has checked that `size` is at most `LARGEST_RATIO` times the size of `data`.
    """
    if size < SMALL or find_spec("numba") is None:
        plain = bytearray(size)
        return bytes(plain) if decode(data, plain) == size else None
    out = np.empty(size, np.uint8)
    return out.tobytes() if _compiled()(np.frombuffer(data, np.uint8), out) == size else None


def decode(data: Any, out: Any) -> int:
    """Fill `out` from `data` and return how many bytes were written, or -1 for data that is not LZF.

    Only indexing and integers, so that numba compiles this same function for large files.
    """
    end, room, at, filled = len(data), len(out), 0, 0
    while at < end:
        control = int(data[at])
        at += 1
        if control < 32:  # a run of control + 1 plain bytes
            count = control + 1
            if at + count > end or filled + count > room:
                return -1
            for i in range(count):
                out[filled + i] = data[at + i]
            at += count
        else:  # a copy: 3 bits of length, 13 bits of distance, one more byte of length when the bits are all set
            count = control >> 5
            if count == 7:
                if at >= end:
                    return -1
                count += int(data[at])
                at += 1
            if at >= end:
                return -1
            source = filled - ((control & 31) << 8) - int(data[at]) - 1
            at += 1
            count += 2
            if source < 0 or filled + count > room:
                return -1
            for i in range(count):  # byte by byte: a copy may overlap itself
                out[filled + i] = out[source + i]
        filled += count
    return filled


@cache
def _compiled() -> Callable[[np.ndarray, np.ndarray], int]:
    from pointlift.ops.numba_cpu.runtime import jit

    return jit(decode)
