"""Point-PEFT: a point-prior prompt and a geometry-aware adapter on a frozen trunk (arXiv 2310.03059, AAAI 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pointlift.adapt.base import Adaptation
from pointlift.adapt.places import Parts, block_prefixes, final_norms, parts_before_blocks, places
from pointlift.adapt.point_peft_adapter import LevelSizes, PointPeftAdapter
from pointlift.adapt.prior import Prior, PriorConfig, base_changes
from pointlift.core.errors import UsageError
from pointlift.models.base import PointModel

_BIASES = ("norm1.bias", "proj.bias", "norm2.bias", "fc1.bias", "fc2.bias")


@dataclass(frozen=True)
class PointPeftQuirks:
    """What the released code does and the paper does not say; belongs to weights that were trained so."""

    # Indices into the flattened batch count a cloud's tokens but not its prompts: blocks with prompts gather the rows
    # of other clouds, and what a cloud gives depends on the rest of the batch.
    leak_rows: bool = False
    # Neighbourhoods are cut from a second sampling that begins with the prompts' coordinates and from which some of
    # these are drawn; its points are taken for the centres of the tokens, which they are not.
    prompt_first_centers: bool = False
    # In a hierarchy: the mask of who is near whom covers the first rows, where the prompts are, and leaves the last
    # tokens unmasked.
    shifted_mask: bool = False
    # In a hierarchy: a factor that begins at 0 is on the whole MLP branch, the frozen MLP included.
    zero_gate: bool = False
    # BatchNorm statistics of the frozen tokenizer follow the batches.
    moving_statistics: bool = False
    # Plain trunks: every block has a gate, prompts and a bottleneck for what was retrieved, used or not.
    unused_tensors: bool = False

    @classmethod
    def upstream(cls) -> PointPeftQuirks:
        return cls(
            leak_rows=True,
            prompt_first_centers=True,
            shifted_mask=True,
            zero_gate=True,
            moving_statistics=True,
            unused_tensors=True,
        )


@dataclass(frozen=True)
class PointPeft(Adaptation):
    """Prompts from a memory bank, local attention behind every block, biases, the class token and the head.

    **Point-prior prompt.** A frozen copy of the network as it was pre-trained says what a cloud is like; the most
    similar training clouds in the memory bank, without any weights, give `prompts` rows: the query itself, the
    average of what was found by softmax of the cosines, and the finds. Each prompted block adds learnt rows and a small
    bottleneck's view of these, and drops them again. In a hierarchy only the coarsest level reads the bank.

    **Geometry-aware adapter.** Behind every block the tokens (and prompts, which have learnt coordinates) form
    neighbourhoods; a small attention mixes each, the maximum passes a BatchNorm, and is carried back to all tokens by
    inverse squared distance. One bottleneck stands beside the MLP, one behind all.

    Numbers that are None are the released ones: of a plain trunk (Point-MAE, Point-BERT) or of a hierarchy
    (Point-M2AE).

    Learnt coordinates begin spread over the cloud (normal, deviation `prompt_spread` per axis): of 10 beside 64
    patches about 6 become centres of neighbourhoods, and only these have a gradient. Released is 0.02, where they lie
    so near to each other that sampling takes the first and no other one.
    """

    name: ClassVar[str] = "point_peft"
    needs_bank: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv 2310.03059"

    prompts: int | None = None
    """Prompt rows of a block; None: 10, in a hierarchy 16."""
    prompt_blocks: int | None = None
    """So many first blocks of each level have prompts; None: half of them, in a hierarchy all."""
    adapter_dim: int | tuple[int, ...] = 16
    """Width of the bottlenecks beside and behind the MLP, one number or one per level."""
    prior_dim: int = 8
    """Width of the bottleneck for what was retrieved."""
    adapter_factor: float = 0.7
    """Share of the bottleneck beside the MLP."""
    center_factor: float = 0.3
    """Share of a neighbourhood's central row in what is carried back."""
    propagate_factor: float | None = None
    """Share of what is carried back; None: 0.3, in a hierarchy 0.1."""
    pool: Literal["max", "mean_plus_max"] = "max"
    """What stands for a neighbourhood: its largest values, or these plus the mean."""
    local_heads: int = 6
    """Heads of the attention inside neighbourhoods."""
    local_dim: int = 18
    """Its channels, over all heads."""
    dropout: float = 0.1
    """In the bottlenecks."""
    prompt_dropout: float = 0.1
    """On the learnt prompts."""
    prompt_spread: float = 0.5
    """Deviation, per axis, of where learnt coordinates begin (released 0.02)."""
    prior: PriorConfig = field(default_factory=PriorConfig)
    """How the frozen network cuts clouds into patches."""
    quirks: PointPeftQuirks = field(default_factory=PointPeftQuirks)

    def __post_init__(self) -> None:
        if self.prompts is not None and self.prompts < 3:
            raise ValueError(f"prompts {self.prompts}: expected at least 3 (query, average, one find)")
        if self.prompt_blocks is not None and self.prompt_blocks < 1:
            raise ValueError(f"prompt_blocks {self.prompt_blocks}: expected at least 1")
        widths = self.adapter_dim if isinstance(self.adapter_dim, tuple) else (self.adapter_dim,)
        if not widths or min(*widths, self.prior_dim, self.local_dim, self.local_heads) < 1:
            raise ValueError("adapter_dim, prior_dim, local_dim, local_heads: expected numbers of at least 1")
        if self.local_dim % self.local_heads:
            raise ValueError(f"local_dim {self.local_dim}: expected a multiple of local_heads {self.local_heads}")
        for name in ("dropout", "prompt_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected a rate from 0 to below 1")
        if self.prompt_spread <= 0:
            raise ValueError(f"prompt_spread {self.prompt_spread}: expected a number above 0")

    def build(self, model: PointModel) -> PointPeftAdapter:
        levels = self._levels(model)
        changing = base_changes(model, self)
        return PointPeftAdapter(self, levels, Prior(model, changing, self.prior), model.config.quirks)

    def trainable(self, parts: Parts) -> tuple[str, ...]:
        biases = [block + name for block in block_prefixes(parts) for name in _BIASES]
        return (*biases, *parts.get("cls", ()), *final_norms(parts), *parts["head"])

    def held_in_eval(self, parts: Parts) -> tuple[str, ...]:
        return () if self.quirks.moving_statistics else parts_before_blocks(parts)

    def _levels(self, model: PointModel) -> list[LevelSizes]:
        """What the adapter of each trunk is made for, from fine to coarse."""
        config = model.config
        trunks = places(model)
        if not trunks or not hasattr(config, "num_groups") or not hasattr(config, "group_size"):
            raise UsageError(
                f"point_peft on {model.arch or type(model).__name__}, which has no trunk over patches",
                "a point transformer (Point-MAE, Point-BERT) or Point-M2AE",
            )
        hierarchy = isinstance(config.num_groups, tuple)
        groups = config.num_groups if hierarchy else (config.num_groups,)
        sizes = config.group_size if hierarchy else (config.group_size,)
        # A level's neighbourhoods are those of the next level's patches; the coarsest has half as many of its own.
        counts = (*groups[1:], max(1, groups[-1] // 2))
        members = (*sizes[1:], sizes[-1] if hierarchy else max(1, sizes[-1] // 2))
        widths = self.adapter_dim if isinstance(self.adapter_dim, tuple) else (self.adapter_dim,) * len(trunks)
        if len(widths) != len(trunks):
            raise UsageError(f"adapter_dim {self.adapter_dim}", f"one number, or one per level: {len(trunks)}")
        prompts = self.prompts or (16 if hierarchy else 10)
        return [
            LevelSizes(
                place=place,
                groups=groups[i],
                prompts=prompts,
                prompt_blocks=min(
                    place.depth, self.prompt_blocks or (place.depth if hierarchy else max(1, place.depth // 2))
                ),
                neighbourhoods=counts[i],
                members=min(members[i], groups[i]),
                adapter_dim=widths[i],
                reads_bank=i == len(trunks) - 1,
                hierarchy=hierarchy,
            )
            for i, place in enumerate(trunks)
        ]
