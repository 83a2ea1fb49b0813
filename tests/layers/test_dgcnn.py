"""Edge convolutions and the folding decoder against their definitions, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.layers.dgcnn import Dgcnn, EdgeConv, neighbors
from pointlift.layers.folding import FoldingDecoder


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def written_out(conv: EdgeConv, own: Tensor, others: Tensor, idx: Tensor) -> Tensor:
    """Card point-bert, section 3, for one cloud after another."""
    clouds = []
    for feats, far, near in zip(own, others, idx, strict=True):
        edges = torch.cat([far[near] - feats.unsqueeze(1), feats.unsqueeze(1).expand_as(far[near])], -1)
        edges = F.linear(edges, conv.fc.weight).permute(2, 0, 1).unsqueeze(0)
        normed = F.group_norm(edges, conv.norm.num_groups, conv.norm.weight, conv.norm.bias)
        clouds.append(F.leaky_relu(normed, 0.2).amax(-1)[0].T)
    return torch.stack(clouds)


class Called(nn.Module):
    """A layer that was swapped: it can be called and not read."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.weight, self.inner = inner.weight, inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize("swapped", [False, True])
def test_an_edge_convolution(swapped: bool) -> None:
    torch.manual_seed(0)
    conv = EdgeConv(5, 8)
    nn.init.normal_(conv.norm.weight)  # some negative: the maximum must follow the norm
    own, others = random(2, 7, 5), random(2, 9, 5, seed=1)
    idx = torch.randint(9, (2, 7, 3), generator=torch.Generator().manual_seed(2))
    expected = written_out(conv, own, others, idx)
    if swapped:
        conv.fc = Called(conv.fc)
    torch.testing.assert_close(conv(own, others, idx), expected, rtol=0, atol=1e-5)


def test_a_graph_is_found_once_and_holds_the_point_itself() -> None:
    centers = random(2, 10, 3)
    idx = neighbors(centers, centers, 4)
    assert torch.equal(idx[..., 0], torch.arange(10).expand(2, -1))
    assert neighbors(centers, centers[:, :3], 4).shape == (2, 10, 3)
    net = Dgcnn(6, 8, base=4)
    assert net.fc_out.in_features == 8 + 16 + 16 + 32
    assert net(random(2, 10, 6), centers).shape == (2, 10, 8)


def test_clouds_stay_apart() -> None:
    torch.manual_seed(0)
    net = Dgcnn(6, 8, base=4)
    feats, centers = random(3, 10, 6), random(3, 10, 3, seed=1)
    together = net(feats, centers)
    torch.testing.assert_close(net(feats[1:2], centers[1:2]), together[1:2], rtol=0, atol=1e-5)
    # Patches are a set: their order only orders the answer.
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(feats[:, order], centers[:, order]), together[:, order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_folding(swapped: bool, training: bool) -> None:
    torch.manual_seed(0)
    decoder = FoldingDecoder(6, 8, hidden=10, folding=12).train(training)
    for bn in decoder.fold.bns:
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.running_mean)
    feats = random(2, 3, 6)
    hidden = F.relu(decoder.fc2(F.relu(decoder.fc1(feats))))
    coarse = decoder.fc3(hidden).view(2, 3, 2, 3)
    square = torch.tensor([[-0.05, -0.05], [0.05, -0.05], [-0.05, 0.05], [0.05, 0.05]])
    rows = [
        torch.cat([feats[b, g], square[s], coarse[b, g, c]])
        for b in range(2)
        for g in range(3)
        for c in range(2)
        for s in range(4)
    ]
    x = torch.stack(rows)
    for fc, bn in zip(decoder.fold.fcs, decoder.fold.bns, strict=True):
        stats = (None, None, bn.weight, bn.bias, True) if training else (
            bn.running_mean, bn.running_var, bn.weight, bn.bias, False
        )  # fmt: skip
        x = F.relu(F.batch_norm(fc(x), *stats))
    fine = decoder.offset(x).view(2, 3, 2, 4, 3) + coarse.unsqueeze(3)
    if swapped:
        decoder.fold.fcs[0] = Called(decoder.fold.fcs[0])
    folded = decoder(feats)
    torch.testing.assert_close(folded.coarse, coarse)
    torch.testing.assert_close(folded.fine, fine.flatten(2, 3), rtol=0, atol=1e-5)
    assert not any("grid" in key for key in decoder.state_dict())
