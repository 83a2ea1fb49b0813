"""`pointlift pretrain RECIPE`: learn from clouds without labels."""

from __future__ import annotations

from typing import Any

import typer

from pointlift.cli.training import Json, Out, PrintConfig, Recipe, Resume, configuration, print_configuration, run_verb


def pretrain(
    ctx: typer.Context,
    recipe: Recipe,
    out: Out = None,
    resume: Resume = False,
    print_config: PrintConfig = False,
    json: Json = False,
) -> None:
    """Pre-train as a recipe says. Every key can be set: --data.root DIR --objective.options.mask_ratio 0.8 …"""
    from pointlift.tasks.config import pretrain_config

    config = configuration(pretrain_config, recipe, ctx.args, out=out, resume=resume)
    if print_config:
        print_configuration(config)
        return
    from pointlift.tasks.pretraining import pretrain as train

    run_verb("pretrain", train, config, summary, ctx, recipe, out, resume, json)


def summary(record: dict[str, Any]) -> str:
    """What a pre-training run came to, in one line."""
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in record["metrics"].items())
    epochs = "1 epoch" if record["epochs"] == 1 else f"{record['epochs']} epochs"
    return (
        f"{record['samples_seen']:,} clouds of {record['dataset']['name']} seen in {epochs}; "
        f"on held-out clouds: {scores or 'not measured'}"
    )
