"""Helper process of test_interrupted.py: `kill_driver.py RECIPE OUT KILLS SEED`.

Runs `pointlift finetune RECIPE` whole in OUT/whole, and in OUT/killed through SIGKILLs with `--resume` after each.
The heavy imports happen once; every run is a fork of this process, which itself never computes.
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

# (part of the file's name, when) or ("", what): every place where a run could be hurt.
MOMENTS = [
    ("origin.json", "half written"),
    ("config.yaml", "before the name"),
    ("config.yaml", "after the name"),
    ("epoch-", "half written"),
    ("epoch-", "before the name"),
    ("epoch-", "after the name"),
    ("", "scoring"),
    ("weights.safetensors", "after the name"),
    ("predictions.npz", "half written"),
    ("predictions.npz", "after the name"),
    ("record.json", "before the name"),
    ("report.html", "before the name"),
]


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(name: str, when: str, nth: int) -> None:
    """Make this process kill itself the `nth` time that it comes to a moment."""
    seen = {"opened": 0, "named": 0}
    opened, replace = Path.open, os.replace

    def half(path: Path, *args: object, **kwargs: object) -> object:
        file = opened(path, *args, **kwargs)
        if path.name.startswith(".writing-") and name in path.name:
            seen["opened"] += 1
            if when == "half written" and seen["opened"] == nth:
                file.write(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
                file.flush()
                die()
        return file

    def naming(source: object, target: object) -> None:
        hit = name in Path(str(target)).name
        seen["named"] += hit
        hit = hit and seen["named"] == nth
        if hit and when == "before the name":
            die()
        replace(source, target)
        if hit and when == "after the name":
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


def run_through_kills(recipe: str, out: Path, kills: int, seed: int) -> list[str]:
    """Returns the moments at which the run was killed."""
    command = ["finetune", recipe, "--out", str(out / "killed"), "--resume"]
    started = time.perf_counter()
    forked(lambda: main(["finetune", recipe, "--out", str(out / "whole")]))
    whole = time.perf_counter() - started
    chance = random.Random(seed)
    moments = (
        (MOMENTS * kills)[:kills] if kills >= len(MOMENTS) else sorted(chance.sample(MOMENTS, kills), key=MOMENTS.index)
    )
    done = []
    for moment in sorted(moments, key=MOMENTS.index):
        if moment[0] == "epoch-" and chance.random() < 0.5:  # a moment of the clock instead
            forked(lambda: main(command), chance.uniform(0.2, 0.8) * whole)
            done.append("at random")
            continue
        nth = 1 if moment[0] != "epoch-" else chance.randint(1, 2)

        def attacked(moment: tuple[str, str] = moment, nth: int = nth) -> None:
            arm(*moment, nth)
            main(command)

        if forked(attacked):
            done.append(" ".join(moment).strip())
    forked(lambda: main(command))
    return done


if __name__ == "__main__":
    assert pointlift.report.write_report
    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)])  # loads what torch loads with the first optimiser, once for all forks
    _, recipe, out, kills, seed = sys.argv
    print(json.dumps(run_through_kills(recipe, Path(out), int(kills), int(seed))))
