"""The page of a part segmentation run: scores, categories, and true beside predicted parts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError
from pointlift.report import write_comparison, write_report
from pointlift.report.page import context
from pointlift.report.run import read_run
from pointlift.report.segments import read_segments, shown

EVIL = "<img src=x onerror=window.pwned=1>"
CATEGORIES = ("Chair", EVIL)
PARTS = ("Chair/leg", "Chair/seat", f"{EVIL}/a", f"{EVIL}/b")


def write_parts(folder, write_run, *, clouds: int = 8, **record) -> dict:
    """A run of 20 shapes of 64 points; shape i has about i / 20 of its points wrong."""
    rng = np.random.default_rng(0)
    count, points = 20, 64
    category = np.arange(count) % 2
    part = 2 * category[:, None] + rng.integers(0, 2, (count, points))
    wrong = rng.random((count, points)) < np.arange(count)[:, None] / 20
    pred = np.where(wrong, 2 * category[:, None] + 1 - part % 2, part)
    iou = 1 - np.arange(count, dtype=np.float32) / 20
    made = {
        "task": "part_segmentation",
        "metrics": {"instance_miou": 0.525, "class_miou": 0.52, "overall_accuracy": 0.6, "loss": 0.7},
        "validation": {"instance_miou": 0.6, "class_miou": 0.61, "overall_accuracy": 0.7, "loss": 0.6},
        "categories": {
            "Chair": {"clouds": 10, "iou": 0.55, "parts": {"Chair/leg": 0.4, "Chair/seat": 0.7}},
            EVIL: {"clouds": 10, "iou": 0.5, "parts": {f"{EVIL}/a": 0.5, f"{EVIL}/b": 0.5}},
        },
    }
    whole = write_run(folder, classes=list(CATEGORIES), count=4, record=made | record)
    arrays = {
        "pred": pred.astype(np.uint8), "part": part.astype(np.uint8), "category": category, "iou": iou,
        "index": np.arange(count), "names": np.array([f"shape {i}{EVIL}" for i in range(count)]),
        "categories": np.array(CATEGORIES), "parts": np.array(PARTS),
    }  # fmt: skip
    if clouds:
        chosen = np.arange(clouds) * 2
        xyz = rng.uniform(-1, 1, (clouds, points, 3)) * [1, 0.4, 0.7]
        arrays |= {"xyz_i16": np.round(xyz * 32767).astype(np.int16), "xyz_index": chosen}
    np.savez_compressed(folder / "predictions.npz", **arrays)
    return whole


def test_the_page_says_what_was_measured(tmp_path, write_run):
    write_parts(tmp_path, write_run)
    told = context(read_run(tmp_path))
    assert (told["score"].replace("\N{NARROW NO-BREAK SPACE}", " "), told["score_name"]) == ("52.5 %", "instance mIoU")
    assert [name for name, _ in told["other_metrics"]] == ["overall accuracy", "loss", "class mIoU"]
    assert [row.label for row in told["split_scores"]] == ["overall accuracy", "loss", "class mIoU", "instance mIoU"]
    rows = told["category_rows"]
    assert [(row.name, row.clouds, row.parts[0]) for row in rows] == [
        ("Chair", 10, ("leg", 0.4)),
        (EVIL, 10, ("a", 0.5)),
    ]
    assert told["matrix"] is None
    page = write_report(tmp_path).read_text("utf-8")
    assert EVIL not in page
    assert "No confusion matrix" not in page


def test_worst_first_and_both_sides_of_every_cloud(tmp_path, write_run):
    write_parts(tmp_path, write_run)
    section = shown(read_segments(tmp_path / "predictions.npz"))
    assert [row.iou for row in section.rows] == pytest.approx([1 - i / 20 for i in range(14, -1, -2)])
    assert [(row.true, row.predicted) for row in section.rows] == [(2 * i, 2 * i + 1) for i in range(8)]
    last = section.rows[-1]  # the cloud without a mistake
    assert section.packed[last.true]["colours"] == section.packed[last.predicted]["colours"]
    assert section.packed[last.true]["xyz"] == section.packed[last.predicted]["xyz"]
    assert [key.iou for key in last.keys] == [1.0, 1.0]
    first = section.rows[0]
    assert section.packed[first.true]["colours"][0] != section.packed[first.predicted]["colours"][0]
    assert section.packed[first.true]["colours"][1] == section.packed[first.predicted]["colours"][1]  # the mistakes
    assert [key.name for key in first.keys] == ["Chair/leg", "Chair/seat"]


def test_without_clouds_or_predictions(tmp_path, write_run):
    write_parts(tmp_path, write_run, clouds=0)
    assert "No clouds to look at" in write_report(tmp_path).read_text("utf-8")
    (tmp_path / "predictions.npz").unlink()
    assert "No clouds to look at" in write_report(tmp_path).read_text("utf-8")
    write_parts(tmp_path, write_run, categories=[1, 2], metrics={})
    assert "Categories" not in write_report(tmp_path).read_text("utf-8")


def test_published_scores_stand_beside_shapenetpart_alone(tmp_path, write_run):
    dataset = {"name": "shapenetpart", "variant": "normal", "splits": {"train": 12137, "val": 1870, "test": 2874}}
    write_parts(tmp_path / "a", write_run, dataset=dataset)
    table = context(read_run(tmp_path / "a"))["beside"]
    assert table.same
    assert {row.value.replace("\N{NARROW NO-BREAK SPACE}", " ") for row in table.rows} >= {"86.10 %", "86.51 %"}
    write_parts(tmp_path / "b", write_run)
    assert context(read_run(tmp_path / "b"))["beside"] is None


def test_runs_of_parts_are_compared_by_their_own_score(tmp_path, write_run):
    for name, iou in (("a", 0.4), ("b", 0.7)):
        metrics = {"instance_miou": iou, "class_miou": 0.5, "overall_accuracy": 0.9, "loss": 1.0}
        write_parts(tmp_path / name, write_run, metrics=metrics)
    page = write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html").read_text("utf-8")
    assert "instance mIoU" in page
    assert "overall accuracy" not in page
    assert page.index("70.00") < page.index("40.00"), "best first"
    assert "the parts of a cloud are neither" in page
    write_run(tmp_path / "d", classes=list(CATEGORIES), count=20)
    mixed = write_comparison([tmp_path / "a", tmp_path / "d"], tmp_path / "m.html").read_text("utf-8")
    assert "Not comparable" in mixed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred": None}, "pred"),
        ({"pred": np.full((20, 64), 4, np.uint8)}, "below 4"),
        ({"part": np.zeros((20, 63), np.uint8)}, "part"),
        ({"category": np.full(20, -1)}, "category"),
        ({"iou": np.full(20, np.nan, np.float32)}, "iou"),
        ({"names": np.zeros(20)}, "names"),
        ({"pred": np.array(3)}, "pred"),
        ({"pred": np.zeros((20, 0), int), "part": np.zeros((20, 0), int)}, "pred"),
        ({"index": np.full(20, np.nan)}, "index"),
        ({"xyz_index": np.full(8, 99)}, "xyz_index"),
        ({"xyz_i16": np.zeros((8, 7, 3), np.int16)}, "xyz_i16"),
    ],
)
def test_malformed_predictions_are_refused(tmp_path, write_run, change, words):
    write_parts(tmp_path, write_run)
    with np.load(tmp_path / "predictions.npz") as saved:
        arrays = {key: value for key, value in {**saved, **change}.items() if value is not None}
    np.savez(tmp_path / "predictions.npz", **arrays)
    with pytest.raises(FileFormatError, match=words):
        write_report(tmp_path)


@pytest.mark.browser
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)], ids=["phone", "desktop"])
def test_both_sides_are_drawn_and_turn_together(show, tmp_path, write_run, size):
    write_parts(tmp_path, write_run)
    page = show(write_report(tmp_path), size, still=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("window.pwned") is None
    pixels = """(i => {
      const c = document.querySelectorAll("#segments canvas")[i];
      return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data];
    })"""
    ink = f"(i => {pixels}(i).filter((v, k) => k % 4 === 3 && v > 0).length)"
    sums = f"[0, 1].map(i => {pixels}(i).reduce((s, v, k) => (s * 31 + v * (k % 7)) % 1000003, 0))"
    assert page.evaluate(f"{ink}(0)") > 500
    before = page.evaluate(sums)
    assert before[0] != before[1], "the answer is not the truth"
    page.evaluate("document.querySelectorAll('#segments canvas')[0].focus()")
    page.key("ArrowLeft")
    after = page.evaluate(sums)
    assert after[0] != before[0]
    assert after[1] != before[1], "the other side turns with it"
    page.evaluate(
        "(s => { s.value = 'mistakes'; s.dispatchEvent(new Event('change')); })(document.getElementById('cloud-mode'))"
    )
    assert "wrong" in page.evaluate("document.getElementById('cloud-legend').textContent")
    recorded = json.loads((tmp_path / "record.json").read_text())
    assert recorded["task"] in page.evaluate("document.querySelector('.record').textContent")
