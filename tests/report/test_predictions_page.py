"""The page of predictions: labels, colours, errors, sizes, and names that want to be code."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from pointlift.core.errors import UsageError
from pointlift.report import ShownPrediction, write_predictions_page
from pointlift.report.predictions import MOST_BYTES, point_bytes, share, shuffled

RNG = np.random.default_rng(0)
SHARES = {"mug": 0.7, "chair": 0.2, "car": 0.06, "bed": 0.02, "lamp": 0.015, "sofa": 0.005}


def prediction(**change):
    said = {"label": "mug", "index": 0, "probability": 0.7, "probabilities": SHARES, "error": None, "notes": ()}
    return SimpleNamespace(**said | change)


def shown(name="a.ply", count=300, **change):
    return ShownPrediction(name, RNG.normal(size=(count, 3)).astype(np.float32), prediction(), **change)


def failed(name="bad.ply", error="bad.ply ends in the middle of a point."):
    empty = prediction(label="", index=-1, probability=0.0, probabilities={}, error=error)
    return ShownPrediction(name, np.zeros((0, 3), np.float32), empty)


def written(items, out, **options):
    page = write_predictions_page(items, out / "page.html", **options).read_text("utf-8")
    visible = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", visible).replace("\u202f", " "))
    data = re.search(r'id="cloud-data">(.*?)</script>', page, re.S)
    return page, text, json.loads(data.group(1)) if data else None


def test_each_cloud_with_label_and_most_probable_classes(tmp_path):
    _, text, data = written([shown("scans/a.ply"), shown("scans/b.ply")], tmp_path, title="Of my model")
    assert "Of my model" in text
    assert text.count("70.0 %") == 4, "in the bars and in the table"
    assert "1.5 %" in text
    assert "sofa" not in text, "five classes are enough"
    assert [cloud["n"] for cloud in data["clouds"]] == [300, 300]
    assert "Saliency" not in text


def test_saliency_comes_with_a_sentence_and_is_shown_first(tmp_path):
    saliency = np.linspace(-0.1, 0.4, 300).astype(np.float32)
    page, text, data = written([shown(saliency=saliency, colors=np.zeros((300, 3), np.uint8))], tmp_path)
    assert "how much the probability of the label falls when the points around a place are removed" in text
    assert re.findall(r'<option value="([^"]+)">', page)[:2] == ["saliency", "own colours"]
    assert [c["title"] for c in data["clouds"][0]["colours"]] == ["saliency", "own colours"]
    assert data["clouds"][0]["colours"][0]["largest"] == 0.4


def test_files_that_failed_are_listed_with_why(tmp_path):
    _, text, _ = written([shown(), failed(), shown("c.ply")], tmp_path)
    assert "2 clouds, and 1 file that could not be used" in text
    assert "bad.ply ends in the middle of a point." in text
    _, text, data = written([failed()], tmp_path)
    assert "No cloud could be labelled" in text
    assert data is None


def test_notes_of_a_prediction_are_said(tmp_path):
    item = ShownPrediction("a.ply", np.zeros((5, 3)), prediction(notes=("5 points, fewer than groups",)))
    assert "5 points, fewer than groups" in written([item], tmp_path)[1]


def test_large_clouds_are_thinned_and_it_is_said(tmp_path):
    _, text, data = written([shown(count=230_000), shown(count=10)], tmp_path)
    assert [(c["n"], c["of"]) for c in data["clouds"]] == [(200_000, 230_000), (10, 10)]
    assert "1 cloud is drawn with fewer points than it has (at most 200,000" in text


def test_many_clouds_share_the_size_of_the_page():
    kept = share([shuffled(shown(count=n)) for n in (200, *[30_000] * 60)])
    assert kept[0].size == 200, "small clouds stay whole"
    assert len({k.size for k in kept[1:]}) == 1
    total = sum(k.size * point_bytes(k) for k in kept)
    assert MOST_BYTES * 0.99 < total <= MOST_BYTES
    assert kept[1].of == 30_000


def test_more_clouds_than_are_drawn_are_all_listed(tmp_path):
    _, text, data = written((shown(f"{i:04d}.ply", count=20) for i in range(430)), tmp_path)
    assert len(data["clouds"]) == 400
    assert "The first 400 clouds are drawn; the table below lists all 430" in text
    assert "0429.ply" in text


def test_evil_names_are_text(tmp_path):
    evil = "</script><script>window.pwned=1</script>"
    item = ShownPrediction(
        f"{evil}.ply",
        np.zeros((9, 3)),
        prediction(label=evil, probabilities={evil: 0.7, '"><img src=x onerror=window.pwned=1>': 0.3}, notes=(evil,)),
        part=np.zeros(9, np.int64),
        part_names=(evil,),
    )
    page, _, _ = written([item, failed(evil, evil)], tmp_path, title=evil)
    assert page.count("<script") == 3, "two blocks of data and our script"
    assert "<img" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"saliency": np.zeros(4, np.float32)}, "saliency of shape"),
        ({"colors": np.zeros((300, 4), np.uint8)}, "colors of shape"),
        ({"part": np.zeros((300, 1), np.int64)}, "part of shape"),
    ],
)
def test_arrays_without_a_row_per_point(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        write_predictions_page([shown(**change)], tmp_path / "p.html")
    assert not (tmp_path / "p.html").exists()


def test_an_axis_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="up"):
        write_predictions_page([], tmp_path / "p.html", up="w")
