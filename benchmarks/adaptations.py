"""Every way to adapt, on the same clouds: method x backbone x seed, under one protocol.

    python -m benchmarks.adaptations --data ../shared/data/modelnet40 --up-axis z --out runs/adaptations \\
        [--methods full,lora] [--backbones point_mae_tiny] [--seeds 0,1,2] [--rates 1e-3,2e-3,4e-3,8e-3] [--epochs 6] \\
        [--limit 1000] [--pretrained point_bert_tiny=runs/pretrained] [--budget-minutes 40] \\
        [--record docs/results/adaptations]

One run folder per cell under `--out`. What is finished is not run again, what was killed goes on from its last epoch,
and the record, the table (Markdown) and the picture are made from whatever is there. Two processes of one thread work
side by side. With a budget, no cell begins that would not end in time; first come the rates, then a whole seed after
the other, so that what is there is whole.

The protocol is fixed and the same for all: the first `--limit` training clouds spread over the classes, validation
held out of the training part before (an evaluation of at most `--val-limit` clouds after every epoch), the whole test
part, which is scored twice at the end and chooses nothing: with the last weights, and with those of the epoch that was
best on validation. Augmentation, optimiser and schedule are those of the recipe `point_mae/clouds`, but for a warm-up
of one epoch instead of two. The learning rate: every method tries the same `--rates` with the first seed, and the one
that is best on validation is that of all its seeds; `--lr METHOD=RATE` sets one beforehand.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.adaptations_table import summarise, table

SEEDS_FOR_A_CLAIM = 3
CELL = "cell.json"
STARTING_WEIGHTS = "starting_weights"
RATES = ("1e-3", "2e-3", "4e-3", "8e-3")


@dataclass(frozen=True)
class Plan:
    """What all cells share."""

    data: str
    up_axis: str | None
    points: int
    limit: int | None
    val_limit: int | None
    epochs: int
    batch_size: int
    vote_rounds: int
    rates: tuple[float, ...] = tuple(map(float, RATES))
    fixed_rates: dict[str, float] = field(default_factory=dict)
    pretrained: dict[str, str | bool] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=dict)
    adaptation_options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def rates_of(self, method: str) -> tuple[float, ...]:
        """The learning rates that a method tries."""
        return (self.fixed_rates[method],) if method in self.fixed_rates else self.rates


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    backbone: str
    method: str
    rate: float
    seed: int

    def folder(self, out: Path) -> Path:
        return out / self.backbone / self.method / f"lr{self.rate:g}" / f"s{self.seed}"


def first_cells(plan: Plan, backbones: Sequence[str], methods: Sequence[str], seed: int) -> list[Cell]:
    """Every rate of every method, with one seed."""
    return [Cell(b, m, rate, seed) for b in backbones for m in methods for rate in plan.rates_of(m)]


def chosen_cells(
    plan: Plan, tried: Sequence[Cell], seeds: Sequence[int], out: Path, failed: Collection[Cell] = ()
) -> list[Cell]:
    """All seeds at the rate of each method that was best on validation, of equal ones that with the smaller loss.

    A rate at which training `failed` (diverged) is not the best one. A whole seed after the other: a grid that is cut
    short compares equally many runs. A method with rates that are not tried yet is left out.
    """
    found: dict[tuple[str, str], dict[float, tuple[float, float]]] = {}
    for cell in tried:
        if result := known(plan, cell, out):
            scores = result["validation"]["overall_accuracy"], -result["validation"]["loss"]
            found.setdefault((cell.backbone, cell.method), {})[cell.rate] = scores
    open_ = {(c.backbone, c.method) for c in tried if c not in failed and not known(plan, c, out)}
    best = {which: max(rates, key=lambda rate: rates[rate]) for which, rates in found.items() if which not in open_}
    return [Cell(*which, rate, seed) for seed in seeds for which, rate in best.items()]


def config_of(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Overrides of `FinetuneConfig` for one cell; the protocol stands here."""
    return {
        "epochs": plan.epochs,
        "seed": cell.seed,
        "precision": "fp32",
        "device": "cpu",
        "select": "validation",
        "keep_clouds": 0,
        "model": {
            "name": cell.backbone,
            "pretrained": plan.pretrained.get(cell.backbone, True),
            "options": {"head": "mlp3", "head_dropout": 0.2, **plan.model_options},
        },
        "adaptation": {"name": cell.method, "options": plan.adaptation_options.get(cell.method, {})},
        "data": {
            "root": plan.data,
            "up_axis": plan.up_axis,
            "points": plan.points,
            "batch_size": plan.batch_size,
            "augment": {"scale": [0.8, 1.25], "shift": 0.1},
        },
        "optim": {"lr": cell.rate, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "vote": {"rounds": plan.vote_rounds},
    }


def protocol(plan: Plan, cell: Cell) -> dict[str, Any]:
    """All that a result depends on, as JSON has it: what is finished counts only under the same."""
    config = config_of(plan, cell)
    weights = starting_weights(json.dumps(config["model"]))
    said = {"limit": plan.limit, "val_limit": plan.val_limit, **config, STARTING_WEIGHTS: weights}
    return json.loads(json.dumps(said))


@cache
def starting_weights(model: str) -> str | None:
    """Hash of the pre-trained tensors that a network begins with; None where it begins with random ones.

    Args:
        model: The `model` part of a configuration, as JSON.
    """
    from pointlift.models.registry import create_model
    from pointlift.weights.hashing import state_hash

    choice = json.loads(model)
    if not choice["pretrained"]:
        return None
    made = create_model(choice["name"], pretrained=choice["pretrained"], **choice["options"])
    new = () if made.load_report is None else made.load_report.new
    return state_hash({k: v for k, v in made.state_dict().items() if k not in new})


@cache
def clouds(data: str, up_axis: str | None, limit: int | None, val_limit: int | None) -> Any:
    """The data set of all cells: validation is held out of the whole training part before that is cut."""
    from pointlift.data.dataset import CloudDataset
    from pointlift.data.loading import load_dataset

    whole = load_dataset(data, up_axis=up_axis)
    train, val = whole.hold_out(0.1, 0)
    if val is None or whole.test is None:
        raise SystemExit(f"{data} has no validation or no test part: a comparison needs both")
    kept = f"{limit or 'all'} training and {val_limit or 'all'} validation clouds, spread over the classes"
    return CloudDataset(whole.meta.with_note(kept), train.take(limit), whole.test, whole.root, val.take(val_limit))


def run_cell(plan: Plan, cell: Cell, out: Path) -> dict[str, Any]:
    """Train one cell, or go on with it, and score its last and its chosen weights; written to `CELL`."""
    from pointlift.engine.files import write_atomic
    from pointlift.tasks.config import finetune_config
    from pointlift.tasks.finetune import finetune

    folder = cell.folder(out)
    begun = time.process_time()
    dataset = clouds(plan.data, plan.up_axis, plan.limit, plan.val_limit)
    run = finetune(finetune_config(None, config_of(plan, cell)), out=folder, resume=True, dataset=dataset)
    record = run.record.data
    said = protocol(plan, cell)
    result = {
        "protocol": said,
        STARTING_WEIGHTS: said[STARTING_WEIGHTS],
        **asdict(cell),
        "chosen": {"epoch": record["epoch"], **record["metrics"]},
        "last": _last(run, record, dataset),
        "validation": record["validation"],
        **{k: record["model"][k] for k in ("parameters", "trainable", "trainable_without_head", "pretrained")},
        "train_seconds": record["time"]["train_seconds"],
        "cpu_seconds": round(time.process_time() - begun, 1),
        "dataset": record["dataset"],
        "checkpoint_sha256": record["checkpoint_sha256"],
        "versions": record["versions"],
        "device": record["device"],
    }
    write_atomic(folder / CELL, json.dumps(result, indent=1).encode())
    shutil.rmtree(folder / "checkpoints")  # tens of megabytes a cell, and no longer needed
    return result


def _last(run: Any, record: dict[str, Any], dataset: Any) -> dict[str, Any]:
    """Test scores of the last epoch's weights, which a finished run still holds as its newest checkpoint."""
    from pointlift.engine.checkpoint import Checkpoints
    from pointlift.tasks.evaluate import evaluate

    last = record["epochs"] - 1
    if record["epoch"] == last:
        return {"epoch": last, **{k: v for k, v in record["metrics"].items() if not k.startswith("vote_")}}
    run.model.load_state_dict(Checkpoints(run.out / "checkpoints").load(last).model)
    return {"epoch": last, **evaluate(run.model, dataset, device="cpu", precision="fp32").metrics}


def quietly() -> None:
    """How a worker begins: one thread, nothing but errors on the terminal, and no life without its parent."""
    import torch

    def watch(parent: int = os.getppid()) -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    torch.set_num_threads(1)
    logging.getLogger("pointlift").setLevel(logging.ERROR)
    sys.stderr = io.StringIO()  # the progress of two runs at once is unreadable


@dataclass
class Progress:
    """Of one call of the command.

    Attributes:
        until: When to begin nothing any more, on the clock `time.perf_counter`; None: never.
        took: Seconds of each cell.
        left: What failed or was left, in words.
        failed: Cells that cannot be had: training diverged, or options that do not fit.
    """

    until: float | None = None
    took: list[float] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failed: set[Cell] = field(default_factory=set)


def run_grid(
    plan: Plan, wanted: Sequence[Cell], out: Path, progress: Progress, *, jobs: int, say: Callable[[str], None]
) -> None:
    """Run what is not finished."""
    from pointlift.core.errors import PointLiftError

    todo = [c for c in wanted if not known(plan, c, out)]
    say(f"{len(wanted)} cells, {len(wanted) - len(todo)} of them finished")
    running: dict[Future[Any], tuple[Cell, float]] = {}
    took = progress.took
    with workers(jobs) as pool:
        while todo or running:
            while todo and len(running) < max(jobs, 1):
                now = time.perf_counter()
                if progress.until is not None and now + max(took, default=0.0) > progress.until:
                    progress.left += [f"{c}: left, the budget is used up" for c in todo]
                    todo = []
                    break
                cell = todo.pop(0)
                running[pool.submit(run_cell, plan, cell, out)] = (cell, now)
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                cell, at = running.pop(future)
                try:
                    found = future.result()
                except BrokenProcessPool:
                    raise SystemExit("a worker was killed; the same command goes on") from None
                except PointLiftError as error:
                    progress.failed.add(cell)
                    progress.left.append(f"{cell}: {error}")
                    say(progress.left[-1])
                else:
                    took.append(time.perf_counter() - at)
                    say(
                        f"{cell.backbone:<16}{cell.method:<12}rate {cell.rate:<6g} seed {cell.seed}  "
                        f"last {_percent(found['last'])}  chosen {_percent(found['chosen'])}  "
                        f"{took[-1]:.0f} s (CPU {found['cpu_seconds']:.0f} s)"
                    )


def workers(jobs: int) -> Executor:
    """Processes of one thread each; for `jobs` 0 a thread of this process."""
    if not jobs:
        return ThreadPoolExecutor(1)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"  # for new processes
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=quietly)


def known(plan: Plan, cell: Cell, out: Path) -> dict[str, Any] | None:
    """The result of a finished cell.

    Raises:
        SystemExit: It was run under another protocol.
    """
    path = cell.folder(out) / CELL
    if not path.is_file():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    if result["protocol"] != protocol(plan, cell):
        raise SystemExit(f"{path} was made under another protocol: give another --out, or the same options")
    return result


def _percent(scores: dict[str, Any]) -> str:
    return f"{100 * scores['overall_accuracy']:.2f} %"


def record(
    plan: Plan,
    results: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    trials: Sequence[dict[str, Any]],
    left: list[str],
) -> dict:
    """The document: how it was done, the rows, every run behind them; of `trials` what chose the rates."""
    tried: dict[tuple[str, str], dict[str, float]] = {}
    for trial in trials:
        of_method = tried.setdefault((trial["backbone"], trial["method"]), {})
        of_method[f"{trial['rate']:g}"] = trial["validation"]["overall_accuracy"]
    first = results[0]
    fewest = min(len(r["seeds"]) for r in rows)
    shared, more = ("dataset", "versions", "device"), ("protocol",)
    return {
        "command": shlex.join(["python", "-m", "benchmarks.adaptations", *sys.argv[1:]]),
        "what": "test accuracy (fractions) after equal epochs; validation, held out of train, chooses the epoch of "
        "`chosen`; `last` is the last one; ± is the sample standard deviation over seeds; `rates_tried`: "
        "validation accuracy of each learning rate with the first seed, whose best is that of the row; that seed "
        "counts among the seeds",
        "claim": f"{fewest} seeds" if fewest >= SEEDS_FOR_A_CLAIM else f"none: {fewest} seeds, fewer than three",
        "plan": asdict(plan),
        **{k: first[k] for k in shared},
        "rows": [{**row, "rates_tried": tried[row["backbone"], row["method"]]} for row in rows],
        "runs": [{k: v for k, v in r.items() if k not in (*shared, *more)} for r in results],
        "left": left,
    }


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    from pointlift.adapt import list_adaptations

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of a labelled set with a test part")
    parser.add_argument("--up-axis", choices=["x", "y", "z"])
    parser.add_argument("--out", type=Path, required=True, help="run folders of all cells")
    parser.add_argument("--methods", type=_list, default=list_adaptations(), help="default: every adaptation")
    parser.add_argument("--backbones", type=_list, default=["point_mae_tiny"])
    parser.add_argument("--pretrained", type=_pair, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--rates", type=_list, default=list(RATES), help="learning rates that every method tries")
    parser.add_argument("--lr", type=_pair, action="append", default=[], metavar="METHOD=RATE")
    parser.add_argument("--seeds", type=_list, default=["0", "1", "2"])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit", type=int, default=1000, help="training clouds; 0: all")
    parser.add_argument("--val-limit", type=int, default=500, help="validation clouds; 0: all")
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--vote-rounds", type=int, default=0, help="score by voting too, this many rounds")
    parser.add_argument("--options", type=json.loads, default={}, help='of methods: {"lora": {"rank": 4}}')
    parser.add_argument("--model-options", type=json.loads, default={}, help="of the network")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each; 0: none but this one")
    parser.add_argument("--budget-minutes", type=float)
    parser.add_argument("--record", type=Path, help="write PATH.json, PATH.md and PATH.png")
    return parser.parse_args(words)


def _list(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, value


def main(words: Sequence[str] | None = None) -> int:
    """Run the grid, print the table, and write the record; 1 where cells are missing."""
    options = arguments(words)
    plan = Plan(
        data=options.data,
        up_axis=options.up_axis,
        points=options.points,
        limit=options.limit or None,
        val_limit=options.val_limit or None,
        epochs=options.epochs,
        batch_size=options.batch_size,
        vote_rounds=options.vote_rounds,
        rates=tuple(dict.fromkeys(map(float, options.rates))),
        fixed_rates={name: float(rate) for name, rate in options.lr},
        pretrained={
            name: path if path not in ("true", "false") else path == "true" for name, path in options.pretrained
        },
        model_options=options.model_options,
        adaptation_options=options.options,
    )
    seeds = [int(s) for s in options.seeds]

    def say(line: str) -> None:
        print(line, flush=True)

    minutes = options.budget_minutes
    progress = Progress(None if minutes is None else time.perf_counter() + 60 * minutes)
    run = partial(run_grid, plan, out=options.out, progress=progress, jobs=options.jobs, say=say)
    tried = first_cells(plan, options.backbones, options.methods, seeds[0])
    run(tried)
    wanted = chosen_cells(plan, tried, seeds, options.out, progress.failed)
    run(wanted)
    results = [found for cell in wanted if (found := known(plan, cell, options.out))]
    if results:
        rows = list(summarise(results))
        say("\n" + table(rows))
        if options.record is not None:
            from benchmarks.adaptations_picture import draw

            trials = [found for cell in tried if (found := known(plan, cell, options.out))]
            document = (
                json.dumps(record(plan, results, rows, trials, progress.left), indent=1, ensure_ascii=False) + "\n"
            )
            options.record.with_suffix(".json").write_text(document, encoding="utf-8")
            options.record.with_suffix(".md").write_text(table(rows), encoding="utf-8")
            draw(rows, options.record.with_suffix(".png"), epochs=plan.epochs, dataset=results[0]["dataset"])
    for line in progress.left:
        print(line, file=sys.stderr)
    return 1 if progress.left else 0


if __name__ == "__main__":
    raise SystemExit(main())
