"""What the record says, as a person reads it: facts in groups, and the notes that an honest page must carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pointlift.report import text

if TYPE_CHECKING:  # reading a run uses what is said here of parts
    from pointlift.report.run import RunFolder


@dataclass(frozen=True)
class Fact:
    """One line of the record. `code` marks hashes and commands, `missing` what the record does not hold."""

    label: str
    value: str
    code: bool = False
    missing: bool = False


@dataclass(frozen=True)
class Note:
    """Something the reader must know before quoting the score; a warning says it could be quoted wrongly."""

    text: str
    warning: bool = False


def lookup(record: dict[str, Any], *path: str) -> Any:
    """The value at a path of keys, or None."""
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def number_at(record: dict[str, Any], *path: str) -> float | None:
    """The number at a path of keys, or None when it is absent or not a number."""
    value = lookup(record, *path)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def plain(value: Any) -> str:
    """A JSON value in one line, without braces and quotes where they can be spared."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {nested(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(nested(item) for item in value) or "none"
    return str(value)


def nested(value: Any) -> str:
    """A value inside another: lists and dicts get brackets, so that it stays clear what belongs to what."""
    return f"[{plain(value)}]" if isinstance(value, list | dict) and value else plain(value)


def fact(label: str, value: Any, *, code: bool = False) -> Fact:
    """A fact from any JSON value; None and an empty string are shown as not recorded."""
    if value is None or value == "":
        return Fact(label, text.MISSING, missing=True)
    return Fact(label, plain(value), code=code)


def counted(value: float | None) -> str | None:
    return None if value is None else text.count(value)


def splits_fact(record: dict[str, Any]) -> str | None:
    splits = lookup(record, "dataset", "splits")
    if not isinstance(splits, dict):
        return None
    return " · ".join(
        f"{name} {text.count(n) if isinstance(n, int | float) else plain(n)}" for name, n in splits.items()
    )


def dataset_fact(record: dict[str, Any]) -> str | None:
    name, variant = lookup(record, "dataset", "name"), lookup(record, "dataset", "variant")
    return None if name is None else f"{name} · {plain(variant)}" if variant else plain(name)


def voting_fact(record: dict[str, Any]) -> str | None:
    rounds = number_at(record, "voting", "rounds")
    if rounds is None:
        return None
    said = "1 round" if rounds == 1 else f"{rounds:g} rounds"
    return f"{said}, {plain(lookup(record, 'voting', 'pool'))}" if rounds else "none"


def epoch_fact(record: dict[str, Any]) -> str | None:
    epoch, total = number_at(record, "epoch"), number_at(record, "epochs")
    if epoch is None:
        return None
    return f"{epoch + 1:g}" + (f" of {total:g}" if total else "")


def device_fact(record: dict[str, Any]) -> str | None:
    device = lookup(record, "device")
    if not isinstance(device, dict):
        return None if device is None else plain(device)
    threads, precision = device.get("threads"), device.get("precision")
    counted_threads = f"{plain(threads)} thread{'' if threads == 1 else 's'}" if threads else ""
    parts = [plain(device.get("name")), counted_threads, plain(precision or "")]
    return ", ".join(part for part in parts if part)


def time_fact(record: dict[str, Any]) -> str | None:
    train, scored = number_at(record, "time", "train_seconds"), number_at(record, "time", "evaluate_seconds")
    parts = [
        f"{text.duration(seconds)} {what}"
        for seconds, what in ((train, "training"), (scored, "scoring"))
        if seconds is not None
    ]
    return ", ".join(parts) or None


def started_fact(record: dict[str, Any]) -> str | None:
    started = lookup(record, "time", "started")
    return text.moment(started) if isinstance(started, str) else None


def is_pretraining(record: dict[str, Any]) -> bool:
    """Whether the run learned without labels: nothing was classified."""
    return record.get("task") == "pretraining"


def objective_fact(record: dict[str, Any]) -> Any:
    """The objective without whole configurations inside it (the tokenizer of Point-BERT): those are in the files."""
    said = lookup(record, "objective")
    if not isinstance(said, dict):
        return said
    return {key: value for key, value in said.items() if not (isinstance(value, dict) and len(value) > 5)}


def record_groups(record: dict[str, Any]) -> list[tuple[str, list[Fact]]]:
    """The record as the page shows it beside the score: data, protocol, model, run."""
    groups = _groups(record)
    if not is_pretraining(record):
        return groups
    learned = [
        fact("objective", objective_fact(record)),
        fact("linear SVM monitor", plain(lookup(record, "monitor"))),
    ]
    unlike = {"voting", "adaptation", "parameters", "trainable", "… without the head"}
    sizes = [
        fact("parameters of the backbone", counted(number_at(record, "model", "parameters"))),
        fact("learned, decoder included", counted(number_at(record, "model", "trainable"))),
    ]
    more = {"Protocol": learned, "Model": sizes}
    return [(name, [item for item in items if item.label not in unlike] + more.get(name, [])) for name, items in groups]


def _groups(record: dict[str, Any]) -> list[tuple[str, list[Fact]]]:
    return [
        (
            "Data",
            [
                fact("data set", dataset_fact(record)),
                fact("splits", splits_fact(record)),
                fact("scored on", lookup(record, "split")),
                fact("points per cloud", counted(number_at(record, "points"))),
                fact("content hash", lookup(record, "dataset", "content_hash"), code=True),
            ],
        ),
        (
            "Protocol",
            [
                fact("task", lookup(record, "task")),
                fact("protocol", lookup(record, "protocol")),
                fact("epoch rule", lookup(record, "epoch_rule")),
                fact("epoch", epoch_fact(record)),
                fact("voting", voting_fact(record)),
                fact("augmentation", lookup(record, "augmentation")),
                fact("seed", lookup(record, "seed")),
            ],
        ),
        (
            "Model",
            [
                fact("architecture", lookup(record, "model", "arch")),
                fact("pretrained", plain(lookup(record, "model", "pretrained"))),
                fact("adaptation", lookup(record, "model", "adaptation")),
                fact("parameters", counted(number_at(record, "model", "parameters"))),
                fact("trainable", counted(number_at(record, "model", "trainable"))),
                fact("… without the head", counted(number_at(record, "model", "trainable_without_head"))),
                fact("quirks", lookup(record, "quirks")),
                fact("checkpoint SHA-256", lookup(record, "checkpoint_sha256"), code=True),
            ],
        ),
        (
            "Run",
            [
                fact("samples seen", counted(number_at(record, "samples_seen"))),
                fact("device", device_fact(record)),
                fact("time", time_fact(record)),
                fact("started", started_fact(record)),
                fact("versions", lookup(record, "versions")),
            ],
        ),
    ]


def notes(run: RunFolder, accuracy: float | None) -> list[Note]:
    """What limits the score, warnings first.

    Args:
        run: The run folder.
        accuracy: Overall accuracy counted from the predictions, or None without predictions.
    """
    record = run.record
    found: list[Note] = []
    if lookup(record, "epoch_rule") == "best on test":
        found.append(
            Note("The epoch was chosen on the split it is scored on (best on test). The score is optimistic.", True)
        )
    split, rule = lookup(record, "split"), lookup(record, "epoch_rule")
    if split == "val" and rule == "best on validation":
        found.append(
            Note("Scored on the validation clouds that chose the epoch: there was no test part. Optimistic.", True)
        )
    if split == "train" and not other_data(record):
        found.append(Note("Scored on the clouds it was trained on. This says nothing about other clouds.", True))
    if split == "all" and (lookup(record, "training") or rule) and not other_data(record):
        found.append(
            Note("Scored on all clouds of the set, those it was trained on among them. The score is optimistic.", True)
        )
    claimed = number_at(record, "metrics", "overall_accuracy")
    rounds = number_at(record, "voting", "rounds") or 0
    if accuracy is not None and claimed is not None and abs(accuracy - claimed) > 5e-4 and not rounds:
        found.append(
            Note(
                f"The record says {text.percent(claimed, 2)}, but predictions.npz gives "
                f"{text.percent(accuracy, 2)}: the two files do not belong together.",
                True,
            )
        )
    native, used = number_at(record, "dataset", "native_points"), number_at(record, "points")
    if rounds and native and used and native <= used:
        found.append(
            Note(
                f"Voting resampled nothing: the clouds have {text.count(native)} points and the model reads "
                f"{text.count(used)}, so every round saw the same points.",
                True,
            )
        )
    if not lookup(record, "dataset", "content_hash"):
        found.append(Note("No content hash was recorded: the data behind the score cannot be checked.", True))
    predictions = run.predictions
    if predictions is not None and predictions.not_finite:
        found.append(Note(f"{predictions.not_finite} predictions were not finite; they count as class 0.", True))
    data_note = lookup(record, "dataset", "note")
    if data_note:
        found.append(Note(f"Data set: {plain(data_note)}"))
    found.extend(Note(plain(line)) for line in as_list(lookup(record, "notes")))
    if lookup(record, "quirks"):
        found.append(Note("Quirks of the released code are switched on, as listed under Model."))
    found.append(Note("One run with one seed. A comparison needs at least three seeds or makes no claim."))
    if run.unread_lines:
        found.append(Note(f"{run.unread_lines} lines of metrics.jsonl could not be read and were left out."))
    return sorted(found, key=lambda note: not note.warning)


def other_data(record: dict[str, Any]) -> bool:
    """Whether the record of an evaluation says that the weights were trained on other data than it scores."""
    trained_on = lookup(record, "training", "dataset", "content_hash")
    return trained_on is not None and trained_on != lookup(record, "dataset", "content_hash")


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


@dataclass(frozen=True)
class Share:
    """One part of the model's parameters."""

    key: str
    label: str
    count: int
    share: float


def parameter_shares(record: dict[str, Any]) -> list[Share]:
    """Frozen, adapted and head parameters with their shares; empty when the record lacks the counts."""
    total, trainable = number_at(record, "model", "parameters"), number_at(record, "model", "trainable")
    body = number_at(record, "model", "trainable_without_head")
    if not total or trainable is None or not 0 <= trainable <= total:
        return []
    parts: list[tuple[str, str, float]] = [("frozen", "frozen", total - trainable)]
    if body is None or not 0 <= body <= trainable:
        parts.append(("body", "learned", trainable))
    else:
        parts += [("body", "learned, without the head", body), ("head", "learned, head", trainable - body)]
    return [Share(key, label, int(n), n / total) for key, label, n in parts]


@dataclass(frozen=True)
class PartShare:
    """One part of the model from input to output: its parameters, and the share of them that learned."""

    label: str
    count: int
    share: float


def part_shares(record: dict[str, Any]) -> list[PartShare]:
    """The parts of `model.parts` (name -> parameters, trainable) in its order; empty where a record has none."""
    parts = lookup(record, "model", "parts")
    if not isinstance(parts, dict):
        return []
    rows = []
    for name, part in parts.items():
        total, learned = number_at({"part": part}, "part", "parameters"), number_at({"part": part}, "part", "trainable")
        if total and learned is not None and 0 <= learned <= total:
            rows.append(PartShare(plain(name), int(total), learned / total))
    return rows


@dataclass(frozen=True)
class SplitScore:
    """One metric on both splits."""

    label: str
    validation: str
    test: str
    difference: str


METRIC_NAMES = {
    "overall_accuracy": "overall accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "loss": "loss",
}
RARE_NAMES = {"svm_accuracy": "linear SVM accuracy (monitor)", "accuracy": "codes right"}


HEADLINES = ("overall_accuracy", "instance_miou", "miou")


def headline(record: dict[str, Any]) -> str:
    """The metric that the page shows large: accuracy of classifiers, else the mean IoU that papers report."""
    if is_pretraining(record):
        return "svm_accuracy" if number_at(record, "metrics", "svm_accuracy") is not None else "loss"
    known = HEADLINES if record.get("task") in (None, "classification") else (*HEADLINES[1:], HEADLINES[0])
    return next((key for key in known if number_at(record, "metrics", key) is not None), HEADLINES[0])


def metric_name(key: str) -> str:
    """`overall_accuracy_max` of a vote as `overall accuracy, best round`."""
    for ending, said in (("_max", ", best round"), ("_std", ", standard deviation over rounds")):
        if key.endswith(ending):
            return metric_name(key.removesuffix(ending)) + said
    return (METRIC_NAMES | RARE_NAMES).get(key, key.replace("_", " ").replace("miou", "mIoU"))


def other_metrics(record: dict[str, Any], decimals: int) -> list[tuple[str, str]]:
    """Every metric but the headline as (name, value), the usual ones first."""
    found = lookup(record, "metrics")
    metrics = found if isinstance(found, dict) else {}
    expected = record.get("task") in (None, "classification")
    usual = [key for key in METRIC_NAMES if key in metrics or (expected and key != "overall_accuracy")]
    shown = []
    for key in [*usual, *(key for key in metrics if key not in METRIC_NAMES)]:
        value = number_at(record, "metrics", key)
        if key == headline(record) or (value is None and key not in METRIC_NAMES):
            continue
        shown.append((metric_name(key), metric_text(key, value, decimals)))
    return shown


def metric_text(key: str, value: float | None, decimals: int) -> str:
    """A metric as people read it: shares in percent, losses as numbers."""
    share = "accuracy" in key or "iou" in key
    return text.percent(value, decimals) if share else text.number(value)


def split_scores(record: dict[str, Any], decimals: int) -> list[SplitScore]:
    """Validation beside the scored split, one row per metric that either of them has; empty without validation."""
    held, scored = lookup(record, "validation"), lookup(record, "metrics")
    if not isinstance(held, dict) or not isinstance(scored, dict) or not held:
        return []
    rows = []
    for key in [*METRIC_NAMES, *sorted((set(held) | set(scored)) - set(METRIC_NAMES))]:
        a, b = number_at(held, key), number_at(scored, key)
        if a is None and b is None:
            continue
        gap = None if a is None or b is None else b - a
        if key.endswith(("accuracy", "miou")):
            cells = (text.percent(a, decimals), text.percent(b, decimals), text.points(gap, decimals))
        else:
            sign = "" if gap is None else "+" if gap > 0 else "−" if gap < 0 else ""
            cells = (text.number(a), text.number(b), sign + text.number(None if gap is None else abs(gap)))
        rows.append(SplitScore(metric_name(key), *cells))
    return rows
