"""`pointlift evaluate MODEL`: score a classifier on a labelled data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointlift.cli.output import command_line, first_word, percent, print_record, say
from pointlift.core.errors import UsageError

if TYPE_CHECKING:
    from pointlift.tasks.config import SvmConfig, VoteConfig


class Protocol(StrEnum):
    plain = "plain"
    vote = "vote"
    svm = "svm"


class Split(StrEnum):
    test = "test"
    val = "val"
    train = "train"
    all = "all"


def evaluate(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Run folder, file, or registry name.")],
    protocol: Annotated[
        Protocol, typer.Option(help="plain: one pass. vote: averaged logits, repeated. svm: linear SVM on features.")
    ] = Protocol.plain,
    split: Annotated[Split, typer.Option(help="Which clouds; all: every one in the folder.")] = Split.test,
    base: Annotated[str | None, typer.Option(help="Base weights of an adapter file.")] = None,
    quirks: Annotated[
        str | None, typer.Option(help="paper or upstream, instead of what the weights were trained with.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seeds voting.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, …")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score MODEL on --data.root DIR. Further options: --data.points N, --vote.rounds N, --svm.C 0.1, …"""
    from pointlift.engine import distributed
    from pointlift.tasks.evaluate import evaluate as run_evaluate
    from pointlift.tasks.linear_svm import evaluate_svm
    from pointlift.tasks.resolve import resolve_model
    from pointlift.tasks.run import data_of_run, has_run, training_of_run

    first_word(model, "MODEL")
    data, vote, svm = _overrides(ctx.args, protocol)
    if protocol is Protocol.svm and split is not Split.test:
        raise UsageError(f"--split {split.value} with --protocol svm", "--split test: it learns on train")
    run = Path(model)
    given = () if quirks is None else ("--quirks", quirks)
    network = resolve_model(model, base=base, device="cpu", quirks=quirks)  # moved once the process knows its GPU
    common: dict[str, Any] = {
        "data": data_of_run(run, data) if has_run(run) else data,
        "device": device,
        "command": command_line(
            "evaluate", model, "--protocol", protocol.value, "--split", split.value, *given, extra=ctx.args
        ),
        "training": training_of_run(run) if has_run(run) else None,
    }
    if protocol is Protocol.svm:
        found = evaluate_svm(network, svm=svm, **common)
    else:
        found = run_evaluate(
            network,
            protocol="vote" if protocol is Protocol.vote else "plain",
            split=split.value,
            vote=vote,
            seed=seed,
            precision=precision,
            **common,
        )
    if not distributed.is_launched_main():
        return
    record = found.record.data
    if split in (Split.train, Split.all):
        say(f"note: --split {split.value} holds clouds that the model may have learned from")
    if json:
        print_record(record)
        return
    best = record["metrics"].get("overall_accuracy_max")
    rounds = record["voting"]["rounds"]
    voted = f" (mean of {rounds} rounds; best round {100 * best:.2f} %)" if best is not None else ""
    print(
        f"{percent(record['metrics'], 'overall_accuracy')} overall accuracy{voted}, "
        f"{percent(record['metrics'], 'mean_class_accuracy')} mean class accuracy on "
        f"{_clouds(record)} of {record['dataset']['name']}, "
        f"{record['points']} points each, protocol {record['protocol']}"
    )


def _clouds(record: dict[str, Any]) -> str:
    """`60 test clouds`, `all 60 clouds`."""
    split = record["split"]
    count = record["dataset"]["splits"][split]
    return f"all {count} clouds" if split == "all" else f"{count} {split} clouds"


def _overrides(words: list[str], protocol: Protocol) -> tuple[dict[str, Any], VoteConfig, SvmConfig]:
    """`--data.KEY`, and the options of the protocol; `--data DIR` is short for `--data.root DIR`."""
    from pointlift.core.config import build, parse_overrides
    from pointlift.tasks.config import SvmConfig, VoteConfig

    given = parse_overrides(words)
    unknown = sorted(given.keys() - {"data", "vote", "svm"})
    if unknown:
        raise UsageError(f"option --{unknown[0]}", "--data.KEY, --vote.KEY or --svm.KEY value")
    data = {"root": given["data"]} if isinstance(given.get("data"), str) else given.get("data", {})
    vote = build(VoteConfig, given.get("vote", {}), where="vote")
    svm = build(SvmConfig, given.get("svm", {}), where="svm")
    for name in ("vote", "svm"):
        if name in given and protocol.value != name:
            raise UsageError(f"--{name} options with --protocol {protocol.value}", f"--protocol {name}")
    return data, vote, svm
