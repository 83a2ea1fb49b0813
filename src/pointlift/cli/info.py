"""`pointlift info MODEL|FILE`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pointlift.cli.output import percent, print_json


def info(
    model: Annotated[str, typer.Argument(help="Registry name, run folder, or checkpoint file.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Shapes, parameters, FLOPs, licences, reported and measured scores; for a file, what it holds.

    MODEL may be an adapter (what it adds to its network) or a memory bank (what it was made from), too.
    """
    from pointlift.tasks.inspect import inspect_model

    about = inspect_model(model)
    if json:
        print_json(about)
        return
    if "bank" in about:
        _print_bank(about["name"], about["bank"])
    elif about["arch"] is None:
        print(f"{about['name']}: no model of ours yet")
    else:
        _print_model(about)
    for name, entry in about["weights"].items():
        _print_weights(name, entry)


def _print_model(about: dict[str, Any]) -> None:
    adapted = about["adaptation"]
    by = "" if adapted is None else f", adapted by {adapted['name']}" + _in_brackets(adapted["paper"])
    print(f"{about['name']}: {about['arch']}{_in_brackets(about['paper'])}{by}")
    given, out = about["input"], about["output"]
    what = "logits" if about["num_classes"] else "features"
    print(f"  input xyz (B, {given['xyz'][1]}, 3), normalised: {given['normalize']}; output (B, {out[1]}) {what}")
    print(f"  parameters {about['parameters']:,}  FLOPs {_flops(about['gflops'])}")
    for part, count in about["parameters_by_part"].items():
        print(f"    {part:12} {count:>12,}")
    if adapted is not None:
        _print_adaptation(adapted)
    if about["classes"]:
        print(f"  classes {', '.join(about['classes'])}")
    if about["categories"]:
        print(f"  categories {', '.join(about['categories'])}")
    for key, value in about.get("file", {}).items():
        if key == "measured":
            _print_scores(value)
        elif key == "counts":
            learned, without = value["trainable"], value["trainable_without_head"]
            print(f"  learned: {learned:,} parameters ({without:,} without the head) of {value['parameters']:,}")
        elif value not in (None, [], {}) and not (key == "adaptation" and adapted is not None):
            print(f"  {key}: {_plain(value)}")


def _print_adaptation(adapted: dict[str, Any]) -> None:
    adds = adapted["adds"]
    print(f"  {adapted['name']} adds {adds['parameters']:,} parameters  FLOPs {_flops(adds['gflops'])}")
    if adapted["options"]:
        print(f"    options: {_plain(adapted['options'])}")
    if adapted["quirks"]:
        print(f"    quirks: {_plain(adapted['quirks'])}")


def _print_bank(name: str, bank: dict[str, Any]) -> None:
    print(f"{name}: memory bank, {bank['rows']:,} rows of {bank['width']} ({bank['dtype']}), {bank['bytes']:,} bytes")
    clouds = f" ({bank['size']:,} training clouds)" if bank["size"] is not None else ""
    made = {
        "hash": bank["hash"],
        "data set": f"{bank['dataset'] or 'not recorded'}{clouds}",
        "content hash": bank["data_hash"] or "not recorded",
        "released as": bank["source"],
        "feature model": bank["feature_hash"] or "not recorded: a model takes it as it is",
        "features": _plain(bank["more"]),
    }
    for key, value in made.items():
        if value:
            print(f"  {key}: {value}")


def _flops(giga: float | None) -> str:
    if giga is None:
        return "unknown without its memory bank"
    return f"{giga:.3g} G per cloud" if giga >= 0.01 else f"{1e3 * giga:.3g} M per cloud"


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _print_weights(name: str, entry: dict[str, Any]) -> None:
    scores = ", ".join(f"{k} {100 * v:.2f} % (reported)" for k, v in entry["reported"].items())
    said = (entry["system"], entry["holds"], entry["load"], entry["licence"], entry["url"], scores, entry["note"])
    print(f"  weights {name}: {'; '.join(part for part in said if part)}")
    if entry["quirks"]:
        print(f"    quirks: {', '.join(entry['quirks'])}")


def _print_scores(measured: dict[str, Any]) -> None:
    metrics = measured["metrics"]
    if "overall_accuracy" in metrics:
        scores = f"{percent(metrics, 'overall_accuracy')} overall accuracy"
    else:
        scores = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items()) or "nothing"
    print(
        f"  measured: {scores} on {measured['split']} of {measured['dataset']}, protocol {measured['protocol']}, "
        f"weights {measured['epoch_rule']}"
    )


def _plain(value: Any) -> str:
    """Nested values in one line, as people write them."""
    if isinstance(value, dict):
        said = {key: _plain(inner) for key, inner in value.items() if inner is not None}
        return ", ".join(f"{key} {text}" for key, text in said.items() if text)
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)
