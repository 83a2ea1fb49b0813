"""How much memory a compressed file may ask for."""

from __future__ import annotations

from pathlib import Path

# Whatever is compressed may unpack to this many bytes, or to this many times the size of its file.
UNPACKED_FLOOR = 64 << 20
UNPACKED_RATIO = 100
# And never to more than this: deflate cannot, so that a larger size is a lie of the header.
LARGEST_RATIO = 1_100


def unpacked_limit(path: Path) -> int:
    """The most bytes that one array of the file may take in memory."""
    return unpacked(path.stat().st_size)


def unpacked(size: int) -> int:
    """The most bytes that a file of `size` bytes may unpack to."""
    return min(max(UNPACKED_FLOOR, UNPACKED_RATIO * size), LARGEST_RATIO * size)
