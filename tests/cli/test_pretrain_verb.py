"""`pointlift pretrain`: from unlabelled clouds to a backbone that fine-tuning starts from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_runs import cli, refused

import pointlift as pl

RECIPE = """task: pretraining
epochs: 2
model:
  name: point_transformer
  options: {embed_dim: 16, depth: 1, num_heads: 2, patch_widths: [8, 16, 16], num_groups: 8, group_size: 8,
            pos_hidden: 8}
objective:
  name: masked
  options: {decoder_depth: 1, decoder_heads: 2}
data:
  points: 64
  batch_size: 8
  val_fraction: 0.25
  resample: {pool: all}
schedule:
  warmup_epochs: 0
"""


@pytest.fixture(scope="module")
def pretraining(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "pre.yaml"
    path.write_text(RECIPE.replace("data:\n", f"data:\n  root: {data}\n"))
    return path


@pytest.fixture(scope="module")
def pretrained(pretraining: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pre") / "run"
    ended = cli("pretrain", pretraining, "--monitor.data", data, "--out", out)
    assert ended.code == 0, ended.err
    assert "32 clouds of data" in ended.out
    return out


def test_the_run_folder(pretrained: Path) -> None:
    record = json.loads((pretrained / "record.json").read_text())
    assert record["task"] == "pretraining"
    assert record["objective"]["name"] == "masked"
    assert record["samples_seen"] == 2 * 16  # 18 of 24 clouds are not held out; the last two fill no batch
    assert 0 <= record["metrics"]["svm_accuracy"] <= 1
    assert record["metrics"]["loss"] > 0
    page = (pretrained / "report.html").read_text()
    assert "Linear SVM accuracy (monitor) on val" in page
    assert "verall accuracy" not in page
    assert "Classes and mistakes" not in page
    assert page.count(" data-linked aria-label=") == 8, "all held-out clouds: there are fewer than twelve"
    backbone, whole = (load_file(pretrained / d / "weights.safetensors") for d in ("model", "objective"))
    assert {f"backbone.{name}" for name in backbone} < whole.keys()
    assert not any(name.startswith(("decoder", "mask_token")) for name in backbone)


def test_fine_tuning_starts_from_it(pretrained: Path, recipe: Path, tmp_path: Path) -> None:
    given = ("--model.pretrained", pretrained, "--epochs", "1", "--data.limit", "8")
    ended = cli("finetune", recipe, *given, "--out", tmp_path / "same")
    assert ended.code == 0, ended.err
    record = json.loads((tmp_path / "same" / "record.json").read_text())
    assert record["model"]["pretrained"] == str(pretrained)
    with_token = ("--model.options.class_token", "true", "--model.options.pooling", "cls+max")
    ended = cli("finetune", recipe, *given, *with_token, "--out", tmp_path / "token")
    assert ended.code == 0, ended.err
    model = pl.create_model("point_transformer", pretrained=str(pretrained), class_token=True, pooling="cls+max")
    assert set(model.load_report.new) == {"cls_token", "cls_pos"}


def test_its_page_shows_what_is_stored_or_what_is_made_anew(pretrained: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    before = (run / "reconstructions.npz").read_bytes()
    for count, rows in ((2, 2), (0, 0), (12, 8)):
        ended = cli("report", run, "--show", count)
        assert ended.code == 0, ended.err
        assert (run / "report.html").read_text().count(" data-linked aria-label=") == rows
    assert (run / "reconstructions.npz").read_bytes() == before
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(f"root: {data}", "root: /nowhere"))
    refused(cli("report", run, "--show", "2"), "/nowhere", code=1)
    assert (run / "reconstructions.npz").read_bytes() == before
    assert cli("report", run, "--show", "0").code == 0  # to forget needs no data
    assert not (run / "reconstructions.npz").exists()
    (run / "reconstructions.npz").write_bytes(before)
    assert cli("report", run, "--png", tmp_path / "p.png").code == 0
    assert (tmp_path / "p.png").stat().st_size > 20_000


def test_it_resumes_bit_for_bit(pretraining: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli("pretrain", pretraining, "--out", whole).code == 0
    assert cli("pretrain", pretraining, "--out", parts).code == 0
    for path in (parts / "checkpoints").glob("*1.safetensors"):
        path.unlink()
    (parts / "record.json").unlink()
    ended = cli("pretrain", pretraining, "--out", parts, "--resume")
    assert ended.code == 0, ended.err
    first, second = (load_file(run / "objective" / "weights.safetensors") for run in (whole, parts))
    assert all((first[name] == second[name]).all() for name in first)


def test_a_packaged_recipe_takes_other_data(data: Path, tmp_path: Path) -> None:
    """The recipe's own set, and its options, do not get in the way."""
    for given in (("--data.root", data), ("--data.name", "auto", "--data.root", data)):
        ended = cli("pretrain", "point_mae/pretrain_procedural", *given, "--print-config")
        assert ended.code == 0, ended.err
        assert "count:" not in ended.out
        assert "name: auto" in ended.out


def test_wrong_use(pretraining: Path, recipe: Path, tmp_path: Path) -> None:
    refused(cli("finetune", pretraining, "--out", tmp_path / "a"), "pretraining", "pointlift pretrain", code=2)
    refused(cli("pretrain", pretraining, "--objective.name", "maskd", "--out", tmp_path / "a"), "masked", code=2)
    refused(cli("pretrain", pretraining, "--select", "test", "--out", tmp_path / "a"), "no test split", code=2)
    refused(cli("pretrain", pretraining, "--data.points", "4", "--out", tmp_path / "a"), "at least 8", code=1)
    refused(cli("pretrain", "point_bert/pretrain_procedural", "--out", tmp_path / "a"), "without a teacher", code=2)
    assert not (tmp_path / "a").exists()
