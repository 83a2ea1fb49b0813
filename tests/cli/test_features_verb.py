"""`pointlift features` on data sets, with its page; `pointlift report --show`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_runs import CLASSES, cli, cloud, refused


def test_a_data_set_with_a_page(run: Path, data: Path, tmp_path: Path) -> None:
    out, html = tmp_path / "f.npz", tmp_path / "new" / "f.html"
    ended = cli("features", run, data, "--split", "test", "--out", out, "--html", html)
    assert ended.code == 0, ended.err
    assert ended.out == ""
    with np.load(out) as saved:
        assert saved["features"].shape == (12, 32)
        assert saved["label"].tolist() == [0, 1, 2, 3] * 3
        assert tuple(saved["classes"]) == CLASSES
    page = html.read_text()
    assert "neighbours name the class" in page
    assert "What looks alike to the model" in page
    assert page.count("<circle data-i=") == 2 * 12


def test_files_of_ones_own_with_a_page_alone(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", cloud(i, rng, 50 + 30 * i))
    (tmp_path / "bad.npy").write_bytes(b"noise")
    ended = cli("features", run, tmp_path, "--html", tmp_path / "f.html")
    assert ended.code == 1
    assert "bad.npy" in ended.err
    assert "1 left out" in ended.err
    assert "No labels are known" in (tmp_path / "f.html").read_text()


def test_wrong_use(run: Path, data: Path, tmp_path: Path) -> None:
    refused(cli("features", run, data), "--out FILE.npz, --html FILE.html", code=2)
    refused(cli("features", run, data, "--html", tmp_path / "f.html", "--split", "tset"), "tset", code=2)
    refused(cli("features", run, data, "--html", tmp_path / "f.html", "--pooling", "maxx"), "maxx", code=2)
    refused(cli("features", run, "shappes", "--html", tmp_path / "f.html"), "shappes", code=1)


def test_show_is_for_pre_training_runs(run: Path, tmp_path: Path) -> None:
    refused(cli("report", run, "--show", "3"), "pre-training run", code=2)
    refused(cli("report", run, "--data", tmp_path), "--data without --show", code=2)
    refused(cli("report", run, run, "--show", "3"), "several runs", code=2)
