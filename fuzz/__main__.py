"""`python -m fuzz --cases 100000`: mutate, read, and say what broke. Exit status 1 when something did."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import corpus
from fuzz.judge import Case, Verdict
from fuzz.pool import Pool
from fuzz.targets import TARGETS

MOST_NAMED = 3  # failures with one signature that are shown and made small


@dataclass
class Tally:
    """What came of one target's cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    signatures: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, object]] = field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0
    # Peak growth over size, for cases of 64 KiB and more: below that, a page here and there decides.
    memory_factor: float = 0.0

    def add(self, verdict: Verdict) -> None:
        self.outcomes[verdict.outcome] += 1
        self.slowest = max(self.slowest, verdict.seconds)
        self.memory = max(self.memory, verdict.memory)
        if verdict.size >= 1 << 16:
            self.memory_factor = max(self.memory_factor, verdict.memory / verdict.size)

    def row(self) -> dict[str, object]:
        return {
            "cases": self.outcomes.total(),
            "read": self.outcomes["read"],
            "refused": self.outcomes["refused"],
            "failures": self.outcomes["failed"],
            "slowest_ms": round(1000 * self.slowest, 1),
            "memory_mb": round(self.memory / 1e6, 1),
            "memory_factor": round(self.memory_factor, 1),
            "failed": self.failures,
        }


def main() -> int:
    arguments = _arguments()
    if arguments.case:
        return _show(arguments.case, arguments.save)
    unknown = [name for name in arguments.format if name not in TARGETS]
    if unknown:
        print(f"no target {unknown[0]!r}; there are {' '.join(TARGETS)}", file=sys.stderr)
        return 2
    names = arguments.format or list(TARGETS)
    os.nice(arguments.nice)
    started = time.monotonic()
    tallies = {name: Tally() for name in names}
    with Pool(arguments.workers) as pool:
        end = started + 60 * arguments.minutes if arguments.minutes else float("inf")
        cases = _cases(names, arguments.cases, arguments.seed)
        for done, (case, verdict) in enumerate(pool.judge(cases, lambda: time.monotonic() < end), 1):
            assert isinstance(case, Case)
            tally = tallies[case.target]
            tally.add(verdict)
            if verdict.outcome == "failed":
                _failed(case, verdict, tally, arguments)
            if done % 5000 == 0:
                print(f"{done:,} cases, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        _make_small(tallies, pool, arguments)
    wall = time.monotonic() - started
    print(_table(tallies))
    total = sum(t.outcomes.total() for t in tallies.values())
    failures = sum(t.outcomes["failed"] for t in tallies.values())
    print(f"{total:,} cases, seed {arguments.seed}, {wall:.0f} s, {failures} failure(s)")
    if arguments.json:
        rows = {name: tally.row() for name, tally in tallies.items()}
        document = {
            "command": "python -m fuzz " + " ".join(sys.argv[1:]),
            "cases": total,
            "seed": arguments.seed,
            "seconds": round(wall, 1),
            "failures": failures,
            "targets": rows,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="over all targets together")
    parser.add_argument("--format", action="append", default=[], metavar="NAME", help=f"only: {' '.join(TARGETS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the table and the failures there")
    parser.add_argument("--no-keep", action="store_true", help="do not make failures small and keep them in the corpus")
    parser.add_argument("--case", metavar="NAME/SEED/NUMBER", help="read this one case here and show what happens")
    parser.add_argument("--save", type=Path, help="with --case: leave its files in this folder")
    return parser.parse_args()


def _cases(names: list[str], total: int, seed: int) -> Iterator[Case]:
    """Equal shares, in turns, so that a run that is stopped has tried every target."""
    number = 0
    while True:
        for name in names:
            if total <= 0:
                return
            block = min(25, total)
            yield from (Case(name, seed, number + k) for k in range(block))
            total -= block
        number += 25


def _failed(case: Case, verdict: Verdict, tally: Tally, arguments: argparse.Namespace) -> None:
    tally.signatures[verdict.signature] += 1
    if tally.signatures[verdict.signature] <= MOST_NAMED:
        name = f"{case.target}/{case.seed}/{case.number}"
        print(f"FAILED {name}: {verdict.reason}", file=sys.stderr, flush=True)
        tally.failures.append({"case": name, "signature": verdict.signature, "reason": verdict.reason})


def _make_small(tallies: dict[str, Tally], pool: Pool, arguments: argparse.Namespace) -> None:
    """The first failure of every signature goes into the corpus."""
    if arguments.no_keep:
        return
    for target, tally in tallies.items():
        seen: set[object] = set()
        for failure in tally.failures:
            signature = failure["signature"]
            if signature in seen:
                continue
            seen.add(signature)
            _, seed, number = str(failure["case"]).rsplit("/", 2)
            files = Case(target, int(seed), int(number)).files()
            # A death costs a new process each time; no smaller file is worth minutes of that.
            tries = 20 if str(signature).startswith(("time", "died")) else 300
            small = corpus.shrink(files, lambda f: pool.one((target, f)).signature == signature, tries)  # noqa: B023
            folder = corpus.keep(target, small)
            failure["kept"] = str(folder) if folder else "too large"
            print(f"{failure['case']}: {folder or 'too large to keep'}", file=sys.stderr, flush=True)


def _show(name: str, save: Path | None) -> int:
    """Read one case in this process, with the traceback."""
    target, seed, number = name.rsplit("/", 2)
    files = Case(target, int(seed), int(number)).files()
    folder = save or Path(tempfile.mkdtemp(prefix="pointlift-fuzz-"))
    for file, data in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{path}: {len(data):,} bytes, begins {data[:60]!r}")
    try:
        TARGETS[target].read(folder, next(iter(files), ""))
    except BaseException:
        traceback.print_exc()
        return 1
    print("read")
    return 0


def _table(tallies: dict[str, Tally]) -> str:
    columns = f"{'cases':>8}{'read':>8}{'refused':>9}{'failures':>9}{'slowest ms':>12}{'peak MB':>9}{'peak/size':>10}"
    head = f"{'target':<22}{columns}"
    lines = [head, "-" * len(head)]
    for name, tally in tallies.items():
        row = tally.row()
        lines.append(
            f"{name:<22}{row['cases']:>8}{row['read']:>8}{row['refused']:>9}{row['failures']:>9}"
            f"{row['slowest_ms']:>12}{row['memory_mb']:>9}{row['memory_factor']:>10}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
