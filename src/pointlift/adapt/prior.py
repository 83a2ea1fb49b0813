"""What the frozen network says of whole clouds: the query of Point-PEFT's memory bank, and the bank's rows.

Card `point-peft`, section 2: a second network runs beside the one that is adapted, with the weights as pre-trained, in
evaluation mode, hiding nothing. Here it is no second network: most of its weights are those of the frozen base, and
only the tensors that training changes are kept twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pointlift.core.errors import UsageError
from pointlift.models.base import PATCH_TOKENS, PointModel
from pointlift.models.point_m2ae import PointM2AEConfig
from pointlift.models.point_transformer import PointTransformerConfig
from pointlift.ops import Grouping
from pointlift.weights.hashing import state_hash

Sizes = int | tuple[int, ...]


@dataclass(frozen=True)
class PriorConfig:
    """How the frozen network cuts clouds into patches, where it does so otherwise than the adapted one.

    The released Point-MAE has 64 patches of 32 points beside a trunk of 128 of 32; the released Point-M2AE reads 16, 8
    and 8 members beside a trunk that reads 32, 16 and 16.
    """

    num_groups: Sizes | None = None
    """Patches, one number per level from fine to coarse; None: of a plain trunk half of the adapted network's, as
    released for 128; of a hierarchy as many."""
    group_size: Sizes | None = None
    """Members of a patch, one number per level; None: as the adapted network."""


class Declares(Protocol):
    """The part of an adaptation's config that says what changes."""

    def trainable(self, parts: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]: ...
    def held_in_eval(self, parts: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]: ...


def base_changes(model: PointModel, adaptation: Declares) -> set[str]:
    """Names of the base's parameters and moving BatchNorm buffers that training under `adaptation` will change."""
    parts = model.parts()
    learned, held = adaptation.trainable(parts), adaptation.held_in_eval(parts)
    names = {n for n, _ in model.named_parameters() if n.startswith(learned)}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not prefix.startswith(held):
            names |= {f"{prefix}.{buffer}" for buffer, _ in module.named_buffers(recurse=False)}
    return names


class Prior(nn.Module):
    """The frozen network: clouds to one vector each, whatever training does to the base.

    Point transformer: tokens without a class token, the largest value over patches after the final norm. Point-M2AE:
    mean plus maximum of the coarsest level's tokens after its norm; the released query is the coarsest of three such
    vectors, and the finer levels of a classifier have no norms.

    Nothing here learns. The state dict holds, under `kept.`, those of the base's tensors that training changes, as
    they were when the adaptation was made; all others are the base's own. Computed in float32 outside autocast,
    because the bank's rows were, and a cosine compares the two. Where the adapted network's groupings contain this
    one's (the same centres, at least as many of them and as many members), they are shared; so are its embedded
    patches, where these have the same members and weights that stay.

    Args:
        model: The network that is adapted.
        changing: Names of its tensors that training will change (`base_changes`).
        config: Its own groupings.

    Raises:
        UsageError: A network of another family, or sizes that it cannot have.
    """

    def __init__(self, model: PointModel, changing: Collection[str], config: PriorConfig | None = None) -> None:
        super().__init__()
        host_sizes = _sizes(model.config)
        with torch.device("meta"):
            network: Callable[[Any], PointModel] = type(model)
            net = network(_plain(model.config, config or PriorConfig())).eval()
        self._names = frozenset(_tensors(net))
        self._shares = _contained(_sizes(net.config), host_sizes)
        # In tuples, so that they are no submodules: neither has parameters of its own here.
        self._pass = (_Pass(net),)
        self._host = (model,)
        self.dim: int = net.num_features
        self.kept = nn.Module()
        embedding = next(iter(net.parts().values()))  # patches to tokens
        self._frozen_patches = not any(name.startswith(embedding) for name in changing)
        for name, tensor in _tensors(model).items():
            if name in changing and name in self._names:
                _put(self.kept, name, tensor.detach().clone())

    def attach(self, model: PointModel) -> None:
        """The network whose frozen tensors are read from now on."""
        self._host = (model,)

    def forward(self, batch: Mapping[str, Tensor], levels: Sequence[Grouping]) -> Tensor:
        """Clouds `xyz` (B, N, 3), and the groupings that the adapted network made of them, to (B, dim) float32.

        Where clouds come again (`PointModel.remembering`), each is computed once.

        Raises:
            UsageError: Too few points for the groups.
        """
        state = self._state()
        return self._host[0].once("prior", batch["xyz"], [*state.values()], lambda: self._compute(batch, levels, state))

    @torch.no_grad()
    def _compute(self, batch: Mapping[str, Tensor], levels: Sequence[Grouping], state: dict[str, Tensor]) -> Tensor:
        xyz, net = batch["xyz"], self._pass[0].net
        net.config = replace(net.config, quirks=self._host[0].config.quirks)  # `set_quirks` may have acted
        with torch.autocast(xyz.device.type, enabled=False):
            given = (xyz, self._share(levels), self._shared_tokens(batch))
            return torch.func.functional_call(self._pass[0], state, given).float()

    def _shared_tokens(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """The first of the adapted network's embedded patches, where they are this network's own to the last bit."""
        tokens = batch.get(PATCH_TOKENS)
        (own, *_), (host, *_) = _sizes(self._pass[0].net.config), _sizes(self._host[0].config)
        same = self._shares and self._frozen_patches and own[1] == host[1]
        if tokens is None or not same or tokens.dtype != torch.float32:  # under autocast they are rounded
            return None
        return tokens[:, : own[0]].detach()

    def _share(self, levels: Sequence[Grouping]) -> list[Grouping] | None:
        """The first rows and members of the adapted network's groupings, where those are this network's own."""
        if not self._shares:
            return None
        shared: list[Grouping] = []
        for level, (count, members) in zip(levels, _sizes(self._pass[0].net.config), strict=True):
            points = shared[-1].centers if shared else level.points
            shared.append(
                Grouping(points, level.centers[:, :count], level.center_idx[:, :count], level.idx[:, :count, :members])
            )
        return shared

    def _state(self) -> dict[str, Tensor]:
        """Every tensor of the pass, by its name there."""
        tensors = _tensors(self._host[0]) | _tensors(self.kept)
        return {f"net.{name}": tensors[name] for name in self._names}

    def hash(self) -> str:
        """sha256 of the weights that make the features: a memory bank names it."""
        state = self._state()
        return state_hash({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")})

    def same_as(self, other: Prior) -> bool:
        """Whether both say the same of the same clouds: equal weights and equal groupings of equal networks."""
        if self._host[0].config.quirks != other._host[0].config.quirks or self.describe() != other.describe():
            return False
        own, others = self._state(), other._state()
        return own.keys() == others.keys() and all(torch.equal(tensor, others[name]) for name, tensor in own.items())

    def describe(self) -> dict[str, Any]:
        """What else the features depend on, for the facts of a bank."""
        sizes = _sizes(self._pass[0].net.config)
        return {
            "arch": self._host[0].arch,
            "num_groups": [count for count, _ in sizes],
            "group_size": [members for _, members in sizes],
        }


class _Pass(nn.Module):
    """The forward pass as `functional_call` wants it; `net` has no memory of its own (device "meta")."""

    def __init__(self, net: PointModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, xyz: Tensor, groups: Sequence[Grouping] | None, tokens: Tensor | None) -> Tensor:
        batch = {"xyz": xyz} if tokens is None else {"xyz": xyz, PATCH_TOKENS: tokens}
        return self.net.forward_features(batch, groups=groups).pool(self.net.config.pooling)


def _plain(config: Any, own: PriorConfig) -> Any:
    """The config of the network whose pooled features are wanted: no head, no class token, groupings of its own."""
    levels = _sizes(config)
    plain = isinstance(config, PointTransformerConfig)
    counts, members = zip(*levels, strict=True)
    sizes: dict[str, Any] = {}
    for name, usual in (("num_groups", (max(1, counts[0] // 2),) if plain else counts), ("group_size", members)):
        given = getattr(own, name)
        numbers = usual if given is None else (given,) if isinstance(given, int) else given
        if len(numbers) != len(levels):
            raise UsageError(f"prior.{name} {given}", f"one number per level of the network: {len(levels)}")
        sizes[name] = tuple(numbers)
    try:
        if plain:
            sizes = {name: numbers[0] for name, numbers in sizes.items()}
            return replace(config, num_classes=0, head="linear", class_token=False, pooling="max", **sizes)
        return replace(config, num_classes=0, head="linear", level_norms=False, pooling="mean_plus_max", **sizes)
    except ValueError as error:
        raise UsageError(f"prior: {error}", "sizes that the network can have") from error


def _sizes(config: Any) -> tuple[tuple[int, int], ...]:
    """Patches and members of every level, from fine to coarse."""
    if isinstance(config, PointTransformerConfig):
        return ((config.num_groups, config.group_size),)
    if isinstance(config, PointM2AEConfig):
        return tuple(zip(config.num_groups, config.group_size, strict=True))
    raise UsageError(
        f"a prior of a {type(config).__name__.removesuffix('Config')}", "a point transformer or Point-M2AE"
    )


def _contained(own: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> bool:
    """Whether groupings `own` are first rows and members of `other`.

    Farthest points are chosen one after the other and members are listed by distance, so a smaller grouping of the
    same points is the beginning of a larger one; levels above the first group the centres of the level below, which
    must be the same ones.
    """
    fits = all(count <= most and members <= many for (count, members), (most, many) in zip(own, other, strict=True))
    return fits and all(a == b for (a, _), (b, _) in zip(own[:-1], other[:-1], strict=True))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _put(holder: nn.Module, name: str, tensor: Tensor) -> None:
    """A buffer under a dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in dict(holder.named_children()):
            holder.add_module(part, nn.Module())
        holder = holder.get_submodule(part)
    holder.register_buffer(last, tensor)
