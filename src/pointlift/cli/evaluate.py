"""`pointlift evaluate MODEL`: score a classifier on a labelled data set."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from pointlift.cli.output import command_line, percent, print_json
from pointlift.core.errors import UsageError


class Protocol(StrEnum):
    plain = "plain"
    vote = "vote"


class Split(StrEnum):
    test = "test"
    val = "val"
    train = "train"


def evaluate(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Run folder, file, or registry name.")],
    protocol: Annotated[Protocol, typer.Option(help="plain: one pass. vote: averaged logits, repeated.")] = Protocol.plain,
    split: Annotated[Split, typer.Option(help="Which clouds.")] = Split.test,
    base: Annotated[str | None, typer.Option(help="Base weights of an adapter file.")] = None,
    seed: Annotated[int, typer.Option(help="Seeds voting.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:0, …")] = "cpu",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score MODEL on --data.root DIR. Further options: --data.points N, --vote.rounds N, --vote.votes N, …"""
    from pointlift.core.config import build, merge, parse_overrides
    from pointlift.tasks.config import VoteConfig
    from pointlift.tasks.evaluate import evaluate as run_evaluate
    from pointlift.tasks.resolve import resolve_model

    overrides = parse_overrides(ctx.args)
    unknown = sorted(set(overrides) - {"data", "vote"})
    if unknown:
        raise UsageError(f"option --{unknown[0]}", "--data.KEY or --vote.KEY value")
    data = {"root": overrides["data"]} if isinstance(overrides.get("data"), str) else overrides.get("data", {})
    found = run_evaluate(
        resolve_model(model, base=base),
        protocol=protocol.value,
        split=split.value,
        data=merge(_data_of_run(model), data),
        vote=build(VoteConfig, overrides.get("vote", {}), where="vote"),
        seed=seed,
        device=device,
        precision=precision,
        command=command_line("evaluate", model, "--protocol", protocol.value, "--split", split.value, extra=ctx.args),
    )
    record = found.record.data
    if json:
        print_json({"protocol": record["protocol"], "metrics": record["metrics"], "record": record})
        return
    data = record["dataset"]
    best = record["metrics"].get("overall_accuracy_max")
    vote = f" (mean of {record['voting']['rounds']} rounds; best round {100 * best:.2f} %)" if best is not None else ""
    print(
        f"{percent(record['metrics'], 'overall_accuracy')} overall accuracy{vote}, "
        f"{percent(record['metrics'], 'mean_class_accuracy')} mean class accuracy on {data['splits'][record['split']]} "
        f"{record['split']} clouds of {data['name']}, {record['points']} points each, protocol {record['protocol']}"
    )


def _data_of_run(model: str) -> dict[str, Any]:
    """What a run was trained on, so that `evaluate RUN` alone means its own data."""
    from pathlib import Path

    from pointlift.core.config import to_dict
    from pointlift.tasks.run import CONFIG, read_run_config

    if not (Path(model) / CONFIG).is_file():
        return {}
    return to_dict(read_run_config(Path(model)).data)
