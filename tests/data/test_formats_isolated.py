"""Readers that run in a child process: what comes back, and what happens to a child that does not come back."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointlift.core.errors import DataError, FileFormatError
from pointlift.data.files import read
from pointlift.data.formats.isolated import isolated

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="runs in the process itself elsewhere")
PATH = Path("scan.h5")
CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children")


def run(reader, limit=1 << 20):
    return isolated(lambda budget: reader(), PATH, limit)


def test_arrays_come_back_as_they_were():
    sent = {
        "a": np.arange(12.0).reshape(3, 4),
        "big endian": np.arange(3, dtype=">i2"),
        "none": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "scalar": np.array(7),
        "turned": np.arange(6).reshape(2, 3).T,
    }
    received = run(lambda: sent)
    assert list(received) == list(sent)
    for name, values in sent.items():
        np.testing.assert_array_equal(received[name], values, strict=True)
    received["a"][0, 0] = 5  # writable, like any array


def test_many_megabytes():
    values = np.arange(5_000_000)
    np.testing.assert_array_equal(run(lambda: {"a": values}, 1 << 26)["a"], values)


def test_errors_come_back_with_their_parts():
    def refuse():
        raise DataError("given", "expected", "fix")

    with pytest.raises(DataError) as caught:
        run(refuse)
    assert (caught.value.given, caught.value.expected, caught.value.fix) == ("given", "expected", "fix")


def spin():
    while True:
        pass


@pytest.mark.parametrize(
    ("reader", "says"),
    [
        (lambda: ctypes.string_at(0), r"scan.h5 is damaged: reading it crashes \(SIGSEGV\)"),
        (os.abort, r"crashes \(SIGABRT\)"),
        (spin, "takes too long"),
        (lambda: {"a": bytearray(1 << 40)}, "takes more memory than its size explains"),
        (lambda: {"a": np.zeros(1 << 18)}, "more bytes than its size explains"),
    ],
)
def test_a_child_that_does_not_answer_is_a_damaged_file(reader, says, capfd):
    files, children = len(os.listdir("/proc/self/fd")), CHILDREN.read_text()
    with pytest.raises(FileFormatError, match=says):
        run(reader)
    assert len(os.listdir("/proc/self/fd")) == files
    assert CHILDREN.read_text() == children  # none is left behind
    assert capfd.readouterr() == ("", "")


def test_time_follows_what_there_is_to_read():
    def allowed(size):
        def reader(budget):
            budget(size)
            return {"seconds": np.array(signal.getitimer(signal.ITIMER_PROF)[0])}

        return int(isolated(reader, PATH, 1 << 20)["seconds"])

    assert allowed(0) <= 1
    assert allowed(1 << 30) == pytest.approx(50, abs=5)


def test_memory_follows_what_there_is_to_read():
    def takes(announced):
        def reader(budget):
            budget(announced)
            return {"a": np.zeros(200 << 20, np.uint8)[:1]}

        return isolated(reader, PATH, 1 << 30)

    assert takes(200 << 20)["a"] == 0
    with pytest.raises(FileFormatError, match="more memory"):
        takes(10 << 20)  # the limit of the file does not count, only what was announced


def limited(memory, seconds, queue):
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    def large(budget):
        budget(1 << 30)
        return {"a": np.zeros(1 << 30, np.uint8)[:1]}

    for reader in (lambda budget: {"a": np.arange(3)}, large):
        try:
            queue.put(isolated(reader, PATH, 1 << 30)["a"].tolist())
        except Exception as error:
            queue.put(f"{type(error).__name__}: {error}")


def test_a_limit_on_this_process_is_no_fault_of_the_file():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    size = 1024 * int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0])
    child = context.Process(target=limited, args=(size + (32 << 20), 3600, queue), daemon=True)
    child.start()
    assert queue.get() == [0, 1, 2]
    assert queue.get().startswith("DataError: this process has too little memory left")
    child.join()


def test_our_own_failure_is_not_called_damage():
    def fails():
        raise KeyError("x")

    with pytest.raises(RuntimeError, match="KeyError: 'x'"):
        run(fails)
    with pytest.raises(RuntimeError, match="ended with status 1"):
        run(sys.exit)


def _reads(path, queue):
    queue.put(len(read(path)))


def test_works_inside_a_data_loader_worker(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["points"] = np.ones((9, 3), np.float32)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_reads, args=(tmp_path / "a.h5", queue), daemon=True)
    worker.start()
    assert queue.get(timeout=60) == 9
    worker.join()
