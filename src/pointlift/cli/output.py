"""What verbs print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from pointlift.core.errors import UsageError
from pointlift.engine.logs import describe, finite

if TYPE_CHECKING:
    from pointlift.tasks.predict import Prediction
    from pointlift.tasks.predict_parts import PartPrediction


def print_json(document: Any) -> None:
    """One JSON document on stdout; numbers that are not finite become null."""
    print(json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns on stdout, readable in a file too."""
    cells = [list(columns), *[[str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_entries(rows: Iterable[Mapping[str, Any]]) -> None:
    """One block per row, for texts too long for a table: the name, then the rest indented and wrapped."""
    for row in rows:
        name, *rest = row.items()
        print(name[1])
        for key, value in rest:
            if value in ("", None):
                continue
            print(textwrap.fill(f"{key}: {value}", 110, initial_indent="  ", subsequent_indent="    "))


def print_options(where: str, options: Sequence[Mapping[str, Any]]) -> None:
    """What can be set, a line or more each: name, default as it is written, meaning."""
    if not options:
        print("  no options")
        return
    print(f"  options ({where}.NAME VALUE):")
    cells = [(o["name"], _as_written(o["default"]), o["about"]) for o in options]
    name, default = (max(len(cell[i]) for cell in cells) for i in (0, 1))
    for cell in cells:
        start = f"    {cell[0]:{name}}  {cell[1]:{default}}  "
        print(textwrap.fill(cell[2], 120, initial_indent=start, subsequent_indent=" " * len(start)) or start.rstrip())


def _as_written(value: Any) -> str:
    """A default as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def say(message: str) -> None:
    """A message for the person at the terminal."""
    print(message, file=sys.stderr, flush=True)


def say_what_is_amiss(p: Prediction | PartPrediction) -> None:
    """Why a cloud has no answer, and what should be known of the answer that it has."""
    if p.error is not None:
        say(f"error: {p.error}" if str(p.path) in p.error else f"error: {p.path}: {p.error}")
    for note in p.notes:
        say(f"{p.path}: {note}")


def exit_if_failed(predictions: Sequence[Prediction | PartPrediction]) -> None:
    """End with exit code 1 where a cloud has no answer."""
    failed = sum(p.error is not None for p in predictions)
    if not failed:
        return
    if len(predictions) > 1:
        say(f"{failed} of {len(predictions)} clouds could not be read")
    raise typer.Exit(1)


def print_record(record: Mapping[str, Any]) -> None:
    """A record with its main parts in front, as one JSON document."""
    print_json({"protocol": record["protocol"], "metrics": record["metrics"], "record": record})


def percent(metrics: Mapping[str, float], name: str) -> str:
    """`overall_accuracy` as people write it."""
    return f"{100 * metrics[name]:.2f} %"


def scores(record: Mapping[str, Any], remark: str = "") -> str:
    """The scores of a record in words, the first as papers report it; `remark` stands behind that one."""
    metrics = record["metrics"]
    if record["task"] == "part_segmentation":
        return (
            f"{percent(metrics, 'instance_miou')} instance mIoU{remark}, {percent(metrics, 'class_miou')} class mIoU, "
            f"{percent(metrics, 'overall_accuracy')} of the points right"
        )
    mean = f"{percent(metrics, 'mean_class_accuracy')} mean class accuracy"
    return f"{percent(metrics, 'overall_accuracy')} overall accuracy{remark}, {mean}"


def command_line(verb: str, *words: str, extra: Sequence[str] = ()) -> str:
    """The command as it can be typed again."""
    return shlex.join(["pointlift", verb, *words, *extra])


def first_word(word: str, name: str) -> str:
    """`word`, the verb's first argument, unless it is an option: those with values come after it."""
    if word.startswith("--"):
        raise UsageError(f"{word} where {name} should be", f"{name} first, then options")
    return word


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function `(done, total)` that shows `120 of 10,000 shapes` on a terminal, and nothing elsewhere."""
    shown = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if shown and (done == total or done % max(1, total // 200) == 0):
            print(f"\r{done:,} of {total:,} {what}", end="", file=sys.stderr, flush=True)

    yield show
    if shown:
        print(file=sys.stderr)


def epoch_printer(epochs: int) -> Callable[[Mapping[str, Any]], None] | None:
    """Prints a line per epoch with the time left, where stderr is a file; a terminal has the progress bar."""
    if sys.stderr.isatty():
        return None

    def show(line: Mapping[str, Any]) -> None:
        seconds = line["seconds"] + line.get("evaluate_seconds", 0.0)
        left = seconds * (epochs - line["epoch"] - 1)
        say(f"{describe(line, epochs)}  {seconds:.1f} s, {left / 60:.1f} min left")

    return show
