"""Worker processes: each reads case after case; one that dies has failed the case it was at, and is replaced."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fuzz import Files
from fuzz.judge import SECONDS, Case, Verdict, judge, prepare

Job = Case | tuple[str, Files]  # a case, or a target with its files
BATCH = 50
HANG = 120.0  # seconds without a result before the parent kills a worker that does not use the processor either
_CONTEXT = multiprocessing.get_context("spawn")


class Pool:
    """`workers` processes that judge jobs in any order.

    Use as a context manager; scratch files lie in memory where the system has /dev/shm.

    Args:
        workers: How many.
        extra: A module for the workers to import, which registers further targets.
    """

    def __init__(self, workers: int = 2, extra: str | None = None) -> None:
        shared = Path("/dev/shm")
        self._scratch = Path(tempfile.mkdtemp(prefix="pointlift-fuzz-", dir=shared if shared.is_dir() else None))
        self._workers = [_Worker(self._scratch / str(k), extra) for k in range(workers)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def judge(self, jobs: Iterator[Job], more: Callable[[], bool] = lambda: True) -> Iterator[tuple[Job, Verdict]]:
        """Verdicts as they come; `more()` false stops handing out jobs."""
        while True:
            for worker in self._workers:
                while len(worker.pending) < BATCH and more() and (batch := _take(jobs, BATCH)):
                    worker.send(batch)
            busy = {w.connection: w for w in self._workers if w.pending}
            if not busy:
                return
            ready = wait(list(busy), timeout=1.0)
            for connection in ready:
                yield busy[connection].receive()  # type: ignore[index]
            for worker in busy.values():
                if worker.pending and worker.connection not in ready and time.monotonic() - worker.since > HANG:
                    worker.kill()

    def one(self, job: Job) -> Verdict:
        return next(verdict for _, verdict in self.judge(iter([job])))


def _take(jobs: Iterator[Job], count: int) -> list[Job]:
    return [job for _, job in zip(range(count), jobs, strict=False)]


class _Worker:
    """One process, the pipe to it, and the jobs it has not answered yet (answers come in order)."""

    def __init__(self, scratch: Path, extra: str | None) -> None:
        self.scratch, self.extra = scratch, extra
        self.pending: deque[Job] = deque()
        self.since = time.monotonic()
        self._start()

    def _start(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, str(self.scratch), self.extra), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, jobs: list[Job]) -> None:
        if not self.pending:
            self.since = time.monotonic()
        self.pending.extend(jobs)
        # A dead worker is noticed, and its jobs sent again, when its answer is waited for.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(jobs)

    def receive(self) -> tuple[Job, Verdict]:
        try:
            verdict = self.connection.recv()
        except (EOFError, ConnectionResetError):
            verdict = self._died()
        self.since = time.monotonic()
        return self.pending.popleft(), verdict

    def _died(self) -> Verdict:
        """The verdict on the job at hand; a fresh process gets the others."""
        self.process.join()
        code = self.process.exitcode or 0
        rest = list(self.pending)[1:]
        self.connection.close()
        if code >= 0:
            raise RuntimeError(f"a worker ended with status {code}: the harness itself is at fault")
        self._start()
        if rest:
            self.connection.send(rest)
        if code == -signal.SIGPROF:
            return Verdict("failed", f"over {SECONDS} s", "time", SECONDS)
        name = signal.Signals(-code).name
        return Verdict("failed", f"the process died ({name})", f"died {name}")

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, scratch: str, extra: str | None) -> None:
    """The life of a worker: batches of jobs in, one verdict each out, until it is killed."""
    import fuzz.targets

    folder = Path(scratch)
    folder.mkdir(parents=True, exist_ok=True)
    # What libraries print goes to a file whose growth is a fault; the shared stderr stays readable.
    noise = os.open(folder / "printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    screen = os.fdopen(os.dup(2), "w")
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    job: Job | None = None
    try:
        if extra is not None:
            importlib.import_module(extra)
        prepare()
        while True:
            for job in connection.recv():
                target, files = (job.target, job.files()) if isinstance(job, Case) else job
                fuzz.targets.warm_up(target)
                connection.send(judge(target, files, folder / "case", noise))
    except EOFError:  # the parent has gone
        return
    except BaseException:
        traceback.print_exc(file=screen)
        print(f"the harness failed at {str(job)[:200]}", file=screen, flush=True)
        raise
