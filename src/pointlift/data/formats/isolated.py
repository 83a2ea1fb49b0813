"""Reading in a child process: a C library that a damaged file can crash must not take the program with it.

The child is a fork, so it costs milliseconds and no imports; arrays come back through a pipe as plain bytes. Its
memory and its time follow what it says it is about to read. Where there is no fork to be trusted (Windows, macOS),
the reader runs in the process itself.
"""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pointlift.core.errors import DataError, FileFormatError, PointLiftError

Arrays = Mapping[str, np.ndarray]
Budget = Callable[[int], None]

SECONDS = 1  # of the processor's time, to find one's way in a file
PATIENCE = 30  # seconds on the clock for one of the processor
BYTES_PER_SECOND = 20 << 20  # the slowest unpacking that is waited for
OVERHEAD = 64 << 20  # memory for the library and the interpreter besides the arrays
COPIES = 5  # of the arrays: themselves, and a chunk as large as them before, in and after filters (gzip takes two)
LONGEST_HEADER = 1 << 20
LONGEST_REASON = 500
SHORTAGE = "ulimit -v limits the memory of this process"
# What ends a child ends it as the system means it, not through a handler of the parent's.
_DEADLY = ("SIGINT", "SIGTERM", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGABRT", "SIGXCPU", "SIGALRM", "SIGPROF")
_LENGTH = struct.Struct("<Q")


def isolated(read: Callable[[Budget], Arrays], path: Path, limit: int) -> dict[str, np.ndarray]:
    """What `read` returns, run in a child process.

    Args:
        read: Called with a function to which it says how many bytes of arrays it is about to read (the time and
            the memory that it may take follow); returns arrays of numbers by name, or raises `PointLiftError`.
        path: The file, for messages.
        limit: Bytes that all arrays together may take.

    Raises:
        PointLiftError: What `read` raised.
        FileFormatError: The child crashed, took too long, wanted more memory than it had announced, or sent more
            than `limit`.
        DataError: The child had too little memory because of a limit on this process.
        RuntimeError: `read` raised anything else, or the child could not be set up; the file is not to blame.
    """
    if not sys.platform.startswith("linux"):
        try:
            return dict(read(lambda size: None))
        except MemoryError as error:
            raise _too_little(path) from error
    receiver, sender = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # of Python 3.12, about threads: the child needs none
        pid = os.fork()
    if pid == 0:
        os.close(receiver)
        _live(read, sender)
    os.close(sender)
    dead = False
    try:
        with os.fdopen(receiver, "rb") as stream:
            return _received(stream, limit, path)
    except EOFError:
        dead = True
    finally:
        if not dead:  # it has answered, and may still wait to write what nobody reads
            os.kill(pid, signal.SIGKILL)
        _, status, _ = os.wait4(pid, 0)
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"the process that reads {path} ended with status {os.waitstatus_to_exitcode(status)}")
    if os.WTERMSIG(status) == signal.SIGABRT and _short(_size_now(), limit):  # so ends Rust without memory
        raise _too_little(path)
    raise _damaged(path, _fate(os.WTERMSIG(status)))


def _live(read: Callable[[Budget], Arrays], sender: int) -> None:
    """The child's life. It ends here, without the clean-up that belongs to the parent."""
    status = 1
    try:
        for name in _DEADLY:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.environ["RUST_BACKTRACE"] = "0"  # to collect one takes 40 MB, and without them it waits for ever
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)  # what a library says of its own end
        with os.fdopen(sender, "wb") as stream:
            _send(stream, read)
        status = 0
    finally:
        os._exit(status)


class _Allowance:
    """Memory and processor time for what is about to be read, beyond what the child has at its start."""

    def __init__(self) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._start = _size_now()
        self.short = False  # the system gives less than we would
        self(0)

    def __call__(self, size: int) -> None:
        """For `size` bytes of arrays, from now on."""
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        self.short = _short(self._start, size)
        resource.setrlimit(resource.RLIMIT_AS, (hard if self.short else _needed(self._start, size), hard))
        seconds = SECONDS + size / BYTES_PER_SECOND
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)  # a lock that another thread held at the fork


def _size_now() -> int:
    import resource

    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _needed(start: int, size: int) -> int:
    return start + OVERHEAD + COPIES * size


def _short(start: int, size: int) -> bool:
    """Does the system give this process less memory than reading `size` bytes may need?"""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    return hard != resource.RLIM_INFINITY and hard < _needed(start, size)


def _send(stream: BinaryIO, read: Callable[[Budget], Arrays]) -> None:
    arrays: dict[str, np.ndarray] = {}
    head: dict[str, Any]
    allow = _Allowance()
    try:
        arrays = {name: np.asarray(values, order="C") for name, values in read(allow).items()}
        head = {"arrays": [(name, a.dtype.str, a.shape) for name, a in arrays.items()]}
    except PointLiftError as error:
        fix = error.fix or ("The file may be whole: " + SHORTAGE if allow.short else "")  # libraries do not tell
        head = {"error": (type(error).__name__, error.given, error.expected, fix)}
    except MemoryError:
        head = {"memory": "system" if allow.short else "file"}
    except Exception as error:
        head = {"failure": f"{type(error).__name__}: {error}"[:LONGEST_REASON]}
    text = json.dumps(head).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for values in arrays.values():
        stream.write(values.reshape(-1).view(np.uint8).data)


def _received(stream: BinaryIO, limit: int, path: Path) -> dict[str, np.ndarray]:
    """The arrays that the child sends, or its error raised here.

    Raises:
        EOFError: The child ended before it had said everything.
    """
    (size,) = _LENGTH.unpack(_exactly(stream, bytearray(_LENGTH.size)))
    if size > LONGEST_HEADER:
        raise FileFormatError(f"{path}: names of arrays of {size:,} bytes", f"at most {LONGEST_HEADER:,}")
    head = json.loads(_exactly(stream, bytearray(size)))
    if "error" in head:
        from pointlift.core import errors

        kind, *parts = head["error"]
        raise getattr(errors, kind)(*parts)
    if head.get("memory") == "system":
        raise _too_little(path)
    if "memory" in head:
        raise _damaged(path, "takes more memory than its size explains")
    if "failure" in head:
        raise RuntimeError(f"reading {path} failed ({head['failure']})")
    arrays: dict[str, np.ndarray] = {}
    for name, code, shape in head["arrays"]:
        dtype = np.dtype(code)
        needed = math.prod(shape) * dtype.itemsize
        limit -= needed
        if limit < 0:
            raise FileFormatError(f"{path}: its arrays take more bytes than its size explains", "a complete file")
        arrays[name] = np.frombuffer(_exactly(stream, bytearray(needed)), dtype).reshape(shape)
    return arrays


def _exactly(stream: BinaryIO, data: bytearray) -> bytearray:
    view, filled = memoryview(data), 0
    while filled < len(data):
        got = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        filled += got
    return data


def _too_little(path: Path) -> DataError:
    return DataError(f"this process has too little memory left to read {path}", "", SHORTAGE)


def _damaged(path: Path, fate: str) -> FileFormatError:
    return FileFormatError(f"{path} is damaged: reading it {fate}", "a complete file", "Get the file again")


def _fate(number: int) -> str:
    late = {signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU}
    return "takes too long" if number in late else f"crashes ({signal.Signals(number).name})"
