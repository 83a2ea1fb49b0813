"""`pointlift finetune RECIPE`: train, score, record, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointlift.cli.output import command_line, epoch_printer, first_word, percent, print_record, say
from pointlift.core.errors import UsageError

if TYPE_CHECKING:
    from pointlift.tasks.config import FinetuneConfig


def finetune(
    ctx: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A name of `pointlift list recipes`, or a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<recipe>/<time>-s<seed>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, configured as it was.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the whole configuration, and stop.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Fine-tune as a recipe says. Every key can be set: --data.root DIR --epochs 50 --optim.lr 1e-3 …"""
    from pointlift.core.config import dump_yaml, to_dict

    first_word(recipe, "RECIPE")
    if resume and out is None:
        raise UsageError("--resume without --out", "--out DIR, the run to go on with")
    config = _configuration(recipe, ctx.args, out if resume else None)
    if print_config:
        print(dump_yaml(to_dict(config)), end="")
        return
    out = out or default_out(recipe, config.seed)
    finetune_and_report(
        config,
        out=out,
        resume=resume,
        recipe=recipe,
        command=command_line("finetune", recipe, extra=ctx.args),
        again=command_line("finetune", recipe, "--out", str(out)),
        json=json,
    )


def _configuration(recipe: str, overrides: list[str], resumed: Path | None) -> FinetuneConfig:
    """The recipe with overrides; for a run to resume its own, on which overrides must change nothing."""
    from pointlift.core.config import parse_overrides
    from pointlift.tasks.config import finetune_config

    values = parse_overrides(overrides)
    if resumed is not None and resumed.is_dir():
        from pointlift.tasks.run import has_run, read_run_config

        if has_run(resumed):
            return finetune_config(overrides=values, base=read_run_config(resumed))
    return finetune_config(recipe, values)


def finetune_and_report(
    config: FinetuneConfig, *, out: Path, resume: bool, recipe: str, command: str, again: str, json: bool = False
) -> None:
    """The run, its report, and the summary that the user sees.

    Args:
        command: For the record.
        again: What, with --resume, goes on with an interrupted run.
    """
    from pointlift.engine import distributed
    from pointlift.report import write_report
    from pointlift.tasks.finetune import finetune as run_finetune
    from pointlift.tasks.run import has_run

    show = epoch_printer(config.epochs)
    try:
        run = run_finetune(config, out=out, resume=resume, recipe=recipe, command=command, on_epoch=show)
    except KeyboardInterrupt:
        kept = f"Nothing is lost: {again} --resume goes on" if has_run(out) else "The run had not begun"
        say(f"interrupted. {kept}.")
        raise typer.Exit(1) from None
    if not distributed.is_launched_main():
        return
    page = write_report(run.out)
    record = run.record.data
    if json:
        print_record(record)
        return
    metrics, data, split = record["metrics"], record["dataset"], record["split"]
    print(
        f"{percent(metrics, 'overall_accuracy')} overall accuracy "
        f"({percent(metrics, 'mean_class_accuracy')} mean class accuracy) on {data['splits'][split]} {split} clouds of "
        f"{data['name']}, {record['points']} points each; weights of epoch "
        f"{record['epoch'] + 1} of {record['epochs']}, {record['epoch_rule']}"
    )
    say(f"record  {run.out / 'record.json'}\nreport  {page}")


def default_out(recipe: str, seed: int) -> Path:
    """runs/<recipe>/<time>-s<seed>."""
    from datetime import datetime

    name = Path(recipe).stem if recipe.endswith((".yaml", ".yml")) else recipe
    return Path("runs") / name / f"{datetime.now():%Y%m%d-%H%M%S}-s{seed}"
