"""Which points a decision rests on: what happens to a class's probability when a neighbourhood is gone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.data import transforms
from pointlift.data.cloud import Float32
from pointlift.models.base import PointModel
from pointlift.ops import gather, group, interpolate
from pointlift.tasks.inputs import Source, as_cloud, cloud_transform, model_batch
from pointlift.tasks.predict import check_classifier


def occlusion(
    model: PointModel,
    cloud: Source,
    index: int,
    *,
    patches: int = 64,
    share: float = 1 / 16,
    batch_size: int = 32,
) -> Float32:
    """By how much the probability of class `index` falls when the neighbourhood of each point is removed.

    The cloud is prepared as for prediction. Around each of `patches` farthest-point samples, the nearest `share` of
    the points is left out (the others stay where they are: the cloud is not normalised anew), and the fall of the
    probability belongs to that sample. Every input point gets the inverse-distance mean of its three nearest samples.
    Same result every time; costs `patches` + 1 forward passes of one cloud.

    Args:
        model: A classifier.
        cloud: A file, a cloud, or coordinates (N, 3).
        index: The class in question, usually `Prediction.index`.
        patches: How many neighbourhoods are removed, one at a time.
        share: How large they are, as a share of the points that the model reads.
        batch_size: Clouds per forward pass.

    Returns:
        (N,) float32 within -1 to 1, in the order of the input points: above 0 the points speak for the class, below 0
        against it.

    Raises:
        UsageError: No head, no such class, or a share that leaves too few points for the model.
    """
    _check_class(model, index)
    every, seen = _seen(model, cloud)
    removed = max(1, round(share * len(seen)))
    if not 0 < share < 1 or len(seen) - removed < model.min_points:
        raise UsageError(
            f"a share of {share} ({removed} of {len(seen)} points) taken away",
            f"at least 1 point, and {model.min_points} left",
        )
    points = torch.from_numpy(seen)[None]
    grouping = group(points, min(patches, len(seen)), removed)
    falls = []
    whole = _probability(model, points, index)
    for idx in grouping.idx[0].split(batch_size):
        kept = torch.ones(len(idx), len(seen), dtype=torch.bool).scatter_(1, idx, False)
        rows = kept.nonzero()[:, 1].view(len(idx), -1)
        falls.append(whole - _probability(model, gather(points.expand(len(idx), -1, -1), rows), index))
    return _carried(every, grouping.centers, torch.cat(falls))


def gradient(model: PointModel, cloud: Source, index: int) -> Float32:
    """How strongly the probability of class `index` changes when each point moves: length of its gradient.

    One forward and one backward pass: cheaper than `occlusion`, and noisier. It says where the decision is sensitive,
    not whether a point speaks for the class or against it.

    Returns:
        (N,) float32, 0 or more, in the order of the input points.

    Raises:
        UsageError: No head, or no such class.
    """
    _check_class(model, index)
    every, seen = _seen(model, cloud)
    model.eval()
    batch = model_batch(model, seen[None])
    batch["xyz"].requires_grad_()
    with torch.enable_grad():
        probability = model(batch).float().softmax(1)[0, index]
        (slope,) = torch.autograd.grad(probability, batch["xyz"])
    return _carried(every, torch.from_numpy(seen)[None], slope.reshape(-1, 3).norm(dim=1).cpu())


def _check_class(model: PointModel, index: int) -> None:
    check_classifier(model)
    if not 0 <= index < model.config.num_classes:
        raise UsageError(f"class {index}", f"0 to {model.config.num_classes - 1}")


def _seen(model: PointModel, cloud: Source) -> tuple[Float32, Float32]:
    """All points (N, 3) in the model's frame, and those (P, 3) that the model reads."""
    xyz = as_cloud(cloud).xyz
    transform = cloud_transform(model)
    return transforms.normalize(xyz, transform.normalize), transform({"xyz": xyz})["xyz"]


def _probability(model: PointModel, xyz: Tensor, index: int) -> Tensor:
    """(B,) probability of the class for clouds (B, N, 3)."""
    model.eval()
    with torch.inference_mode():
        return model(model_batch(model, xyz.numpy())).float().softmax(1)[:, index].cpu()


def _carried(every: Float32, points: Tensor, values: Tensor) -> Float32:
    """Values (M,) at points (1, M, 3) carried to all points (N, 3)."""
    if points.shape[1] < 3:  # three neighbours are needed; copies change nothing
        times = -(-3 // points.shape[1])
        points, values = points.repeat(1, times, 1), values.repeat(times)
    carried = interpolate(torch.from_numpy(every)[None], points, values.view(1, -1, 1))
    return np.ascontiguousarray(carried[0, :, 0].numpy(), dtype=np.float32)
