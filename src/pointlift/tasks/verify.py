"""Is a record still true? Its command is run again, and the numbers are compared."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointlift.core.errors import DataError, FileFormatError, PointLiftError
from pointlift.tasks.record import FILE

TRAINING = ("demo", "finetune", "pretrain")
VERBS = (*TRAINING, "evaluate")
LARGEST = 16 << 20  # bytes of a record; real ones have a few thousand


@dataclass(frozen=True)
class Verdict:
    """What running a record's command again came to.

    Attributes:
        same: Whether data and all metrics are.
        differences: One line for each that is not.
        metrics: What was measured now.
        command: What was run.
    """

    same: bool
    differences: tuple[str, ...]
    metrics: dict[str, float]
    command: str


def read_record_file(path: Path) -> dict[str, Any]:
    """A record as a dict; `path` may be a run folder.

    Raises:
        DataError: No such file, or not a record with a command and metrics.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise DataError(f"no record {str(path)!r}", "a record.json, or a run folder")
    try:
        record = json.loads(path.read_text("utf-8"))
        metrics = {str(k): float(v) for k, v in record["metrics"].items()}
        if not isinstance(record["command"], str):
            raise TypeError("the run was started from Python")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(
            f"{path} cannot be run again ({type(error).__name__}: {error})"[:300],
            "a record with `command` and `metrics`",
        ) from error
    return {**record, "metrics": metrics}


def verify(record: Mapping[str, Any], overrides: Sequence[str] = (), *, tolerance: float = 1e-6) -> Verdict:
    """Run the command of a record again and compare.

    Only pointlift's own verbs that make records are run, without a shell, in a process of their own; where the
    command writes a run folder, it is a temporary one.

    Args:
        record: From `read_record_file`.
        overrides: Further words for the command (`--data.root DIR` where the data lies elsewhere).
        tolerance: Metrics may differ by this much.

    Raises:
        FileFormatError: A command of another kind.
        PointLiftError: The command failed.
    """
    verb, words = _parsed(str(record["command"]))
    with tempfile.TemporaryDirectory(prefix="pointlift-verify-") as folder:
        out = ["--out", str(Path(folder) / "run")] if verb in TRAINING else ["--json", "--no-cache"]
        command = [sys.executable, "-m", "pointlift", verb, *words, *overrides, *out]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        shown = shlex.join(["pointlift", *command[3:]])
        if done.returncode != 0:
            raise PointLiftError(f"{shown} failed (exit code {done.returncode})", fix="The lines above say why")
        now = read_record_file(Path(folder) / "run") if verb in TRAINING else json.loads(done.stdout)["record"]
    differences = (*_data_differs(record, now), *_metrics_differ(record["metrics"], now["metrics"], tolerance))
    return Verdict(not differences, differences, dict(now["metrics"]), shown)


def _parsed(command: str) -> tuple[str, list[str]]:
    """The verb, and its words without the place of its results."""
    try:
        program, verb, *words = shlex.split(command)
    except ValueError:
        program, verb, words = "", "", []
    if program != "pointlift" or verb not in VERBS:
        raise FileFormatError(f"the command {command[:200]!r}", f"pointlift {' | '.join(VERBS)} …")
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word == "--json" or word.startswith("--out="):
            skip = False
            continue
        skip = word == "--out"
        if not skip:
            kept.append(word)
    return verb, kept


def _data_differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    was, is_ = (str((r.get("dataset") or {}).get("content_hash")) for r in (before, now))
    return [] if was == is_ else [f"other data: content hash {was[:12]}… there, {is_[:12]}… here"]


def _metrics_differ(before: Mapping[str, float], now: Mapping[str, float], tolerance: float) -> list[str]:
    found = []
    for name in sorted(before.keys() | now.keys()):
        was, is_ = before.get(name), now.get(name)
        if was is None or is_ is None:
            found.append(f"{name}: only {'here' if was is None else 'there'}")
        elif not abs(was - is_) <= tolerance:
            found.append(f"{name}: {was:.6f} there, {is_:.6f} here")
    return found
