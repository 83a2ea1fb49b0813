"""`create_model`: names, weights from files, heads that fit or start anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pointlift.core.config import to_dict
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, UnknownNameError
from pointlift.models.registry import MODELS, create_model, from_file, list_models, load_into, new_model, sketch
from pointlift.weights.entries import WEIGHTS
from pointlift.weights.modelfile import describe, read_model_file, write_model_file

SIZES = {"num_groups": 6, "group_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 3, "head_hidden": (7, 9)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A trained-looking tiny model in our format."""
    torch.manual_seed(0)
    model = create_model("point_mae_tiny", num_classes=3, quirks="upstream", **SIZES)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    state = model.state_dict()
    description = describe(model.arch, to_dict(model.config), state, classes=("a", "b", "c"), preprocess={"points": 64})
    return write_model_file(tmp_path / "model.safetensors", state, description)


def test_names() -> None:
    assert list_models() == list(MODELS)
    assert list_models("*_mae_tiny") == ["point_mae_tiny"]
    known = list_models(pretrained=True)
    assert "point_mae_base" in known
    assert "point_transformer" not in known
    with pytest.raises(UnknownNameError, match=r"Did you mean 'point_mae_base'.*pointlift list models"):
        create_model("point_mea_base")


def test_a_file_gives_back_the_model(saved: Path, clouds: Tensor) -> None:
    for pretrained in (saved, str(saved)):
        model = create_model("point_mae_tiny", pretrained=pretrained, **SIZES).eval()
        state = read_model_file(saved).state
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert (model.classes, model.preprocess, model.origin) == (("a", "b", "c"), {"points": 64}, str(saved))
        assert model.config.quirks == type(model.config.quirks).upstream()
        assert model.load_report is not None
        assert model.load_report.new == ()
    paper = create_model("point_mae_tiny", pretrained=saved, quirks="paper", **SIZES)
    assert paper.config.quirks == type(model.config.quirks)()


@pytest.mark.parametrize("options", [{"num_classes": 3}, {"num_classes": 3, "head": "mlp3"}, {"head_hidden": [7, 9]}])
def test_the_head_is_kept_when_it_is_the_one_wanted(saved: Path, options: dict) -> None:
    model = create_model("point_mae_tiny", pretrained=saved, **options)
    assert torch.equal(model.state_dict()["head.fc3.weight"], read_model_file(saved).state["head.fc3.weight"])
    assert model.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    "options", [{"num_classes": 7}, {"head": "linear"}, {"head_hidden": (4, 4)}, {"num_classes": 0}]
)
def test_another_head_starts_anew(saved: Path, options: dict, clouds: Tensor) -> None:
    model = create_model("point_mae_tiny", pretrained=saved, **options).eval()
    stored = read_model_file(saved).state
    kept = {k for k, v in model.state_dict().items() if k in stored and torch.equal(v, stored[k])}
    assert kept >= {k for k in stored if not k.startswith("head.")}
    assert model.classes is None
    assert set(model.load_report.dropped) == {k for k in stored if k.startswith("head.")}
    assert all(k.startswith("head.") for k in model.load_report.new)
    assert model({"xyz": clouds}).isfinite().all()


def test_weights_of_other_sizes_are_refused(saved: Path) -> None:
    with pytest.raises(CheckpointMismatchError) as caught:
        create_model("point_mae_base", pretrained=saved)
    text = str(caught.value)
    assert "model.safetensors (point_mae_tiny: " in text
    assert "into point_mae_base" in text
    assert "the model has (" in text
    with pytest.raises(CheckpointMismatchError, match="not in the checkpoint"):
        create_model("point_mae_tiny", pretrained=saved, depth=2)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"embed_dim": 576_000},
            r"model\.safetensors \(point_mae_tiny: embed_dim=576000.*tensors are unexplained: cls_",
        ),
        ({"embed_dim": 3 * 10**18}, r"asks for sizes that cannot be"),
        ({"embed_dim": 3 * 10**200}, r"asks for sizes that cannot be"),
        ({"depth": 20_000}, r"asks for depth=20000\. Expected: at most 1000"),
        ({"depth": 10**200}, r"asks for depth=10"),
        ({"depth": 900}, r"tensors are unexplained: trunk"),
        ({"pos_hidden": 10**13}, r"pos_embed\.fc1\.weight is \(64, 3\), the model has \(10000000000000, 3\)"),
        ({"head_hidden": [10**8, 10**8]}, r"head\.bn1\.bias is \(7,\), the model has \(100000000,\)"),
    ],
)
def test_sizes_that_a_file_claims_take_no_memory(saved: Path, sizes: dict[str, Any], message: str) -> None:
    file = read_model_file(saved)
    with pytest.raises(CheckpointMismatchError, match=message):
        from_file(replace(file, config={**file.config, **sizes}))


def test_a_new_head_of_any_size_is_not_built(saved: Path) -> None:
    file = read_model_file(saved)
    state = {k: v for k, v in file.state.items() if not k.startswith("head.")}
    file = replace(file, state=state, config={**file.config, "num_classes": 0, "head_hidden": [10**6, 10**6]})
    with pytest.raises(CheckpointMismatchError, match="holds no head, and one as it describes has 10000"):
        from_file(file, num_classes=4)
    assert from_file(file, num_classes=4, head_hidden=(7, 9)).config.num_classes == 4


Change = Callable[[torch.Tensor], torch.Tensor]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: torch.zeros(()).expand(v.shape), r"repeats values .* \(largest: patch_embed"),
        (lambda v: v.to("meta"), "is no plain tensor"),
        (lambda v: v.to_sparse(), "is no plain tensor"),
    ],
)
def test_tensors_without_their_values(saved: Path, change: Change, message: str) -> None:
    file = read_model_file(saved)
    with pytest.raises(CheckpointMismatchError, match=message):
        from_file(replace(file, state={k: change(v) for k, v in file.state.items()}))


def test_repeated_values_in_a_released_file(tmp_path: Path) -> None:
    """A kilobyte that would become terabytes: every shape is right, and no value is there."""
    d = 576_000
    shapes = {
        "norm": ("norm", (d,)),
        "encoder.first_conv.0": ("lin", (128, 3, 1)),
        "encoder.first_conv.1": ("bn", (128,)),
        "encoder.first_conv.3": ("lin", (256, 128, 1)),
        "encoder.second_conv.0": ("lin", (512, 512, 1)),
        "encoder.second_conv.1": ("bn", (512,)),
        "encoder.second_conv.3": ("lin", (d, 512, 1)),
        "pos_embed.0": ("lin", (128, 3)),
        "pos_embed.2": ("lin", (d, 128)),
        "blocks.blocks.0.norm1": ("norm", (d,)),
        "blocks.blocks.0.attn.proj": ("lin", (d, d)),
        "blocks.blocks.0.norm2": ("norm", (d,)),
        "blocks.blocks.0.mlp.fc1": ("lin", (4 * d, d)),
        "blocks.blocks.0.mlp.fc2": ("lin", (d, 4 * d)),
    }
    one = torch.zeros(1)
    state = {"blocks.blocks.0.attn.qkv.weight": one.expand(3 * d, d)}
    for name, (kind, shape) in shapes.items():
        state |= {f"{name}.weight": one.expand(shape), f"{name}.bias": one.expand(shape[0])}
        if kind == "bn":
            state |= {f"{name}.running_mean": one.expand(shape), f"{name}.running_var": one.expand(shape)}
    path = tmp_path / "small.pth"
    torch.save(state, path)
    assert path.stat().st_size < 20_000
    with pytest.raises(CheckpointMismatchError, match=r"small\.pth repeats values .*trunk\.blocks\.0\.fc1"):
        create_model("point_transformer", pretrained=path)


def test_the_comparison_draws_no_random_numbers(saved: Path) -> None:
    torch.manual_seed(3)
    new_model("point_mae_tiny", {**read_model_file(saved).config, "num_classes": 7})
    after_one_model = torch.get_rng_state()
    torch.manual_seed(3)
    model = create_model("point_mae_tiny", pretrained=saved, num_classes=7)
    assert torch.equal(torch.get_rng_state(), after_one_model)
    assert all(v.device.type == "cpu" for v in model.state_dict().values())
    assert 0.1 < model.state_dict()["head.fc1.weight"].std() * (3 * 24) ** 0.5 < 10
    assert next(sketch(read_model_file(saved)).parameters()).device.type == "meta"


def test_names_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTLIFT_HOME", str(tmp_path))
    for call in (
        {"name": "point_mae_base.modelnet_1k"},
        {"name": "point_mae_base.modelnet_1k", "pretrained": True},
        {"name": "point_mae_base", "pretrained": "modelnet_1k"},
    ):
        with pytest.raises(CheckpointError, match=r"'point_mae_base\.modelnet_1k' are not on this machine.*download"):
            create_model(**call)
    with pytest.raises(
        UnknownNameError, match=r"no weights of point_mae_base 'modelnet1k'.* Did you mean 'modelnet_1k'"
    ):
        create_model("point_mae_base", pretrained="modelnet1k")
    with pytest.raises(CheckpointError, match=r"no checkpoint at 'runs/none\.pth'"):
        create_model("point_mae_base", pretrained="runs/none.pth")
    with pytest.raises(CheckpointError, match="no checkpoint at 'none'"):
        create_model("point_mae_base", pretrained=Path("none"))
    with pytest.raises(CheckpointError, match="no default weights for 'point_mae_small'"):
        create_model("point_mae_small", pretrained=True)


def test_a_tag_is_not_mistaken_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POINTLIFT_HOME", str(tmp_path))
    (tmp_path / "shapenet55").mkdir()
    with pytest.raises(CheckpointError, match="not on this machine"):
        create_model("point_mae_base", pretrained="shapenet55")


def test_every_weights_entry_names_a_model() -> None:
    assert all(name.partition(".")[0] in MODELS for name in WEIGHTS)


def test_load_into_says_what_happened(saved: Path) -> None:
    file = read_model_file(saved)
    model = new_model(file.arch, file.config)
    report = load_into(model, file)
    assert str(report) == f"{len(file.state)} loaded, 0 derived, 0 dropped on purpose, 0 new, 0 unexplained"
    assert to_dict(model.config) == file.config


def test_sizes_that_the_weights_do_not_have() -> None:
    with pytest.raises(CheckpointMismatchError, match=r"^embed_dim.* other than .*pretrained=False"):
        create_model("point_mae_tiny", pretrained=True, embed_dim=96, num_groups=48)
    assert create_model("point_mae_tiny", pretrained=True, num_groups=48).config.num_groups == 48


def test_only_what_makes_the_tensors_differ_is_named() -> None:
    def refused(**options: object) -> str:
        with pytest.raises(CheckpointMismatchError) as error:
            create_model("point_mae_tiny", pretrained=True, num_classes=3, **options)
        return error.value.given.partition(" other than in the weights")[0]

    harmless = {"head_dropout": 0.1, "drop_path": 0.3, "num_groups": 48, "head_hidden": (9, 9)}
    assert refused(**harmless, embed_dim=96) == "embed_dim"
    assert refused(embed_dim=96, pos_hidden=16, **harmless, patch_widths=(32, 64, 128)) == "embed_dim, pos_hidden"
    # Each makes sense beside the other only: 100 is no multiple of the weights' 3 heads.
    assert refused(embed_dim=100, num_heads=4, patch_widths=(32, 64, 128)) == "embed_dim, num_heads"
