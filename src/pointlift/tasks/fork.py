"""Bring your fork: a released YAML and its checkpoint as a recipe, weights, and a report of every key and tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pointlift.core.config import build, dump_yaml, merge, plain, to_dict
from pointlift.core.errors import CheckpointMismatchError, ConfigError, FileFormatError, UsageError
from pointlift.engine.files import cannot_write, write_atomic
from pointlift.models.base import HEAD_FIELDS
from pointlift.models.registry import MODELS
from pointlift.pretrain.registry import OBJECTIVES
from pointlift.tasks.config import FinetuneConfig, PretrainConfig, RunConfig
from pointlift.tasks.convert import UNSEEN, Conversion, convert_file
from pointlift.weights.forks import Line, Translation, read_released_yaml, translate
from pointlift.weights.modelfile import ModelFile, read_model_file
from pointlift.weights.upstream import UPSTREAMS

RECIPE, WEIGHTS, REPORT, TEXT = "recipe.yaml", "model.safetensors", "load_report.json", "report.md"


@dataclass(frozen=True)
class Fork:
    """What a fork became.

    Attributes:
        source: The released YAML.
        folder: Where everything is.
        translation: What became of every key; its recipe is the one that was written.
        weights: What became of every tensor; None without a checkpoint.
    """

    source: Path
    folder: Path
    translation: Translation
    weights: Conversion | None = None

    @property
    def verb(self) -> str:
        """Which verb runs the recipe."""
        return "pretrain" if self.translation.holds == "objective" else "finetune"


def convert_fork(
    source: str | Path,
    folder: str | Path,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Fork:
    """Write a released YAML of the Point-BERT family as `recipe.yaml`, and a checkpoint as `model.safetensors`.

    Beside them, `load_report.json` and `report.md` say what became of every key and every tensor.

    Args:
        folder: New or empty.
        checkpoint: Of the YAML's model class: trained with it, or what fine-tuning with it starts from.
        overrides: Laid on the recipe.

    Raises:
        UsageError: No such file, a folder that is not empty, or a model class that is not known.
        FileFormatError: Not a configuration of this family.
        CheckpointError: A checkpoint that cannot be read, or is of another model than the YAML's.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", "a new folder")
    file = None if checkpoint is None else read_model_file(checkpoint)
    found = translated(source, file)
    if overrides:
        recipe = merge(found.recipe, overrides)
        check_recipe(recipe, found)
        found = replace(found, recipe=recipe)
    weights = None
    if file is not None:
        weights = convert_file(_as_said(file, found), folder / WEIGHTS, preprocess=_preprocess(found))
        found = _with_weights(found, weights)
    else:
        found = _from_nothing(found)
    fork = Fork(Path(source), folder, found, weights)
    _write(folder / RECIPE, dump_yaml(found.recipe, found.comments))
    _write(folder / REPORT, json.dumps(report_of(fork), indent=1, ensure_ascii=False) + "\n")
    _write(folder / TEXT, text_of(fork))
    return fork


def translated(source: str | Path, file: ModelFile | None = None) -> Translation:
    """A released YAML as a recipe that is known to be one; nothing is written.

    Args:
        file: The checkpoint that goes with it.

    Raises:
        UsageError, FileFormatError: As in `convert_fork`.
    """
    released = read_released_yaml(source)
    system = None if file is None else next((u.system for u in UPSTREAMS if u.upstream == file.source), None)
    outputs = None if file is None else file.config.get("num_classes")
    found = translate(released, system=system, outputs=outputs)
    try:
        check_recipe(found.recipe, found)
    except ConfigError as error:  # the YAML's own numbers: nobody typed them
        raise FileFormatError(f"{released.path.name}: {error.given}", "numbers of a real run") from error
    return found


def check_recipe(recipe: Mapping[str, Any], found: Translation) -> RunConfig:
    """The recipe as a configuration, its model's and objective's options checked too.

    Raises:
        ConfigError: Every unknown key and wrong value.
    """
    kind: type[RunConfig] = PretrainConfig if found.holds == "objective" else FinetuneConfig
    config = build(kind, recipe, where="recipe")
    fixed: Mapping[str, Any] = {}
    if isinstance(config, PretrainConfig):
        entry = OBJECTIVES.get(config.objective.name)
        fixed = entry.backbone
        build(entry.config, config.objective.options, where=f"options of {config.objective.name}")
    model = MODELS.get(config.model.name)
    build(model.config, {**model.sizes, **fixed, **config.model.options}, where=f"options of {config.model.name}")
    return config


def _as_said(file: ModelFile, found: Translation) -> ModelFile:
    """The checkpoint's file with what the YAML says of its model beyond the tensors.

    Raises:
        CheckpointMismatchError: It is of another model, or of other sizes.
    """
    said, named = found.recipe["model"]["options"], found.recipe["model"]["name"]
    if file.arch != named:
        raise CheckpointMismatchError(
            f"{file.path} holds a {file.arch} ({file.source}), the YAML names {found.upstream}",
            "a checkpoint of that model",
        )
    config = dict(file.config)
    for name, value in said.items():
        if name in UNSEEN:
            config[name] = value
        elif name in config and name not in HEAD_FIELDS and plain(config[name]) != plain(value):
            raise CheckpointMismatchError(
                f"{file.path} has {name} {config[name]}, the YAML says {value}", "a checkpoint of that model"
            )
        elif name not in HEAD_FIELDS:
            config[name] = value
    if "cls_token" in file.new:  # pre-training went without one
        config |= {"class_token": False, "pooling": "mean+max"}
    # What is assumed of clouds the YAML says; of sizes, most of it.
    told = {*said, *found.recipe["data"]}
    assumed = tuple(a for a in file.assumed if "=" in a and a.partition("=")[0] not in told)
    return replace(file, config=config, classes=file.classes or found.classes, assumed=assumed)


def _preprocess(found: Translation) -> dict[str, Any]:
    """What the recipe says of a cloud's way to the model."""
    data = found.recipe["data"]
    said = {name: data[name] for name in ("points", "normalize") if name in data}
    return {**said, "resample": {"skip_near_origin": True}}


def _with_weights(found: Translation, weights: Conversion) -> Translation:
    """The recipe with what only the tensors tell, and with the weights that it starts from."""
    recipe, comments = merge(found.recipe, {}), dict(found.comments)
    notes = list(found.notes)
    options = dict(recipe["model"]["options"])
    fresh = to_dict(build(MODELS.get(weights.arch).config, options, where="model"))
    pretraining, headless = found.holds == "objective", weights.config["num_classes"] == 0
    skipped = {"num_classes", "quirks", *(("class_token", "pooling") if headless else ())}
    for name, value in weights.config.items():
        if name not in skipped and fresh.get(name) != value:
            options[name] = value
            comments[f"model.options.{name}"] = "As the checkpoint's tensors have it."
    recipe["model"] = {**recipe["model"], "options": options}
    if headless and not pretraining:
        # What pre-training went without is wanted now, and starts anew.
        options |= {n: fresh[n] for n in ("class_token", "pooling") if fresh.get(n) != weights.config.get(n)}
        recipe["model"]["pretrained"] = str(weights.target.resolve())
        comments["model.pretrained"] = "What training starts from: the converted checkpoint."
    elif not pretraining:
        notes.append(FROM_WHERE)
    return replace(found, recipe=recipe, comments=comments, notes=tuple(notes))


FROM_WHERE = "the YAML does not say which weights training starts from: --model.pretrained PATH, or it is from scratch"


def _from_nothing(found: Translation) -> Translation:
    return found if found.holds == "objective" else replace(found, notes=(*found.notes, FROM_WHERE))


def report_of(fork: Fork) -> dict[str, Any]:
    """The whole report, as plain values."""
    found, weights = fork.translation, fork.weights
    return {
        "source": str(fork.source),
        "system": found.system,
        "model_class": found.upstream,
        "run": f"pointlift {fork.verb} {fork.folder / RECIPE} --data.root DIR",
        "keys": [asdict(line) for line in found.lines],
        "counts": {fate: len(found.with_fate(fate)) for fate in ("kept", "ignored", "not understood")},
        "notes": list(found.notes),
        "weights": None
        if weights is None
        else {
            "source": str(weights.source),
            "target": str(weights.target),
            "holds": weights.holds,
            "arch": weights.arch,
            "config": weights.config,
            "tensors": asdict(weights.report),
        },
    }


def text_of(fork: Fork) -> str:
    """The report for people, in Markdown."""
    found, weights = fork.translation, fork.weights
    parts = [f"# {fork.source.name}", f"`{found.upstream}` · run it: `{report_of(fork)['run']}`"]
    unknown = found.with_fate("not understood")
    if unknown:
        parts.append(
            f"**{len(unknown)} not understood: what they do in the fork is not in the recipe.**\n\n{_table(unknown)}"
        )
    parts.append(f"## Kept\n\n{_table(found.with_fate('kept'))}")
    parts.append(f"## Ignored on purpose\n\n{_table(found.with_fate('ignored'))}")
    parts.append("## Not in the YAML\n\n" + "\n".join(f"* {_cell(note)}" for note in found.notes))
    if weights is None:
        parts.append("## Weights\n\nNo checkpoint was given.")
    else:
        report = weights.report
        listed = {"Dropped on purpose": report.dropped, "New, not in the checkpoint": report.new}
        rows = "\n".join(f"* {label}: {', '.join(f'`{n}`' for n in names)}" for label, names in listed.items() if names)
        parts.append(f"## Weights\n\n`{weights.source.name}` holds: {weights.holds}. {report}.\n\n{rows}".rstrip())
    return "\n\n".join(parts) + "\n"


def _table(lines: list[Line]) -> str:
    if not lines:
        return "Nothing."
    rows = (f"| `{_cell(x.key)}` | {_code(x.value)} | {_code(x.ours)} | {_cell(x.why)} |" for x in lines)
    return "\n".join(["| YAML | value | recipe | |", "|---|---|---|---|", *rows])


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    """Text of a file inside a table: no new cells, lines or code spans."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|").replace("`", "'")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_atomic(path, text.encode("utf-8", "backslashreplace"))
