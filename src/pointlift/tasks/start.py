"""How a run begins: its folder is claimed, and what it is made of is written down, or compared with what was."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pointlift.core.config import to_dict
from pointlift.core.errors import UsageError
from pointlift.engine import run_folder
from pointlift.tasks.config import differences
from pointlift.tasks.record import FILE as RECORD
from pointlift.tasks.run import Origin, has_run, read_origin, read_run_config, tidy, write_start

logger = logging.getLogger(__name__)


def claim_run(stack: ExitStack, out: Path, *, resume: bool) -> None:
    """Main process: make and lock the folder, until the end of `stack`.

    Raises:
        UsageError: It is not empty, or another process writes it.
    """
    begun = resume and has_run(out)
    if resume and not begun and out.is_dir():
        # A run that was killed before it began leaves a lock and a half-written file, and nothing else.
        with run_folder.claim(out, resume=True):
            tidy(out)
    stack.enter_context(run_folder.claim(out, resume=begun))
    tidy(out)


def begin_or_check(out: Path, config: Any, now: Origin, *, resume: bool) -> Origin:
    """Main process: write how the run starts, or see that what is resumed is the same run.

    Args:
        config: The whole configuration of the run.
        now: How it starts, or would start.

    Raises:
        UsageError: The run was started otherwise.
    """
    if not (resume and has_run(out)):
        write_start(out, config, now)
        return now
    before = read_origin(out)
    changed = differences(to_dict(read_run_config(out)), to_dict(config))
    if now.recipe not in (None, before.recipe):
        changed.insert(0, f"the recipe was {before.recipe} and is {now.recipe}")
    if before.data != now.data:
        changed.append("the data set has another content")
    # Later, the weights are in the checkpoint, and how they began no longer matters.
    if before.weights != now.weights and not any((out / "checkpoints").glob("*.safetensors")):
        changed.append("the weights before training are others")
    if changed:
        raise UsageError(
            f"the run in {out} was started otherwise: {'; '.join(changed[:6])}",
            "the same run",
            "Resume without changes, or start a new run in another folder",
        )
    return before


def is_finished(out: Path) -> bool:
    """Whether nothing is left to do in `out`: its record, which is written last, is there."""
    finished = (out / RECORD).is_file()
    if finished:
        logger.warning("%s is finished: nothing was trained", out)
    return finished
