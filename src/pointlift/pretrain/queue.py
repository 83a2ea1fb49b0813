"""A queue of features of past clouds, to tell present ones apart from (momentum contrast)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.engine import distributed


class KeyQueue(nn.Module):
    """The last `size` features, all of length 1, oldest replaced first. Part of the state, not learned.

    It begins with random directions. With several processes, each puts in the features of all: the queues stay equal.
    """

    keys: Tensor
    at: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("at", torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Put in features (B, dim) of this process, and those of all others; of more than fit, the last ones stay."""
        keys = gather_rows(keys.to(self.keys))
        size = len(self.keys)
        fresh = keys[-size:]
        begin = self.at + (len(keys) - len(fresh))
        places = (begin + torch.arange(len(fresh), device=self.at.device)) % size
        self.keys.index_copy_(0, places, fresh)
        self.at.copy_((self.at + len(keys)) % size)


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (B, C) of all processes, in the order of their numbers; processes may hold different numbers of rows."""
    world, own = distributed.world_size(), distributed.rank()
    if world == 1:
        return rows
    counts = torch.zeros(world, dtype=torch.int64, device=rows.device)
    counts[own] = len(rows)
    ends = distributed.all_reduce_sum(counts).cumsum(0).tolist()
    everything = rows.new_zeros(ends[-1], rows.shape[1])
    everything[ends[own] - len(rows) : ends[own]] = rows
    return distributed.all_reduce_sum(everything)
