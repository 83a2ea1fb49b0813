"""`pointlift verify`: a record is run again; nothing but our own verbs is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import cli, refused


@pytest.fixture(scope="module")
def evaluation(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ended = cli("evaluate", run, "--data.root", data, "--json")
    path = tmp_path_factory.mktemp("records") / "evaluation.json"
    path.write_text(json.dumps(json.loads(ended.out)["record"]))
    return path


def changed(path: Path, **values: object) -> Path:
    other = path.with_name("changed.json")
    other.write_text(json.dumps(json.loads(path.read_text()) | values))
    return other


def test_a_run_is_the_same_again(run: Path) -> None:
    ended = cli("verify", run, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["same"] is True


def test_an_evaluation_is_the_same_until_a_number_is_touched(evaluation: Path) -> None:
    assert cli("verify", evaluation).out == "same\n"
    metrics = json.loads(evaluation.read_text())["metrics"]
    metrics["overall_accuracy"] += 0.01
    ended = cli("verify", changed(evaluation, metrics=metrics))
    assert (ended.code, ended.out.splitlines()[0]) == (1, "different")
    assert "overall_accuracy" in ended.out
    assert "loss" not in ended.out
    assert cli("verify", changed(evaluation, metrics=metrics), "--tolerance", "0.02").code == 0


def test_other_data_is_said(evaluation: Path) -> None:
    dataset = json.loads(evaluation.read_text())["dataset"] | {"content_hash": "0" * 64}
    ended = cli("verify", changed(evaluation, dataset=dataset))
    assert ended.code == 1
    assert "other data" in ended.out


@pytest.mark.parametrize("command", ["rm -rf /", "pointlift predict a b", "pointlift", "python -c 1", "pointlift 'x"])
def test_nothing_else_is_run(evaluation: Path, command: str) -> None:
    refused(cli("verify", changed(evaluation, command=command)), "pointlift demo", code=1)


def test_what_is_no_record(tmp_path: Path, evaluation: Path) -> None:
    refused(cli("verify", tmp_path / "none.json"), "no record", code=1)
    (tmp_path / "a.json").write_text("{")
    refused(cli("verify", tmp_path / "a.json"), "cannot be run again", code=1)
    refused(cli("verify", changed(evaluation, command=None)), "started from Python", code=1)
