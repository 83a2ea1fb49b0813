"""`pointlift finetune RECIPE`: train, score, record, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointlift.cli.output import command_line, percent, print_json, say
from pointlift.core.errors import UsageError

if TYPE_CHECKING:
    from pointlift.tasks.config import FinetuneConfig


def finetune(
    ctx: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A name of `pointlift list recipes`, or a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<recipe>/<time>-s<seed>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, configured as it was.")] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the whole configuration, and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Fine-tune as a recipe says. Every key can be set: --data.root DIR --epochs 50 --optim.lr 1e-3 …"""
    from pointlift.core.config import dump_yaml, parse_overrides, to_dict
    from pointlift.tasks.config import finetune_config

    if resume and out is None:
        raise UsageError("--resume without --out", "--out DIR, the run to go on with")
    if resume and out is not None and (out / "config.yaml").exists():
        # Fixed by the run; asking for something else would be silently ignored otherwise.
        if ctx.args:
            raise UsageError(f"--resume with {' '.join(ctx.args[:2])}", "no overrides: the run has its configuration")
        from pointlift.tasks.run import read_run_config

        config = read_run_config(out)
    else:
        config = finetune_config(recipe, parse_overrides(ctx.args))
    if print_config:
        print(dump_yaml(to_dict(config)), end="")
        return
    finetune_and_report(
        config,
        out=out or default_out(recipe, config.seed),
        resume=resume,
        recipe=recipe,
        command=command_line("finetune", recipe, extra=ctx.args),
        json=json,
    )


def finetune_and_report(
    config: FinetuneConfig, *, out: Path, resume: bool, recipe: str, command: str, json: bool = False
) -> None:
    """The run, its report, and the summary that the user sees."""
    from pointlift.engine import distributed
    from pointlift.report import write_report
    from pointlift.tasks.finetune import finetune as run_finetune

    run = run_finetune(config, out=out, resume=resume, recipe=recipe, command=command)
    if not distributed.is_launched_main():
        return
    page = write_report(run.out)
    record = run.record.data
    if json:
        print_json({"protocol": record["protocol"], "metrics": record["metrics"], "record": record})
        return
    data = record["dataset"]
    print(
        f"{percent(record['metrics'], 'overall_accuracy')} overall accuracy "
        f"({percent(record['metrics'], 'mean_class_accuracy')} mean class accuracy) on {data['splits'][record['split']]} "
        f"{record['split']} clouds of {data['name']}, {record['points']} points each; weights {record['epoch_rule']}"
    )
    say(f"record  {run.out / 'record.json'}\nreport  {page}")


def default_out(recipe: str, seed: int) -> Path:
    """runs/<recipe>/<time>-s<seed>."""
    from datetime import datetime

    name = Path(recipe).stem if recipe.endswith((".yaml", ".yml")) else recipe
    return Path("runs") / name / f"{datetime.now():%Y%m%d-%H%M%S}-s{seed}"
