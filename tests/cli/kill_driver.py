"""Helper process of test_interrupted.py: `kill_driver.py RECIPE OUT MOMENT…`.

Runs `pointlift finetune RECIPE` whole in OUT/whole, and in OUT/killed with `--resume` after a SIGKILL at each moment:
`NAME:WHEN` of `arm`, or `clock`. Prints the moments at which the run was killed, as a JSON list. The heavy imports
happen once; every run is a fork of this process, which itself never computes.
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

import torch

import pointlift.report
from pointlift.cli import main
from pointlift.tasks import finetune


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(name: str, when: str, nth: int) -> None:
    """Make this process kill itself the `nth` time that it comes to a moment.

    Args:
        name: Part of the name of a file.
        when: "half", "before" or "after": in the middle of writing it, or on either side of giving it its name;
            "scoring": when the selected weights are scored, whatever the name.
        nth: Of a file that is written more than once.
    """
    seen = {"opened": 0, "named": 0}
    opened, replace = Path.open, os.replace

    def half(path: Path, *args: object, **kwargs: object) -> object:
        file = opened(path, *args, **kwargs)
        if path.name.startswith(".writing-") and name in path.name:
            seen["opened"] += 1
            if when == "half" and seen["opened"] == nth:
                file.write(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
                file.flush()
                die()
        return file

    def naming(source: object, target: object) -> None:
        hit = name in Path(str(target)).name
        seen["named"] += hit
        hit = hit and seen["named"] == nth
        if hit and when == "before":
            die()
        replace(source, target)
        if hit and when == "after":
            die()

    if when == "scoring":
        finetune.plain_scores = die
    else:
        Path.open, os.replace = half, naming  # type: ignore[method-assign]


def forked(action: Callable[[], None], kill_after: float | None = None) -> bool:
    """Run `action` in a fork; returns whether it was killed. Any other failure ends this process."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            action()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status):
        sys.exit("a run failed")
    return False


def run_through_kills(recipe: str, out: Path, moments: list[str]) -> list[str]:
    """The moments at which the run was killed: some come too late."""
    command = ["finetune", recipe, "--out", str(out / "killed"), "--resume"]
    started = time.perf_counter()
    forked(lambda: main(["finetune", recipe, "--out", str(out / "whole")]))
    whole = time.perf_counter() - started
    chance = random.Random(0)
    done = []
    for moment in moments:
        nth = chance.randint(1, 2) if moment.startswith("epoch-") else 1

        def attacked(moment: str = moment, nth: int = nth) -> None:
            if moment != "clock":
                arm(*moment.split(":"), nth)
            main(command)

        # Short enough that all kills together leave epochs to train, however the machine's speed drifts.
        if forked(attacked, chance.uniform(0.03, 0.12) * whole if moment == "clock" else None):
            done.append(moment)
    forked(lambda: main(command))
    return done


if __name__ == "__main__":
    assert pointlift.report.write_report
    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)])  # loads what torch loads with the first optimiser, once for all forks
    print(json.dumps(run_through_kills(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])))
