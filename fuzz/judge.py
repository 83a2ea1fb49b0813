"""One case, judged: what came out, how long it took, how much memory it needed. Runs inside a worker process."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fuzz import Files
from fuzz.containers import mutators_for
from fuzz.mutate import mutate_once
from fuzz.targets import TARGETS, Invalid
from pointlift.core.errors import PointLiftError

SECONDS = 2.0  # of the processor's time, so that a busy machine makes no failures
FLOOR = 16 << 20  # memory that no file has to account for
ADDRESS_SPACE = 8 << 30  # beyond what a fresh worker has: a larger request is refused by the system
LONGEST_MESSAGE = 2_500  # characters: one screen


class Case(NamedTuple):
    """Makes the same files every time."""

    target: str
    seed: int
    number: int

    def files(self) -> Files:
        """The first numbers are the seed files themselves; every other case is one of them with 1 to 4 mutations."""
        seeds = TARGETS[self.target].seeds()
        if self.number < len(seeds):
            return dict(seeds[self.number])
        draw = random.Random(f"{self.target}/{self.seed}/{self.number}")
        # Large seeds are slow and all alike under mutation: they come up less often.
        weights = [1 / (4096 + sum(map(len, f.values()))) for f in seeds]
        files = dict(draw.choices(seeds, weights)[0])
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
            name = draw.choice(list(files))
            others = [f[name] for f in seeds if name in f]
            files[name] = mutate_once(files[name], draw, others, mutators_for(files[name]))
        if len(files) > 1 and draw.random() < 0.02:
            del files[draw.choice(list(files))]
        return files


@dataclass(frozen=True)
class Verdict:
    """What became of one case.

    Attributes:
        outcome: "read", "refused" (a `PointLiftError`) or "failed".
        reason: The error's text, or what is wrong.
        signature: Of a failure: the same for the same fault.
        seconds: Of the processor, in the worker and in the readers that it forks.
        size: Bytes of all files of the case.
        memory: By how many bytes the worker and the largest reader that it forked grew at their peaks, added up; 0
            where the system does not tell.
    """

    outcome: str
    reason: str = ""
    signature: str = ""
    seconds: float = 0.0
    size: int = 0
    memory: int = 0


class _Children:
    """What processes took that this one started and waited for, since `reset`."""

    def __init__(self) -> None:
        self._wait = os.wait4
        self.reset()

    def reset(self) -> None:
        self.seconds, self.peak = 0.0, 0

    def __call__(self, pid: int, options: int):
        """`os.wait4`, noted: the system keeps only the largest peak of all children that there ever were."""
        ended, status, usage = self._wait(pid, options)
        self.seconds += usage.ru_utime + usage.ru_stime
        self.peak = max(self.peak, 1024 * usage.ru_maxrss)
        return ended, status, usage


_children = _Children()


def prepare() -> None:
    """Limits and silence of a worker. The system kills what runs over its time, even inside a C library."""
    os.wait4 = _children
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = _status("VmSize:")
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))


def judge(target_name: str, files: Files, folder: Path, noise: int | None = None) -> Verdict:
    """Write the files into `folder` (emptied first), read them, and say how that went.

    Args:
        noise: A file descriptor whose growth shows what libraries print.
    """
    target = TARGETS[target_name]
    _lay_out(files, folder)
    size = sum(map(len, files.values()))
    printed = os.fstat(noise).st_size if noise is not None else 0
    before = _reset_peak()
    _children.reset()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    start = time.process_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        outcome, reason, signature = _outcome(target.read, folder, next(iter(files), ""))
    sys.stdout.flush()
    seconds = time.process_time() - start + _children.seconds
    signal.setitimer(signal.ITIMER_PROF, 0)
    memory = max(0, _status("VmHWM:") - before) + max(0, _children.peak - before)
    if outcome != "failed":
        if seconds > SECONDS:
            outcome, reason, signature = "failed", f"over {SECONDS} s, {_children.seconds:.1f} in a child", "time"
        elif memory > FLOOR + target.memory(files):
            outcome, reason, signature = "failed", f"{memory:,} bytes of memory for {size:,} of file", "memory"
        elif said:
            text = f"{said[0].category.__name__}: {said[0].message}"
            outcome, reason, signature = "failed", f"warns: {text}"[:300], f"warns {text[:60]}"
        elif noise is not None and os.fstat(noise).st_size > printed:
            outcome, reason, signature = "failed", "something was printed to stdout or stderr", "prints"
    return Verdict(outcome, reason, signature, seconds, size, memory)


def _outcome(read, folder: Path, main: str) -> tuple[str, str, str]:
    try:
        read(folder, main)
    except PointLiftError as error:
        text = str(error)
        if any(isinstance(e, MemoryError) for e in _chain(error)):
            return "failed", f"more memory asked for than there is: {text}"[:300], "memory error"
        if len(text) > LONGEST_MESSAGE:
            return "failed", f"a message of {len(text):,} characters: {text[:200]}", f"long message {_place(error)}"
        if any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in text):
            return "failed", f"control characters in the message {text!r}"[:300], f"control characters {_place(error)}"
        return "refused", text, ""
    except Invalid as error:
        return "failed", f"invalid result: {error}", f"invalid {error}"[:80]
    except BaseException as error:
        return "failed", f"{type(error).__name__}: {error}"[:300], f"{type(error).__name__} {_place(error)}"
    return "read", "", ""


def _chain(error: BaseException):
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _place(error: BaseException) -> str:
    """The innermost line of our own code that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "pointlift" in f.filename] or list(frames)
    return f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"


def _lay_out(files: Files, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _reset_peak() -> int:
    """Forget the peak so far (Linux); the present size."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 1 << 62  # no measure here: nothing ever grows beyond this
    return _status("VmRSS:")


def _status(key: str) -> int:
    """Bytes from /proc/self/status; 0 where there is none."""
    try:
        with open("/proc/self/status", "rb") as stream:
            lines = stream.read().split(b"\n")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key.encode())), 0)
