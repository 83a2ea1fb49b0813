"""Mutations that need the container's rules: what lies behind a checksum or a length field is reached through it."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
import zlib

from fuzz.mutate import ODD_INTS, TEXT, Mutator, flip_bits, mutate_once, set_integer

# Signature -> (offset, size) of its fields.
ZIP_FIELDS = {
    b"PK\x03\x04": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\x01\x02": ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (38, 4), (42, 4)),
    b"PK\x05\x06": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    b"PK\x06\x06": ((4, 8), (24, 8), (32, 8), (40, 8), (48, 8)),
}
NPY = b"\x93NUMPY"
NPY_SHAPES = ("(-1, 3)", "(0, 3)", "(4, 0)", "()", "(12,)", "(4, 3, 1)", "(10**9, 3)", "(4294967296, 4294967296)",
              "(9223372036854775807, 3)", "(1000000000, 3)", "(4.0, 3)", "(True, 3)", "'(4, 3)'", "None", "(4, 3) * 9",
              "(" + "1, " * 100 + "3)", "(" * 90 + ")" * 90, "[4, 3]", "(4, 3, -1, -1)", "(2, 6)",
              "(3, 4)")  # fmt: skip
NPY_TYPES = ("'|O'", "'O'", "'<f8'", "'>f8'", "'<f2'", "'<f16'", "'<c8'", "'|b1'", "'|V0'", "'|V12'", "'<U3'", "'|S0'",
             "'<U0'", "'<M8[ns]'", "'<m8'", "'<i8'", "'>u2'", "[('x','<f4'),('y','<f4'),('z','<f4')]", "[('x','|O')]",
             "[('x','<f4',(1000000,1000000))]", "[('x','<f4'),('x','<f4')]", "[]", "('<f4', (3,))", "'x'", "'(2,3)f4'",
             "'f4,f4,f4'", "{'names':['x'],'formats':['f4'],'offsets':[4000000000]}", "__import__('os')", "'<f4'*99999",
             "[('x','<f4'),('y','<f4'),('z','|V0')]", "[('x','|S3'),('y','<U2'),('z','<f4')]", "[('','<f4')]",
             "[('x',[('x','<f4')]),('y','<f4'),('z','<f4')]", "None", "1")  # fmt: skip


def mutators_for(data: bytes) -> tuple[Mutator, ...]:
    """What suits these bytes besides the general mutations."""
    if data.startswith(b"PK") or b"PK\x05\x06" in data[-400:]:
        return (zip_field, zip_contents, zip_contents, zip_contents, zip_structure)
    if data.startswith(NPY):
        return (npy_header,)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return (safetensors_header,)
    return ()


def zip_field(data: bytes, draw: random.Random) -> bytes:
    """One number of a local header, of the central directory or of the end record becomes a lie."""
    spots = [(at, fields) for mark, fields in ZIP_FIELDS.items() for at in _find_all(data, mark)]
    if not spots:
        return set_integer(data, draw)
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2))):
        at, fields = draw.choice(spots)
        offset, size = draw.choice(fields)
        value = draw.choice((*ODD_INTS, 12, 14, len(data), draw.getrandbits(8 * size)))
        out[at + offset : at + offset + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(out[: len(data) + 8])


def zip_contents(data: bytes, draw: random.Random) -> bytes:
    """One member is mutated and the archive written anew, with right checksums."""
    members = _members(data)
    if not members:
        return flip_bits(data, draw)
    i = draw.randrange(len(members))
    name, inside = members[i]
    members[i] = name, mutate_once(inside, draw, [d for _, d in members], mutators_for(inside))
    return _zip(members, draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def zip_structure(data: bytes, draw: random.Random) -> bytes:
    """Members twice, gone, renamed, thousands of them, zeros by the megabyte, other kinds of compression."""
    members = _members(data)
    if not members:
        return flip_bits(data, draw)
    name, inside = draw.choice(members)
    i = draw.randrange(len(members))
    kind = zipfile.ZIP_DEFLATED
    match draw.randrange(8):
        case 0:
            members.append((name, inside))
        case 1:
            del members[i]
        case 2:
            odd = ("../x.npy", "/etc/x.npy", "a\0b.npy", "x.npy/", ".npy", "é.npy", "x" * 60_000 + ".npy", "data.pkl")
            members[i] = (draw.choice(odd), inside)
        case 3:
            members += [(f"{k}.npy", b"") for k in range(2000)]
        case 4:
            members[i] = (name, inside + b"\0" * draw.choice((1 << 20, 8 << 20)))
        case 5:
            members[i] = (name, _npy_of_zeros(draw))
        case 6:
            kind = draw.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        case _:
            members = [(n, members[(k + 1) % len(members)][1]) for k, (n, _) in enumerate(members)]
    return _zip(members, kind)


def npy_header(data: bytes, draw: random.Random) -> bytes:
    """Another type, shape or order in the header, whose length is right again (mostly)."""
    start = 10 if data[6:7] == b"\1" else 12
    size = int.from_bytes(data[8:start], "little")
    head, body = data[start : start + size], data[start + size :]
    text = head.decode("latin-1")
    match draw.randrange(5):
        case 0 | 1:
            text = _replace_value(text, "shape", draw.choice(NPY_SHAPES))
        case 2 | 3:
            text = _replace_value(text, "descr", draw.choice(NPY_TYPES))
        case _:
            text = draw.choice(TEXT)(head or b" ", draw).decode("latin-1")
    if draw.random() < 0.3:
        text = text.replace("False", draw.choice(("True", "1", "None", "[]")))
    head = text.encode("latin-1", "replace")
    version = draw.choice((1, 1, 1, 2, 3, 9)) if len(head) < 65536 else 2
    length = struct.pack("<H" if version == 1 else "<I", len(head))
    return NPY + bytes([version, 0]) + length + head + body


def safetensors_header(data: bytes, draw: random.Random) -> bytes:
    """The JSON header is mutated, or its numbers are, and its length is right again."""
    size = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + size]
    mutated = draw.choice(TEXT)(head or b" ", draw)
    if draw.random() < 0.3:
        try:
            tree = json.loads(head)
            entry = draw.choice([v for v in tree.values() if isinstance(v, dict)])
            key = draw.choice(list(entry))
            entry[key] = draw.choice(
                (None, [], [-1], [2**62, 2**62], "F64", "I1", "{}", {}, 0, [0, 1 << 60], "x" * 9999)
            )
            mutated = json.dumps(tree).encode()
        except (ValueError, IndexError, UnicodeDecodeError):
            pass  # the header was no JSON any more: its text is mutated all the same
    return len(mutated).to_bytes(8, "little") + mutated + data[8 + size :]


def _replace_value(text: str, key: str, value: str) -> str:
    """`{'shape': (4, 3), ...}` with another value; the rest of the text stays."""
    at = text.find(f"'{key}':")
    if at < 0:
        return text
    start = at + len(key) + 3
    depth, end = 0, start
    while end < len(text) and (depth or text[end] not in ",}"):
        depth += (text[end] in "([{") - (text[end] in ")]}")
        end += 1
    return f"{text[:start]} {value}{text[end:]}"


def _npy_of_zeros(draw: random.Random) -> bytes:
    rows = draw.choice((1000, 300_000))
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 3), }}".encode()
    return NPY + b"\1\0" + struct.pack("<H", len(head)) + head + b"\0" * (rows * 12)


def _members(data: bytes) -> list[tuple[str, bytes]]:
    """Names and contents of an archive; none when it is damaged beyond reading."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()[:50]
            return [(i.filename, archive.read(i)) for i in infos if i.file_size < 1 << 20]
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError, NotImplementedError):
        return []


def _zip(members: list[tuple[str, bytes]], compression: int) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", compression) as archive:
        for name, inside in members:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), inside, compression)
    return out.getvalue()


def _find_all(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found
