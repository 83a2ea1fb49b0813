"""Rows and table of the comparison of adaptations: `benchmarks.adaptations`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any


def summarise(results: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per backbone and method: mean and standard deviation over its seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["backbone"], result["method"]), []).append(result)
    full = {(r["backbone"], r["seed"]): r for r in results if r["method"] == "full"}
    for (backbone, method), runs in groups.items():
        row: dict[str, Any] = {
            "backbone": backbone,
            "method": method,
            "seeds": [r["seed"] for r in runs],
            "rate": runs[0]["rate"],
            **{k: runs[0][k] for k in ("parameters", "trainable", "trainable_without_head")},
            "cpu_seconds": round(statistics.mean(r["cpu_seconds"] for r in runs), 1),
            "epoch_chosen": [r["chosen"]["epoch"] for r in runs],
        }
        for rule in ("last", "chosen"):
            for metric in ("overall_accuracy", "mean_class_accuracy"):
                row[f"{rule}_{metric}"] = spread([r[rule][metric] for r in runs])
            pairs = [(r, full[backbone, r["seed"]]) for r in runs if method != "full" and (backbone, r["seed"]) in full]
            if pairs:
                gains = [r[rule]["overall_accuracy"] - f[rule]["overall_accuracy"] for r, f in pairs]
                row[f"{rule}_minus_full"] = spread(gains)
        voted = [r["chosen"]["vote_overall_accuracy"] for r in runs if "vote_overall_accuracy" in r["chosen"]]
        if len(voted) == len(runs):
            row["voted_overall_accuracy"] = spread(voted)
        yield row


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation (None of one value) of fractions."""
    return {
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, the most parameters first."""
    columns = ["backbone", "method", "trainable without head", "head", "rate", "last epoch", "chosen on validation"]
    columns += ["voted"] if any("voted_overall_accuracy" in r for r in rows) else []
    columns += ["minus full, same seeds", "seeds", "CPU time"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    full = {r["backbone"]: r["trainable_without_head"] for r in rows if r["method"] == "full"}
    for row in sorted(rows, key=lambda r: (r["backbone"], -r["trainable_without_head"])):
        without = row["trainable_without_head"]
        share = f" ({100 * without / full[row['backbone']]:.1f} %)" if row["backbone"] in full else ""
        words = [
            row["backbone"],
            f"`{row['method']}`",
            f"{without:,}{share}" if without else "0",
            f"{row['trainable'] - without:,}",
            f"{row['rate']:g}",
            _mean(row["last_overall_accuracy"]),
            _mean(row["chosen_overall_accuracy"]),
        ]
        if "voted" in columns:
            words.append(_mean(row["voted_overall_accuracy"]) if "voted_overall_accuracy" in row else "")
        words.append(_mean(row["chosen_minus_full"], sign="+") if "chosen_minus_full" in row else "")
        words += [str(len(row["seeds"])), f"{row['cpu_seconds']:.0f} s"]
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


def _mean(found: dict[str, Any], sign: str = "") -> str:
    mean, std = round(100 * found["mean"], 2) + 0.0, found["std"]  # no "-0.00"
    return f"{mean:{sign}.2f}" + ("" if std is None else f" ± {100 * std:.2f}")
