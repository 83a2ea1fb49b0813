from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pointlift.core.errors import PointLiftError, UsageError
from pointlift.engine.run_folder import claim, lock


def test_a_new_folder_is_made_and_an_empty_one_taken(tmp_path: Path) -> None:
    for _ in range(2):
        with claim(tmp_path / "runs" / "a") as out:
            assert out.is_dir()


def test_a_folder_that_holds_something_needs_resume(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1")
    with pytest.raises(UsageError, match=r"is not empty.*--resume"), claim(tmp_path):
        pass
    with claim(tmp_path, resume=True):
        pass


def test_a_run_that_fails_before_its_first_file_leaves_no_folder(tmp_path: Path) -> None:
    def fail(out: Path, *, wrote: bool) -> None:
        with claim(out):
            if wrote:
                (out / "config.yaml").write_text("a: 1")
            raise PointLiftError("wrong data")

    (tmp_path / "there").mkdir()
    for name, wrote in (("new", False), ("begun", True), ("there", False)):
        with pytest.raises(PointLiftError, match="wrong data"):
            fail(tmp_path / name, wrote=wrote)
    with pytest.raises(PointLiftError, match="wrong data"):
        fail(tmp_path / "runs" / "recipe" / "deep", wrote=False)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "begun" / "config.yaml").is_file()
    assert (tmp_path / "there").is_dir()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(UsageError, match="is a file"), claim(tmp_path / "a"):
        pass
    with pytest.raises(PointLiftError, match="could not write"), claim(tmp_path / "a" / "b"):
        pass


def other_process(tmp_path: Path) -> subprocess.Popen[str]:
    """A process that locks `tmp_path`, forks a child as a data loader does, and waits."""
    code = f"""
        import os, time, pathlib
        from pointlift.engine.run_folder import lock
        with lock(pathlib.Path({str(tmp_path)!r})):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            print("locked", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_one_process_per_folder_and_death_unlocks(tmp_path: Path) -> None:
    process = other_process(tmp_path)
    try:
        with pytest.raises(UsageError, match=f"being written by process {process.pid} on"), lock(tmp_path):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with lock(tmp_path):  # though the forked child still lives
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_nested_locks_of_one_process_keep_others_out(tmp_path: Path) -> None:
    with lock(tmp_path):
        with lock(tmp_path / "." / ""):
            pass
        code = (
            "import pathlib, sys; from pointlift.engine.run_folder import claim\n"
            "with claim(pathlib.Path(sys.argv[1])): pass"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert f"being written by process {os.getpid()}" in done.stderr
