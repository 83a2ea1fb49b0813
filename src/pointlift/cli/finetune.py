"""`pointlift finetune RECIPE`: train, score, record, report."""

from __future__ import annotations

from typing import Any

import typer

from pointlift.cli.output import scores
from pointlift.cli.training import Json, Out, PrintConfig, Recipe, Resume, configuration, print_configuration, run_verb


def finetune(
    ctx: typer.Context,
    recipe: Recipe,
    out: Out = None,
    resume: Resume = False,
    print_config: PrintConfig = False,
    json: Json = False,
) -> None:
    """Fine-tune as a recipe says. Every key can be set: --data.root DIR --epochs 50 --optim.lr 1e-3 …"""
    from pointlift.tasks.config import finetune_config

    config = configuration(finetune_config, recipe, ctx.args, out=out, resume=resume)
    if print_config:
        print_configuration(config)
        return
    from pointlift.tasks.finetune import finetune as train

    run_verb("finetune", train, config, summary, ctx, recipe, out, resume, json)


def summary(record: dict[str, Any]) -> str:
    """What a fine-tuning run came to, in one line."""
    data, split = record["dataset"], record["split"]
    return (
        f"{scores(record)} on {data['splits'][split]} {split} clouds of "
        f"{data['name']}, {record['points']} points each; weights of epoch "
        f"{record['epoch'] + 1} of {record['epochs']}, {record['epoch_rule']}"
    )
