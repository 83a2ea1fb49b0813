"""`pointlift convert YAML [CHECKPOINT] OUT`, and that what comes out runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from released_forks import RELEASED, TINY, TINY_RUN, released_state, tiny_checkpoint, write_fork
from tiny_runs import cli, refused

from pointlift.core.config import merge

TINY_FORK = merge(RELEASED["mae"], {"model": TINY, **TINY_RUN})


def scans(folder: Path, clouds: int = 30) -> Path:
    """PB_T50_RS in the authors' layout, with a few tiny clouds of all 15 classes."""
    import h5py

    draw = np.random.default_rng(0)
    (folder / "main_split").mkdir(parents=True)
    for part in ("training", "test"):
        with h5py.File(folder / "main_split" / f"{part}_objectdataset_augmentedrot_scale75.h5", "w") as file:
            label = np.arange(clouds) % 15
            points = draw.normal(size=(clouds, 80, 3)) * (1 + label[:, None, None] / 5)
            file["data"], file["label"] = points.astype(np.float32), label
    return folder


def test_a_fork_runs_from_its_yaml_and_checkpoint(tmp_path: Path) -> None:
    path = write_fork(tmp_path, merge(TINY_FORK, {"model": {"use_mamba": True}}))
    checkpoint = tiny_checkpoint(tmp_path / "ckpt-best.pth", released_state(classes=15))
    out, data = tmp_path / "fork", scans(tmp_path / "ScanObjectNN")
    ended = cli("convert", path, checkpoint, out)
    assert ended.code == 0, ended.err
    assert "0 unexplained" in ended.out
    assert "1 not understood" in ended.out
    assert "NOT UNDERSTOOD: model.use_mamba = True" in ended.err
    assert {p.name for p in out.iterdir()} == {"recipe.yaml", "model.safetensors", "load_report.json", "report.md"}

    scored = cli("evaluate", out / "model.safetensors", "--data.root", data, "--data.variant", "PB", "--json")
    assert scored.code == 0, scored.err
    record = json.loads(scored.out)["record"]
    assert record["quirks"]["skip_near_origin"] is True
    assert record["preprocessing"]["normalize"] == "none"
    about = json.loads(cli("info", out / "model.safetensors", "--json").out)["file"]
    assert about["quirks"] == ["skip_near_origin", "fps_ties"]
    assert about["source"]["system"].startswith("Pang-Yatian/Point-MAE")

    tuned = cli("finetune", out / "recipe.yaml", "--data.root", data, "--out", tmp_path / "run", "--json")
    assert tuned.code == 0, tuned.err
    record = json.loads(tuned.out)["record"]
    assert (record["epochs"], record["epoch_rule"], record["note"]) == (
        2,
        "best on test",
        "converted from finetune.yaml",
    )
    assert record["dataset"]["variant"] == "PB_T50_RS"


def test_other_clouds_with_the_same_recipe(tmp_path: Path, data: Path) -> None:
    assert cli("convert", write_fork(tmp_path, TINY_FORK), tmp_path / "fork").code == 0
    words = ("--data.name", "auto", "--data.root", data, "--out", tmp_path / "run", "--json")
    ended = cli("finetune", tmp_path / "fork" / "recipe.yaml", *words)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["record"]["dataset"]["variant"] != "PB_T50_RS"


def test_a_pre_training_configuration(tmp_path: Path) -> None:
    sizes = {**TINY, "mask_ratio": 0.6, "decoder_depth": 1, "decoder_num_heads": 4}
    small = {"group_size": 8, "num_group": 16, "transformer_config": sizes}
    clouds = {part: {"others": {"npoints": 64}} for part in ("train", "val", "test")}
    values = merge(RELEASED["masked"], {"model": small, "dataset": clouds, "max_epoch": 1, "total_bs": 8})
    ended = cli("convert", write_fork(tmp_path, values, "pretrain.yaml"), tmp_path / "fork", "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    # `transformer_config` of the classifier's keys: two of them mean nothing in there.
    assert {line["key"] for line in report["keys"] if line["fate"] == "not understood"} == {
        "model.transformer_config.group_size",
        "model.transformer_config.num_group",
    }
    assert report["run"].startswith("pointlift pretrain")
    sets = tmp_path / "ShapeNet55-34"
    (sets / "shapenet_pc").mkdir(parents=True)
    (sets / "ShapeNet-55").mkdir()
    names = [f"0269115{i % 2}-{i:03}.npy" for i in range(12)]
    draw = np.random.default_rng(0)
    for name in names:
        np.save(sets / "shapenet_pc" / name, draw.normal(size=(100, 3)).astype(np.float32))
    for part, some in (("train", names[:8]), ("test", names[8:])):
        (sets / "ShapeNet-55" / f"{part}.txt").write_text("\n".join(some) + "\n")
    ended = cli("pretrain", tmp_path / "fork" / "recipe.yaml", "--data.root", sets, "--out", tmp_path / "run", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["record"]["samples_seen"] == 16


def test_wrong_use(tmp_path: Path) -> None:
    path = write_fork(tmp_path, TINY_FORK)
    checkpoint = tiny_checkpoint(tmp_path / "c.pth", released_state(classes=15))
    refused(cli("convert", checkpoint, path, tmp_path / "out"), "YAML CHECKPOINT OUT", code=2)
    refused(cli("convert", tmp_path / "none.yaml", tmp_path / "out"), "no YAML file", code=2)
    refused(cli("convert", path, tmp_path / "none.pth", tmp_path / "out"), "none.pth", code=1)
    refused(cli("convert", path, checkpoint, tmp_path), "not empty", code=2)
    strange = write_fork(tmp_path, merge(TINY_FORK, {"model": {"NAME": "PointMamba"}}), "strange.yaml")
    refused(cli("convert", strange, tmp_path / "out"), "'PointMamba'", "Point_M2AE_ScanObjectNN", code=2)
    wrong = write_fork(tmp_path, merge(TINY_FORK, {"npoints": "many"}), "wrong.yaml")
    refused(cli("convert", wrong, tmp_path / "out"), "npoints is 'many'", code=1)
    assert not (tmp_path / "out").exists()
    assert cli("convert", path, tmp_path / "out", "--data.root", "clouds").code == 0
    assert "root: clouds" in (tmp_path / "out" / "recipe.yaml").read_text()
