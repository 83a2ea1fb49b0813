"""A fork becomes a recipe that builds, and its checkpoint weights that load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from released_forks import RELEASED, TINY, TINY_RUN, released_state, tiny_checkpoint, write_fork

from pointlift.core.config import merge
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, FileFormatError, UsageError
from pointlift.models.registry import create_model
from pointlift.pretrain.registry import create_objective
from pointlift.tasks.config import FinetuneConfig, PretrainConfig, finetune_config, pretrain_config
from pointlift.tasks.fork import RECIPE, REPORT, TEXT, WEIGHTS, convert_fork, translated
from pointlift.tasks.resolve import resolve_model


@pytest.mark.parametrize("name", RELEASED)
def test_recipes_of_released_configurations_build_at_full_size(tmp_path: Path, name: str) -> None:
    fork = convert_fork(write_fork(tmp_path, RELEASED[name]), tmp_path / "out")
    path = str(tmp_path / "out" / RECIPE)
    config: FinetuneConfig | PretrainConfig
    with torch.device("meta"):
        if fork.verb == "pretrain":
            config = pretrain_config(path)
            objective = create_objective(
                config.objective.name,
                config.model.name,
                quirks=config.model.quirks,
                backbone_options=config.model.options,
                **config.objective.options,
            )
            model = objective.backbone
        else:
            config = finetune_config(path)
            model = create_model(config.model.name, quirks=config.model.quirks, num_classes=15, **config.model.options)
    assert model.config.quirks == type(model.config.quirks).upstream()
    assert not (tmp_path / "out" / WEIGHTS).exists()
    assert json.loads((tmp_path / "out" / REPORT).read_text())["weights"] is None


def tiny(name: str = "mae", **changes: Any) -> dict[str, Any]:
    return merge(merge(RELEASED[name], {"model": TINY, **TINY_RUN}), changes)


def test_yaml_and_checkpoint(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "ckpt-best.pth", released_state(classes=15))
    fork = convert_fork(write_fork(tmp_path, tiny()), tmp_path / "out", checkpoint)
    assert fork.weights is not None
    assert not fork.weights.report.unexplained
    assert not fork.weights.report.assumed  # the YAML tells what tensors do not
    model = resolve_model(str(tmp_path / "out" / WEIGHTS), device="cpu")
    assert (model.config.num_groups, model.config.group_size, model.config.num_heads) == (16, 8, 4)
    assert model.config.quirks.skip_near_origin
    assert model.classes is not None
    assert model.classes[0] == "bag"
    assert (model.preprocess["points"], model.preprocess["normalize"]) == (64, "none")
    config = finetune_config(str(tmp_path / "out" / RECIPE))
    # The fork's own widths are in no released YAML: they come from its tensors.
    assert config.model.options["patch_widths"] == [8, 16, 16]
    assert config.model.options["head_hidden"] == [20, 20]
    assert config.model.pretrained is False  # it is what came out, not what training starts from
    assert any("--model.pretrained" in note for note in fork.translation.notes)


def test_a_pre_trained_checkpoint_is_where_fine_tuning_starts(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "pretrain.pth", released_state(classes=0))
    fork = convert_fork(write_fork(tmp_path, tiny()), tmp_path / "out", checkpoint)
    config = finetune_config(str(tmp_path / "out" / RECIPE))
    assert config.model.pretrained == str((tmp_path / "out" / WEIGHTS).resolve())
    model = create_model(config.model.name, pretrained=config.model.pretrained, num_classes=15, **config.model.options)
    assert model.load_report is not None
    assert all(name.startswith("head.") for name in model.load_report.new)
    assert fork.weights is not None


def test_masked_pre_training_had_no_class_token(tmp_path: Path) -> None:
    state = {k: v for k, v in released_state(classes=0).items() if not k.startswith("cls_")}
    checkpoint = tiny_checkpoint(tmp_path / "pretrain.pth", state)
    convert_fork(write_fork(tmp_path, tiny()), tmp_path / "out", checkpoint)
    model = resolve_model(str(tmp_path / "out" / WEIGHTS), device="cpu")
    assert (model.config.class_token, model.config.pooling) == (False, "mean+max")  # nothing random in the file
    config = finetune_config(str(tmp_path / "out" / RECIPE))
    tuned = create_model(
        config.model.name, pretrained=str(config.model.pretrained), num_classes=3, **config.model.options
    )
    assert tuned.config.class_token


def test_the_checkpoint_tells_point_bert_from_point_mae(tmp_path: Path) -> None:
    state = released_state(classes=40, patch=16)
    checkpoint = tiny_checkpoint(tmp_path / "c.pth", state)
    values = tiny("bert", model={**TINY, "encoder_dims": 16})
    fork = convert_fork(write_fork(tmp_path, values), tmp_path / "out", checkpoint)
    assert fork.translation.system == "point-bert"
    config = finetune_config(str(tmp_path / "out" / RECIPE))
    # Many forks put Point-MAE's larger head on this trunk; the tensors say so.
    assert (config.model.options["patch_dim"], config.model.options["head"]) == (16, "mlp3")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"depth": 3}}, "has depth 2, the YAML says 3"),
        ({"model": {"trans_dim": 48, "encoder_dims": 48}}, "has embed_dim 24, the YAML says 48"),
        ({"model": {"NAME": "Point_M2AE_ScanObjectNN"}}, "holds a point_transformer"),
    ],
)
def test_a_checkpoint_of_another_model(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "c.pth", released_state(classes=15))
    values = tiny(**changes)
    if "NAME" in changes["model"]:
        values = RELEASED["m2ae_scan"]
    with pytest.raises(CheckpointMismatchError, match=words):
        convert_fork(write_fork(tmp_path, values), tmp_path / "out", checkpoint)
    assert not (tmp_path / "out").exists()


def test_numbers_of_no_real_run(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"finetune\.yaml: .*num_heads"):
        translated(write_fork(tmp_path, merge(RELEASED["mae"], {"model": {"num_heads": 7}})))
    with pytest.raises(FileFormatError, match="lr"):
        translated(write_fork(tmp_path, merge(RELEASED["mae"], {"optimizer": {"kwargs": {"lr": -1}}})))
    with pytest.raises(FileFormatError, match="mask_ratio"):
        translated(write_fork(tmp_path, merge(RELEASED["m2ae"], {"model": {"mask_ratio": 2}})))


def test_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    path = write_fork(tmp_path, RELEASED["mae"])
    (tmp_path / "out").mkdir()
    convert_fork(path, tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        convert_fork(path, tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        convert_fork(path, path)
    with pytest.raises(CheckpointError):
        convert_fork(path, tmp_path / "new", tmp_path / "none.pth")
    assert not (tmp_path / "new").exists()


def test_overrides_go_into_the_recipe(tmp_path: Path) -> None:
    path = write_fork(tmp_path, RELEASED["mae"])
    convert_fork(path, tmp_path / "out", overrides={"data": {"root": "my_clouds"}, "epochs": 7})
    config = finetune_config(str(tmp_path / "out" / RECIPE))
    assert (config.data.root, config.epochs) == ("my_clouds", 7)
    with pytest.raises(UsageError, match="epochs"):
        convert_fork(path, tmp_path / "other", overrides={"epoch": 7})


def test_the_report_for_people_is_a_table_whatever_is_in_the_file(tmp_path: Path) -> None:
    odd = {"evil|`key`\n# x": "a|b`c\n| d |", "\x1b[31m": 1}
    fork = convert_fork(write_fork(tmp_path, merge(RELEASED["mae"], odd)), tmp_path / "out")
    assert len(fork.translation.with_fate("not understood")) == 2
    text = (tmp_path / "out" / TEXT).read_text()
    assert "2 not understood" in text
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["counts"]["not understood"] == 2
