"""A reader with every fault that the harness must notice: the file says which. For the harness's own tests."""

from __future__ import annotations

import ctypes
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzz.judge import SECONDS
from fuzz.targets import TARGETS, Invalid, Target
from pointlift.core.errors import FileFormatError


def _read(folder: Path, main: str) -> None:
    match (folder / main).read_text():
        case "error":
            print(1 // 0)
        case "exit":
            sys.exit(3)
        case "crash":
            ctypes.string_at(0)
        case "time":
            while True:
                pass
        case "memory":
            np.ones(200 << 20, np.uint8).sum()
        case "child time":
            _forked(lambda: time.process_time() < SECONDS + 0.5)
        case "child memory":
            _forked(lambda: np.ones(200 << 20, np.uint8).sum() < 0)
        case "request":
            try:
                bytearray(1 << 40)
            except MemoryError as error:
                raise FileFormatError("too large") from error
        case "warning":
            warnings.warn("look", RuntimeWarning, stacklevel=1)
        case "prints":
            print("hello")
        case "nan":
            raise Invalid("coordinates that are not finite")
        case "long":
            raise _LongError("long")
        case "refuse":
            raise FileFormatError("no")


def _forked(more: Callable[[], bool]) -> None:
    """A process that lives while `more()` is true; the one that started it only waits."""
    pid = os.fork()
    if pid == 0:
        while more():
            pass
        os._exit(0)
    os.wait4(pid, 0)


class _LongError(FileFormatError):
    def __str__(self) -> str:
        return "x" * 10_000


TARGETS["faulty"] = Target(_read, lambda: [{"cloud": b"fine"}])
