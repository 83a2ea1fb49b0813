"""The mini-PointNet against the cards' convolutions, and that its shortcuts are only shortcuts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pointlift.layers.linear import fold_norm, linear_norm
from pointlift.layers.patch_embed import PatchEmbed, PosEmbed, init_tokens_

B, G, K, C = 2, 5, 4, 6
WIDTHS = (3, 4, 7)


@pytest.fixture
def embed() -> PatchEmbed:
    torch.manual_seed(0)
    return random_(PatchEmbed(C, WIDTHS).double())


@pytest.fixture
def patches() -> Tensor:
    return torch.randn(B, G, K, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def random_(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return module


class Convolutions(nn.Module):
    """Card point-mae, section 2: 1x1 convolutions over (B·G, channels, K); the global feature comes first."""

    def __init__(self, like: PatchEmbed) -> None:
        super().__init__()
        like = copy.deepcopy(like)
        local1, local2, joint1, joint2 = map(self.convolution, (like.local1, like.local2, like.joint1, like.joint2))
        self.first_conv = nn.Sequential(local1, like.bn1, nn.ReLU(), local2)
        self.second_conv = nn.Sequential(joint1, like.bn2, nn.ReLU(), joint2)

    @staticmethod
    def convolution(linear: nn.Linear) -> nn.Conv1d:
        conv = nn.Conv1d(linear.in_features, linear.out_features, 1).double()
        conv.load_state_dict({"weight": linear.weight.unsqueeze(-1), "bias": linear.bias})
        return conv

    def forward(self, patches: Tensor) -> Tensor:
        local = self.first_conv(patches.flatten(0, 1).transpose(1, 2))
        pooled = local.max(2, keepdim=True)[0]
        both = torch.cat([pooled.expand(-1, -1, K), local], 1)
        return self.second_conv(both).max(2)[0].view(B, G, -1)


@pytest.mark.parametrize("training", [False, True])
def test_it_is_the_convolutions_of_the_card(embed: PatchEmbed, patches: Tensor, training: bool) -> None:
    naive = Convolutions(embed).train(training)
    embed.train(training)
    ours, theirs = patches.clone().requires_grad_(), patches.clone().requires_grad_()
    found, expected = embed(ours), naive(theirs)
    assert found.shape == (B, G, C)
    torch.testing.assert_close(found, expected)
    for bn, twin in ((embed.bn1, naive.first_conv[1]), (embed.bn2, naive.second_conv[1])):
        torch.testing.assert_close(bn.running_mean, twin.running_mean)
        torch.testing.assert_close(bn.running_var, twin.running_var)
        assert bn.num_batches_tracked == twin.num_batches_tracked == int(training)
    weight = torch.randn_like(found)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(embed.joint1.weight.grad, naive.second_conv[0].weight.grad.squeeze(-1))
    torch.testing.assert_close(embed.bn2.weight.grad, naive.second_conv[1].weight.grad)


@pytest.mark.parametrize("training", [False, True])
def test_kept_patches_are_embedded_as_among_all(embed: PatchEmbed, patches: Tensor, training: bool) -> None:
    """The others count in the statistics: tokens, gradients and buffers are those of embedding all and selecting."""
    embed.train(training)
    twin, keep = copy.deepcopy(embed), torch.rand(B, G, generator=torch.Generator().manual_seed(2)) < 0.5
    found, expected = embed(patches, keep), twin(patches)[keep]
    assert 0 < len(found) < B * G
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for own, other in zip(embed.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)
    torch.testing.assert_close(embed.bn2.running_var, twin.bn2.running_var)


def test_where_nothing_learns_clouds_pass_in_pieces(embed: PatchEmbed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens; what learns, or is normed over the batch, passes as a whole."""
    patches, seen = torch.randn(7, G, K, 3, dtype=torch.float64), []
    embed.local2.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0]) // (G * K)))
    monkeypatch.setattr("pointlift.layers.patch_embed._CACHED", 3 * G * K * WIDTHS[2])
    embed.train()(patches)
    whole = embed.eval()(patches)
    embed.eval().requires_grad_(False)(patches.clone().requires_grad_())
    assert seen == [7, 7, 7]
    torch.testing.assert_close(embed(patches), whole)
    assert seen[3:] == [3, 3, 1]


def test_it_is_exported_for_any_number_of_clouds(embed: PatchEmbed) -> None:
    """The number of pieces is no constant of the graph."""
    patches = torch.randn(3, G, K, 3, dtype=torch.float64)
    with torch.no_grad():
        program = torch.export.export(embed.eval(), (patches,), dynamic_shapes=({0: torch.export.Dim("b", min=1)},))
        many = torch.randn(40, G, K, 3, dtype=torch.float64)
        torch.testing.assert_close(program.module()(many), embed(many))


def test_single_precision_has_the_gradients_of_double(embed: PatchEmbed, patches: Tensor) -> None:
    """Its last layer and maximum are one operation with a backward pass of its own."""
    single = copy.deepcopy(embed).float().train()
    embed.train()
    weight = torch.randn(B, G, C, dtype=torch.float64)
    (embed(patches) * weight).sum().backward()
    (single(patches.float()) * weight.float()).sum().backward()
    for own, other in zip(single.parameters(), embed.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad.float(), rtol=1e-3, atol=1e-4)


class Wrapped(nn.Module):
    """A linear layer with a correction beside it, as LoRA inserts; counts its calls."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.calls = base, 0
        self.down, self.up = nn.Linear(base.in_features, 1).double(), nn.Linear(1, base.out_features).double()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.base(x) + self.up(self.down(x))

    def merged(self) -> nn.Linear:
        merged = copy.deepcopy(self.base)
        with torch.no_grad():
            merged.weight += self.up.weight @ self.down.weight
            merged.bias += self.up.weight @ self.down.bias + self.up.bias
        return merged


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["local1", "local2", "joint1", "joint2"])
def test_a_swapped_linear_is_called_and_not_read(embed: PatchEmbed, patches: Tensor, name: str, training: bool) -> None:
    wrapped = Wrapped(getattr(embed, name))
    merged = copy.deepcopy(embed)
    setattr(merged, name, wrapped.merged())
    setattr(embed, name, wrapped)
    found = embed.train(training)(patches)
    assert wrapped.calls == 1
    torch.testing.assert_close(found, merged.train(training)(patches))
    found.sum().backward()
    assert wrapped.down.weight.grad is not None


def test_a_held_batchnorm_is_folded_while_the_rest_trains(embed: PatchEmbed, patches: Tensor) -> None:
    embed.train()
    for bn in (embed.bn1, embed.bn2):
        bn.eval()
    torch.testing.assert_close(embed(patches), copy.deepcopy(embed).eval()(patches))
    assert embed.bn1.num_batches_tracked == 0


def test_folding_is_the_norm_of_the_linear() -> None:
    torch.manual_seed(0)
    linear, norm = nn.Linear(3, 5).double(), random_(nn.BatchNorm1d(5).double()).eval()
    x = torch.randn(11, 3, dtype=torch.float64)
    torch.testing.assert_close(linear_norm(x, linear, norm), norm(linear(x)))
    assert fold_norm(linear, norm) is not None
    assert fold_norm(linear, norm.train()) is None
    assert fold_norm(nn.Sequential(linear), norm.eval()) is None
    without_bias = nn.Linear(3, 5, bias=False).double()
    torch.testing.assert_close(linear_norm(x, without_bias, norm), norm(without_bias(x)))


def test_patches_do_not_see_each_other_in_evaluation(embed: PatchEmbed, patches: Tensor) -> None:
    embed.eval()
    changed = patches.clone()
    changed[0, 0] += 1
    differ = (embed(changed) != embed(patches)).any(-1)
    assert differ.sum() == 1
    order = torch.randperm(K)
    torch.testing.assert_close(embed(patches[:, :, order]), embed(patches))


def test_autocast(embed: PatchEmbed, patches: Tensor) -> None:
    embed, patches = embed.float(), patches.float()
    for training in (True, False):
        embed.train(training)
        with torch.autocast("cpu", torch.bfloat16):
            found = embed(patches)
        torch.testing.assert_close(found.float(), embed(patches), rtol=0.1, atol=0.15)


def test_positions_are_two_linears_on_raw_centres() -> None:
    torch.manual_seed(0)
    embed, centers = PosEmbed(C, hidden=5), torch.randn(B, G, 3)
    hidden = centers @ embed.fc1.weight.T + embed.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(embed(centers), hidden @ embed.fc2.weight.T + embed.fc2.bias)


def test_tokens_begin_small_and_random() -> None:
    torch.manual_seed(0)
    token = nn.Parameter(torch.zeros(1, 50, 200))
    init_tokens_(token)
    assert token.std().item() == pytest.approx(0.02, rel=0.05)
    assert token.requires_grad
