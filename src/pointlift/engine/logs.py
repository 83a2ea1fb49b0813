"""What a run says: `metrics.jsonl` always, a progress bar on a terminal, TensorBoard on request."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pointlift.core.errors import UsageError
from pointlift.engine.files import cannot_write

logger = logging.getLogger(__name__)

TIME_KEYS = frozenset({"time", "seconds", "evaluate_seconds", "samples_per_second", "train_seconds", "peak_memory_mb"})
"""Keys of `metrics.jsonl` that differ between two equal runs."""


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line; numbers that are not finite become null.

    Args:
        path: The file; it is made if absent.
        position: Bytes to keep of what is there. A resumed run passes what its checkpoint says, so that lines
            written after the checkpoint are not there twice.
    """

    def __init__(self, path: Path, *, position: int = 0) -> None:
        self.path = path
        try:
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            size = self._file.seek(0, os.SEEK_END)
            if size < position:
                logger.warning("%s lost its last %d bytes; the curves have a gap", path, position - size)
            self._file.truncate(min(size, position))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise cannot_write(path, error) from error

    @property
    def position(self) -> int:
        """Length of the file in bytes."""
        return self._file.tell()

    def write(self, event: str, **values: Any) -> None:
        """Append `{"event": event, …}`; raises `PointLiftError` when the disk is full."""
        line = json.dumps(finite({"event": event, **values}), allow_nan=False).encode() + b"\n"
        try:
            while line:  # an unbuffered write may take only a part
                line = line[self._file.write(line) :]
        except OSError as error:
            raise cannot_write(self.path, error, "Free some space and go on with --resume") from error

    def sync(self) -> int:
        """Bring everything to the disk; returns `position`."""
        os.fsync(self._file.fileno())
        return self.position

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line that was cut short is left out."""
    lines = []
    for text in path.read_bytes().split(b"\n")[:-1]:
        try:
            lines.append(json.loads(text))
        except ValueError:
            logger.warning("%s has a line that is not JSON; it is left out", path)
    return lines


def without_times(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `metrics.jsonl` without what differs between two equal runs."""
    return {key: value for key, value in line.items() if key not in TIME_KEYS}


class Progress:
    """A progress bar with the time left on stderr; silent when that is no terminal or `show` is off.

    Args:
        total: Optimiser steps of the whole run.
        done: Steps done before (a resumed run).
        show: Off in all processes but the main one.
    """

    def __init__(self, total: int, *, done: int = 0, show: bool = True) -> None:
        self._bar = None
        if not (show and sys.stderr.isatty()):
            return
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), speed_estimate_period=300)
        self._task = self._bar.add_task("training", total=total, completed=done)
        self._bar.start()

    def step(self) -> None:
        """One optimiser step is done."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def epoch(self, line: Mapping[str, Any], epochs: int) -> None:
        """Show the numbers of a finished epoch beside the bar."""
        if self._bar is not None:
            self._bar.update(self._task, description=describe(line, epochs))

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def describe(line: Mapping[str, Any], epochs: int) -> str:
    """An epoch line in words, e.g. `epoch 3/20  loss 1.204  val overall_accuracy 0.713`."""
    words = [f"epoch {line['epoch'] + 1}/{epochs}"]
    for split, name in (("train", "loss"), *((s, n) for s in ("val", "test") for n in line.get(s, ()))):
        value = line[split].get(name)
        words.append(f"{split} {name} {'not finite' if value is None else format(value, '.3f')}")
    return "  ".join(words)


class TensorBoard:
    """The same numbers for TensorBoard, in `out/tensorboard`.

    Args:
        out: The run folder.
        first_epoch: Epoch that the run starts or goes on with; later points of an earlier part are dropped.

    Raises:
        UsageError: The package is absent.
    """

    def __init__(self, out: Path, *, first_epoch: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "TensorBoard files are asked for and the package is absent",
                fix="pip install 'pointlift[log]'",
            ) from None
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=first_epoch)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Write the scalars of an epoch line under `train/`, `val/`, `test/` and `lr`."""
        for split in ("train", "val", "test"):
            for name, value in line.get(split, {}).items():
                self._writer.add_scalar(f"{split}/{name}", value, line["epoch"])
        self._writer.add_scalar("lr", line["lr"], line["epoch"])

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()


def finite(value: Any) -> Any:
    """`value` with NaN and infinities, which JSON lacks, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
