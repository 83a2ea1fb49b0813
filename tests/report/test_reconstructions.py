"""Reconstructions of a pre-training run: read and checked, as rows of clouds on the page, and on the picture."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from pointlift.core.errors import FileFormatError
from pointlift.report import write_picture, write_report
from pointlift.report.picture import draw
from pointlift.report.reconstructions import HIDDEN, MOST_BYTES, REBUILT, ROLE, SEEN, read_reconstructions, shown
from pointlift.report.run import read_run


def text_of(page: str) -> str:
    """The page's words."""
    visible = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", visible).replace("\u202f", " "))


def coordinates(packed):
    return np.frombuffer(base64.b64decode(packed["xyz"]), "<i2").reshape(-1, 3) / 32767


def values(packed, title):
    data = next(c["data"] for c in packed["colours"] if c["title"] == title)
    return np.frombuffer(base64.b64decode(data), np.uint8)


def test_what_is_stored_is_what_is_read(tmp_path, write_pretraining):
    write_pretraining(tmp_path, clouds=3)
    found = read_reconstructions(tmp_path / "reconstructions.npz")
    assert (found.split, found.masked, len(found.items)) == ("val", True, 3)
    item = found.items[1]
    assert item.name == "bathtub"
    assert (len(item.whole), len(item.given), len(item.rebuilt), len(item.coarse)) == (512, 256, 256, 0)
    assert item.cd_l2 == pytest.approx(0.0015)
    np.testing.assert_allclose(item.whole[256:], item.target, atol=1e-6)
    assert 0.1 < np.linalg.norm(item.rebuilt - item.target, axis=1).mean() < 0.25


def test_a_row_has_one_frame_and_says_what_was_seen(tmp_path, write_pretraining):
    write_pretraining(tmp_path, clouds=2)
    view = shown(read_reconstructions(tmp_path / "reconstructions.npz"))
    assert [panel.title for panel in view.rows[0].panels] == ["input", "seen", "hidden", "prediction"]
    whole, given, hidden, both = view.packed[:4]
    assert np.bincount(values(whole, ROLE), minlength=3).tolist() == [256, 0, 256]
    assert (set(values(given, ROLE)), set(values(hidden, ROLE))) == ({SEEN}, {HIDDEN})
    assert set(values(both, ROLE)) == {SEEN, REBUILT}
    assert view.modes == [ROLE, "plain", "height"]
    inside = {tuple(row) for row in coordinates(whole)}
    assert all(min(np.abs(np.array(list(inside)) - p).max(axis=1)) < 1e-3 for p in coordinates(given)[:20])
    assert np.linalg.norm(coordinates(both), axis=1).max() == pytest.approx(1, abs=2e-3), "the widest fills the ball"


def test_without_a_mask_the_sketch_stands_between_and_codes_colour(tmp_path, write_pretraining):
    write_pretraining(tmp_path, clouds=2, masked=False, codes=True)
    view = shown(read_reconstructions(tmp_path / "reconstructions.npz"))
    assert [panel.title for panel in view.rows[1].panels] == ["input", "coarse", "rebuilt"]
    assert view.modes == ["code", "plain", "height"]
    colours = [{tuple(c) for c in values(packed, "code").reshape(-1, 3)} for packed in view.packed[:3]]
    assert colours[0] == colours[1] == colours[2], "the same codes in the same colours"
    assert len(colours[0]) == 16


def test_many_clouds_stay_small(tmp_path, write_pretraining):
    write_pretraining(tmp_path, clouds=40)
    view = shown(read_reconstructions(tmp_path / "reconstructions.npz"))
    assert (len(view.rows), view.stored) == (24, 40)
    assert sum(10 * packed["n"] for packed in view.packed) <= MOST_BYTES
    page = write_report(tmp_path)
    assert page.stat().st_size < 1_200_000
    assert "The first 24 of 40 stored clouds are shown." in text_of(page.read_text("utf-8"))


def test_the_page(tmp_path, write_pretraining):
    write_pretraining(tmp_path, monitor=True)
    page = write_report(tmp_path).read_text("utf-8")
    text = text_of(page)
    assert "CD-L2 1.00 · CD-L1 10.0" in text
    assert "The network sees some patches of a cloud and rebuilds the hidden ones." in text
    assert "The clouds were held out" in text
    assert page.count(" data-linked aria-label=") == 6
    assert "linear SVM on frozen features" in text
    data = json.loads(re.search(r'id="cloud-data">(.*?)</script>', page, re.S).group(1))
    assert len(data["clouds"]) == 24


@pytest.mark.parametrize(
    ("config", "said"), [("keep_clouds: 0\n", "No clouds were kept"), ("epochs: 3\n", "has no reconstructions")]
)
def test_a_run_without_clouds_says_why(tmp_path, write_pretraining, config, said):
    write_pretraining(tmp_path, clouds=0)
    (tmp_path / "config.yaml").write_text(config)
    text = text_of(write_report(tmp_path).read_text("utf-8"))
    assert said in text
    assert "--show 12" in text


def test_clouds_that_were_learned_from_are_said_to_be(tmp_path, write_pretraining):
    write_pretraining(tmp_path, clouds=2)
    change(tmp_path, split=np.array("train"))
    assert "These clouds were learned from" in text_of(write_report(tmp_path).read_text("utf-8"))


def change(folder, **arrays):
    """Replace arrays of the file; None removes one."""
    path = folder / "reconstructions.npz"
    with np.load(path) as saved:
        all_of_them = dict(saved) | arrays
    np.savez(path, **{name: value for name, value in all_of_them.items() if value is not None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("whole_i16", None),
        ("whole_count", np.array([1, 2])),
        ("given_i16", np.zeros((512, 3), np.float32)),
        ("rebuilt_count", np.array([-1, 513])),
        ("scale", np.array([0.0, 1.0], np.float32)),
        ("scale", np.array([np.nan, 1.0], np.float32)),
        ("scale", np.array([1e300, 1.0])),
        ("cd_l2", np.zeros((2, 2), np.float32)),
        ("cd_l1", np.zeros(3, np.float32)),
        ("cd_l2", np.array([0.1, np.nan], np.float32)),
        ("names", np.arange(2)),
        ("centers_i16", np.zeros((2, 0, 3), np.int16)),
        ("codes", np.zeros((2, 3), np.int64)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_file_is_refused_by_name(tmp_path, write_pretraining, name, value):
    write_pretraining(tmp_path, clouds=2)
    change(tmp_path, **{name: value})
    with pytest.raises(FileFormatError, match=name):
        write_report(tmp_path)


def test_a_file_cut_short_says_how_to_make_it_anew(tmp_path, write_pretraining):
    write_pretraining(tmp_path, clouds=2)
    path = tmp_path / "reconstructions.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileFormatError, match="pointlift report RUN --show"):
        write_report(tmp_path)


@pytest.mark.parametrize("part", ["whole", "given"])
def test_a_cloud_without_points_of_a_part(tmp_path, write_pretraining, part):
    """An input must have points; a cloud of which nothing was seen is drawn without."""
    write_pretraining(tmp_path, clouds=2)
    with np.load(tmp_path / "reconstructions.npz") as saved:
        first, second = saved[f"{part}_count"].tolist()
        kept = saved[f"{part}_i16"][first:]
    change(tmp_path, **{f"{part}_count": np.array([0, second]), f"{part}_i16": kept})
    if part == "whole":
        with pytest.raises(FileFormatError, match="whole_i16"):
            write_report(tmp_path)
    else:
        assert write_report(tmp_path).is_file()
        assert write_picture(tmp_path, tmp_path / "run.png").stat().st_size > 10_000


def test_evil_names_are_text(tmp_path, write_pretraining):
    write_pretraining(tmp_path, clouds=1)
    change(tmp_path, names=np.array(["</script><script>window.pwned=1</script>"]))
    page = write_report(tmp_path).read_text("utf-8")
    assert page.count("<script") == 3, "two blocks of data and our script"


@pytest.mark.parametrize("masked", [True, False])
def test_the_picture_has_curves_and_clouds(tmp_path, write_pretraining, masked):
    write_pretraining(tmp_path, masked=masked, monitor=masked)
    figure = draw(read_run(tmp_path))
    titles = [axes.get_title(loc="left") for axes in figure.axes[:2]]
    assert titles == ["Loss", "Accuracy of a linear SVM on frozen features" if masked else "Learning rate"]
    assert [line.get_label() for line in figure.axes[0].lines[:2]] == ["train", "validation"]
    rows = [axes.get_ylabel() for axes in figure.axes[2:] if axes.get_ylabel()]
    assert rows == (["input", "seen", "prediction"] if masked else ["input", "coarse", "rebuilt"])
    assert len(figure.axes) == 2 + 18
    assert "71.00" in figure.texts[1].get_text() if masked else "0.0312" in figure.texts[1].get_text()
    assert write_picture(tmp_path, tmp_path / "p.png").stat().st_size > 50_000


def test_the_picture_says_what_is_missing(tmp_path, write_pretraining):
    write_pretraining(tmp_path, clouds=0)
    (tmp_path / "metrics.jsonl").unlink()
    said = [text.get_text() for axes in draw(read_run(tmp_path)).axes for text in axes.texts]
    assert sum("metrics.jsonl" in words for words in said) == 2
    assert sum("reconstructions.npz" in words for words in said) == 1


@pytest.mark.parametrize("odd", [None, "x", -1, True, [[1], None], {"a": {"b": 1}}], ids=repr)
def test_odd_values_in_a_record_still_make_page_and_picture(tmp_path, write_pretraining, odd):
    good = write_pretraining(tmp_path, clouds=1, epochs=2)
    for keys in (list(good)[::2], list(good)[1::2]):
        record = good | dict.fromkeys(keys, odd) | {"task": "pretraining"}
        (tmp_path / "record.json").write_text(json.dumps(record))
        assert "</html>" in write_report(tmp_path).read_text("utf-8")
        assert draw(read_run(tmp_path)).axes


def test_one_thread_is_one(tmp_path, write_pretraining):
    for threads, said in ((1, "CPU, 1 thread, fp32"), (2, "CPU, 2 threads, fp32")):
        device = {"name": "CPU", "threads": threads, "precision": "fp32"}
        write_pretraining(tmp_path, clouds=0, record={"device": device})
        assert said in text_of(write_report(tmp_path).read_text("utf-8"))
