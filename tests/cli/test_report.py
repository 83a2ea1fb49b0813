"""`pointlift report`: one run, several, a picture."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_runs


@pytest.fixture
def two(run, tmp_path):
    """Two run folders, the same run twice."""
    return [shutil.copytree(run, tmp_path / name) for name in ("one", "two")]


def test_one_run_gets_its_page_where_asked(run, tmp_path):
    ended = tiny_runs.cli("report", run, "--out", tmp_path / "page.html")
    assert ended.code == 0, ended.err
    assert ended.out.strip() == str(tmp_path / "page.html")
    assert "Overall accuracy" in (tmp_path / "page.html").read_text()


def test_several_runs_are_compared(two, tmp_path):
    ended = tiny_runs.cli("report", *two)
    assert ended.code == 0, ended.err
    page = tmp_path / "comparison.html"
    assert ended.out.strip() == str(page)
    assert "2 runs compared" in page.read_text()


def test_damaged_predictions_are_made_anew_as_the_message_says(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "predictions.npz").write_bytes(b"PK damaged")
    ended = tiny_runs.cli("report", copy)
    assert ended.code == 1
    assert "remove record.json and give the run's command with --resume" in ended.err
    recipe = json.loads((copy / "record.json").read_text())["command"].split()[2]
    (copy / "record.json").unlink()
    ended = tiny_runs.cli("finetune", recipe, "--out", copy, "--resume")
    assert ended.code == 0, ended.err
    assert tiny_runs.cli("report", copy).code == 0


def test_a_picture(run, tmp_path):
    ended = tiny_runs.cli("report", run, "--png", tmp_path / "run.png")
    assert ended.code == 0, ended.err
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_wrong_use(two, tmp_path):
    for words in (
        (*two, "--png", tmp_path / "x.png"),
        (two[0], "--png", tmp_path / "x.png", "--out", tmp_path / "y"),
        (two[0], "--png", tmp_path / "x.gif"),
        (two[0], two[0]),
    ):
        ended = tiny_runs.cli("report", *words)
        assert ended.code == 2, words
        assert ended.err.startswith("error:")
    assert tiny_runs.cli("report", tmp_path).code == 1
