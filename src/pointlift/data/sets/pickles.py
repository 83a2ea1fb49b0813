"""Pickles of numpy arrays, read by a machine that knows nothing else.

Python's own unpickler calls whatever a file names. This one has no such step: of pickle's instructions it carries
out those that make numbers, strings, lists, tuples, dicts and arrays of numbers, and refuses the file at any other.
Array data is not copied: arrays are views of the mapped file, so that a file of 2 GB opens at once.
"""

from __future__ import annotations

import codecs
import mmap
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.errors import FileFormatError

# The published caches have about 500,000 instructions; each can cost some hundred bytes.
MAX_INSTRUCTIONS = 10_000_000
# What a text encoding of array data (protocols 0 to 2) may unpack to, in all, as a multiple of the file.
MAX_DECODED_RATIO = 8
_MARK = object()
_NUMBER = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC_MODULES = ("numpy.core.numeric", "numpy._core.numeric")


class _RefusedError(Exception):
    """Why a file is not read; the caller adds its name."""


@dataclass(frozen=True)
class _Name:
    """One of the few things a file may refer to."""

    what: str


@dataclass
class _Unfinished:
    """An array or a number type whose content (BUILD) comes later; `memo` are the numbers it is known by."""

    dtype: np.dtype | None = None
    memo: list[int] = field(default_factory=list)


_NAMES = {
    **{(m, "_reconstruct"): _Name("reconstruct") for m in _ARRAY_MODULES},
    **{(m, "scalar"): _Name("scalar") for m in _ARRAY_MODULES},
    **{(m, "_frombuffer"): _Name("frombuffer") for m in _NUMERIC_MODULES},
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Name("dtype"),
    ("_codecs", "encode"): _Name("encode"),
    ("__builtin__", "bytes"): _Name("bytes"),
    ("builtins", "bytes"): _Name("bytes"),
}


def read_pickle(path: Path) -> Any:
    """What a pickle of plain values and arrays of numbers holds; nothing in it is ever executed.

    Python's lists, tuples, dicts (keys: strings, bytes, integers), numbers, strings, None, and numpy arrays and
    scalars of plain number types, of protocols 0 to 5, written by numpy 1 or 2 and by Python 2 or 3. Strings of
    Python 2 come as bytes. Arrays are read-only views of the file: it must stay as it is while they are used.

    Raises:
        FileFormatError: Anything else is in it, or it is damaged.
    """
    if not path.is_file():
        raise FileFormatError(f"no file {str(path)!r}", "a pickle of arrays")
    with path.open("rb") as stream:
        size = path.stat().st_size
        if size == 0:
            raise FileFormatError(f"{path} is empty (0 bytes)", "a pickle of arrays")
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return _Machine(data).run()
    except _RefusedError as refused:
        raise FileFormatError(
            f"{path}: {refused}",
            "a pickle of arrays of numbers, lists, tuples and dicts, and nothing else",
            "It is not read, because what it asks for could do harm; get the file from its authors again",
        ) from None
    except (
        struct.error, IndexError, KeyError, TypeError, ValueError, OverflowError, MemoryError, AttributeError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise FileFormatError(f"{path} is damaged or not a pickle ({reason})", "a complete pickle of arrays") from error


class _Machine:
    """Pickle's stack machine, cut down."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at, self.stack = data, 0, []  # type: memoryview, int, list[Any]
        self.memo: dict[int, Any] = {}
        self.room = MAX_DECODED_RATIO * len(data) + 4096

    def run(self) -> Any:
        """Carry out instructions until STOP; the one value that is left."""
        for _ in range(MAX_INSTRUCTIONS):
            code = self.data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                if len(self.stack) != 1:
                    raise _RefusedError(f"{len(self.stack)} values at its end instead of one")
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise _RefusedError(_forbidden(code))
            step(self)
        raise _RefusedError(f"more than {MAX_INSTRUCTIONS:,} instructions")

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        part = self.data[self.at : self.at + count]
        if count < 0 or len(part) < count:
            raise ValueError(f"{count:,} bytes promised at byte {self.at:,}, {len(part):,} are there")
        self.at += count
        return part

    def number(self, form: str) -> int:
        """The next little-endian integer of a `struct` format."""
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        """The bytes up to the end of the line."""
        end = self.data.obj.find(b"\n", self.at)  # type: ignore[attr-defined]  # an mmap: no copy
        if end < 0:
            raise ValueError(f"a line without end at byte {self.at:,}")
        text = bytes(self.data[self.at : end])
        self.at = end + 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        if isinstance(value, _Name | _Unfinished):
            raise _RefusedError("a half-made array or a bare name as a value")
        return value

    def since_mark(self) -> list[Any]:
        """Pop what lies above the last mark, and the mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        values, self.stack[at:] = self.stack[at + 1 :], []
        return [self._finished(v) for v in values]

    def _finished(self, value: Any) -> Any:
        """Names and number types may stand in the arguments of a call; half-made arrays nowhere."""
        if isinstance(value, _Unfinished) and value.dtype is None:
            raise _RefusedError("a half-made array as a value")
        return value

    def bounded(self, size: int) -> None:
        """Account for `size` bytes that are made from the file's bytes instead of viewed in place."""
        self.room -= size
        if self.room < 0:
            raise _RefusedError("more text than arrays of its size need")

    # Calls: what makes an array (`reduce`) and what fills it (`build`).

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("a call of something that is no array")
        makers: dict[str, Callable[..., Any]] = {
            "reconstruct": self._reconstruct, "dtype": self._dtype, "scalar": self._scalar,
            "encode": self._encode, "frombuffer": self._frombuffer, "bytes": self._no_bytes,
        }  # fmt: skip
        if function.what not in makers:
            raise _RefusedError(f"a call of {function.what}")
        self.push(makers[function.what](*arguments))

    def _reconstruct(self, kind: Any, shape: Any, code: Any) -> _Unfinished:
        if kind != _Name("ndarray") or shape != (0,):
            raise _RefusedError("an array of an unusual kind")
        return _Unfinished()

    def _dtype(self, code: Any, align: Any = 0, copy: Any = 1) -> _Unfinished:
        text = _text(code)
        if not _NUMBER.fullmatch(text):
            raise _RefusedError(f"an array of type {text[:20]!r}, which is no plain number")
        return _Unfinished(np.dtype(text))

    def _scalar(self, dtype: Any, raw: Any) -> Any:
        return _view(self._raw(raw), _number_type(dtype), (1,), fortran=False)[0].item()

    def _encode(self, text: Any, coding: Any) -> bytes:
        if not isinstance(text, str) or coding != "latin1":
            raise _RefusedError("a text encoded otherwise than as latin1")
        self.bounded(len(text))
        return text.encode("latin1")

    def _no_bytes(self, *arguments: Any) -> bytes:
        if arguments:
            raise _RefusedError("bytes made of something")
        return b""

    def _frombuffer(self, raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
        if order not in ("C", "F"):
            raise _RefusedError("an array of an unusual order")
        return _view(self._raw(raw), _number_type(dtype), shape, fortran=order == "F")

    def _raw(self, value: Any) -> bytes | memoryview:
        if isinstance(value, bytes | memoryview):
            return value
        if isinstance(value, str):  # bytes of Python 2 that were decoded on the way
            self.bounded(len(value))
            return value.encode("latin1")
        raise _RefusedError("array data that is not bytes (an array of Python objects)")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, _Unfinished) or not isinstance(state, tuple):
            raise _RefusedError("a state for something that is no array")
        if target.dtype is None:
            _, shape, dtype, fortran, raw = state if len(state) == 5 else (1, *state)
            made: Any = _view(self._raw(raw), _number_type(dtype), shape, fortran=bool(fortran))
        else:
            if len(state) < 5 or any(part is not None for part in state[2:5]):
                raise _RefusedError("an array of a compound type")
            order = _text(state[1])
            if order not in ("<", ">", "|", "="):
                raise _RefusedError("a number type of an unusual byte order")
            made = _Unfinished(target.dtype if order == "|" else np.dtype(order + target.dtype.str[1:]))
        for number in target.memo:
            self.memo[number] = made
        if isinstance(made, _Unfinished):
            made.memo = target.memo
        self.push(made)

    def name(self, module: str, attribute: str) -> None:
        found = _NAMES.get((module, attribute))
        if found is None:
            raise _RefusedError(f"it asks for {module[:60]}.{attribute[:60]}")
        self.push(found)

    def remember(self, number: int) -> None:
        value = self.stack[-1]
        if value is _MARK:
            raise ValueError("a mark cannot be remembered")
        self.memo[number] = value
        if isinstance(value, _Unfinished):
            value.memo.append(number)

    def dict_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items for something that is no dict")
        for given, value in zip(items[::2], items[1::2], strict=True):
            key = bytes(given) if isinstance(given, memoryview) and len(given) < 1000 else given
            # A nested tuple as key could take for ever to hash.
            if not isinstance(key, str | int | bytes) or isinstance(value, _Name | _Unfinished):
                raise _RefusedError("a dict with an unusual key or value")
            target[key] = value

    def list_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list) or any(isinstance(v, _Name | _Unfinished) for v in items):
            raise ValueError("items for something that is no list")
        target.extend(items)

    def tuple_of(self, count: int) -> None:
        values = self.stack[len(self.stack) - count :]
        if len(values) < count or any(v is _MARK for v in values):
            raise ValueError("a tuple of missing values")
        self.stack[len(self.stack) - count :] = [tuple(self._finished(v) for v in values)]

    def text(self, size: int) -> None:
        self.bounded(size)
        self.push(str(self.take(size), "utf-8", "surrogatepass"))

    def stack_name(self) -> None:
        attribute, module = self.pop(), self.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self.name(module, attribute)

    def frame(self) -> None:
        size = self.number("Q")
        if size > len(self.data) - self.at:
            raise ValueError(f"a frame of {size:,} bytes, {len(self.data) - self.at:,} are there")

    def protocol(self) -> None:
        version = self.take(1)[0]
        if version > 5:
            raise _RefusedError(f"protocol {version}")

    def whole_line(self) -> None:
        text = self.line()
        self.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(_short(text)))

    def quoted_line(self) -> None:
        text = self.line().strip()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise ValueError("a string without quotes")
        self.bounded(len(text))
        self.push(codecs.escape_decode(text[1:-1])[0])

    def unicode_line(self) -> None:
        text = self.line()
        self.bounded(len(text))
        self.push(str(text, "raw-unicode-escape"))


def _text(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return str(value, "latin1")
    if not isinstance(value, str):
        raise _RefusedError("a type name that is no text")
    return value


def _short(digits: bytes) -> bytes:
    if len(digits) > 400:
        raise ValueError(f"a number of {len(digits):,} digits")
    return digits


def _number_type(value: Any) -> np.dtype:
    if not isinstance(value, _Unfinished) or value.dtype is None:
        raise _RefusedError("an array without a number type")
    return value.dtype


def _view(raw: bytes | memoryview, dtype: np.dtype, shape: Any, *, fortran: bool) -> np.ndarray:
    """An array on bytes that must be exactly as many as it needs."""
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise _RefusedError("an array of an unusual shape")
    count = 1
    for n in shape:
        count *= n
    if count * dtype.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and type {dtype} on {len(raw):,} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _forbidden(code: int) -> str:
    import pickletools

    names = {ord(op.code): op.name for op in pickletools.opcodes}
    return f"instruction {names[code]}" if code in names else f"byte {code} where an instruction belongs"


def _line_float(m: _Machine) -> None:
    m.push(float(_short(m.line())))


def _long_line(m: _Machine) -> None:
    m.push(int(_short(m.line()).rstrip(b"L") or b"0"))


def _long(form: str) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        m.push(int.from_bytes(m.take(m.number(form)), "little", signed=True))

    return step


def _bytes(form: str) -> Callable[[_Machine], None]:
    return lambda m: m.push(m.take(m.number(form)))


def _append(m: _Machine) -> None:
    value = m.pop()
    m.list_items([value])


def _set_item(m: _Machine) -> None:
    value, key = m.pop(), m.pop()
    m.dict_items([key, value])


def _mark_dict(m: _Machine) -> None:
    items = m.since_mark()
    m.push({})
    m.dict_items(items)


def _mark_list(m: _Machine) -> None:
    items = m.since_mark()
    m.push([])
    m.list_items(items)


def _name(m: _Machine) -> None:
    module, attribute = str(m.line(), "utf-8"), str(m.line(), "utf-8")
    m.name(module, attribute)


_STEPS: dict[int, Callable[[_Machine], None]] = {
    ord(code): step
    for code, step in {
        "\x80": _Machine.protocol,
        "\x95": _Machine.frame,
        "(": lambda m: m.push(_MARK),
        "0": lambda m: m.stack.pop() and None,
        "1": lambda m: m.since_mark() and None,
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": _Machine.whole_line,
        "J": lambda m: m.push(m.number("i")),
        "K": lambda m: m.push(m.number("B")),
        "M": lambda m: m.push(m.number("H")),
        "L": _long_line,
        "\x8a": _long("B"),
        "\x8b": _long("i"),
        "F": _line_float,
        "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        "S": _Machine.quoted_line,
        "T": _bytes("i"),
        "U": _bytes("B"),
        "B": _bytes("I"),
        "C": _bytes("B"),
        "\x8e": _bytes("Q"),
        "\x96": _bytes("Q"),
        "V": _Machine.unicode_line,
        "X": lambda m: m.text(m.number("I")),
        "\x8c": lambda m: m.text(m.number("B")),
        "\x8d": lambda m: m.text(m.number("Q")),
        "]": lambda m: m.push([]),
        "l": _mark_list,
        "a": _append,
        "e": lambda m: m.list_items(m.since_mark()),
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.since_mark())),
        "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2),
        "\x87": lambda m: m.tuple_of(3),
        "}": lambda m: m.push({}),
        "d": _mark_dict,
        "s": _set_item,
        "u": lambda m: m.dict_items(m.since_mark()),
        "p": lambda m: m.remember(int(_short(m.line()))),
        "q": lambda m: m.remember(m.number("B")),
        "r": lambda m: m.remember(m.number("I")),
        "\x94": lambda m: m.remember(len(m.memo)),
        "g": lambda m: m.push(m.memo[int(_short(m.line()))]),
        "h": lambda m: m.push(m.memo[m.number("B")]),
        "j": lambda m: m.push(m.memo[m.number("I")]),
        "c": _name,
        "\x93": _Machine.stack_name,
        "R": _Machine.reduce,
        "b": _Machine.build,
    }.items()
}
