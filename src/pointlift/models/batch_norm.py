"""BatchNorm over clouds, where a batch may be one cloud."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.engine.batchnorm import AllReducedBatchNorm
from pointlift.engine.distributed import world_size


def batch_norm(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """`norm` on rows (B, C), one per cloud, that a batch of one cannot break.

    One row has no batch statistics (its variance is zero), so a lone cloud in training is normalised with the
    running ones instead of raising. A BatchNorm over several processes has the others' rows, which wait for ours.
    """
    shared = isinstance(norm, AllReducedBatchNorm) and world_size() > 1
    if norm.training and x.shape[0] == 1 and not shared:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return norm(x)
