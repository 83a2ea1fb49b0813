"""Masked autoencoding: what the paper says of masks, of what the encoder sees, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointlift.core.errors import ConfigError, UnknownNameError
from pointlift.pretrain.masking import block_mask, num_hidden, random_mask, random_order
from pointlift.pretrain.registry import create_objective

SIZES = {
    "num_groups": 10,
    "group_size": 6,
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 3,
    "patch_widths": (8, 8, 16),
    "pos_hidden": 6,
    "drop_path": 0.0,
}


def small(**options):
    torch.manual_seed(0)
    options = {"decoder_depth": 1, "decoder_heads": 2, "drop_path": 0.0, **options}
    return create_objective("masked", "point_transformer", backbone_options=SIZES, **options)


@pytest.fixture
def clouds() -> Tensor:
    return torch.randn(3, 60, 3, generator=torch.Generator().manual_seed(1))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ratio", [0.01, 0.6, 0.75])
def test_every_cloud_hides_the_same_number(ratio: float) -> None:
    hidden = num_hidden(16, ratio)
    mask = random_mask(random_order(50, 16, seeded(0)), hidden)
    assert (mask.sum(1) == hidden).all()
    if hidden > 1:
        assert len(mask.unique(dim=0)) > 10
        # Every patch is as likely as another.
        assert mask.float().mean(0).sub(hidden / 16).abs().max() < 0.3


def test_a_block_is_the_anchor_with_its_nearest(clouds: Tensor) -> None:
    anchor = torch.tensor([4, 0, 59])
    mask = block_mask(clouds, anchor, 7)
    for cloud, own, row in zip(clouds, anchor, mask, strict=True):
        distance = (cloud - cloud[own]).norm(dim=1)
        assert row[own]
        assert row.sum() == 7
        assert distance[row].max() <= distance[~row].min()
    assert not block_mask(clouds, anchor, 0).any()


@pytest.mark.parametrize("mask", ["random", "block"])
def test_noise_decides_everything(clouds: Tensor, mask: str) -> None:
    objective = small(mask=mask)
    first, same, other = (objective.draw({"xyz": clouds}, seeded(seed)) for seed in (0, 0, 1))
    losses = [objective({"xyz": clouds}, noise).total for noise in (first, same, other)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_hidden_patches_are_not_seen(clouds: Tensor) -> None:
    """What is hidden may be anything: the encoder's output stays, as long as patches and centres do."""
    objective = small().eval()
    noise = objective.draw({"xyz": clouds}, seeded(0))
    (grouping,) = objective.backbone.groups(clouds)
    before = objective({"xyz": clouds}, noise).found
    hidden = set(grouping.idx[0][before["mask"][0]].flatten().tolist())
    lone = hidden - set(grouping.idx[0][~before["mask"][0]].flatten().tolist()) - set(grouping.center_idx[0].tolist())
    moved = clouds.clone()
    moved[0, sorted(lone)[0]] += 1e-4  # too little to change who is whose neighbour
    after = objective({"xyz": moved}, noise).found
    assert torch.equal(before["visible"], after["visible"])
    assert not torch.equal(before["target"], after["target"])


def test_targets_and_predictions_are_the_hidden_patches(clouds: Tensor) -> None:
    objective = small()
    found = objective({"xyz": clouds}, objective.draw({"xyz": clouds}, seeded(0))).found
    hidden = objective.hidden
    assert found["rebuilt"].shape == found["target"].shape == (3 * hidden, 6, 3)
    assert found["visible"].shape == (3, 10 - hidden, 12)
    # A patch is given relative to its centre, which is one of its points.
    assert (found["target"].abs().sum(-1).min(1).values == 0).all()


@pytest.mark.parametrize("loss", ["cd_l1", "cd_l2"])
def test_every_parameter_learns_and_the_loss_falls(clouds: Tensor, loss: str) -> None:
    objective = small(loss=loss).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    noise = objective.draw({"xyz": clouds}, seeded(0))
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        losses = objective({"xyz": clouds}, noise)
        losses.total.backward()
        if not values:
            silent = [n for n, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
            # A bias in front of a BatchNorm has no effect.
            assert all(n.endswith(("local1.bias", "joint1.bias")) for n in silent), silent
        optimizer.step()
        values.append(losses.total.item())
    assert values[-1] < 0.6 * values[0]


def test_the_picture(clouds: Tensor) -> None:
    objective = small().train()
    noise = objective.draw({"xyz": clouds}, seeded(0))
    picture = objective.show({"xyz": clouds}, noise)
    assert objective.training
    hidden = objective.hidden
    assert picture.given.shape == (3, (10 - hidden) * 6, 3)
    assert picture.rebuilt.shape == (3, hidden * 6, 3)
    # Given points are points of the cloud.
    assert torch.cdist(picture.given.double(), clouds.double()).amin(2).max() < 1e-6
    assert picture.target.shape == picture.rebuilt.shape
    assert torch.cdist(picture.target.double(), clouds.double()).amin(2).max() < 1e-6
    assert not picture.rebuilt.requires_grad


def test_the_backbone_has_no_class_token_and_gives_features(clouds: Tensor) -> None:
    objective = small()
    assert objective.backbone.config.class_token is False
    assert not any("cls" in name for name, _ in objective.named_parameters())
    assert objective.backbone({"xyz": clouds}).shape == (3, 24)  # mean and max


def test_mistakes() -> None:
    with pytest.raises(UnknownNameError, match="masked"):
        create_objective("maskd")
    with pytest.raises(ConfigError, match="mask_ratio"):
        create_objective("masked", mask_ratio=1.5)
