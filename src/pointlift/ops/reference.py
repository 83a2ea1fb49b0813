"""Every operation in plain PyTorch: the definition that other back ends are held against, on any device.

Squared distances are always ((x - x')² + (y - y')²) + (z - z')² in float32, one rounding per operation and
never the expansion a² + b² - 2ab, so that every back end sees the same ties. None of it is touched by
autocast.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

NEAR_ORIGIN = 1e-3
_CHUNK = 1 << 24  # distances held at once


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances along the last axis (of size 3), broadcast over the others."""
    dx, dy, dz = (a - b).unbind(-1)
    return dx * dx + dy * dy + dz * dz


def _chunks(query: Tensor, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(squared distances (B,m,N), their query rows (m,)), a bounded number of queries at a time."""
    step = max(1, _CHUNK // max(1, query.shape[0] * points.shape[1]))
    for rows in torch.arange(query.shape[1], device=query.device).split(step):
        yield squared_distance(query[:, rows, None], points[:, None]), rows


def farthest_point_sample(xyz: Tensor, num: int, start: Tensor, skip_near_origin: bool) -> Tensor:
    batch = torch.arange(xyz.shape[0], device=xyz.device)
    nearest = torch.full(xyz.shape[:2], torch.inf, device=xyz.device)
    if skip_near_origin:
        nearest.masked_fill_(squared_distance(xyz, torch.zeros_like(xyz[:, :1])) <= NEAR_ORIGIN, -1.0)
    idx = torch.empty((xyz.shape[0], num), dtype=torch.int64, device=xyz.device)
    idx[:, 0] = start
    for step in range(1, num):
        newest = xyz[batch, idx[:, step - 1], None]
        nearest = torch.minimum(nearest, squared_distance(xyz, newest))
        idx[:, step] = nearest.argmax(1)  # the first of equal maxima; 0 when all are -1
    return idx


def _k_smallest(distance: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ascending, ties by lowest index: (bits of the distance, index) as one integer orders exactly so."""
    index = torch.arange(distance.shape[-1], device=distance.device)
    keys = (distance.contiguous().view(torch.int32).long() << 32) | index
    best = keys.topk(k, largest=False).values
    return (best >> 32).int().view(torch.float32), best & 0xFFFFFFFF


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    parts = [_k_smallest(distance, k) for distance, _ in _chunks(query, points)]
    return torch.cat([d for d, _ in parts], 1).sqrt_(), torch.cat([i for _, i in parts], 1)


def ball_query(query: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    n = points.shape[1]
    limit = torch.tensor(radius, dtype=torch.float32, device=query.device).square()
    index = torch.arange(n, device=query.device)
    found = []
    for distance, _ in _chunks(query, points):
        inside = torch.where(distance < limit, index, n)
        found.append(inside.topk(min(k, n), largest=False).values)
    first = torch.cat(found, 1)
    first = torch.nn.functional.pad(first, (0, k - first.shape[2]), value=n)
    padding = first[..., :1].where(first[..., :1] < n, 0)
    return first.where(first < n, padding)


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    return knn(query, points, 3)


def _flat_rows(idx: Tensor, n: int) -> Tensor:
    """Indices per cloud (B,...) as rows of all clouds of `n` rows, one behind the other: one dimension."""
    offset = torch.arange(idx.shape[0], device=idx.device).view(-1, *[1] * (idx.dim() - 1)) * n
    return (idx + offset).flatten()


def gather_rows(values: Tensor, idx: Tensor) -> Tensor:
    """Rows of each cloud, `values` (B,N,C) and `idx` (B,...) -> (B,...,C), as one row selection."""
    b, n, c = values.shape
    return values.reshape(b * n, c).index_select(0, _flat_rows(idx, n)).view(*idx.shape, c)


def three_interpolate(feats: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    near = gather_rows(feats, idx) * weight[..., None]
    return near[:, :, 0] + near[:, :, 1] + near[:, :, 2]


def three_interpolate_backward(grad: Tensor, feats: Tensor, idx: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    grad_weight = (gather_rows(feats, idx) * grad[:, :, None]).sum(-1)
    b, s, c = feats.shape
    parts = (grad[:, :, None] * weight[..., None]).reshape(-1, c)
    return torch.zeros_like(feats).view(b * s, c).index_add_(0, _flat_rows(idx, s), parts).view(b, s, c), grad_weight


def _nearest(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    parts = [_k_smallest(distance, 1) for distance, _ in _chunks(query, points)]
    return torch.cat([d for d, _ in parts], 1)[..., 0], torch.cat([i for _, i in parts], 1)[..., 0]


def chamfer(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (dist_a, idx_a), (dist_b, idx_b) = _nearest(a, b), _nearest(b, a)
    return dist_a, dist_b, idx_a, idx_b


def chamfer_backward(
    grad_dist_a: Tensor, grad_dist_b: Tensor, a: Tensor, b: Tensor, idx_a: Tensor, idx_b: Tensor
) -> tuple[Tensor, Tensor]:
    pull_a = 2 * grad_dist_a[..., None] * (a - gather_rows(b, idx_a))
    pull_b = 2 * grad_dist_b[..., None] * (b - gather_rows(a, idx_b))
    grad_a = pull_a.scatter_add(1, idx_b[..., None].expand_as(pull_b), -pull_b)
    grad_b = pull_b.scatter_add(1, idx_a[..., None].expand_as(pull_a), -pull_a)
    return grad_a, grad_b


def linear_max(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    largest = (x @ weight.T).max(1)
    return largest.values, largest.indices


def linear_max_backward(grad: Tensor, idx: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    (p, k, _), channels = x.shape, weight.shape[0]
    rows = grad.new_zeros(p, k, channels).scatter_(1, idx.unsqueeze(1), grad.unsqueeze(1))
    return rows @ weight, rows.flatten(0, 1).T @ x.flatten(0, 1)


def neighborhood_max(table: Tensor, idx: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    largest = (gather_rows(table, idx) + x @ weight.T).max(2)
    return largest.values, largest.indices


def _heads(qkv: Tensor, idx: Tensor, heads: int) -> Tensor:
    """Queries, keys and values of all members, one behind the other: (3,B,S,H,K,D)."""
    return gather_rows(qkv, idx).unflatten(-1, (3, heads, -1)).permute(3, 0, 1, 4, 2, 5)


def neighborhood_attention(qkv: Tensor, idx: Tensor, heads: int, scale: float) -> Tensor:
    query, key, value = _heads(qkv, idx, heads)
    shares = (query @ key.transpose(-1, -2) * scale).softmax(-1)
    return (shares @ value).transpose(-2, -3).flatten(-2)


def neighborhood_attention_backward(grad: Tensor, qkv: Tensor, idx: Tensor, heads: int, scale: float) -> Tensor:
    query, key, value = _heads(qkv, idx, heads)
    shares = (query @ key.transpose(-1, -2) * scale).softmax(-1)
    pull = grad.unflatten(-1, (heads, -1)).transpose(-2, -3)
    pulls = pull @ value.transpose(-1, -2)
    pulls = scale * shares * (pulls - (shares * pulls).sum(-1, keepdim=True))
    members = torch.stack((pulls @ key, pulls.transpose(-1, -2) @ query, shares.transpose(-1, -2) @ pull))
    b, rows, width = qkv.shape
    parts = members.permute(1, 2, 4, 0, 3, 5).reshape(-1, width)
    return torch.zeros_like(qkv).view(b * rows, width).index_add(0, _flat_rows(idx, rows), parts).view(b, rows, width)


def emd_match(a: Tensor, b: Tensor) -> Tensor:
    """The released approximate transport (B,M,N): mass sent from point n of `a` to point m of `b`.

    Ten annealing levels: each point of `a` offers its remaining mass in proportion to exp(level * d²) times
    what the points of `b` still need; no point of `b` takes more than it needs.
    """
    n, m = a.shape[1], b.shape[1]
    distance = squared_distance(b[:, :, None], a[:, None])
    match = torch.zeros_like(distance)
    supply = a.new_full((a.shape[0], 1, n), max(1, m // n))
    demand = b.new_full((b.shape[0], m, 1), max(1, n // m))
    for power in range(7, -3, -1):
        level = 0.0 if power == -2 else -(4.0**power)
        kernel = torch.exp(level * distance)
        offer = supply / ((kernel * demand).sum(1, keepdim=True) + 1e-9)
        offered = (kernel * offer).sum(2, keepdim=True) * demand
        taken = (demand / (offered + 1e-9)).clamp_max(1.0) * demand
        sent = kernel * offer * taken
        match += sent
        demand = (demand - offered).clamp_min(0)
        supply = (supply - sent.sum(1, keepdim=True)).clamp_min(0)
    return match
