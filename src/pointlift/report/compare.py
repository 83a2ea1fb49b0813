"""Run against run, as numbers: what differs, which runs share their clouds, and what the difference is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pointlift.core.config import parse_yaml
from pointlift.core.errors import PointLiftError, UsageError
from pointlift.data.stores import NAMES_AND_SIZES
from pointlift.report import facts, scores
from pointlift.report.run import RunFolder, read_run

SEEDS_FOR_A_CLAIM = 3
NOT_A_SETTING = ("seed", "note")  # runs that differ in nothing else are repetitions of each other


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        key: A, B, C, …
        name: Of its folder, as short as tells the folders apart.
        run: What the folder holds.
        config: Of `config.yaml`, flat (`optim.lr`), or None where it is absent or cannot be read.
        answers: (N,) int64, the predicted class of every cloud; None without predictions.
        sure: (N,) the probability of that class.
        data: What has to be equal for two runs to be compared: the content hash and the split; None when unknown.
    """

    key: str
    name: str
    run: RunFolder
    config: dict[str, Any] | None
    answers: np.ndarray | None
    sure: np.ndarray | None
    data: tuple[Any, ...] | None

    @property
    def accuracy(self) -> float | None:
        """The score that stands for the run: overall accuracy of the record, or counted from the predictions; of
        part segmentation the instance mIoU."""
        recorded = facts.number_at(self.run.record, "metrics", "instance_miou" if self.of_parts else "overall_accuracy")
        right = self.right
        return recorded if recorded is not None or right is None or not len(right) else float(right.mean())

    @property
    def of_parts(self) -> bool:
        """Whether the run is one of part segmentation."""
        return self.run.record.get("task") == "part_segmentation"

    @property
    def right(self) -> np.ndarray | None:
        """(N,) bool, whether the answer is the true class."""
        predictions = self.run.predictions
        return None if predictions is None or self.answers is None else self.answers == predictions.label


def read_runs(run_dirs: Sequence[Path]) -> list[Compared]:
    """The runs of a comparison, in the order given.

    Raises:
        UsageError: Fewer than two folders, or one given twice.
        DataError: A folder is no run folder, or a file of it is malformed.
    """
    paths = [Path(path) for path in run_dirs]
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} run folder", "two or more to compare", "Name another run")
    seen = [path.resolve() for path in paths]
    for i, path in enumerate(seen):
        if path in seen[:i]:
            raise UsageError(f"{paths[i]} given twice", "different run folders")
    names = short_names(seen)
    return [compared(letters(i), name, read_run(path)) for i, (path, name) in enumerate(zip(paths, names, strict=True))]


def compared(key: str, name: str, run: RunFolder) -> Compared:
    """One run, with its answers worked out."""
    record, predictions = run.record, run.predictions
    answers = sure = None
    if predictions is not None:
        probabilities = scores.softmax(predictions.logits)
        answers = probabilities.argmax(axis=1) if probabilities.size else np.zeros(0, np.int64)
        sure = probabilities.max(axis=1) if probabilities.size else np.zeros(0)
    content = facts.lookup(record, "dataset", "content_hash")
    of_parts = (record["task"],) if record.get("task") == "part_segmentation" else ()  # another score than of clouds
    data = (content, record.get("split"), *of_parts) if content else None
    return Compared(key, name, run, flat_config(run), answers, sure, data)


def letters(i: int) -> str:
    """A to Z, then AA, AB, …"""
    return chr(65 + i) if i < 26 else letters(i // 26 - 1) + letters(i % 26)


def short_names(paths: Sequence[Path]) -> list[str]:
    """As many last parts of each path as tell all of them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def flat_config(run: RunFolder) -> dict[str, Any] | None:
    """`config.yaml` with dotted keys; None where it is absent or no configuration."""
    if run.config is None:
        return None
    try:
        tree = parse_yaml(run.config, "config.yaml")
    except PointLiftError:
        return None  # the page says that this run's configuration is missing
    return dict(flat(tree))


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of a nested mapping; lists are values."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found.extend(flat(value, name + ".") if isinstance(value, Mapping) and value else [(name, value)])
    return found


def differing(runs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """Configuration keys, then facts of the records, whose values are not the same in all runs, with the values."""
    rows = []
    known = [run for run in runs if run.config is not None]
    keys = list(dict.fromkeys(key for run in known for key in run.config or {}))
    for key in keys:
        values = [facts.plain(run.config[key]) if run.config and key in run.config else "–" for run in runs]
        if len({value for run, value in zip(runs, values, strict=True) if run.config is not None}) > 1:
            rows.append((key, values))
    for label, path in RECORDED:
        found = [facts.lookup(run.run.record, *path) for run in runs]
        if any(value != found[0] for value in found):
            rows.append((label, ["–" if value is None else short(facts.plain(value)) for value in found]))
    return rows


# Facts of the record that no configuration holds.
RECORDED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("data set", ("dataset", "name")),
    ("data variant", ("dataset", "variant")),
    ("data content hash", ("dataset", "content_hash")),
    ("scored on", ("split",)),
    ("protocol", ("protocol",)),
    ("pretrained", ("model", "pretrained")),
    ("quirks", ("quirks",)),
    ("samples seen", ("samples_seen",)),
    ("device", ("device", "name")),
    ("precision", ("device", "precision")),
    ("pointlift", ("versions", "pointlift")),
    ("torch", ("versions", "torch")),
)


def short(value: str) -> str:
    """A hash by its first digits; anything else as it is."""
    return value[:12] + "…" if len(value) == 64 and all(c in "0123456789abcdef" for c in value) else value


def same_clouds(a: Compared, b: Compared) -> bool:
    """Whether two runs were scored on the very same labelled clouds.

    Content hash and split must agree, and names and labels in the predictions of both. Where there are none, the split
    must not depend on what was held out differently, and the hash must cover more than names and sizes of files.
    """
    p, q = a.run.predictions, b.run.predictions
    if a.data is None or a.data != b.data:
        return False
    if p is not None and q is not None:
        return p.names == q.names and np.array_equal(p.index, q.index) and np.array_equal(p.label, q.label)
    weak = any(NAMES_AND_SIZES in str(facts.lookup(run.run.record, "dataset", "note")) for run in (a, b))
    return not weak and same_cut(a, b)


def same_cut(a: Compared, b: Compared) -> bool:
    """Whether the split is the same part of the set in both, as far as their configurations say."""
    if a.run.record.get("split") not in ("train", "val"):
        return True
    if a.config is None or b.config is None:
        return False
    return all(a.config.get(key) == b.config.get(key) for key in ("data.val_fraction", "data.split_seed"))


@dataclass(frozen=True)
class Pair:
    """Two runs on the same clouds.

    Attributes:
        only_a, only_b: Clouds that only the one recognised.
        p: Two-sided exact McNemar test: how often a coin would split those clouds as unevenly.
    """

    a: Compared
    b: Compared
    only_a: int
    only_b: int
    p: float


def pairs(runs: Sequence[Compared]) -> list[Pair]:
    """Every two runs that answered the same clouds; of more than six runs each against the first only."""
    firsts = runs if len(runs) <= 6 else runs[:1]
    found = []
    for i, a in enumerate(firsts):
        for b in runs[i + 1 :]:
            if a.right is None or b.right is None or not same_clouds(a, b):
                continue
            only_a, only_b = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
            found.append(Pair(a, b, only_a, only_b, mcnemar(only_a, only_b)))
    return found


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value of McNemar's test (1947): a binomial test of one half on the discordant clouds."""
    from scipy.stats import binom

    total = only_a + only_b
    return min(1.0, 2 * float(binom.cdf(min(only_a, only_b), total, 0.5))) if total else 1.0


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ only in their seed.

    Attributes:
        mean, std: Of overall accuracy over the runs; the standard deviation is that of a sample (n - 1).
        claim: Whether there are enough seeds to say anything.
    """

    runs: list[Compared]
    mean: float
    std: float
    claim: bool


def seed_groups(runs: Sequence[Compared]) -> list[SeedGroup]:
    """Groups of two or more runs that differ in nothing but the seed, on the same clouds."""
    groups: list[list[Compared]] = []
    for run in runs:
        if run.config is None or run.accuracy is None:
            continue
        for group in groups:
            if repeats(group[0], run) and all(seed(run) != seed(other) for other in group):
                group.append(run)
                break
        else:
            groups.append([run])
    made = []
    for group in groups:
        values = [run.accuracy for run in group if run.accuracy is not None]
        if len(values) > 1:
            std = float(np.std(values, ddof=1))
            made.append(SeedGroup(group, float(np.mean(values)), std, len(values) >= SEEDS_FOR_A_CLAIM))
    return made


def repeats(a: Compared, b: Compared) -> bool:
    """Whether two configurations are equal but for the seed, on the same clouds, scored by the same protocol."""

    def setting(run: Compared) -> dict[str, Any]:
        return {key: value for key, value in (run.config or {}).items() if key not in NOT_A_SETTING}

    protocol = [(run.run.record.get("protocol"), run.run.record.get("voting")) for run in (a, b)]
    return setting(a) == setting(b) and protocol[0] == protocol[1] and same_clouds(a, b)


def seed(run: Compared) -> Any:
    """The seed of a run."""
    return (run.config or {}).get("seed", run.run.record.get("seed"))


@dataclass(frozen=True)
class Disputed:
    """A cloud that the runs answer differently: its row in the predictions, how far apart, and where it is kept."""

    row: int
    apart: float
    kept: tuple[int, int] | None


def disputed(runs: Sequence[Compared]) -> list[Disputed]:
    """Clouds on which runs (all on the same clouds) disagree, the surest disagreement first.

    `kept` is (run, position in its gallery clouds) for those that some run kept to look at.
    """
    answers = np.stack([run.answers for run in runs if run.answers is not None])
    sure = np.stack([run.sure for run in runs if run.sure is not None])
    rows = np.flatnonzero((answers != answers[0]).any(axis=0))
    kept: dict[int, tuple[int, int]] = {}
    for i, run in enumerate(runs):
        predictions = run.run.predictions
        if predictions is not None and predictions.clouds is not None:
            for position, row in enumerate(predictions.cloud_rows):
                kept.setdefault(int(row), (i, position))
    apart = sure[:, rows].min(axis=0)  # both sides must be sure for a dispute to be worth a look
    order = np.argsort(-apart, kind="stable")
    return [Disputed(int(rows[k]), float(apart[k]), kept.get(int(rows[k]))) for k in order]


def ranked(runs: Sequence[Compared]) -> list[Compared]:
    """Best first."""
    return sorted(runs, key=lambda run: -(run.accuracy if run.accuracy is not None else -1.0))


def with_keys(runs: Sequence[Compared]) -> list[Compared]:
    """Runs lettered anew in their order."""
    return [replace(run, key=letters(i)) for i, run in enumerate(runs)]
