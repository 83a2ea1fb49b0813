"""Released configurations as recipes: nothing is lost, and what is said is what the released code does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from released_forks import HARDEST, MAE, MODELNET, RELEASED, SCAN, SHAPENET, fork, write_base, write_fork

from pointlift.core.config import merge
from pointlift.core.errors import FileFormatError, UnknownNameError
from pointlift.weights.forks import Translation, read_released_yaml, translate

SYSTEMS = {"mae": "point-mae", "masked": "point-mae", "m2ae": "point-m2ae"}
SYSTEMS |= {"m2ae_modelnet": "point-m2ae", "m2ae_scan": "point-m2ae"}
PRETRAINING = {"masked", "dvae", "point_bert", "m2ae"}


def translated(folder: Path, values: dict[str, Any], **how: Any) -> Translation:
    return translate(read_released_yaml(write_fork(folder, values)), **how)


def at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def leaves(tree: Any, where: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [where]
    return [leaf for key, value in tree.items() for leaf in leaves(value, f"{where}.{key}".removeprefix("."))]


@pytest.mark.parametrize("name", RELEASED)
def test_every_key_is_accounted_for(tmp_path: Path, name: str) -> None:
    found = translated(tmp_path, RELEASED[name])
    assert not found.with_fate("not understood")
    said = {line.key for line in found.lines}
    for leaf in leaves(RELEASED[name]):
        parts = leaf.split(".")
        above = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
        below = {key for key in said if key.startswith(f"{leaf}.")}  # what a `_base_` file holds
        assert above & said or below, leaf
    for line in found.with_fate("kept"):
        at(found.recipe, line.ours)  # a recipe's key that is there
    assert all(line.why for line in found.with_fate("ignored"))
    assert set(found.comments) - {""} <= {
        key for leaf in leaves(found.recipe) for i in range(9) if (key := ".".join(leaf.split(".")[: i + 1]))
    }
    assert found.system == SYSTEMS.get(name, "point-bert")
    assert (found.recipe.get("task") == "pretraining") == (name in PRETRAINING) == (found.holds == "objective")


def test_a_classifier_of_scanobjectnn(tmp_path: Path) -> None:
    recipe = translated(tmp_path, RELEASED["mae"]).recipe
    sizes = {"embed_dim": 384, "depth": 12, "num_heads": 6, "drop_path": 0.1, "num_groups": 128, "group_size": 32}
    assert recipe["model"] == {"name": "point_transformer", "options": sizes, "quirks": "upstream"}
    data = recipe["data"]
    assert (data["name"], data["variant"], data["root"]) == ("scanobjectnn", "PB_T50_RS", SCAN["ROOT"])
    assert (data["points"], data["normalize"], data["batch_size"], data["val_fraction"]) == (2048, "none", 32, 0)
    assert data["resample"] == {"skip_near_origin": True, "shared_subset": True}
    assert (recipe["epochs"], recipe["select"], recipe["precision"]) == (301, "test", "fp32")
    optim = {"name": "adamw", "lr": 0.0005, "weight_decay": 0.05, "no_weight_decay": "released", "accumulate": 1}
    assert recipe["optim"] == {**optim, "grad_clip": 10}
    schedule = {"name": "released_cosine", "t_initial": 300, "warmup_epochs": 10, "warmup_lr": 1e-6, "min_lr": 1e-6}
    assert recipe["schedule"] == schedule


def test_the_habits_of_the_released_code_are_explained(tmp_path: Path) -> None:
    found = translated(tmp_path, RELEASED["mae"])
    habits = ("epochs", "select", "precision", "model.quirks", "schedule.name", "optim.no_weight_decay")
    for key in (*habits, "data.val_fraction", "data.resample.skip_near_origin", "data.resample.shared_subset"):
        assert "released" in found.comments[key].lower(), key


def test_pre_training(tmp_path: Path) -> None:
    recipe = translated(tmp_path, RELEASED["masked"]).recipe
    assert recipe["objective"]["name"] == "masked"
    assert recipe["objective"]["options"]["mask_ratio"] == 0.6
    assert (recipe["data"]["name"], recipe["data"]["points"]) == ("shapenet55", 1024)
    assert recipe["data"]["resample"]["pool"] == "all"
    assert recipe["optim"]["grad_clip"] is None  # whatever the configuration says: the loop never clips
    assert "select" not in recipe
    levels = translated(tmp_path, RELEASED["m2ae"]).recipe
    assert levels["objective"]["options"]["predicted_points"] == 16
    assert levels["schedule"]["t_initial"] == 400
    assert levels["epochs"] == 301
    bert = translated(tmp_path, RELEASED["point_bert"]).recipe
    assert bert["data"]["options"] == {"whole": True}
    assert bert["objective"]["options"]["queue"] == 16384
    assert "teacher" not in bert["objective"]["options"]
    named = merge(RELEASED["point_bert"], {"model": {"dvae_config": {"ckpt": "weights/dVAE.pth"}}})
    assert translated(tmp_path, named).recipe["objective"]["options"]["teacher"] == "weights/dVAE.pth"


def test_the_ramps_of_the_dvae(tmp_path: Path) -> None:
    options = translated(tmp_path, RELEASED["dvae"]).recipe["objective"]["options"]
    assert options["temperature"] == {"start": 1, "end": 0.0625, "begin": 0, "steps": 100_000}
    assert options["divergence"] == {"start": 0, "end": 0.1, "begin": 10_000, "steps": 100_000}
    assert options["steps"] == 301 * (41_952 // 64) == 197_155


def test_label_smoothing_counts_as_pytorch_does(tmp_path: Path) -> None:
    recipe = translated(tmp_path, RELEASED["m2ae_modelnet"]).recipe
    # Released: 0.7 on the true class, 0.3 / 39 on each other.
    eps = recipe["label_smoothing"]
    assert 1 - eps + eps / 40 == pytest.approx(0.7)
    assert eps / 40 == pytest.approx(0.3 / 39)


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    assert translated(tmp_path, RELEASED["mae"]).upstream.startswith("Pang-Yatian/Point-MAE:")
    bert = translated(tmp_path, RELEASED["bert"])
    assert bert.upstream.startswith("lulutang0608/Point-BERT:")
    assert bert.recipe["model"]["options"]["patch_dim"] == 256
    # The checkpoint knows better: Point-BERT's trunk with patches as wide as tokens.
    assert translated(tmp_path, RELEASED["mae"], system="point-bert").system == "point-bert"


def test_classes_of_a_head(tmp_path: Path) -> None:
    found = translated(tmp_path, RELEASED["mae"], system="point-mae", outputs=15).classes
    assert found is not None
    assert found[:2] == ("bag", "bin")
    wide = translated(tmp_path, fork({**MAE, "cls_dim": 40}, HARDEST), system="point-mae", outputs=40).classes
    assert wide is not None
    assert wide[15] == "unused_15"
    assert translated(tmp_path, RELEASED["mae"], system="point-mae", outputs=7).classes is None


@pytest.mark.parametrize(
    ("base", "variant"),
    [
        ({"NAME": "ScanObjectNN", "ROOT": "data/ScanObjectNN/main_split"}, "OBJ_BG"),
        ({"NAME": "ScanObjectNN", "ROOT": "data/ScanObjectNN/main_split_nobg/"}, "OBJ_ONLY"),
        ({"NAME": "ScanObjectNN", "ROOT": "data/ScanObjectNN/main_split", "SPLIT": "PB"}, "PB_T50_RS"),
        ({"NAME": "ScanObjectNN", "ROOT": "elsewhere"}, None),
    ],
)
def test_editions_of_scanobjectnn(tmp_path: Path, base: dict[str, Any], variant: str | None) -> None:
    write_base(tmp_path, "sets/mine.yaml", base)
    found = translated(tmp_path, fork(MAE, "sets/mine.yaml"))
    assert found.recipe["data"].get("variant") == variant
    assert any("--data.variant" in note for note in found.notes) == (variant is None)


def test_few_shot_and_other_categories(tmp_path: Path) -> None:
    few = translated(tmp_path, fork(MAE, "cfgs/dataset_configs/ModelNet40FewShot.yaml", {"max_epoch": 150}))
    assert few.recipe["data"]["name"] == "modelnet40_few_shot"
    assert few.recipe["epochs"] == 151
    assert any("--data.options.way" in note for note in few.notes)
    write_base(tmp_path, "ten.yaml", {**MODELNET, "NUM_CATEGORY": 10, "USE_NORMALS": True})
    ten = translated(tmp_path, fork(MAE, "ten.yaml"))
    assert ten.recipe["data"]["options"] == {"num_category": 10}
    assert [line.key for line in ten.with_fate("not understood")] == ["dataset.train._base_.USE_NORMALS"]


def test_what_is_not_understood_is_listed(tmp_path: Path) -> None:
    changes = {
        "ema": {"decay": 0.999},
        "optimizer": {"kwargs": {"eps": 1e-6}},
        "dataset": {"train": {"others": {"rotate": "z", "subset": "all"}}, "val": {"others": {"subset": "train"}}},
        "model": {"use_mamba": True, "a.b": 1},
        "optimizer.kwargs.lr": 3,
    }
    found = translated(tmp_path, merge(RELEASED["mae"], changes))
    strange = {line.key: line.value for line in found.with_fate("not understood")}
    assert strange == {
        "ema.decay": "0.999",
        "optimizer.kwargs.eps": "1e-06",
        "dataset.train.others.rotate": "'z'",
        "dataset.train.others.subset": "'all'",
        "dataset.val.others.subset": "'train'",
        "model.use_mamba": "True",
        "model.a\\.b": "1",
        "optimizer\\.kwargs\\.lr": "3",
    }


def test_optimisers_and_schedules_that_we_have_not(tmp_path: Path) -> None:
    other = {"optimizer": {"type": "RAdam"}, "scheduler": {"type": "StepLR", "kwargs": {"step_size": 20}}}
    found = translated(tmp_path, merge(RELEASED["mae"], other))
    assert {line.key for line in found.with_fate("not understood")} == {"optimizer.type", "scheduler"}
    assert found.recipe["schedule"] == {"name": "constant"}
    sgd = translated(tmp_path, merge(RELEASED["mae"], {"optimizer": {"type": "SGD", "kwargs": {"momentum": 0.8}}}))
    assert (sgd.recipe["optim"]["name"], sgd.recipe["optim"]["momentum"]) == ("sgd", 0.8)
    assert "Nesterov" in next(line.why for line in sgd.lines if line.key == "optimizer.type")
    no_clip = {key: value for key, value in RELEASED["mae"].items() if key != "grad_norm_clip"}
    assert translated(tmp_path, no_clip).recipe["optim"]["grad_clip"] is None


def test_a_data_set_that_nobody_knows(tmp_path: Path) -> None:
    write_base(tmp_path, "mine.yaml", {"NAME": "MyScans", "ROOT": "here"})
    for base in ("mine.yaml", "cfgs/not_there.yaml"):
        found = translated(tmp_path, fork(MAE, base))
        assert "name" not in found.recipe["data"]
        assert "dataset.train._base_" in {line.key for line in found.with_fate("not understood")}
        assert any("--data.root" in note for note in found.notes)


def test_a_configuration_for_a_linear_svm(tmp_path: Path) -> None:
    values = merge(RELEASED["m2ae"], {"dataset": {"train": {"others": {"num_points": 1024, "partition": "train"}}}})
    for part in values["dataset"].values():
        part["_base_"] = "cfgs/dataset/ModelNet40_SVM.yaml"
    del values["dataset"]["train"]["others"]["subset"]
    found = translated(tmp_path, values)
    data = found.recipe["data"]
    assert (data["name"], data["points"], data["normalize"]) == ("modelnet40_hdf5", 1024, "none")
    assert any("--protocol svm" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"NAME": "PointMamba"}}, "no model NAME 'PointMamba' is known.*Point_M2AE"),
        ({"model": {"trans_dim": "wide"}}, "model.trans_dim is 'wide'. Expected: a whole number"),
        ({"model": {"depth": True}}, "model.depth is True"),
        ({"model": {"trans_dim": None}}, "has no model.trans_dim"),
        ({"model": [1, 2]}, r"model is \[1, 2\]"),
        ({"optimizer": {"kwargs": {"lr": float("nan")}}}, "optimizer.kwargs.lr is nan"),
        ({"max_epoch": 10**400}, "max_epoch is an integer of"),
        ({"scheduler": {}}, ""),
        ({"dataset": {"train": {"others": {"npoints": 1}}}, "npoints": "many"}, "npoints is 'many'"),
    ],
)
def test_wrong_values(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    if not words:
        changes, words = {"scheduler": None}, "has no scheduler"
    with pytest.raises((FileFormatError, UnknownNameError), match=words):
        translated(tmp_path, merge(RELEASED["mae"], changes))


def test_wrong_lists_of_levels(tmp_path: Path) -> None:
    values = merge(RELEASED["m2ae"], {"model": {"decoder_dims": [384, 96]}})
    with pytest.raises(FileFormatError, match="decoder_dims"):
        translated(tmp_path, values)
    with pytest.raises(FileFormatError, match=r"mask_ratio is 0\.5"):
        translated(tmp_path, merge(RELEASED["point_bert"], {"model": {"transformer_config": {"mask_ratio": 0.5}}}))
    ratio = {"model": {"transformer_config": {"mask_ratio": [0.1, 0.2, 0.3]}}}
    with pytest.raises(FileFormatError, match="model: "):
        translated(tmp_path, merge(RELEASED["point_bert"], ratio))


def test_bases_that_are_there_count_more_than_what_is_known(tmp_path: Path) -> None:
    write_base(tmp_path, HARDEST, {**SCAN, "ROOT": "/data/scans/main_split"})
    found = translated(tmp_path, RELEASED["mae"])
    assert found.recipe["data"]["root"] == "/data/scans/main_split"
    assert not any("taken to be" in note for note in found.notes)
    write_base(tmp_path, "cfgs/dataset_configs/ShapeNet-55.yaml", {**SHAPENET, "PC_PATH": "elsewhere/clouds"})
    strange = translated(tmp_path, RELEASED["masked"]).with_fate("not understood")
    assert [line.key for line in strange] == ["dataset.train._base_.PC_PATH"]
