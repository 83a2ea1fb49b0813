"""Released Point-M2AE checkpoints: what they hold, which sizes they tell, and where every key goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointlift.core.config import build
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, ConfigError
from pointlift.models.registry import MODELS, create_model
from pointlift.pretrain.reading import read_objective
from pointlift.pretrain.registry import create_objective
from pointlift.weights.entries import WEIGHTS, weights_for
from pointlift.weights.modelfile import read_model_file
from pointlift.weights.upstream import detect, point_m2ae

FILES = Path(__file__).parents[1] / "parity" / "files"
# Sizes that keep a checkpoint small; the number of levels is what a case varies.
LEVELS: dict[str, tuple[Any, ...]] = {
    "num_groups": (8, 6, 4, 3),
    "group_sizes": (4, 3, 3, 2),
    "encoder_dims": (6, 12, 18, 24),
    "encoder_depths": (2, 1, 2, 1),
    "local_radius": (0.3, 0.6, 1.2, 2.4),
}


def yaml_of(levels: int = 3) -> dict[str, Any]:
    """The `model:` section of a small pre-training."""
    sizes = {k: list(v[:levels]) for k, v in LEVELS.items()}
    decoder = {"decoder_depths": [1] * (levels - 1), "decoder_dims": sizes["encoder_dims"][:0:-1]}
    return {**sizes, **decoder, "decoder_up_blocks": [1] * (levels - 1), "num_heads": 6, "mask_ratio": 0.7}


def released(kind: str, levels: int = 3, **changes: Any) -> dict[str, Tensor]:
    """A small checkpoint with released names: ours, renamed backwards key by key."""
    config = {**yaml_of(levels), **changes}
    if kind == "pretrain":
        name, options = point_m2ae.pretrain_config(config)
        module: Any = create_objective(name, **options)
        rename = point_m2ae.rename_pretrain_key
    else:
        config_of, rename = {
            "modelnet": (point_m2ae.modelnet_config, point_m2ae.rename_key),
            "scan": (point_m2ae.scan_config, point_m2ae.rename_key),
            "parts": (point_m2ae.part_config, point_m2ae.rename_part_key),
        }[kind]
        name, options = config_of(config)
        module = create_model(name, **options)
    templates = [k for f in FILES.glob("point-m2ae-*.keys.json") for k in json.loads(f.read_text())["keys"]]
    # Released names of every level and block that a small model may have.
    names = {swap(k, level, other, block) for k in templates for level in "0123" for other in "0123" for block in "01"}
    if rename is point_m2ae.rename_key:  # a classifier has its own norm in the place of the encoder's last one
        names = {n for n in names if "encoder_norms" not in n}
    ours = {rename(n, levels): n for n in names}
    return {ours[k]: v for k, v in module.state_dict().items()}


def swap(key: str, level: str, other: str, block: str) -> str:
    """A released name with another level and another block."""
    parts = key.split(".")
    for i, part in enumerate(parts[:-1]):
        if part in ("token_embed", "encoder_pos_embeds", "encoder_blocks", "encoder_norms", "propagations"):
            parts[i + 1] = level
        if part in ("h_decoder", "decoder_pos_embeds", "token_prop"):
            parts[i + 1] = other
        if part == "blocks":
            parts[i + 1] = block
    return ".".join(parts)


def saved(path: Path, state: dict[str, Tensor], prefix: str = "") -> Path:
    torch.save({"base_model": {prefix + k: v for k, v in state.items()}, "epoch": 300}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", ["modelnet", "scan", "parts", "pretrain"])
def test_a_file_reads_under_any_prefix_and_computes(tmp_path: Path, kind: str, prefix: str) -> None:
    path = saved(tmp_path / "ckpt-best.pth", released(kind), prefix)
    file = read_model_file(path)
    assert (file.arch, file.quirks) == ("point_m2ae", "upstream")
    sizes = {"num_groups": (8, 6, 4), "group_size": (4, 3, 3), "radius": (0.3, 0.6, 1.2)}
    model = create_model("point_m2ae", pretrained=path, **sizes).eval()
    assert model.config.quirks == type(model.config.quirks).upstream()
    assert model.config.embed_dim == (6, 12, 18)
    assert model.config.depth == (2, 1, 2)
    classes = {"modelnet": 40, "scan": 15, "parts": 50, "pretrain": 0}[kind]
    assert model.config.num_classes == classes
    out = model({"xyz": torch.randn(2, 30, 3), "category": torch.tensor([1, 2])})
    wanted = {"modelnet": (2, 40), "scan": (2, 15), "parts": (2, 30, 50), "pretrain": (2, 18)}[kind]
    assert tuple(out.shape) == wanted


@pytest.mark.parametrize(
    ("options", "dropped"), [({"num_classes": 4}, True), ({"num_classes": 5, "head": "parts"}, False), ({}, True)]
)
def test_what_a_pre_trained_file_gives_each_use(tmp_path: Path, options: dict, dropped: bool) -> None:
    """Only a head for parts reads the finer norms; the decoder is for nobody."""
    path = saved(tmp_path / "pre-train.pth", released("pretrain"))
    sizes = {"num_groups": (8, 6, 4), "group_size": (4, 3, 3), "radius": (0.3, 0.6, 1.2)}
    report = create_model("point_m2ae", pretrained=path, **sizes, **options).load_report
    assert ("levels.0.norm.weight" in report.dropped) == dropped
    assert {"mask_token", "rec_head.weight", "token_prop.0.fuse.net.0.weight"} <= set(report.dropped)
    assert all(name.startswith("head.") for name in report.new)
    assert "levels.2.norm.weight" in report.loaded


def test_a_fine_tuned_file_becomes_a_segmenter(tmp_path: Path) -> None:
    path = saved(tmp_path / "modelnet40.pth", released("modelnet"))
    sizes = {"num_groups": (8, 6, 4), "group_size": (4, 3, 3), "radius": (0.3, 0.6, 1.2)}
    report = create_model("point_m2ae", pretrained=path, head="parts", num_classes=5, **sizes).load_report
    new = {name for name in report.new if not name.startswith("head.")}
    assert new == {f"levels.{i}.norm.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")}


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("kind", ["modelnet", "pretrain"])
def test_any_number_of_levels(kind: str, levels: int) -> None:
    state = released(kind, levels)
    upstream = detect(state, "objective" if kind == "pretrain" else "model")
    assert upstream is not None
    name, options, _ = upstream.infer(state)
    sizes = options.get("backbone_options", options)
    sizes |= {ours: LEVELS[k][:levels] for ours, k in (("num_groups", "num_groups"), ("group_size", "group_sizes"))}
    sizes["radius"] = LEVELS["local_radius"][:levels]
    module = (create_objective if kind == "pretrain" else create_model)(name, **options)
    renamed = upstream.rename(state).state
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in module.state_dict().items()}


def test_pre_training_goes_on_from_a_released_file(tmp_path: Path) -> None:
    state = released("pretrain")
    objective = read_objective(saved(tmp_path / "pre-train.pth", state, "module."), create_objective)
    found = objective.state_dict()
    assert len(found) == len(state)
    assert torch.equal(found["mask_token"], state["mask_token"])
    carried = state["token_prop.0.extraction.operation.0.net2.0.weight"]
    assert torch.equal(found["stages.1.token_prop.blocks.0.fc2.weight"], carried)
    assert objective.backbone.config.quirks.leak_first
    assert objective.config.predicted_points == 4


def test_groups_of_another_number_of_levels_must_be_given(tmp_path: Path) -> None:
    path = saved(tmp_path / "four.pth", released("modelnet", 4))
    with pytest.raises(ConfigError, match=r"one number per level, as many as num_groups"):
        create_model("point_m2ae", pretrained=path)
    given = {"num_groups": (8, 6, 4, 3), "group_size": (4, 3, 3, 2), "radius": (0.3, 0.6, 1.2, 0.0)}
    model = create_model("point_m2ae", pretrained=path, **given)
    assert model.config.depth == (2, 1, 2, 1)
    assert model.load_report.new == model.load_report.dropped == ()


def test_scanobjectnn_is_told_by_its_head() -> None:
    for kind, ends in (("modelnet", "ModelNet40"), ("scan", "ScanObjectNN")):
        state = released(kind)
        upstream = detect(state)
        assert upstream.upstream.endswith(ends)
        _, sizes, assumed = upstream.infer(state)
        assert sizes["pooling"] == ("mean+max" if kind == "scan" else "mean_plus_max")
        assert sizes["group_size"] == ((32, 16, 16) if kind == "scan" else (16, 8, 8))
        assert any("I2P-MAE" in line for line in assumed)
        preprocess = upstream.preprocess(sizes)
        wanted = (2048, "none") if kind == "scan" else (1024, "unit_sphere")
        assert (preprocess["points"], preprocess["normalize"]) == wanted


def test_the_released_yaml() -> None:
    config = {**yaml_of(), "local_radius": [0.3, -1, 0]}
    _, options = point_m2ae.pretrain_config(config)
    assert options["backbone_options"]["radius"] == (0.3, 0.0, 0.0)
    assert (options["decoder_depth"], options["up_blocks"], options["predicted_points"]) == ((1, 1), (1,), 4)
    with pytest.raises(CheckpointError, match=r"decoder_dims \[18, 13\]"):
        point_m2ae.pretrain_config({**config, "decoder_dims": [18, 13]})


def test_label_smoothing_is_the_released_loss() -> None:
    logits, label = torch.randn(6, 40), torch.arange(6)
    target = torch.full((6, 40), 0.3 / 39).scatter(1, label.unsqueeze(1), 0.7)
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    found = F.cross_entropy(logits, label, label_smoothing=point_m2ae.label_smoothing({"smooth": 0.3}, 40))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("key", ["MAE_encoder.encoders.0.blocks.0.norm1.weight", "module.MAE_encoder.encoders.1.x"])
def test_names_of_the_first_release_are_refused(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path / "pre-train.pth", {key: torch.zeros(3), "mask_token": torch.zeros(1, 384)})
    with pytest.raises(CheckpointError, match=r"pre-train\.pth has the key names of Point-M2AE's first release"):
        read_model_file(path)


def test_an_unknown_key_makes_it_another_system() -> None:
    state = released("modelnet")
    for key in ("h_encoder.token_embed.0.first_conv.9.weight", "h_encoder.encoder_norms.0.gain", "extra.weight"):
        assert detect({**state, key: torch.zeros(3)}) is None


def test_a_missing_tensor_is_an_error(tmp_path: Path) -> None:
    state = released("modelnet")
    del state["h_encoder.encoder_pos_embeds.1.2.bias"]
    sizes = {"num_groups": (8, 6, 4), "group_size": (4, 3, 3), "radius": (0.3, 0.6, 1.2)}
    with pytest.raises(CheckpointMismatchError, match=r"levels\.1\.pos_embed\.fc2\.bias \(12,\) is not"):
        create_model("point_m2ae", pretrained=saved(tmp_path / "m.pth", state), **sizes)


def test_every_released_checkpoint_has_an_entry() -> None:
    names = weights_for("point_m2ae_base")
    tags = {name.partition(".")[2] for name in names}
    assert tags == {"shapenet55", "modelnet_1k", "scan_hardest", "scan_objbg", "scan_objonly", "shapenetpart"}
    for name in names:
        entry, model = WEIGHTS.get(name), MODELS.get("point_m2ae_base")
        config = build(model.config, {**model.sizes, **entry.config})
        assert config.group_size == ((32, 16, 16) if "scan" in name else (16, 8, 8))
        assert len(entry.classes or ()) == {"modelnet_1k": 40}.get(name.partition(".")[2], 15 if "scan" in name else 0)
