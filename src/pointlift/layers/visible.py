"""Which tokens of a level are seen: masks that agree from level to level, and seen tokens packed into rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops import gather


def hide_all_but_members(hidden: Tensor, members: Tensor, count: int, *, leak_first: bool = False) -> Tensor:
    """The mask of the next finer level: what belongs to no visible group is hidden (Point-M2AE, section 3.1).

    Args:
        hidden: Groups that are hidden, (B, G) bool.
        members: Of each group, int64 (B, G, K), indices per cloud into the finer level.
        count: Tokens of the finer level n.
        leak_first: The released accident: where any group is hidden, token 0 of cloud 0 is visible.

    Returns:
        (B, n) bool, True = hidden.
    """
    # Members of hidden groups go to a place that does not exist.
    places = members.masked_fill(hidden.unsqueeze(-1), count).flatten(1)
    rest = torch.ones(len(hidden), count + 1, dtype=torch.bool, device=hidden.device)
    rest = rest.scatter(1, places, False)[:, :count]
    if leak_first:
        rest[0, 0] &= ~hidden.any()
    return rest


def most_shown(mask: Tensor, tokens: Tensor) -> int:
    """The most that a mask (B, G) shows of any cloud's tokens (B, G, C).

    Raises:
        UsageError: It is no mask of these tokens, or hides a cloud entirely.
    """
    wanted = tuple(tokens.shape[:2])
    if mask.dtype != torch.bool or mask.shape != wanted:
        raise UsageError(f"a {mask.dtype} mask {tuple(mask.shape)}", f"bool {wanted}, True = hidden")
    shown = (~mask).sum(1).tolist()
    if min(shown) == 0:
        raise UsageError("a mask that hides every patch of a cloud", "one that shows at least one")
    return max(shown)


@dataclass(frozen=True)
class Visible:
    """The visible tokens of a level as rows: packed to the left in their order, padded to a common length.

    Attributes:
        hidden: (B, G) bool, True = hidden.
        idx: Which token each row is, int64 (B, L); a row that is padding names a hidden token, none twice.
        valid: (B, L) bool, False = padding.
    """

    hidden: Tensor
    idx: Tensor
    valid: Tensor

    @classmethod
    def of(cls, hidden: Tensor, length: int) -> Visible:
        """Rows for a mask (B, G) under which no cloud shows more than `length` tokens."""
        idx = hidden.to(torch.uint8).argsort(stable=True, dim=1)[:, :length]
        return cls(hidden, idx, ~hidden.gather(1, idx))

    def take(self, tokens: Tensor) -> Tensor:
        """Visible rows of tokens (B, G, C): (B, L, C), zeros where there is padding."""
        return gather(tokens, self.idx).masked_fill(~self.valid.unsqueeze(-1), 0)

    def put(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """`tokens` (B, G, C) with the visible ones replaced by their `rows` (B, L, C)."""
        idx = self.idx.unsqueeze(-1).expand(-1, -1, tokens.shape[2])
        rows = torch.where(self.valid.unsqueeze(-1), rows.to(tokens.dtype), tokens.gather(1, idx))
        return tokens.scatter(1, idx, rows)
