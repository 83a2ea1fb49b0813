"""Mutations of bytes and of text that know nothing of the format, and the choice among all of them.

Every function takes `(data, draw)` and gives new bytes; `draw` is a seeded `random.Random`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Mutator = Callable[[bytes, random.Random], bytes]

MOST_BYTES = 1 << 20  # no mutated file is larger
NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
WORD = re.compile(rb"[^\s,;:(){}\[\]\"']+")
ODD_NUMBERS = (
    b"-1", b"0", b"1", b"2", b"3", b"1e999", b"-1e999", b"1e-400", b"1e38", b"1e30", b"nan", b"NaN", b"inf", b"-inf",
    b"255", b"256", b"65536", b"2147483647", b"2147483648", b"4294967295", b"4294967296", b"9223372036854775807",
    b"-9223372036854775808", b"18446744073709551616", b"9" * 25, b"9" * 5000, b"0." + b"0" * 400 + b"1", b"0x10",
    b"1_000", b"1.5.2", b"--3", b"+", b"", b"1,5", b"1d3", b"1e", b"\xd9\xa1\xd9\xa2", b"\xef\xbc\x91", b"\xc2\xbd",
    b"true", b"null", b"None", b"1L", b"1000000000", b"100000000", b"0.1", b"-0", b"1e5", b"None",
)  # fmt: skip
SPACES = (b"\t", b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\xa0", b"\xe2\x80\x83", b"\xe2\x80\xa8", b"  ", b"")
LINE_ENDS = (b"\r\n", b"\r", b"\n\n", b"\n\r", b"\x0b", b"\0", b";", b"")
ODD_INTS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
            2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        out[_near_start(out, draw)] ^= 1 << draw.randrange(8)
    return bytes(out)


def set_bytes(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        out[_near_start(out, draw)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return bytes(out)


def set_integer(data: bytes, draw: random.Random) -> bytes:
    """Overwrite 1, 2, 4 or 8 bytes, mostly aligned, with a number that tends to hurt, or with its neighbour."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        size = draw.choice((1, 2, 4, 4, 8, 8))
        at = _near_start(out, draw)
        at -= at % draw.choice((1, size))
        order = draw.choice(("little", "little", "big"))
        if draw.random() < 0.3:
            value = int.from_bytes(out[at : at + size], order) + draw.choice((-2, -1, 1, 2, 16, 1000))
        else:
            value = draw.choice((*ODD_INTS, len(data), len(data) - at, len(data) + 1, draw.getrandbits(8 * size)))
        out[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)
    return bytes(out)


def fill_run(data: bytes, draw: random.Random) -> bytes:
    start, end = _span(data, draw)
    return (
        data[:start]
        + bytes([draw.choice((0, 0xFF, 0x20, 0x0A, 0x30, draw.randrange(256)))]) * (end - start)
        + data[end:]
    )


def scramble_run(data: bytes, draw: random.Random) -> bytes:
    start, end = _span(data, draw)
    return data[:start] + draw.randbytes(end - start) + data[end:]


def truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice((draw.randrange(len(data)), len(data) - 1, draw.randrange(min(len(data), 64))))]


def cut_out(data: bytes, draw: random.Random) -> bytes:
    start, end = _span(data, draw)
    return data[:start] + data[end:]


def repeat_run(data: bytes, draw: random.Random) -> bytes:
    start, end = _span(data, draw)
    return data[:end] + data[start:end] * draw.choice((1, 1, 2, 50)) + data[end:]


def insert(data: bytes, draw: random.Random) -> bytes:
    at = _near_start(data, draw)
    return data[:at] + draw.randbytes(draw.choice((1, 2, 4, 8, 100))) + data[at:]


def append(data: bytes, draw: random.Random) -> bytes:
    return data + draw.choice((draw.randbytes(1), draw.randbytes(64), b"\0" * 4096, data, b"\n", b"\x1a"))


def grow(data: bytes, draw: random.Random) -> bytes:
    """Hundreds of kilobytes out of one part of the file: time and memory must follow the size, not its square."""
    start, end = _span(data, draw)
    part = data[start : max(end, start + 1)]
    return data[:end] + part * (draw.choice((50_000, 200_000, 800_000)) // len(part)) + data[end:]


def odd_number(data: bytes, draw: random.Random) -> bytes:
    """Another number in the place of one, more often near the beginning, where counts are."""
    found = list(NUMBER.finditer(data))
    if not found:
        return set_integer(data, draw)
    for match in sorted({_pick(found, draw) for _ in range(draw.choice((1, 1, 1, 2, 4)))}, key=lambda m: -m.start()):
        old = match.group()
        near = old + b"000000000", old + draw.choice(b"0123456789").to_bytes(1, "big"), b"-" + old, old[:-1]
        new = draw.choice((*near, _neighbour(old, draw), *draw.sample(ODD_NUMBERS, 6)))
        data = data[: match.start()] + new + data[match.end() :]
    return data


def swap_words(data: bytes, draw: random.Random) -> bytes:
    found = list(WORD.finditer(data[:20_000]))
    if len(found) < 2:
        return flip_bits(data, draw)
    first, second = sorted((_pick(found, draw), _pick(found, draw)), key=lambda m: m.start())
    if first.end() > second.start():
        return cut_out(data, draw)
    between = data[first.end() : second.start()]
    return data[: first.start()] + second.group() + between + first.group() + data[second.end() :]


def change_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    i = _near_start(lines, draw)
    match draw.randrange(7):
        case 0:
            del lines[i]
        case 1:
            lines.insert(i, draw.choice(lines))
        case 2:
            lines[i : i + 1] = [lines[i]] * draw.choice((2, 10, 2000))
        case 3:
            lines[i] = lines[i] * draw.choice((2, 100, 3000))
        case 4:
            lines[i] = lines[i][: draw.randrange(len(lines[i]) + 1)]
        case 5:
            draw.shuffle(lines)
        case _:
            lines.insert(
                i,
                draw.choice((b"", b"#", b"//", b"# " + b"x" * 5000, b"\0" * 9, b"\xff\xfe", b"[" * 5000, b"{" * 3000)),
            )
    return b"\n".join(lines)


def change_encoding(data: bytes, draw: random.Random) -> bytes:
    text = data.decode("latin-1")
    match draw.randrange(8):
        case 0:
            return text.encode(draw.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32")))
        case 1:
            return b"\xef\xbb\xbf" + data
        case 2:
            return data.replace(b"\n", draw.choice(LINE_ENDS))
        case 3:
            return data.replace(b" ", draw.choice(SPACES))
        case 4:
            return data.replace(b".", b",")
        case 5:
            at = _near_start(data, draw)
            return (
                data[:at]
                + draw.choice((b"\0", b"\xff", b"\xe9", b"\xc3\x28", b"\x1b[2J", b"\xf0\x9f\x92\xa9"))
                + data[at:]
            )
        case 6:
            return data.swapcase()
        case _:
            return bytes(b ^ 0x80 if draw.random() < 0.02 else b for b in data)


def splice(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """The beginning of one file and the end of another."""
    if not other:
        return data
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other)) :]


BINARY: tuple[Mutator, ...] = (
    flip_bits, flip_bits, set_bytes, set_bytes, set_integer, set_integer, set_integer, set_integer,
    fill_run, scramble_run, truncate, cut_out, repeat_run, insert, append,
)  # fmt: skip
TEXT: tuple[Mutator, ...] = (
    odd_number,
    odd_number,
    odd_number,
    odd_number,
    swap_words,
    change_lines,
    change_lines,
    change_encoding,
)


def looks_like_text(data: bytes) -> bool:
    head = data[:512]
    return bool(head) and sum(b in b"\t\n\r" or 32 <= b < 127 for b in head) > 0.95 * len(head)


def has_text_head(data: bytes) -> bool:
    """A readable heading before binary data, as PLY and PCD have."""
    return looks_like_text(data[:64])


def mutate_once(data: bytes, draw: random.Random, others: Sequence[bytes], special: Sequence[Mutator] = ()) -> bytes:
    """One mutation that suits the bytes: of the format's container where there is one, of text, or of bytes."""
    if not data:
        return draw.choice((b"\0", b"\n", draw.randbytes(64)))
    chance = draw.random()
    if special and chance < 0.5:
        return draw.choice(special)(data, draw)[:MOST_BYTES]
    if chance > 0.995:
        return grow(data, draw)[:MOST_BYTES]
    if chance > 0.96:
        return splice(data, draw.choice(others) if others else data, draw)
    if looks_like_text(data):
        pool = TEXT + BINARY[:4] + BINARY[8:] if draw.random() < 0.85 else BINARY
    elif has_text_head(data):
        pool = TEXT + BINARY
    else:
        pool = BINARY
    return draw.choice(pool)(data, draw)[:MOST_BYTES]


def _near_start(data: Sequence | bytes | bytearray, draw: random.Random) -> int:
    """A position: half of the time anywhere, else more likely the nearer it is to the beginning."""
    size = len(data)
    return draw.randrange(size) if draw.random() < 0.5 else int(size * draw.random() ** 3)


def _pick(found: list[re.Match[bytes]], draw: random.Random) -> re.Match[bytes]:
    return found[_near_start(found, draw)]


def _neighbour(number: bytes, draw: random.Random) -> bytes:
    try:
        return b"%d" % (int(number) + draw.choice((-1, 1, 2, 10**9)))
    except ValueError:
        return number + b"e300"


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    start = _near_start(data, draw)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, 16, 64, 256, len(data) // 2)))
