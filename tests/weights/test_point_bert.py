"""Point-BERT's released checkpoints: what each is taken for, and where every tensor goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pointlift.models.registry import create_model, from_file
from pointlift.pretrain.reading import read_objective
from pointlift.pretrain.registry import create_objective
from pointlift.weights.entries import WEIGHTS, weights_for
from pointlift.weights.modelfile import read_model_file

FILES = Path(__file__).parents[1] / "parity" / "files"
# Official numbers -> small ones; those of one tensor stay apart.
SIZES = {384: 64, 1536: 256, 1152: 192, 768: 128, 387: 67, 403: 83, 256: 24, 512: 48, 1024: 96, 2304: 216, 8192: 20}
SIZES |= {128: 12, 261: 29, 16384: 30}


def small_release(name: str, depth: int = 2) -> dict[str, Tensor]:
    """A released state dict with the official names and small sizes, random values."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in json.loads((FILES / f"point-bert-{name}.keys.json").read_text())["keys"].items():
        if "blocks.blocks." in key and int(key.split("blocks.blocks.")[1].split(".")[0]) >= depth:
            continue
        small = _shape(key, shape)
        state[key] = torch.rand(small, generator=generator) + 0.5 if shape else torch.tensor(7)
    if "queue_ptr" in state:
        state["queue_ptr"] = torch.tensor([5])
    return state


def _shape(key: str, shape: list[int]) -> list[int]:
    """Widths that a table by value alone would confuse: 1024 is 8 times the graph's base, and the decoder's width."""
    if "decoder." in key or "dgcnn_pro" in key:
        own = {256: 24, 512: 40, 1024: 80, 24: 12, 384: 64, 768: 128, 261: 29}
        return [own.get(n, n) for n in shape]
    if "dgcnn" in key:
        place = key.split("dgcnn_")[1]
        widths = {"input_trans": 12, "layer1": 24, "layer2": 48, "layer3": 48, "layer4": 96, "layer5": shape[0]}
        out = widths[place.split(".")[1]]
        out = SIZES.get(out, out)
        inputs = {"input_trans": 24, "layer1": 24, "layer2": 48, "layer3": 96, "layer4": 96, "layer5": 216}
        return [out, inputs[place.split(".")[1]], *shape[2:]] if len(shape) > 1 else [out]
    if "cls_head." in key or key == "queue":
        own = {512: 10, 384: 64, 16384: 30}
        return [own[n] for n in shape]
    if "conv1" in key or "bn1." in key or "conv2" in key:
        return [{384: 64, 128: 14}.get(n, n) for n in shape]
    return [SIZES.get(n, n) for n in shape]


def write(state: dict[str, Tensor], path: Path, prefix: str = "module.") -> Path:
    torch.save({"base_model": {prefix + k: v for k, v in state.items()}, "epoch": 1}, path)
    return path


CLASSIFIER = {
    "cls_token": "cls_token",
    "cls_pos": "cls_pos",
    "encoder.first_conv.1.running_mean": "patch_embed.bn1.running_mean",
    "encoder.second_conv.3.bias": "patch_embed.joint2.bias",
    "reduce_dim.weight": "reduce.weight",
    "reduce_dim.bias": "reduce.bias",
    "pos_embed.2.weight": "pos_embed.fc2.weight",
    "blocks.blocks.1.attn.qkv.weight": "trunk.blocks.1.qkv.weight",
    "norm.bias": "trunk.norm.bias",
}
HEAD = {"cls_head_finetune.0.weight": "head.fc1.weight", "cls_head_finetune.3.bias": "head.fc2.bias"}
PARTS = {
    "propagation_0.mlp_convs.1.bias": "head.propagation.mlp.fcs.1.bias",
    "propagation_1.mlp_convs.0.bias": "head.lift.0.mlp.fcs.0.bias",
    "propagation_2.mlp_bns.1.running_var": "head.lift.1.mlp.bns.1.running_var",
    "dgcnn_pro_1.layer1.1.weight": "head.steps.0.across.norm.weight",
    "dgcnn_pro_2.layer2.1.bias": "head.steps.1.within.norm.bias",
    "conv1.bias": "head.mlp.fcs.0.bias",
    "bn1.running_mean": "head.mlp.bns.0.running_mean",
    "conv2.bias": "head.fc.bias",
}
DVAE = {
    "codebook": "codebook",
    "encoder.first_conv.3.bias": "backbone.patch_embed.local2.bias",
    "dgcnn_1.input_trans.bias": "backbone.dgcnn.fc_in.bias",
    "dgcnn_1.layer2.1.weight": "backbone.dgcnn.convs.1.norm.weight",
    "dgcnn_1.layer5.1.bias": "backbone.dgcnn.norm.bias",
    "dgcnn_2.layer4.1.bias": "dgcnn.convs.3.norm.bias",
    "dgcnn_2.layer5.1.weight": "dgcnn.norm.weight",
    "decoder.mlp.0.bias": "decoder.fc1.bias",
    "decoder.mlp.2.bias": "decoder.fc2.bias",
    "decoder.mlp.4.weight": "decoder.fc3.weight",
    "decoder.final_conv.0.bias": "decoder.fold.fcs.0.bias",
    "decoder.final_conv.1.running_var": "decoder.fold.bns.0.running_var",
    "decoder.final_conv.3.bias": "decoder.fold.fcs.1.bias",
    "decoder.final_conv.4.weight": "decoder.fold.bns.1.weight",
    "decoder.final_conv.6.bias": "decoder.offset.bias",
}
PRETRAIN = {
    **{f"transformer_q.{theirs}": f"backbone.{ours}" for theirs, ours in CLASSIFIER.items()},
    **{f"transformer_k.{theirs}": f"follower.backbone.{ours}" for theirs, ours in CLASSIFIER.items()},
    **{f"dvae.{theirs}": f"dvae.{ours}" for theirs, ours in DVAE.items()},
    "transformer_q.mask_token": "heads.mask_token",
    "transformer_k.mask_token": "follower.heads.mask_token",
    "transformer_q.lm_head.bias": "heads.codes.bias",
    "transformer_k.lm_head.weight": "follower.heads.codes.weight",
    "transformer_q.cls_head.0.weight": "heads.contrast1.weight",
    "transformer_k.cls_head.2.bias": "follower.heads.contrast2.bias",
    "queue_ptr": "queue.at",
}


def check_places(state: dict[str, Tensor], released: dict[str, Tensor], places: dict[str, str]) -> None:
    for theirs, ours in places.items():
        assert torch.equal(state[ours], released[theirs]), theirs


@pytest.mark.parametrize("prefix", ["", "module.", "module.base_model."])
def test_a_classifier(tmp_path: Path, prefix: str) -> None:
    released = small_release("finetune-scan")
    file = read_model_file(write(released, tmp_path / "m.pth", prefix))
    assert (file.arch, file.config["head"], file.config["num_classes"]) == ("point_transformer", "mlp2", 40)
    assert (file.config["num_groups"], file.config["patch_dim"], file.quirks) == (64, 24, "upstream")
    assert file.preprocess["points"] == 1024
    model = from_file(file)
    check_places(model.state_dict(), released, {**CLASSIFIER, **HEAD})
    assert len(model.load_report.loaded) == len(released)
    assert any("40 outputs" in line for line in model.load_report.assumed)


def test_with_the_head_that_forks_put_on_it(tmp_path: Path) -> None:
    released = small_release("finetune-scan")
    del released["cls_head_finetune.3.weight"], released["cls_head_finetune.3.bias"]
    mae = json.loads((FILES / "point-mae-finetune-scan.keys.json").read_text())["keys"]
    head = {k: [24 if n == 256 else SIZES.get(n, n) for n in s] for k, s in mae.items() if k.startswith("cls_head")}
    released |= {k: torch.rand(s) if s else torch.tensor(7) for k, s in head.items()}
    model = create_model("point_transformer", pretrained=write(released, tmp_path / "m.pth"))
    assert (model.config.head, model.config.num_classes, model.config.num_groups) == ("mlp3", 15, 128)
    assert torch.equal(model.state_dict()["head.fc3.bias"], released["cls_head_finetune.8.bias"])


def test_pre_trained_weights_begin_a_classifier(tmp_path: Path) -> None:
    released = small_release("pretrain")
    path = write(released, tmp_path / "Point-BERT.pth")
    model = create_model("point_transformer", pretrained=path, num_classes=4)
    query = {k.removeprefix("transformer_q."): v for k, v in released.items()}
    check_places(model.state_dict(), query, CLASSIFIER)
    report = model.load_report
    assert model.config.head == "mlp2"
    assert set(report.new) == {k for k in model.state_dict() if k.startswith("head.")}
    assert len(report.loaded) + len(report.dropped) == len(released)
    assert {"transformer_q.mask_token", "transformer_q.lm_head.weight", "queue", "dvae.codebook"} <= set(report.dropped)


def test_part_segmentation(tmp_path: Path) -> None:
    released = small_release("partseg", depth=12)
    path = tmp_path / "parts.pth"
    torch.save({"model_state_dict": released, "epoch": 1}, path)
    model = create_model("point_transformer", pretrained=path)
    check_places(model.state_dict(), released, {**CLASSIFIER, **PARTS})
    assert (model.config.part_head.categories, model.config.num_classes) == (16, 50)
    assert model.config.part_head.graph.levels == (512, 256)


def test_a_dvae_is_a_tokenizer_and_an_objective(tmp_path: Path) -> None:
    released = small_release("dvae")
    path = write(released, tmp_path / "dVAE.pth")
    objective = read_objective(path, create_objective)
    check_places(objective.state_dict(), released, DVAE)
    assert objective.backbone.config.group_size == 16  # four points for each of four coarse ones
    assert objective.config.quirks.divergence_from_prior
    tokenizer = create_model("point_tokenizer", pretrained=path, num_groups=4).eval()
    own = {t: o.removeprefix("backbone.") for t, o in DVAE.items() if o.startswith("backbone.")}
    check_places(tokenizer.state_dict(), released, own)
    assert "codebook" in tokenizer.load_report.dropped
    assert len(tokenizer.load_report.loaded) + len(tokenizer.load_report.dropped) == len(released)
    assert tokenizer({"xyz": torch.randn(1, 30, 3)}).shape == (1, 20)


def test_the_objective_goes_on_from_its_release(tmp_path: Path) -> None:
    released = small_release("pretrain")
    objective = read_objective(write(released, tmp_path / "Point-BERT.pth"), create_objective)
    check_places(objective.state_dict(), released, PRETRAIN)
    # A direction is a row here, a column there.
    assert torch.equal(objective.state_dict()["queue.keys"], released["queue"].T)
    assert len(objective.state_dict()) == len(released)
    assert objective.config.quirks.tokenizer_trains


def test_entries() -> None:
    assert len(weights_for("point_bert_base")) == 7
    assert weights_for("point_tokenizer_base") == ["point_tokenizer_base.shapenet55"]
    hardest = WEIGHTS.get("point_bert_base.scan_hardest")
    assert hardest.preprocess == {"normalize": "none"}
    assert len(hardest.classes) == 40
    assert WEIGHTS.get("point_bert_base.modelnet_4k").config["num_groups"] == 256


def test_an_entry_knows_what_tensors_do_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTLIFT_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    released = {
        k: torch.zeros(s) if s else torch.tensor(1)
        for k, s in json.loads((FILES / "point-bert-finetune-scan.keys.json").read_text())["keys"].items()
    }
    write(released, tmp_path / "weights" / "point_bert_base.scan_objbg.pth")
    model = create_model("point_bert_base.scan_objbg")
    assert model.preprocess["normalize"] == "none"
    assert model.classes[:2] == ("bag", "bin")
    assert model.load_report.assumed == ()
