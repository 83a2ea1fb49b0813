"""Helper process of test_kill.py: `kill_driver.py OUT KILLS` trains OUT/whole, and OUT/killed through SIGKILLs.

torch is imported once; every run is a fork of this process, which itself never computes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import engine_toy
import torch

from pointlift.engine import files

EPOCHS = 40


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def inside_the_write(moment: str, nth: int) -> None:
    """Kill this process at one moment of its `nth` checkpoint write."""
    seen = {"write": 0}
    write, replace, fsync = Path.open, os.replace, os.fsync

    def half(path: Path, *args: object, **kwargs: object) -> object:
        file = write(path, *args, **kwargs)
        if path.name.startswith(".writing-"):
            seen["write"] += 1
            if moment == "half written" and seen["write"] == nth:
                file.write(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
                file.flush()
                die()
        return file

    def before_name(source: object, target: object) -> None:
        if seen["write"] == nth and moment == "before the name":
            die()
        replace(source, target)
        if seen["write"] == nth and moment == "after the name":
            die()

    def before_disk(descriptor: int) -> None:
        if seen["write"] == nth and moment == "before the disk":
            die()
        fsync(descriptor)

    Path.open, files.os.replace, files.os.fsync = half, before_name, before_disk  # type: ignore[method-assign]


def forked(action: Callable[[], object], *, kill_after: float | None = None) -> bool:
    """Run `action` in a fork; returns whether it was killed. Any other failure ends this process."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit("a run failed")
    return False


def train(out: Path) -> None:
    module, result = engine_toy.run(out, resume=out.exists(), epochs=EPOCHS)
    torch.save(module.state_dict(), out / "final.pt")
    (out / "result.json").write_text(
        json.dumps([result.epoch, result.metrics, result.samples_seen, len(result.history)])
    )


def main(out: Path, kills: int) -> None:
    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)])  # loads what torch loads with the first optimiser, once for all forks
    started = time.perf_counter()
    forked(lambda: train(out / "whole"))
    whole = time.perf_counter() - started
    chance = random.Random(0)
    moments = ["half written", "before the disk", "before the name", "after the name"]
    survived = {"random": 0, **dict.fromkeys(moments, 0)}
    while sum(survived.values()) < kills:
        moment = [*moments, "random"][sum(survived.values()) % 5]
        if moment == "random":
            delay = chance.uniform(0.2, 4) * whole / EPOCHS
            killed = forked(lambda: train(out / "killed"), kill_after=delay)
        else:
            nth = chance.randint(1, 2)

            def attacked(moment: str = moment, nth: int = nth) -> None:
                inside_the_write(moment, nth)
                train(out / "killed")

            killed = forked(attacked)
        if not killed:
            sys.exit(f"the run ended after only {survived}")
        survived[moment] += 1
    forked(lambda: train(out / "killed"))
    print(json.dumps(survived))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
