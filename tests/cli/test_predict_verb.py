"""`pointlift predict` and `features` on folders in which not everything is a good cloud."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import CLASSES, cli, cloud, refused

from pointlift.core.errors import UsageError
from pointlift.report import predictions
from pointlift.tasks import saliency


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clouds, one of them in a folder below, and one file of noise between them."""
    place = tmp_path / "scans"
    (place / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.npy", "c.npy", "below/d.npy"):
        np.save(place / name, cloud(1, rng, 90))
    (place / "b.npy").write_bytes(b"noise")
    return place


def test_a_bad_file_is_named_and_the_others_are_answered(run: Path, folder: Path, tmp_path: Path) -> None:
    ended = cli("predict", run, folder, "--out", tmp_path / "out")
    assert ended.code == 1
    rows = ended.out.splitlines()
    assert len(rows) == 5
    assert sum(row.startswith("(failed)") and row.endswith("b.npy") for row in rows) == 1
    assert sum(row.split()[0] in CLASSES for row in rows) == 3
    assert "b.npy" in ended.err
    assert "1 of 4 clouds could not be read" in ended.err
    assert "Traceback" not in ended.err
    saved = json.loads((tmp_path / "out" / "predictions.json").read_text())
    said = cli("predict", run, folder, "--json")
    assert said.code == 1
    assert json.loads(said.out) == saved
    assert [p["error"] is None for p in saved["predictions"]] == [True, False, True, True]
    assert saved["predictions"][1]["label"] is None


def test_one_bad_file_alone_is_an_error(run: Path, folder: Path) -> None:
    refused(cli("predict", run, folder / "b.npy"), "b.npy", code=1)


def test_batch_size_changes_nothing(run: Path, folder: Path) -> None:
    (folder / "b.npy").unlink()
    answers = [json.loads(cli("predict", run, folder, "--json", "--batch-size", n).out) for n in ("1", "2", "32")]
    for answer in answers[1:]:
        for p, q in zip(answer["predictions"], answers[0]["predictions"], strict=True):
            assert p["probabilities"] == pytest.approx(q["probabilities"], abs=1e-6)
    refused(cli("predict", run, folder, "--batch-size", "0"), "batch-size", code=2)


def test_small_clouds_are_answered_with_a_note(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones((1, 3)))
    ended = cli("predict", run, tmp_path / "one.npy")
    assert ended.code == 0
    assert "The cloud has 1 point;" in ended.err


def test_page(run: Path, folder: Path, tmp_path: Path) -> None:
    for switch in ("--saliency", "--no-saliency"):
        page = tmp_path / f"page{switch}.html"
        ended = cli("predict", run, folder, "--html", page, switch)
        assert ended.code == 1  # of b.npy
        assert f"wrote {page}" in ended.err
        text = page.read_text()
        assert all(name in text for name in ("a.npy", "b.npy", "c.npy", "d.npy"))


def test_page_without_the_files_that_went_meanwhile(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered, and gone before the page was made: the page says so and shows the others."""
    (folder / "b.npy").unlink()
    page = tmp_path / "page.html"
    real = predictions.write_predictions_page

    def late(items, out, **options):
        (folder / "a.npy").unlink()
        return real(items, out, **options)

    monkeypatch.setattr(predictions, "write_predictions_page", late)
    ended = cli("predict", run, folder, "--html", page)
    assert ended.code == 1
    assert "error: no file" in ended.err
    assert "1 of 3 clouds could not be read" in ended.err
    assert "a.npy" in page.read_text()
    assert '"n":90' in page.read_text().replace(" ", "")


def test_page_of_clouds_without_saliency(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise UsageError("a share of points", "fewer")

    monkeypatch.setattr(saliency, "occlusion", refused)
    page = tmp_path / "page.html"
    ended = cli("predict", run, folder / "a.npy", "--html", page)
    assert ended.code == 0
    assert "No saliency: a share of points" in ended.err
    assert "No saliency: a share of points" in page.read_text()


def test_features_of_what_can_be_read(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npz"
    ended = cli("features", run, folder, "--out", out)
    assert ended.code == 1
    assert "b.npy" in ended.err
    assert "3 vectors of 32; 1 left out" in ended.err
    with np.load(out) as saved:
        assert [Path(p).name for p in saved["paths"]] == ["a.npy", "d.npy", "c.npy"]
        assert saved["features"].shape == (3, 32)
    refused(cli("features", run, folder / "b.npy", "--out", tmp_path / "g.npz"), "b.npy", code=1)
    assert not (tmp_path / "g.npz").exists()
