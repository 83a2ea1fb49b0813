"""Runs inside a run's folder stand beside it, if they were scored on the same clouds."""

from __future__ import annotations

import json

from pointlift.report import write_report
from pointlift.report.inside import runs_inside
from pointlift.report.run import read_record

EVIL = "<img src=x onerror=alert(1)>"


def changed(folder, **dataset) -> None:
    path = folder / "record.json"
    record = json.loads(path.read_text())
    record["dataset"] |= dataset
    path.write_text(json.dumps(record))


def test_runs_on_the_same_clouds_stand_beside(tmp_path, write_run):
    write_run(tmp_path, classes=["cap", "mug"], count=8)
    write_run(tmp_path / "from_scratch", classes=["cap", "mug"], count=8, record={"model": {"pretrained": EVIL}})
    write_run(tmp_path / "other", classes=["cap", "mug"], count=8)
    changed(tmp_path / "other", content_hash="another")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "record.json").write_text("{")
    found = runs_inside(tmp_path, read_record(tmp_path / "record.json"), 1)
    assert [(row.name, row.own) for row in found.rows] == [("this run", True), ("from scratch", False)]
    assert found.page == ""
    (tmp_path / "comparison.html").write_text("there")
    page = write_report(tmp_path).read_text("utf-8")
    assert "Side by side" in page
    assert 'href="comparison.html"' in page
    assert EVIL not in page


def test_clouds_that_no_record_names_are_not_the_same(tmp_path, write_run):
    for folder in (tmp_path, tmp_path / "other"):
        write_run(folder, classes=["cap", "mug"], count=8)
        changed(folder, content_hash=None)
    assert runs_inside(tmp_path, read_record(tmp_path / "record.json"), 1) is None
