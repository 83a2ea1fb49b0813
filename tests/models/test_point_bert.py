"""Point-BERT on the point transformer, its part segmentation head and its tokenizer: what the card says of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift import ops
from pointlift.core.errors import ConfigError, UsageError
from pointlift.models.part_head import GraphPartHead
from pointlift.models.registry import create_model

SIZES = {
    "num_groups": 6,
    "group_size": 4,
    "embed_dim": 12,
    "depth": 3,
    "num_heads": 3,
    "patch_widths": (6, 8, 10),
    "patch_dim": 7,
    "pos_hidden": 5,
}
GRAPH = {"levels": (20, 10), "hidden": 8, "neighbors": 3}
PARTS = {"categories": 4, "fetch": (0, 1, 2), "propagation": (16, 12), "hidden": (9,), "graph": GRAPH}


def segmenter(**options):
    torch.manual_seed(0)
    sizes = {**SIZES, "part_head": PARTS, **options}
    return create_model("point_transformer", num_classes=5, head="parts", **sizes).eval()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    xyz = torch.randn(3, 40, 3, generator=torch.Generator().manual_seed(1))
    return {"xyz": xyz, "category": torch.tensor([0, 3, 1])}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"num_classes": 40}, 22_065_960),
        (
            {
                "num_classes": 50,
                "head": "parts",
                "part_head": {"propagation": (1536, 384), "hidden": (128,), "graph": {}},
            },
            27_085_874,
        ),
    ],
)
def test_parameter_counts_of_the_released_models(options: dict, count: int) -> None:
    with torch.device("meta"):
        model = create_model("point_bert_base", **options)
    assert sum(p.numel() for p in model.parameters()) == count
    assert (model.config.num_groups, model.config.group_size) == (64, 32)


def test_released_constants_of_the_part_head() -> None:
    with torch.device("meta"):
        head = create_model(
            "point_bert_base",
            num_classes=50,
            head="parts",
            part_head={"propagation": (1536, 384), "hidden": (128,), "graph": {}},
        ).head
    assert isinstance(head, GraphPartHead)
    assert head.levels == (512, 256)
    assert {s.k for s in head.steps} == {4}
    norms = [m for m in head.modules() if isinstance(m, nn.GroupNorm)]
    assert {(m.num_groups, m.eps) for m in norms} == {(4, 1e-5)}
    assert len(norms) == 4
    assert head.mlp.dropout.p == 0.5


def test_a_linear_layer_brings_patches_to_the_width_of_tokens(batch: dict) -> None:
    torch.manual_seed(0)
    model = create_model("point_transformer", num_classes=5, head="mlp2", head_hidden=(8, 9), **SIZES).eval()
    features = model.forward_features(batch, taps=["patch_tokens", "tokens"])
    assert features.taps["patch_tokens"].shape == (3, 6, 7)
    x = torch.cat([model.cls_token.expand(3, -1, -1), model.reduce(features.taps["patch_tokens"])], 1)
    pos = torch.cat([model.cls_pos.expand(3, -1, -1), model.pos_embed(features.levels[0].xyz)], 1)
    for block in model.trunk.blocks:
        x = block(x + pos)
    x = model.trunk.norm(x)
    torch.testing.assert_close(features.taps["tokens"], x, rtol=0, atol=1e-5)
    pooled = torch.cat([x[:, 0], x[:, 1:].amax(1)], -1)
    logits = model.head.fc2(F.relu(model.head.fc1(pooled)))  # eight wide: the first of the two widths
    torch.testing.assert_close(model(batch), logits, rtol=0, atol=1e-5)
    assert model.head.fc1.out_features == 8


def carried(xyz: Tensor, centers: Tensor, feats: Tensor) -> Tensor:
    """Three nearest, weighted by one over the squared distance, one cloud."""
    dist = torch.cdist(xyz.double(), centers.double())
    near, idx = dist.topk(3, largest=False)
    weight = 1 / (near**2 + 1e-8)
    return (feats[idx] * (weight / weight.sum(1, keepdim=True)).unsqueeze(-1)).sum(1).float()


def mlp(module, rows: Tensor) -> Tensor:
    for fc, bn in zip(module.fcs, module.bns, strict=True):
        rows = F.relu(F.batch_norm(fc(rows), bn.running_mean, bn.running_var, bn.weight, bn.bias))
    return rows


def edges(conv, own_xyz: Tensor, own: Tensor, xyz: Tensor, feats: Tensor, k: int) -> Tensor:
    idx = torch.cdist(own_xyz.double(), xyz.double()).topk(k, largest=False).indices
    both = torch.cat([feats[idx] - own.unsqueeze(1), own.unsqueeze(1).expand(-1, k, -1)], -1)
    return F.leaky_relu(conv.norm(conv.fc(both).permute(2, 0, 1).unsqueeze(0)), 0.2)[0].amax(-1).T


def test_part_segmentation_is_the_card(batch: dict) -> None:
    model = segmenter()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.weight)
    logits, head = model(batch), model.head
    features = model.forward_features(batch, taps=[f"level.0.block.{i}" for i in range(3)])
    for b in range(3):
        xyz = batch["xyz"][b]
        blocks = [model.trunk.norm(features.taps[f"level.0.block.{i}"][b, 1:]) for i in range(3)]
        centers = features.levels[0].xyz[b]
        levels = [xyz[ops.farthest_point_sample(xyz[None], n)[0]] for n in (20, 10)]
        known = [
            mlp(head.lift[i].mlp, torch.cat([levels[i], carried(levels[i], centers, blocks[i])], -1)) for i in (0, 1)
        ]
        x, place = blocks[2], centers
        for i in (1, 0):
            step = head.steps[i]
            x = edges(step.across, levels[i], known[i], place, x, 3)
            x = edges(step.within, levels[i], x, levels[i], x, 3)
            place = levels[i]
        one_hot = F.one_hot(batch["category"][b], 4).float().expand(40, -1)
        x = mlp(head.propagation.mlp, torch.cat([one_hot, xyz, carried(xyz, place, x)], -1))
        torch.testing.assert_close(logits[b], head.fc(mlp(head.mlp, x)), rtol=0, atol=1e-4)


def test_part_logits_do_not_depend_on_the_batch_and_follow_the_points(batch: dict) -> None:
    model = segmenter()
    together = model(batch)
    for i in range(3):
        alone = model({k: v[i : i + 1] for k, v in batch.items()})
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)
    # Sampling begins at the first point, which stays; the rest in another order.
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(39)])
    shuffled = model({**batch, "xyz": batch["xyz"][:, order]})
    torch.testing.assert_close(shuffled, together[:, order], rtol=0, atol=1e-4)
    other = model({**batch, "category": torch.tensor([1, 3, 1])})
    assert not torch.allclose(other[0], together[0])
    assert torch.equal(other[1], together[1])


def test_every_parameter_of_the_part_head_learns(batch: dict) -> None:
    model = segmenter(drop_path=0.0, head_dropout=0.0).train()
    model(batch).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias in front of a BatchNorm has no effect.
    assert all(n.endswith(("local1.bias", "joint1.bias", "fcs.0.bias", "fcs.1.bias")) for n in silent), silent
    logits = model({k: v[:1] for k, v in batch.items()})
    assert logits.isfinite().all()


def test_part_head_mistakes(batch: dict) -> None:
    model = segmenter()
    assert model.min_points == 20
    with pytest.raises(UsageError, match="at least 20 points"):
        model({**batch, "xyz": batch["xyz"][:, :19]})
    for changes, message in (
        ({"propagation": (16, 13)}, "expected to end on embed_dim 12"),
        ({"fetch": (1, 2)}, "one level less than fetch"),
        ({"graph": {**GRAPH, "levels": (10, 20)}}, "fewer points from level to level"),
        ({"graph": {**GRAPH, "levels": (20, 2)}}, "at least 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            segmenter(part_head={**PARTS, **changes})
    with pytest.raises(ConfigError, match="patch_dim 0"):
        create_model("point_transformer", patch_dim=0)


def test_a_tokenizer_gives_each_patch_its_best_code(batch: dict) -> None:
    torch.manual_seed(0)
    sizes = {"num_groups": 6, "group_size": 4, "patch_dim": 8, "patch_widths": (6, 8, 10), "num_codes": 12}
    model = create_model("point_tokenizer", graph_base=4, **sizes).eval()
    (grouping,) = model.groups(batch["xyz"])
    scores = model.scores(grouping.neighborhoods, grouping.centers)
    assert scores.shape == (3, 6, 12)
    assert torch.equal(model.codes(grouping.neighborhoods, grouping.centers), scores.argmax(-1))
    assert torch.equal(model.forward_features(batch).levels[0].feats, scores)
    with pytest.raises(ConfigError, match="no such head"):
        create_model("point_tokenizer", head="parts")
    with pytest.raises(ConfigError, match="no class token"):
        create_model("point_tokenizer", pooling="cls")
