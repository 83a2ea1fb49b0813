"""Part segmentation through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import part_runs
import pytest
from tiny_runs import cli, refused

from pointlift.data.files import read


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return part_runs.write_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def parts(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; read only."""
    folder = tmp_path_factory.mktemp("runs")
    ended = cli("finetune", part_runs.write_recipe(folder / "parts.yaml", shapes), "--out", folder / "run")
    assert ended.code == 0, ended.err
    assert "instance mIoU" in ended.out
    return folder / "run"


@pytest.fixture
def lollipop(tmp_path: Path) -> Path:
    xyz, _ = part_runs.shape(0, np.random.default_rng(5), 150)
    np.savetxt(tmp_path / "lollipop.xyz", xyz)
    return tmp_path / "lollipop.xyz"


def test_the_page_is_there(parts: Path) -> None:
    assert "True and predicted parts" in (parts / "report.html").read_text("utf-8")


def test_evaluate(parts: Path, shapes: Path) -> None:
    ended = cli("evaluate", parts, "--data.root", shapes, "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["metrics"] == json.loads((parts / "record.json").read_text())["metrics"]
    assert "class mIoU" in cli("evaluate", parts).out
    refused(cli("evaluate", parts, "--protocol", "vote"), "no paper votes", code=2)


def test_predict_writes_coloured_clouds(parts: Path, lollipop: Path, tmp_path: Path) -> None:
    ended = cli(
        "predict", parts, lollipop, "--category", "lollipop", "--out", tmp_path / "o", "--html", tmp_path / "p.html"
    )
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[0].split() == ["part", "points", "share", "file"]
    written = read(tmp_path / "o" / "lollipop.parts.ply")
    np.testing.assert_allclose(written.xyz, read(lollipop).xyz, atol=1e-6)
    counts = json.loads((tmp_path / "o" / "predictions.json").read_text())["predictions"][0]["parts"]
    assert counts == {name: int((written.feats["part"] == i).sum()) for i, name in enumerate(part_runs.PARTS[:2])}
    for number in np.unique(written.feats["part"]):
        own = written.feats["colors"][written.feats["part"] == number]
        assert len(np.unique(own, axis=0)) == 1, "a colour per part"
    page = (tmp_path / "p.html").read_text("utf-8")
    assert "lollipop/ball" in page
    assert '"title": "parts"' in page.replace('"title":"parts"', '"title": "parts"')


def test_predict_counts_as_json_and_names_bad_files(parts: Path, lollipop: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.ply").write_text("no cloud")
    ended = cli("predict", parts, lollipop, tmp_path / "bad.ply", "--category", "lollipop", "--json")
    assert ended.code == 1
    good, bad = json.loads(ended.out)["predictions"]
    assert sum(good["parts"].values()) == good["points"] == 150
    assert (bad["parts"], bad["points"]) == (None, None)
    assert "bad.ply" in ended.err


def test_the_category_is_needed_and_only_for_parts(parts: Path, run: Path, lollipop: Path) -> None:
    refused(cli("predict", parts, lollipop), "lollipop, table", "--category", code=2)
    refused(cli("predict", parts, lollipop, "--category", "lolipop"), "Did you mean 'lollipop'", code=2)
    refused(cli("predict", run, lollipop, "--category", "rod"), "labels whole clouds", code=2)


def test_info_says_what_it_tells_apart(parts: Path) -> None:
    told = json.loads(cli("info", parts, "--json").out)
    assert told["categories"] == list(part_runs.CATEGORIES)
    assert told["output"] == [1, 64, 4]
    assert cli("info", parts).code == 0


@pytest.mark.parametrize("recipe", ["point_mae/shapenetpart", "point_bert/shapenetpart", "point_m2ae/shapenetpart"])
def test_other_data_in_a_published_recipe(recipe: str, shapes: Path) -> None:
    """The set's own name does not stay where another folder is given."""
    ended = cli("finetune", recipe, "--data.root", shapes, "--print-config")
    assert ended.code == 0, ended.err
    assert "name: auto" in ended.out
    assert "task: part_segmentation" in ended.out
