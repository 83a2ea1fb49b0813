"""Pickles of numpy arrays that released code reads: protocol 3, and the names that every numpy since 1.0 understands.

`pickle.dump` under numpy 2 names modules that older numpy lacks, and keeps all of a large file in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np


def pickled_array(array: np.ndarray) -> Iterator[bytes]:
    """The instructions for one array of numbers, in parts: what `pickle.dump(array, protocol=3)` writes, unmemoised."""
    data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    kind = f"{data.dtype.kind}{data.dtype.itemsize}".encode()
    order = b"|" if data.dtype.itemsize == 1 else b"<"
    yield b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    yield b"(K\x01(" + b"".join(pickled_int(n) for n in data.shape) + b"t"
    yield b"cnumpy\ndtype\n" + pickled_text(kind.decode()) + b"\x89\x88\x87R"
    yield b"(K\x03" + pickled_text(order.decode()) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    if data.nbytes >= 1 << 32:
        raise ValueError(f"an array of {data.nbytes:,} bytes does not fit protocol 3")
    yield b"B" + struct.pack("<I", data.nbytes)
    yield data.tobytes()
    yield b"tb"


def pickled_int(value: int) -> bytes:
    """The instruction for an integer of 32 bits."""
    return b"J" + struct.pack("<i", value)


def pickled_text(value: str) -> bytes:
    """The instruction for a string."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data
