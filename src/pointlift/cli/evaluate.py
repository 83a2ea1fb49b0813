"""`pointlift evaluate MODEL`: score a classifier on a labelled data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointlift.cli.output import command_line, first_word, percent, print_record
from pointlift.core.errors import UsageError

if TYPE_CHECKING:
    from pointlift.tasks.config import VoteConfig


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
    protocol: Annotated[
        Protocol, typer.Option(help="plain: one pass. vote: averaged logits, repeated.")
    ] = Protocol.plain,
    split: Annotated[Split, typer.Option(help="Which clouds.")] = Split.test,
    base: Annotated[str | None, typer.Option(help="Base weights of an adapter file.")] = None,
    quirks: Annotated[
        str | None, typer.Option(help="paper or upstream, instead of what the weights were trained with.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seeds voting.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, …")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score MODEL on --data.root DIR. Further options: --data.points N, --vote.rounds N, --vote.votes N, …"""
    from pointlift.engine import distributed
    from pointlift.tasks.evaluate import evaluate as run_evaluate
    from pointlift.tasks.resolve import resolve_model
    from pointlift.tasks.run import data_of_run, has_run, training_of_run

    first_word(model, "MODEL")
    data, vote = _overrides(ctx.args)
    if vote.rounds and protocol is not Protocol.vote:
        raise UsageError(f"--vote options with --protocol {protocol.value}", "--protocol vote")
    run = Path(model)
    given = () if quirks is None else ("--quirks", quirks)
    found = run_evaluate(
        resolve_model(model, base=base, device="cpu", quirks=quirks),  # moved once the process knows its GPU
        protocol=protocol.value,
        split=split.value,
        data=data_of_run(run, data) if has_run(run) else data,
        vote=vote,
        seed=seed,
        device=device,
        precision=precision,
        command=command_line(
            "evaluate", model, "--protocol", protocol.value, "--split", split.value, *given, extra=ctx.args
        ),
        training=training_of_run(run) if has_run(run) else None,
    )
    if not distributed.is_launched_main():
        return
    record = found.record.data
    if json:
        print_record(record)
        return
    best = record["metrics"].get("overall_accuracy_max")
    rounds = record["voting"]["rounds"]
    voted = f" (mean of {rounds} rounds; best round {100 * best:.2f} %)" if best is not None else ""
    print(
        f"{percent(record['metrics'], 'overall_accuracy')} overall accuracy{voted}, "
        f"{percent(record['metrics'], 'mean_class_accuracy')} mean class accuracy on "
        f"{record['dataset']['splits'][record['split']]} {record['split']} clouds of {record['dataset']['name']}, "
        f"{record['points']} points each, protocol {record['protocol']}"
    )


def _overrides(words: list[str]) -> tuple[dict[str, Any], VoteConfig]:
    """`--data.KEY` and `--vote.KEY`; `--data DIR` is short for `--data.root DIR`."""
    from pointlift.core.config import build, parse_overrides
    from pointlift.tasks.config import VoteConfig

    given = parse_overrides(words)
    unknown = sorted(given.keys() - {"data", "vote"})
    if unknown:
        raise UsageError(f"option --{unknown[0]}", "--data.KEY or --vote.KEY value")
    data = {"root": given["data"]} if isinstance(given.get("data"), str) else given.get("data", {})
    return data, build(VoteConfig, given.get("vote", {}), where="vote")
