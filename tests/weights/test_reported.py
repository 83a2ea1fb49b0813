"""Published scores beside a record: which rows fit, whether the data are the same, and what differs."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from pointlift.data.loading import load_dataset
from pointlift.tasks.record import describe_dataset
from pointlift.weights.entries import WEIGHTS
from pointlift.weights.reported import (
    ACT,
    ANY2POINT,
    I2P_MAE,
    POINT_BERT,
    POINT_M2AE,
    POINT_MAE,
    POINT_PEFT,
    REPORTED,
    Reported,
    rows_for,
)

OFFICIAL = {
    "task": "classification",
    "protocol": "plain",
    "dataset": {"name": "modelnet40", "splits": {"train": 9000, "val": 843, "test": 2468}, "up_axis": "y"},
    "split": "test",
    "metrics": {"overall_accuracy": 0.93},
    "points": 1024,
    "model": {"adaptation": "full", "pretrained": "point_mae_base.shapenet55"},
    "epoch_rule": "best on test",
}


def changed(**change):
    return OFFICIAL | change


def test_scores_are_fractions_with_a_paper_and_a_source():
    for row in REPORTED:
        assert 0.5 < row.value < 1, row
        assert re.fullmatch(r"\d{4}\.\d{5}", row.paper)
        assert row.source
    assert len({(r.system, r.edition, r.protocol, r.metric, r.points, r.setting) for r in REPORTED}) == len(REPORTED)


def test_the_row_of_the_same_protocol_on_the_same_data():
    found = {(b.row.system, b.row.points): b for b in rows_for(OFFICIAL)}
    assert {b.row.protocol for b in found.values()} == {"plain"}
    same = found["Point-MAE", 1024]
    assert same.row.value == 0.932
    assert same.same_data
    assert same.differs == ()
    assert found["Point-MAE", 8192].differs == ("8,192 points, here 1,024",)
    assert "adapted by any2point, here full" in found["Any2Point, language", 1024].differs


def test_best_first_and_the_same_data_before_other_data():
    values = [b.row.value for b in rows_for(OFFICIAL)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({"splits": {"train": 8858, "val": 985, "test": 1234}}, "2,468 test clouds, here 1,234"),
        ({"splits": {"train": 900, "test": 2468}}, "9,843 clouds to learn from, here 900"),
        ({"up_axis": "z"}, "y up, here z up"),
        ({"splits": None}, "2,468 test clouds, here not recorded"),
    ],
)
def test_another_edition_is_not_the_same_data(dataset, said):
    found = rows_for(changed(dataset=OFFICIAL["dataset"] | dataset))
    assert found
    assert all(not b.same_data and said in b.differs for b in found)


def test_what_differs_besides_the_data():
    record = changed(model={"adaptation": "linear", "pretrained": None}, epoch_rule="best on validation")
    mae = next(b for b in rows_for(record) if (b.row.system, b.row.points) == ("Point-MAE", 1024))
    assert mae.same_data
    assert mae.differs == (
        "pretrained, here from scratch",
        "everything learned, here linear",
        "epoch chosen on the test split, here best on validation",
    )


def test_scanobjectnn_rows_follow_the_variant():
    sizes = {"train": 11416, "test": 2882}
    scan = {"name": "ScanObjectNN", "variant": "PB-T50-RS", "splits": sizes, "up_axis": "y"}
    found = rows_for(changed(dataset=scan, points=2048))
    assert {b.row.edition.name for b in found} == {"pb_t50_rs"}
    assert {b.row.value for b in found if b.row.system == POINT_MAE[0]} == {0.8518}
    hardest = rows_for(changed(dataset=scan | {"variant": "hardest"}))
    assert {b.row.edition.name for b in hardest} == {"pb_t50_rs"}


def test_few_shot_svm_and_part_rows():
    few = rows_for(changed(protocol="few-shot", few_shot={"way": 10, "shot": 20}))
    assert {(b.row.system, b.row.value, b.row.std) for b in few} >= {(POINT_MAE[0], 0.95, 0.03), (ACT[0], 0.956, 0.028)}
    assert all(b.row.setting == "10w20s" for b in few)
    svm = {b.row.system: b.row.value for b in rows_for(changed(protocol="svm"))}
    assert svm == {POINT_BERT[0]: 0.874, POINT_M2AE[0]: 0.9287, I2P_MAE[0]: 0.9335}
    parts = changed(
        task="part_segmentation", dataset={"name": "ShapeNetPart"}, metrics={"instance_miou": 0.8, "class_miou": 0.8}
    )
    assert {b.row.value for b in rows_for(parts) if b.row.metric == "instance_miou"} == {0.8651, 0.861, 0.856}


def write_folds(root: Path) -> None:
    """A published few-shot fold in miniature."""
    rng = np.random.default_rng(0)
    clouds = [(rng.normal(size=(32, 3)).astype(np.float32), k % 5, k % 5) for k in range(10)]
    (root / "5way_10shot").mkdir(parents=True)
    with (root / "5way_10shot" / "3.pkl").open("wb") as file:
        pickle.dump({"train": clouds, "test": clouds}, file)


def test_a_run_on_a_few_shot_fold_stands_beside_few_shot_scores(tmp_path):
    write_folds(tmp_path / "ModelNetFewshot")
    data = load_dataset(tmp_path, name="modelnet40_few_shot", fold=3)
    record = changed(dataset=describe_dataset(data, data.splits))
    found = rows_for(record)
    assert {b.row.setting for b in found} == {"5w10s"}
    assert {(b.row.system, b.row.value) for b in found} >= {(POINT_MAE[0], 0.963), (ACT[0], 0.968)}
    assert all("mean over ten published folds, here fold 3 alone" in b.differs for b in found)
    assert not any(b.same_data for b in found)
    for protocol in ("svm", "vote"):
        assert rows_for(record | {"protocol": protocol}) == [], "whole-set scores are of other data"
    several = record | {"protocol": "few-shot", "few_shot": {"way": 5, "shot": 10}}
    assert all(b.same_data for b in rows_for(several))


def test_what_is_chosen_on_the_test_clouds():
    chosen = {row.protocol: row.best_on_test for row in REPORTED}
    assert chosen == {"plain": True, "vote": True, "few-shot": True, "svm": False}


@pytest.mark.parametrize("record", [{}, {"dataset": None}, {"dataset": {"name": "shapes"}, "protocol": "plain"}])
def test_records_that_no_paper_speaks_of(record):
    assert rows_for(record) == []


# How a card names the data of a row, and the protocol where that is not plain fine-tuning.
SAID = {
    "normal_resampled": "ModelNet40",
    "ply_hdf5_2048": "ModelNet40",
    "few-shot folds": "few-shot",
    "obj_bg": "OBJ.BG",
    "obj_only": "OBJ.ONLY",
    "pb_t50_rs": "PB",
    "partanno normal": "ShapeNetPart",
}


def number_in_card(row: Reported, lines: list[str]) -> float | None:
    """The number that stands for a row in its card: in the line of its data and protocol, at its place in the line."""
    if row.paper in (ANY2POINT[1], POINT_PEFT[1]):  # a column per data set; "before -> after"
        source = row.system.removeprefix("Any2Point, ").removeprefix("Point-PEFT on ")
        cells = next(line for line in lines if re.match(rf"\| {source}\b.*\d\d\.\d", line)).strip("| \n").split("|")
        last = cells[-1 if row.edition.dataset == "modelnet40" else -2].split("->")[-1]
        return float(re.search(r"\d\d\.\d+", last)[0])
    said, svm = SAID[row.edition.name], row.protocol == "svm"
    if row.protocol == "vote" and row.paper == POINT_BERT[1]:
        said = "with vote"  # below the plain ones, without the name of the data
    if "issue 45" in row.source:  # not in the table
        return float(re.search(r"8192 gives (\S+) plain", "".join(lines))[1])
    for line in lines:
        label, value, *_ = [*line.strip("| \n").split(" | "), ""]
        if not line.startswith("| ") or not re.search(said, label, re.I) or ("SVM" in label) != svm:
            continue
        numbers = [float(n) for n in re.findall(r"(?<![±\d.])\d\d\.\d+", value)]
        if numbers and "as recalled" not in line:
            return numbers[place(row, label)]
    return None


def place(row: Reported, label: str) -> int:
    """Which of several numbers in a line is the row's."""
    if row.setting:
        return ("5w10s", "5w20s", "10w10s", "10w20s").index(row.setting)
    if row.metric == "instance_miou":
        return int("class" in label)
    if row.edition.dataset == "scanobjectnn" or row.protocol == "svm":  # one name each, between slashes
        return next(i for i, part in enumerate(label.split("/")) if re.search(SAID[row.edition.name], part))
    if row.edition.dataset != "modelnet40":
        return 0
    if row.paper == POINT_BERT[1]:
        return (1024, 4096, 8192).index(row.points)
    if row.paper == POINT_MAE[1]:
        return 2 if row.protocol == "plain" else (1024, 8192).index(row.points)
    return int(row.protocol == "vote")


@pytest.mark.shared
def test_every_number_stands_in_the_line_of_its_card(shared: Path):
    papers = (POINT_BERT, POINT_MAE, POINT_M2AE, I2P_MAE, ACT, ANY2POINT, POINT_PEFT)
    cards = {paper: name.lower() for name, paper in papers}
    for row in REPORTED:
        lines = (shared / "methods" / f"{cards[row.paper]}.md").read_text("utf-8").splitlines(keepends=True)
        assert number_in_card(row, lines) == pytest.approx(100 * row.value), row
        assert row.std is None or f"{100 * row.value:.1f}±{100 * row.std:.1f}" in "".join(lines), row


@pytest.mark.parametrize("odd", [None, "x", -1, 0.5, True, [[1], None], {"a": {"b": 1}}], ids=repr)
def test_odd_values_in_a_record(odd):
    for key, value in OFFICIAL.items():
        rows_for(OFFICIAL | {key: odd})
        for inner in value if isinstance(value, dict) else ():
            rows_for(OFFICIAL | {key: value | {inner: odd}})


def test_weights_entries_report_the_same_scores():
    for name in WEIGHTS.names():
        entry = WEIGHTS.get(name)
        known = {row.value for row in REPORTED if row.paper == entry.paper}
        assert set(entry.reported.values()) <= known, name
