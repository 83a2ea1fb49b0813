"""Scores that papers and their repositories report, to stand beside one's own, with what differs.

Every number comes from the project's method cards, which name where they read it. What a card marks as recalled
and not checked against the paper is left out (ACT's frozen-trunk, voted and part-segmentation rows). No card could
read a table of Image2Point's, so it has no row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

POINT_BERT, POINT_MAE, POINT_M2AE = (
    ("Point-BERT", "2111.14819"),
    ("Point-MAE", "2203.06604"),
    ("Point-M2AE", "2205.14401"),
)
I2P_MAE, ACT = ("I2P-MAE", "2212.06785"), ("ACT", "2212.08320")
POINT_PEFT, ANY2POINT = ("Point-PEFT", "2310.03059"), ("Any2Point", "2404.07989")


@dataclass(frozen=True)
class Edition:
    """The files that a published score was measured on.

    Attributes:
        dataset: Name as records write it.
        name: Which edition of it.
        train, test: Clouds in the official splits; 0 where they are drawn anew for each fold.
        up_axis: Of the files.
    """

    dataset: str
    name: str
    train: int
    test: int
    up_axis: str = "y"


MODELNET_RESAMPLED = Edition("modelnet40", "normal_resampled", 9843, 2468)
MODELNET_HDF5 = Edition("modelnet40", "ply_hdf5_2048", 9840, 2468)
MODELNET_FEW_SHOT = Edition("modelnet40", "few-shot folds", 0, 0)
OBJ_BG = Edition("scanobjectnn", "obj_bg", 2309, 581)
OBJ_ONLY = Edition("scanobjectnn", "obj_only", 2309, 581)
PB_T50_RS = Edition("scanobjectnn", "pb_t50_rs", 11416, 2882)
SHAPENETPART = Edition("shapenetpart", "partanno normal", 14007, 2874)


@dataclass(frozen=True)
class Reported:
    """One published score.

    Attributes:
        system: As its authors call it, with the variant.
        paper: arXiv number.
        edition: The data.
        protocol: plain | vote | svm | few-shot, as in records.
        metric: Name as in records.
        value: Fraction.
        points: Points per cloud.
        source: Where the card read it.
        std: Of the folds (few-shot), as a fraction.
        task: As in records.
        setting: Way and shot of few-shot scores ("5w10s").
        learned: What was fine-tuned: "all", or the name of the adaptation.
    """

    system: str
    paper: str
    edition: Edition
    protocol: str
    metric: str
    value: float
    points: int
    source: str
    std: float | None = None
    task: str = "classification"
    setting: str = ""
    learned: str = "all"

    @property
    def best_on_test(self) -> bool:
        """Whether the epoch was chosen on the test clouds, as all projects do that fine-tune (data-protocols, 13)."""
        return self.protocol in ("plain", "vote", "few-shot")


def _modelnet() -> Iterator[Reported]:
    table: list[tuple[tuple[str, str], str, int, float, str]] = [
        (POINT_BERT, "plain", 1024, 92.67, "README"),
        (POINT_BERT, "plain", 4096, 92.91, "README"),
        (POINT_BERT, "plain", 8192, 93.19, "README"),
        (POINT_BERT, "vote", 1024, 93.24, "README"),
        (POINT_BERT, "vote", 4096, 93.48, "README"),
        (POINT_BERT, "vote", 8192, 93.76, "README"),
        (POINT_MAE, "plain", 1024, 93.2, "README of Point-M2AE"),
        (POINT_MAE, "plain", 8192, 93.40, "issue 45 of Point-MAE: its released weights"),
        (POINT_MAE, "vote", 1024, 93.80, "README"),
        (POINT_MAE, "vote", 8192, 94.04, "README"),
        (POINT_M2AE, "plain", 1024, 93.43, "README"),
        (POINT_M2AE, "vote", 1024, 93.96, "README"),
        (I2P_MAE, "plain", 1024, 93.67, "README"),
        (I2P_MAE, "vote", 1024, 94.06, "README"),
        (ACT, "plain", 1024, 93.70, "MODEL_ZOO.md"),
    ]
    for (system, paper), protocol, points, value, source in table:
        yield _row(system, paper, MODELNET_RESAMPLED, protocol, value, points, source)
    adapted = [
        ("Point-PEFT on Point-BERT", POINT_PEFT[1], 93.4, "point_peft"),
        ("Point-PEFT on Point-MAE", POINT_PEFT[1], 94.2, "point_peft"),
        ("Point-PEFT on Point-M2AE", POINT_PEFT[1], 94.1, "point_peft"),
        ("Any2Point, audio", ANY2POINT[1], 92.7, "any2point"),
        ("Any2Point, 2D", ANY2POINT[1], 93.2, "any2point"),
        ("Any2Point, language", ANY2POINT[1], 94.3, "any2point"),
    ]
    for system, paper, value, learned in adapted:
        yield _row(system, paper, MODELNET_RESAMPLED, "plain", value, 1024, "README", learned=learned)


def _scanobjectnn() -> Iterator[Reported]:
    table: list[tuple[tuple[str, str], int, tuple[float, float, float], str]] = [
        (POINT_BERT, 1024, (87.43, 88.12, 83.07), "README"),
        (POINT_MAE, 2048, (90.02, 88.29, 85.18), "README"),
        (POINT_M2AE, 2048, (91.22, 88.81, 86.43), "README, paper"),
        (I2P_MAE, 2048, (94.15, 91.57, 90.11), "README"),
        (ACT, 2048, (93.29, 91.91, 88.21), "MODEL_ZOO.md"),
    ]
    for (system, paper), points, values, source in table:
        for edition, value in zip((OBJ_BG, OBJ_ONLY, PB_T50_RS), values, strict=True):
            yield _row(system, paper, edition, "plain", value, points, source)
    adapted = [
        ("Point-PEFT on Point-BERT", POINT_PEFT[1], 2048, 85.0, "point_peft"),
        ("Point-PEFT on Point-MAE", POINT_PEFT[1], 2048, 89.1, "point_peft"),
        ("Point-PEFT on Point-M2AE", POINT_PEFT[1], 2048, 88.2, "point_peft"),
        ("Any2Point, audio", ANY2POINT[1], 1024, 87.0, "any2point"),
        ("Any2Point, 2D", ANY2POINT[1], 1024, 87.7, "any2point"),
        ("Any2Point, language", ANY2POINT[1], 1024, 91.9, "any2point"),
    ]
    for system, paper, points, value, learned in adapted:
        yield _row(system, paper, PB_T50_RS, "plain", value, points, "README", learned=learned)


def _few_shot() -> Iterator[Reported]:
    table: list[tuple[tuple[str, str], tuple[tuple[float, float], ...], str]] = [
        (POINT_BERT, ((94.6, 3.1), (96.3, 2.7), (91.0, 5.4), (92.7, 5.1)), "quoted in the Point-M2AE paper"),
        (POINT_MAE, ((96.3, 2.5), (97.8, 1.8), (92.6, 4.1), (95.0, 3.0)), "README"),
        (POINT_M2AE, ((96.8, 1.8), (98.3, 1.4), (92.3, 4.5), (95.0, 3.0)), "paper"),
        (ACT, ((96.8, 2.3), (98.0, 1.4), (93.3, 4.0), (95.6, 2.8)), "MODEL_ZOO.md"),
    ]
    for (system, paper), values, source in table:
        for setting, (value, std) in zip(("5w10s", "5w20s", "10w10s", "10w20s"), values, strict=True):
            yield _row(
                *(system, paper, MODELNET_FEW_SHOT, "few-shot", value, 1024, source),
                std=round(std / 100, 6),
                setting=setting,
            )


def _svm() -> Iterator[Reported]:
    yield _row(*POINT_BERT, MODELNET_RESAMPLED, "svm", 87.4, 1024, "README of Point-M2AE", learned="linear SVM")
    yield _row(*POINT_M2AE, MODELNET_HDF5, "svm", 92.87, 1024, "README", learned="linear SVM")
    yield _row(*I2P_MAE, MODELNET_HDF5, "svm", 93.35, 1024, "README", learned="linear SVM")
    yield _row(*POINT_M2AE, OBJ_BG, "svm", 84.12, 2048, "README", learned="linear SVM")
    yield _row(*I2P_MAE, OBJ_BG, "svm", 87.09, 2048, "README", learned="linear SVM")


def _parts() -> Iterator[Reported]:
    table: list[tuple[tuple[str, str], str, float, str]] = [
        (POINT_BERT, "class_miou", 84.11, "quoted in the Point-M2AE paper"),
        (POINT_BERT, "instance_miou", 85.6, "quoted in the Point-M2AE paper"),
        (POINT_MAE, "instance_miou", 86.1, "README"),
        (POINT_M2AE, "class_miou", 84.86, "README, paper"),
        (POINT_M2AE, "instance_miou", 86.51, "README, paper"),
    ]
    for (system, paper), metric, value, source in table:
        yield _row(
            *(system, paper, SHAPENETPART, "plain", value, 2048, source), metric=metric, task="part_segmentation"
        )


def _row(
    system: str,
    paper: str,
    edition: Edition,
    protocol: str,
    percent: float,
    points: int,
    source: str,
    *,
    metric: str = "overall_accuracy",
    std: float | None = None,
    task: str = "classification",
    setting: str = "",
    learned: str = "all",
) -> Reported:
    value = round(percent / 100, 6)
    return Reported(system, paper, edition, protocol, metric, value, points, source, std, task, setting, learned)


REPORTED: tuple[Reported, ...] = (*_modelnet(), *_scanobjectnn(), *_few_shot(), *_svm(), *_parts())


@dataclass(frozen=True)
class Beside:
    """A published score beside a record.

    Attributes:
        row: The published score.
        same_data: Whether the record's clouds are those of the edition, as far as the record tells.
        differs: What else differs, one phrase each; empty where nothing that a record holds does.
    """

    row: Reported
    same_data: bool
    differs: tuple[str, ...]


def rows_for(record: Mapping[str, Any]) -> list[Beside]:
    """Published scores of a record's data set, task, protocol and metric, best first.

    Scores on other editions of the data set are among them, with `same_data` False: the same name on the data is not
    the same data.

    Args:
        record: The JSON document of a run.
    """
    dataset = _part(record, "dataset")
    few = _few_shot_of(record)
    name = _plain_name(str(dataset.get("name") or "").removesuffix(_FOLDS))
    # A plain score of one fold is a few-shot score; no paper votes on folds or fits a linear SVM to them.
    protocol = "few-shot" if few and record.get("protocol") == "plain" else record.get("protocol")
    metrics = _part(record, "metrics")
    asked = str(dataset.get("variant") or "").lower().replace("-", "_").replace("hardest", PB_T50_RS.name)
    editions = [e for e in (OBJ_BG, OBJ_ONLY, PB_T50_RS) if e.name in asked]
    found = [
        row
        for row in REPORTED
        if _plain_name(row.edition.dataset) == name
        and row.protocol == protocol
        and (row.edition is MODELNET_FEW_SHOT or not few)
        and row.task == record.get("task", "classification")
        and row.metric in metrics
        and (not few or not few.setting or row.setting == few.setting)
        and (not editions or row.edition in editions)
    ]
    beside = [_beside(row, record, dataset, few) for row in found]
    return sorted(beside, key=lambda b: (not b.same_data, -b.row.value, b.row.system))


def _beside(row: Reported, record: Mapping[str, Any], dataset: Mapping[str, Any], few: _FewShot | None) -> Beside:
    edition = row.edition
    sizes = _part(dataset, "splits")
    learned_from = sum(n for part in ("train", "val") if isinstance(n := sizes.get(part), int))
    scored_on = sizes.get("test")
    other: list[str] = []
    if edition.test and scored_on != edition.test:
        other.append(f"{edition.test:,} test clouds, here {_count(scored_on)}")
    if edition.train and learned_from != edition.train:
        other.append(f"{edition.train:,} clouds to learn from, here {_count(learned_from or None)}")
    up = dataset.get("up_axis")
    if up is not None and up != edition.up_axis:
        other.append(f"{edition.up_axis} up, here {up} up")
    if record.get("split") not in (None, "test"):
        other.append(f"scored on test, here on {record['split']}")
    if row.protocol == "few-shot" and (few is None or not few.setting):
        other.append(f"{row.setting} folds")
    if row.protocol == "few-shot" and few is not None and few.drawn:
        other.append(f"the published folds, here {few.drawn.replace(' here', '')}")
    if row.protocol == "few-shot" and few is not None and few.fold is not None:
        other.append(f"mean over ten published folds, here fold {few.fold} alone")
    differs = []
    points = record.get("points")
    if points != row.points:
        differs.append(f"{row.points:,} points, here {_count(points)}")
    model = _part(record, "model")
    if not model.get("pretrained"):
        differs.append("pretrained, here from scratch")
    if row.learned not in ("all", "linear SVM") and model.get("adaptation") != row.learned:
        differs.append(f"adapted by {row.learned}, here {model.get('adaptation') or 'nothing recorded'}")
    if row.learned == "all" and model.get("adaptation") not in (None, "full"):
        differs.append(f"everything learned, here {model['adaptation']}")
    if row.protocol == "vote":
        differs.append("the maximum over repeated votes, here the mean")
    if row.best_on_test and record.get("epoch_rule") not in (None, "best on test"):
        differs.append(f"epoch chosen on the test split, here {record['epoch_rule']}")
    return Beside(row, not other, (*other, *differs))


def _part(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "not recorded"


def _plain_name(name: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name or "").lower())


_FOLDS = "_few_shot"  # ends the names of sets of folds; the variant says "5-way 10-shot, fold 0"
_VARIANT = re.compile(r"(\d+)-way (\d+)-shot(?:, fold (\d+))?")


@dataclass(frozen=True)
class _FewShot:
    """What a few-shot record says of its folds: `5w10s` or an empty string, and which fold when it is one alone.

    `drawn` says how they were drawn, where they are not read from files.
    """

    setting: str
    fold: str | None
    drawn: str = ""


def _few_shot_of(record: Mapping[str, Any]) -> _FewShot | None:
    """None for other records. A mean over folds says way and shot under `few_shot`; one fold is known by its data."""
    dataset, several = _part(record, "dataset"), _part(record, "few_shot")
    if several.get("way") and several.get("shot"):
        origin = str(several.get("origin") or "")
        return _FewShot(f"{several['way']}w{several['shot']}s", None, origin if origin.startswith("drawn") else "")
    if str(dataset.get("name") or "").endswith(_FOLDS):
        found = _VARIANT.match(str(dataset.get("variant") or ""))
        if found:
            return _FewShot(f"{found[1]}w{found[2]}s", found[3])
        return _FewShot("", None)
    return _FewShot("", None) if record.get("protocol") == "few-shot" else None
