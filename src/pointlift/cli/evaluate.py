"""`pointlift evaluate MODEL`: score a classifier on a labelled data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointlift.cli.output import command_line, first_word, percent, print_json, print_record, print_table, say, scores
from pointlift.core.errors import UsageError

if TYPE_CHECKING:
    from pointlift.tasks.few_shot import FoldResult
    from pointlift.tasks.record import Record

# Overrides that have a meaning beside the protocol's own group.
_GROUPS = {"plain": (), "vote": ("vote",), "svm": ("svm",), "few-shot": ("few_shot", "svm")}


class Protocol(StrEnum):
    plain = "plain"
    vote = "vote"
    svm = "svm"
    few_shot = "few-shot"


class Split(StrEnum):
    test = "test"
    val = "val"
    train = "train"
    all = "all"


@dataclass(frozen=True)
class _Asked:
    """The overrides on the command line; each group as its config, `model` and `data` as they were written."""

    data: dict[str, Any]
    pretrained: bool | str | None
    options: dict[str, Any]
    vote: Any
    svm: Any
    few_shot: Any


def evaluate(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Run folder, file, or registry name.")],
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="plain: one pass. vote: averaged logits, repeated. svm: linear SVM on features. "
            "few-shot: few clouds of few classes, mean over folds."
        ),
    ] = Protocol.plain,
    split: Annotated[Split, typer.Option(help="Which clouds; all: every one in the folder.")] = Split.test,
    base: Annotated[str | None, typer.Option(help="Base weights of an adapter file.")] = None,
    bank: Annotated[
        str | None, typer.Option(help="Memory bank of a model that looks things up, where none lies beside its file.")
    ] = None,
    quirks: Annotated[
        str | None, typer.Option(help="paper or upstream, instead of what the weights were trained with.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seeds voting, and draws few-shot folds.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, …")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    cache: Annotated[
        bool, typer.Option(help="svm, few-shot: keep frozen features in the user's cache folder, and look there.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="few-shot with training: keep every fold's record here.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the folds in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Score MODEL on --data.root DIR. Further options: --data.points N, --vote.rounds N, --svm.C 0.1,
    --few_shot.settings all, --few_shot.how finetune; for a registry name --model.pretrained false|TAG|PATH,
    --model.options.KEY VALUE."""
    from pointlift.engine import distributed
    from pointlift.tasks.evaluate import evaluate as run_evaluate
    from pointlift.tasks.feature_cache import FeatureCache
    from pointlift.tasks.few_shot import evaluate_few_shot
    from pointlift.tasks.linear_svm import evaluate_svm
    from pointlift.tasks.resolve import resolve_model
    from pointlift.tasks.run import data_of_run, has_run, training_of_run

    first_word(model, "MODEL")
    asked = _overrides(ctx.args, protocol)
    _check_options(protocol, split, out, resume, precision, seed)
    run = Path(model)
    # Moved once the process knows its GPU.
    network = resolve_model(
        model, base=base, bank=bank, device="cpu", quirks=quirks, pretrained=asked.pretrained, options=asked.options
    )
    if network.origin is None and not has_run(run):
        say(f"note: this {model} has random weights (seed 0)")
    said = {
        "quirks": quirks,
        "base": base,
        "bank": bank,
        "seed": seed or None,
        "precision": precision.replace("auto", "") or None,
    }
    given = [word for name, value in said.items() if value is not None for word in (f"--{name}", str(value))]
    common: dict[str, Any] = {
        "data": data_of_run(run, asked.data) if has_run(run) else asked.data,
        "device": device,
        "command": command_line(
            *("evaluate", model, "--protocol", protocol.value, "--split", split.value, *given),
            extra=_without_settings(ctx.args),
        ),
        "training": training_of_run(run) if has_run(run) else None,
    }
    kept = FeatureCache() if cache else None
    if protocol is Protocol.few_shot:
        records = evaluate_few_shot(
            network,
            few_shot=asked.few_shot,
            svm=asked.svm,
            cache=kept,
            seed=seed,
            precision=precision,
            out=out,
            resume=resume,
            on_fold=lambda way, shot, result: say(_fold_line(way, shot, result)),
            **common,
        )
        _print_few_shot(records, json)
        return
    if protocol is Protocol.svm:
        found = evaluate_svm(network, svm=asked.svm, cache=kept, **common)
    else:
        found = run_evaluate(
            network,
            protocol="vote" if protocol is Protocol.vote else "plain",
            split=split.value,
            vote=asked.vote,
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
        f"{scores(record, voted)} on {_clouds(record)} of {record['dataset']['name']}, "
        f"{record['points']} points each, protocol {record['protocol']}"
    )


def _clouds(record: dict[str, Any]) -> str:
    """`60 test clouds`, `all 60 clouds`."""
    split = record["split"]
    count = record["dataset"]["splits"][split]
    return f"all {count} clouds" if split == "all" else f"{count} {split} clouds"


def _fold_line(way: int, shot: int, result: FoldResult) -> str:
    return f"{way}-way {shot}-shot, fold {result.fold}: {percent(result.metrics, 'overall_accuracy')}"


def _print_few_shot(records: Sequence[Record], json: bool) -> None:
    """One record as every verb prints it; several as a table, or as one document with the records in a list."""
    names = [f"{r.data['few_shot']['way']}w{r.data['few_shot']['shot']}s" for r in records]
    if json and len(records) == 1:
        print_record(records[0].data)
    elif json:
        metrics = {
            f"{metric}_{name}": value
            for name, record in zip(names, records, strict=True)
            for metric, value in record.metrics.items()
        }
        print_json({"protocol": "few-shot", "metrics": metrics, "records": [r.data for r in records]})
    else:
        rows = [
            (
                name,
                percent(r.metrics, "overall_accuracy"),
                percent(r.metrics, "overall_accuracy_std") if "overall_accuracy_std" in r.metrics else "-",
                len(r.data["few_shot"]["folds"]),
            )
            for name, r in zip(names, records, strict=True)
        ]
        print_table(("setting", "mean", "std", "folds"), rows)
        first = records[0].data
        say(
            f"overall accuracy over folds of {first['dataset']['name']} ({first['few_shot']['origin']}), "
            f"{first['few_shot']['how']}; std: {first['few_shot']['std']}"
        )


def _check_options(protocol: Protocol, split: Split, out: Path | None, resume: bool, precision: str, seed: int) -> None:
    learns = {Protocol.svm: "it learns on train", Protocol.few_shot: "folds have parts of their own"}
    if protocol in learns and split is not Split.test:
        raise UsageError(f"--split {split.value} with --protocol {protocol.value}", f"--split test: {learns[protocol]}")
    if out is not None and protocol is not Protocol.few_shot:
        raise UsageError(f"--out with --protocol {protocol.value}", "--protocol few-shot; --json prints the record")
    if protocol is Protocol.svm and seed:
        raise UsageError(f"--seed {seed} with --protocol {protocol.value}", "nothing: there is no chance in it")
    if protocol is Protocol.svm and precision != "auto":
        raise UsageError(f"--precision {precision} with --protocol svm", "nothing: features are computed in fp32")
    if resume and out is None:
        raise UsageError("--resume without --out", "--out DIR, the folds to go on with")


def _without_settings(words: Sequence[str]) -> list[str]:
    """The overrides without those that say which few-shot settings: each record names its own."""
    kept: list[str] = []
    skip = False
    for word in words:
        key, equals, _ = word.removeprefix("--").replace("-", "_").partition("=")
        which = word.startswith("--") and key in ("few_shot.settings", "few_shot.way", "few_shot.shot")
        if not (skip or which):
            kept.append(word)
        skip = which and not equals
    return kept


def _overrides(words: list[str], protocol: Protocol) -> _Asked:
    """`--data.KEY`, `--model.KEY` and the options of the protocol; `--data DIR` is short for `--data.root DIR`."""
    from pointlift.core.config import build, parse_overrides
    from pointlift.tasks.config import FewShotConfig, ModelChoice, SvmConfig, VoteConfig

    given = parse_overrides(words)
    unknown = sorted(given.keys() - {"data", "model", "vote", "svm", "few_shot"})
    if unknown:
        raise UsageError(
            f"option --{unknown[0]}", "--data.KEY, --model.KEY, --vote.KEY, --svm.KEY or --few_shot.KEY value"
        )
    model = given.get("model", {})
    if not isinstance(model, dict) or model.keys() - {"pretrained", "options"}:
        raise UsageError(
            "--model beside MODEL", "--model.pretrained or --model.options.KEY", "--quirks paper for quirks"
        )
    choice = build(ModelChoice, model, where="model")
    kinds: dict[str, type[Any]] = {"vote": VoteConfig, "svm": SvmConfig, "few_shot": FewShotConfig}
    groups = {name: build(kind, given.get(name, {}), where=name) for name, kind in kinds.items()}
    for name in groups:
        if name in given and name not in _GROUPS[protocol.value]:
            wanted = next(p for p, known in _GROUPS.items() if name in known)
            raise UsageError(f"--{name} options with --protocol {protocol.value}", f"--protocol {wanted}")
    if protocol is Protocol.vote and "rounds" in given.get("vote", {}) and not groups["vote"].rounds:
        raise UsageError("--vote.rounds 0 with --protocol vote", "at least 1 round", "--protocol plain does not vote")
    folds = given.get("few_shot", {})
    both = [name for name in ("way", "shot") if isinstance(folds, dict) and name in folds]
    if both and "settings" in folds:
        raise UsageError(f"--few_shot.{both[0]} with --few_shot.settings", "one of the two")
    return _Asked(
        data={"root": given["data"]} if isinstance(given.get("data"), str) else given.get("data", {}),
        pretrained=choice.pretrained if "pretrained" in model else None,
        options=choice.options,
        **groups,
    )
