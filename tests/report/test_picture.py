"""The picture of a run: there is something on it, in every format, whatever the names and whatever is missing."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from pointlift.core.errors import UsageError
from pointlift.report import write_picture
from pointlift.report.picture import chosen, draw
from pointlift.report.run import read_run


def test_score_curves_confusions_and_clouds(tmp_path, write_run):
    record = write_run(tmp_path, clouds=24)
    figure = draw(read_run(tmp_path))
    words = [text.get_text() for text in figure.texts]
    assert f"{100 * record['metrics']['overall_accuracy']:.2f}" in words[1]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == ["Accuracy", "Loss", "Confusions (rows: true class)"]
    accuracy = figure.axes[0]
    assert [line.get_label() for line in accuracy.lines[:2]] == ["train", "validation"]
    assert accuracy.lines[2].get_xdata()[0] == 27, "the kept epoch, counted from 1"
    clouds = figure.axes[3:]
    assert len(clouds) == 6
    assert [bool("taken for" in axes.get_xlabel()) for axes in clouds] == [True] * 3 + [False] * 3


def test_every_format_and_the_same_bytes_each_time(tmp_path, write_run):
    from matplotlib.image import imread

    write_run(tmp_path / "run", classes=3, count=60, clouds=2)
    for ending, begin in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        first = write_picture(tmp_path / "run", tmp_path / f"a.{ending}").read_bytes()
        assert first.startswith(begin)
        if ending == "svg":  # the one that would hold dates and random names
            assert write_picture(tmp_path / "run", tmp_path / f"b.{ending}").read_bytes() == first
    image = imread(io.BytesIO((tmp_path / "a.png").read_bytes()))
    assert image.shape[1] == 1920
    assert 0.05 < np.mean(image[..., :3].min(axis=2) < 0.9) < 0.5, "neither empty nor full"


def test_names_are_drawn_as_they_are(tmp_path, write_run):
    names = ["$\\frac{1}$", "a $x$ b", "<script>", "é_^{", "x" * 90]
    write_run(tmp_path, classes=names, count=60, accuracy=0.5, clouds=6, record={"split": "$\\bad$"})
    assert write_picture(tmp_path, tmp_path / "p.png").stat().st_size > 10_000


@pytest.mark.parametrize("gone", ["predictions.npz", "metrics.jsonl"])
def test_what_is_missing_is_said(tmp_path, write_run, gone):
    write_run(tmp_path, count=60)
    (tmp_path / gone).unlink()
    said = [text.get_text() for axes in draw(read_run(tmp_path)).axes for text in axes.texts]
    assert any(gone in words for words in said)


@pytest.mark.parametrize("count", [2, 40, 90])
def test_any_number_of_classes(tmp_path, write_run, count):
    write_run(tmp_path, classes=count, count=200, epochs=1)
    assert draw(read_run(tmp_path)).axes


def test_other_endings_are_refused(tmp_path, write_run):
    write_run(tmp_path, count=60)
    with pytest.raises(UsageError, match=r"\.png, \.pdf or \.svg"):
        write_picture(tmp_path, tmp_path / "picture.gif")


def test_clouds_are_of_different_classes_where_there_are(tmp_path, write_run):
    from pointlift.report.gallery import gallery
    from pointlift.report.scores import softmax

    write_run(tmp_path, clouds=24)
    predictions = read_run(tmp_path).predictions
    tiles = chosen(gallery(predictions, softmax(predictions.logits)))
    assert len({tile.true for tile in tiles if tile.right}) == 3
    assert [tile.right for tile in tiles] == [False] * 3 + [True] * 3


@pytest.mark.parametrize("odd", [None, "x", -1, True, [[1], None], {"a": {"b": 1}}], ids=repr)
def test_odd_values_in_a_record_still_make_a_picture(tmp_path, write_run, odd):
    good = write_run(tmp_path, classes=3, count=12, epochs=2)
    halves = [list(good)[::2], list(good)[1::2]]
    for keys in halves:
        (tmp_path / "record.json").write_text(json.dumps(good | dict.fromkeys(keys, odd)))
        assert draw(read_run(tmp_path)).axes
