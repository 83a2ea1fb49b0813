"""Earth mover's distances: the optimal assignment, and the released approximate transport."""

from typing import NamedTuple

import torch
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.ops import library
from pointlift.ops.checks import as_pair
from pointlift.ops.reference import gather_rows, squared_distance


class ExactEMD(NamedTuple):
    """The optimal one-to-one assignment."""

    cost: Tensor
    """Sum of squared distances of the pairs, (B,). Differentiable."""
    assignment: Tensor
    """The point of `b` that each point of `a` is paired with, int64 (B,N)."""


class ApproximateEMD(NamedTuple):
    """The released approximate transport."""

    loss: Tensor
    """Mean cost per point of `a`: cost.mean() / N. Differentiable."""
    cost: Tensor
    """Sum of mass times squared distance, (B,). Differentiable; the mass counts as constant."""
    match: Tensor
    """Mass between point m of `b` and point n of `a`, (B,M,N). No gradient."""


def emd_exact(a: Tensor, b: Tensor) -> ExactEMD:
    """The one-to-one assignment with the smallest sum of squared distances (scipy, on the CPU, cubic in N).

    The gradient flows through the distances of the pairs found.

    Args:
        a: (B,N,3), finite.
        b: (B,N,3), finite.

    Raises:
        UsageError: Different numbers of points, or shapes, dtypes or devices that do not fit.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = as_pair(a, b, ("a", "b"))
    if a.shape[1] != b.shape[1]:
        raise UsageError(
            f"a has {a.shape[1]} points per cloud and b {b.shape[1]}",
            "as many in both",
            "`emd_approx` takes any sizes",
        )
    left, right = a.detach().double(), b.detach().double()
    pairs = [
        torch.from_numpy(linear_sum_assignment(squared_distance(x[:, None], y[None]).cpu().numpy())[1])
        for x, y in zip(left, right, strict=True)
    ]
    assignment = torch.stack(pairs).to(a.device)
    return ExactEMD(squared_distance(a, gather_rows(b, assignment)).sum(-1), assignment)


def emd_approx(a: Tensor, b: Tensor) -> ApproximateEMD:
    """Approximate transport by annealing, as the `emd` extension that Point-MAE ships computes it.

    Each point of the smaller cloud carries as much mass as the integer ratio of the sizes says. The cost lies
    above that of `emd_exact`. Memory grows with B·N·M.

    Args:
        a: (B,N,3), finite.
        b: (B,M,3), finite.

    Raises:
        UsageError: Shapes, dtypes, devices or batch sizes that do not fit.
    """
    a, b = as_pair(a, b, ("a", "b"))
    match = library.emd_match(a.detach().float(), b.detach().float())
    cost = (match * squared_distance(b[:, :, None], a[:, None])).sum((1, 2))
    return ApproximateEMD(cost.mean() / a.shape[1], cost, match)
