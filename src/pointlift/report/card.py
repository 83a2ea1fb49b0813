"""The model card: what a model is, where it comes from, how well it did and how to use it, in Markdown for the Hub.

Everything in it is a fact of the file's description or of the run's record; what neither says is called unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from pointlift import __version__
from pointlift.adapt.registry import ADAPTATIONS, config_of
from pointlift.core.config import build
from pointlift.core.errors import first_few
from pointlift.models.registry import MODELS
from pointlift.report.facts import lookup, plain
from pointlift.tasks.inspect import sound_counts
from pointlift.tasks.record import differing_quirks
from pointlift.weights.entries import WEIGHTS
from pointlift.weights.hub import PREFIX, on_hub, repo_of
from pointlift.weights.modelfile import ModelFile

UNKNOWN = "unknown"
_NAMES = 40  # classes that are named


def card(
    file: ModelFile,
    record: Mapping[str, Any] | None = None,
    *,
    repo_id: str | None = None,
    license: str | None = None,
) -> str:
    """The text of README.md.

    Args:
        file: The model or adapter.
        record: Of the run that made it, where there is one.
        repo_id: `org/name` on the Hub, for the commands.
        license: Its identifier on the Hub, as the person who publishes says; "unknown" without.
    """
    record = dict(record or {})
    title = _line(repo_id.partition("/")[2] if repo_id else f"{file.arch} for point clouds")
    parts = [
        f"# {title}",
        _summary(file, record),
        _table(_facts(file, record)),
        "## How well it does",
        *_scores(record),
        "## How to use it",
        *_usage(file, repo_id),
        "## What to know",
        "\n".join(f"* {line}" for line in _limits(file, record)),
    ]
    front = yaml.safe_dump(_front_matter(file, record, license), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(file: ModelFile, record: dict[str, Any], license: str | None) -> dict[str, Any]:
    kind = _adaptation(file)
    task = "part-segmentation" if file.config.get("head") == "parts" else "point-cloud-classification"
    tags = ["point-cloud", "3d", task, file.arch, *([kind["name"]] if kind else [])]
    front: dict[str, Any] = {"library_name": "pointlift", "license": license or UNKNOWN, "tags": [*map(str, tags)]}
    place = _base_place(file) or lookup(record, "model", "pretrained")
    if place is not None and on_hub(place):
        front["base_model"] = repo_of(place)
        front["base_model_relation"] = "adapter" if file.holds == "adapter" else "finetune"
    return front


def _summary(file: ModelFile, record: dict[str, Any]) -> str:
    kind = _adaptation(file)
    what = f"An adapter of kind {_code(kind['name'])} for" if file.holds == "adapter" and kind else "A"
    data = lookup(record, "dataset", "name")
    outputs = file.config.get("num_classes") or 0
    told = "parts of objects" if file.config.get("head") == "parts" else "classes of point clouds"
    learned = f", learned from {_code(data)}" if data else ""
    says = f"It tells {outputs} {told} apart{learned}." if outputs else f"It gives features of point clouds{learned}."
    return f'{what} {_code(file.arch)}, made with pointlift (`pip install "pointlift[hf]"`). {says}'


def _facts(file: ModelFile, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kind, bank = _adaptation(file), file.extra.get("bank")
    counts = sound_counts(lookup(record, "model") if record else file.extra.get("counts"))
    if kind:
        own = {k: v for k, v in kind.items() if k != "name"}
        paper = ADAPTATIONS.get(kind["name"]).paper if kind["name"] in ADAPTATIONS else ""
        options = f": {_line(plain(own))}" if own else ""
        yield "adaptation", _code(kind["name"]) + (f" ({paper})" if paper else "") + options
    if counts is not None:
        learned, without = counts["trainable"], counts["trainable_without_head"]
        yield "parameters", f"{learned:,} learned ({without:,} without the head) of {counts['parameters']:,}"
    else:
        yield "parameters", f"learned: {UNKNOWN}; {sum(v.numel() for v in file.state.values()):,} values in the file"
    yield "base", _base(file, record)
    if isinstance(bank, dict):
        yield "memory bank", _bank(bank)
    names = file.classes or ()
    yield "classes", first_few(map(_line, names), _NAMES) if names else UNKNOWN
    yield "reads", _reads(file)


def _base(file: ModelFile, record: dict[str, Any]) -> str:
    said = file.extra.get("base")
    place = _base_place(file) or lookup(record, "model", "pretrained")
    entry = WEIGHTS.get(place) if isinstance(place, str) and place in WEIGHTS else None
    parts = [_code(place) if place else "no pre-trained weights" if record and not said else f"where: {UNKNOWN}"]
    if isinstance(said, dict):
        parts.append(f"hash of its tensors {_code(said.get('hash'))}")
        if isinstance(said.get("whole"), str):
            parts.append(f"of the whole base {_code(said['whole'])}")
    parts.append(f"licence: {_line(entry.licence) if entry else UNKNOWN}")
    return "; ".join(parts)


def _bank(bank: Mapping[str, Any]) -> str:
    source = bank.get("dataset") or bank.get("source")
    made = f"made from {_code(source)}" if source else f"made from: {UNKNOWN}"
    clouds = f" ({bank['size']:,} clouds)" if isinstance(bank.get("size"), int) else ""
    return f"{bank.get('rows', UNKNOWN)} rows, {made}{clouds}"


def _reads(file: ModelFile) -> str:
    said = file.preprocess
    points = f"{said['points']:,} points" if isinstance(said.get("points"), int) else f"points: {UNKNOWN}"
    axis = said.get("up_axis")
    return f"{points}, normalised: {_line(said.get('normalize', UNKNOWN))}, up axis: {_line(axis or UNKNOWN)}"


def _scores(record: dict[str, Any]) -> Iterator[str]:
    if not record:
        yield "No record came with it: how well it does is unknown."
        return
    metrics = lookup(record, "metrics") or {}
    rows = [(name.replace("_", " "), _score(name, value)) for name, value in metrics.items()]
    yield _table(rows, ("metric", f"on {_line(lookup(record, 'split') or UNKNOWN)}"))
    data = lookup(record, "dataset") or {}
    splits = ", ".join(f"{name} {size:,}" for name, size in (data.get("splits") or {}).items())
    lines = (
        ("data set", f"{_code(data.get('name'))}, {_line(data.get('variant') or 'one edition')}; clouds: {splits}"),
        ("content hash", _code(data.get("content_hash"))),
        ("protocol", f"{_line(record.get('protocol'))}, {record.get('points', UNKNOWN)} points per cloud"),
        ("weights", f"{_line(record.get('epoch_rule'))} ({_epoch(record)})"),
        ("seed", str(record.get("seed", UNKNOWN))),
        ("made with", ", ".join(f"{_line(k)} {_line(v)}" for k, v in (record.get("versions") or {}).items())),
    )
    yield _table(lines)


def _epoch(record: dict[str, Any]) -> str:
    epoch = record.get("epoch")  # counted from 0
    return f"epoch {epoch + 1 if isinstance(epoch, int) else UNKNOWN} of {record.get('epochs', UNKNOWN)}"


def _score(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return UNKNOWN
    return f"{value:.4f}" if "loss" in name else f"{100 * value:.2f} %"


def _usage(file: ModelFile, repo_id: str | None) -> Iterator[str]:
    place = f"{PREFIX}{repo_id}" if repo_id else "FOLDER"
    without = file.holds == "adapter" and _base_place(file) is None
    python, words = (', base="BASE"', " --base BASE") if without else ("", "")
    parts = file.config.get("head") == "parts"
    asked, named = (', category="CATEGORY"', " --category CATEGORY") if parts else ("", "")
    if not file.config.get("num_classes"):
        yield f'```python\nimport pointlift as pl\n\nmodel = pl.load("{place}")\nprint(model)\n```'
        yield f"```\npointlift features {place} CLOUD.ply --out features.npz\n```"
        return
    yield (
        f'```python\nimport pointlift as pl\n\nmodel = pl.load("{place}"{python})\n'
        f'print(pl.predict(model, "CLOUD.ply"{asked}).label)\n```'
    )
    yield f"```\npointlift predict {place} CLOUD.ply{words}{named}\n```"
    if without:
        yield (
            "`BASE` is the file of the base weights whose hash is above: an adapter does nothing without them, and "
            "others are refused."
        )


def _limits(file: ModelFile, record: dict[str, Any]) -> Iterator[str]:
    quirks = record.get("quirks")
    if quirks is None:
        quirks = differing_quirks(build(MODELS.get(file.arch).config, file.config, where=str(file.path)))
    kind = _adaptation(file)
    if kind and kind["name"] in ADAPTATIONS:  # the record of an older version is silent about them
        quirks = {**quirks, **differing_quirks(config_of(kind))}
    if record:
        yield (
            f"One run with one seed ({record.get('seed', UNKNOWN)}): no claim that it is better or worse than another."
        )
    else:
        yield "What it learned from, and how it was scored, is not recorded here."
    if quirks:
        yield f"It computes as its quirks say: {_line(plain(quirks))}."
    else:
        yield "It computes as the paper says (no quirks of a released code)."
    for note in record.get("notes") or ():
        yield _line(note[:1].upper() + note[1:]).rstrip(".") + "."
    if record.get("note"):
        yield _line(record["note"])
    yield "Clouds unlike those that it learned from get a label too: the probability does not say that they are unlike."
    yield f"The tensors are in safetensors: reading them executes nothing. Card written by pointlift {__version__}."


def _adaptation(file: ModelFile) -> dict[str, Any] | None:
    said = file.extra.get("adaptation")
    return dict(said) if isinstance(said, dict) and "name" in said else None


def _base_place(file: ModelFile) -> str | None:
    said = file.extra.get("base")
    place = said.get("from") if isinstance(said, dict) else None
    return str(place) if place else None


def _table(rows: Iterable[tuple[str, str]], head: tuple[str, str] = ("", "")) -> str:
    lines = [head, ("---", "---"), *rows]
    return "\n".join(f"| {a} | {b} |" for a, b in lines)


def _line(value: Any) -> str:
    """Text of a file as one harmless line: no line break, table border, link or tag can come out of it."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", text)[:600]


def _code(value: Any) -> str:
    """A name in code style."""
    text = " ".join(str(value if value is not None else UNKNOWN).split())
    return "`" + text.replace("`", "'").replace("|", "/")[:200] + "`"
