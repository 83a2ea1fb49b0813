"""Times of `pointlift.ops` on one CPU thread, against the usual Python formulation and installed peers.

    python -m benchmarks.ops [--quick] [--only NAME] [--json FILE]
    python -m benchmarks.ops --memory          one million points: seconds and peak memory

Everything is measured in one process, contenders in turn within each round, as CPU time (other processes may run
beside); the numbers are medians. "Naive" is what public point-cloud code commonly does in plain PyTorch: squared
distances by expansion, full sorts, boolean masks, broadcast gathers.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from pointlift import ops

Call = Callable[[], object]


# --- the usual formulations -------------------------------------------------------------------------------------


def naive_square_distance(a: Tensor, b: Tensor) -> Tensor:
    distance = -2 * torch.matmul(a, b.transpose(1, 2))
    distance += (a**2).sum(-1)[:, :, None]
    distance += (b**2).sum(-1)[:, None, :]
    return distance


def naive_index(points: Tensor, idx: Tensor) -> Tensor:
    batch = torch.arange(len(points)).view(-1, *[1] * (idx.dim() - 1)).expand_as(idx)
    return points[batch, idx]


def naive_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) * 18**-0.5).softmax(-1) @ value


def naive_fps(xyz: Tensor, num: int) -> Tensor:
    batch, n, _ = xyz.shape
    chosen = torch.zeros(batch, num, dtype=torch.long)
    nearest = torch.full((batch, n), 1e10)
    farthest = torch.zeros(batch, dtype=torch.long)
    rows = torch.arange(batch)
    for step in range(num):
        chosen[:, step] = farthest
        distance = ((xyz - xyz[rows, farthest, :].view(batch, 1, 3)) ** 2).sum(-1)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        farthest = nearest.max(-1)[1]
    return chosen


def naive_knn(query: Tensor, points: Tensor, k: int) -> Tensor:
    return naive_square_distance(query, points).argsort()[:, :, :k]


def naive_ball(query: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    n = points.shape[1]
    idx = torch.arange(n).view(1, 1, n).repeat(*query.shape[:2], 1)
    idx[naive_square_distance(query, points) > radius**2] = n
    idx = idx.sort(dim=-1)[0][:, :, :k]
    first = idx[:, :, :1].expand_as(idx)
    idx[idx == n] = first[idx == n]
    return idx


def naive_interpolate(query: Tensor, points: Tensor, feats: Tensor) -> Tensor:
    distance, idx = naive_square_distance(query, points).sort(dim=-1)
    inverse = 1.0 / (distance[:, :, :3] + 1e-8)
    weight = inverse / inverse.sum(2, keepdim=True)
    return (naive_index(feats, idx[:, :, :3]) * weight[..., None]).sum(2)


def naive_chamfer(a: Tensor, b: Tensor) -> Tensor:
    """By broadcast differences: the common form, which needs B·N·M·3 numbers."""
    distance = ((a[:, :, None] - b[:, None]) ** 2).sum(-1)
    return distance.min(2)[0].mean() + distance.min(1)[0].mean()


def cdist_chamfer(a: Tensor, b: Tensor) -> Tensor:
    """By `torch.cdist`: the common form where broadcasting does not fit in memory."""
    distance = torch.cdist(a, b) ** 2
    return distance.min(2)[0].mean() + distance.min(1)[0].mean()


# --- peers --------------------------------------------------------------------------------------------------------


def topk_knn(query: Tensor, points: Tensor, k: int) -> Tensor:
    return naive_square_distance(query, points).topk(k, largest=False).indices


def tree_knn(query: Tensor, points: Tensor, k: int) -> list:
    return [cKDTree(p).query(q, k) for q, p in zip(query.numpy(), points.numpy(), strict=True)]


def pykdtree_knn(query: Tensor, points: Tensor, k: int) -> list:
    tree = import_module("pykdtree.kdtree").KDTree
    return [tree(p).query(q, k) for q, p in zip(query.numpy(), points.numpy(), strict=True)]


def sklearn_knn(query: Tensor, points: Tensor, k: int) -> list:
    from sklearn.neighbors import KDTree

    return [KDTree(p).query(q, k) for q, p in zip(query.numpy(), points.numpy(), strict=True)]


def tree_ball(query: Tensor, points: Tensor, radius: float) -> list:
    pairs = zip(query.numpy(), points.numpy(), strict=True)
    return [cKDTree(p).query_ball_point(q, radius, return_sorted=True) for q, p in pairs]


def bag_interpolate(query: Tensor, points: Tensor, feats: Tensor) -> Tensor:
    """The leanest in plain PyTorch: top-k, then a weighted embedding bag."""
    distance, idx = naive_square_distance(query, points).topk(3, largest=False)
    weight = 1.0 / (distance + 1e-8)
    weight = weight / weight.sum(2, keepdim=True)
    flat = (idx + torch.arange(len(idx)).view(-1, 1, 1) * points.shape[1]).view(-1, 3)
    out = F.embedding_bag(flat, feats.flatten(0, 1), per_sample_weights=weight.view(-1, 3), mode="sum")
    return out.view(*idx.shape[:2], -1)


def tree_chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Search by scipy, distances and gradients by PyTorch."""

    def towards(x: Tensor, y: Tensor) -> Tensor:
        found = [cKDTree(q).query(p)[1] for p, q in zip(x.detach().numpy(), y.detach().numpy(), strict=True)]
        nearest = ops.gather(y, torch.stack([torch.from_numpy(i) for i in found]))
        return ((x - nearest) ** 2).sum(-1).mean()

    return towards(a, b) + towards(b, a)


# --- cases --------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One operation at one shape, and who competes."""

    op: str
    shape: str
    goal: float | None
    naive: Call
    ours: Call
    peers: dict[str, Call] = field(default_factory=dict)
    agree: Callable[..., bool] | None = None


@dataclass
class Row:
    """Medians in milliseconds of CPU time."""

    op: str
    shape: str
    rounds: int
    naive_ms: float
    ours_ms: float
    ratio: float
    goal: float | None
    peer: str
    peer_ms: float | None
    peer_ratio: float | None


def with_backward(loss: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Call:
    def step() -> list[Tensor]:
        x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
        value = loss(x, y)
        return [value.detach(), *torch.autograd.grad(value, (x, y))]

    return step


def mostly_equal(x: Tensor, y: Tensor) -> bool:
    """Indices agree but for near ties, which the expansion decides by rounding."""
    return bool((x == y).float().mean() > 0.99)


def close(x: Tensor | list[Tensor], y: Tensor | list[Tensor]) -> bool:
    return all(torch.allclose(p, q, rtol=1e-2, atol=1e-3) for p, q in zip(x, y, strict=True))


def mostly_close(x: list[Tensor], y: list[Tensor]) -> bool:
    """All but near ties of a maximum, which rounding decides."""
    return all(bool(torch.isclose(p, q, rtol=1e-2, atol=1e-3).float().mean() > 0.99) for p, q in zip(x, y, strict=True))


def cube(*shape: int) -> Tensor:
    return torch.rand(*shape, 3) * 2 - 1


def reference(call: Call) -> Call:
    def run() -> object:
        with ops.use_backend("reference"):
            return call()

    return run


def cases(scale: int) -> Iterator[Case]:
    """All cases; `scale` divides the batch sizes."""
    batch = 32 // scale
    for n, num in ((1024, 64), (2048, 512), (8192, 1200)):
        xyz = cube(batch, n)
        ours = partial(ops.farthest_point_sample, xyz, num)
        peers = {"reference": reference(ours)}
        yield Case("FPS", f"{batch}x{n} -> {num}", 40, partial(naive_fps, xyz, num), ours, peers, torch.equal)
    yield from knn_cases(batch)
    query, points = cube(batch, 512), cube(batch, 2048)
    yield Case(
        "ball query",
        f"{batch}x(512 q, 2048) r 0.2 k 32",
        30,
        lambda: naive_ball(query, points, 0.2, 32).remainder(2048),  # the naive form leaves N where a ball is empty
        lambda: ops.ball_query(query, points, 0.2, 32),
        {"cKDTree": lambda: tree_ball(query, points, 0.2)},
        mostly_equal,
    )
    fine, coarse, feats = cube(batch, 2048), cube(batch, 128), torch.randn(batch, 128, 384)
    yield Case(
        "three-NN + interpolation",
        f"{batch}x(2048 q, 128) C 384",
        10,
        lambda: naive_interpolate(fine, coarse, feats),
        lambda: ops.interpolate(fine, coarse, feats),
        {"topk + embedding_bag": lambda: bag_interpolate(fine, coarse, feats)},
        close,
    )
    yield from chamfer_cases(scale)
    yield from neighborhood_cases(scale)
    for channels in (3, 192):
        values, idx = torch.randn(batch, 1024, channels), torch.randint(0, 1024, (batch, 64, 32))
        yield Case(
            "gather",
            f"{batch}x1024x{channels} -> 64x32",
            None,
            partial(naive_index, values, idx),
            partial(ops.gather, values, idx),
            agree=torch.equal,
        )


def knn_indices(query: Tensor, points: Tensor, k: int) -> Tensor:
    return ops.knn(query, points, k).idx


def knn_cases(batch: int) -> Iterator[Case]:
    for m, n in ((64, 1024), (512, 2048)):
        query, points = cube(batch, m), cube(batch, n)
        competitors: dict[str, Callable[..., object]] = {"cKDTree": tree_knn, "topk": topk_knn}
        competitors["sklearn KDTree"] = sklearn_knn
        if find_spec("pykdtree"):
            competitors["pykdtree"] = pykdtree_knn
        yield Case(
            "kNN",
            f"{batch}x({m} q, {n}) k 32",
            15,
            partial(naive_knn, query, points, 32),
            partial(knn_indices, query, points, 32),
            {name: partial(function, query, points, 32) for name, function in competitors.items()},
            mostly_equal,
        )


def chamfer_cases(scale: int) -> Iterator[Case]:
    for batch, n, goal, naive in ((1216, 32, 5, naive_chamfer), (32, 2048, 50, cdist_chamfer)):
        a, b = cube(batch // scale, n), cube(batch // scale, n)
        peers = {"cKDTree": with_backward(tree_chamfer, a, b)}
        if naive is naive_chamfer:
            peers["cdist"] = with_backward(cdist_chamfer, a, b)
        yield Case(
            "Chamfer fwd+bwd",
            f"{batch // scale}x{n}x{n}",
            goal,
            with_backward(naive, a, b),
            with_backward(ops.chamfer_l2, a, b),
            peers,
            close,
        )


def neighborhood_cases(scale: int) -> Iterator[Case]:
    """Point-PEFT's local attention: 64 patches and 10 prompts of the tiny and of the base network, 6 heads of 3."""
    for batch, members, channels in ((32, 8, 192), (16, 16, 384)):
        table, qkv = torch.randn(batch // scale, 74, channels), torch.randn(batch // scale, 74, 54)
        idx, weight = torch.randint(0, 74, (batch // scale, 32, members)), torch.randn(channels, 18)

        def ours(table: Tensor, qkv: Tensor, idx: Tensor = idx, weight: Tensor = weight) -> Tensor:
            return ops.neighborhood_max(table, idx, ops.neighborhood_attention(qkv, idx, 6, 18**-0.5), weight).sum()

        def usual(
            attend: Callable[..., Tensor], table: Tensor, qkv: Tensor, idx: Tensor = idx, weight: Tensor = weight
        ) -> Tensor:
            query, key, value = naive_index(qkv, idx).unflatten(-1, (3, 6, 3)).permute(3, 0, 1, 4, 2, 5).flatten(1, 2)
            mixed = attend(query, key, value).transpose(1, 2).reshape(*idx.shape, -1)
            return (naive_index(table, idx) + mixed @ weight.T).max(2).values.sum()

        fused = partial(F.scaled_dot_product_attention, scale=18**-0.5)
        yield Case(
            "local attention fwd+bwd",
            f"{batch // scale}x74 -> 32x{members} C {channels}",
            None,
            with_backward(partial(usual, naive_attention), table, qkv),
            with_backward(ours, table, qkv),
            {"torch's fused attention": with_backward(partial(usual, fused), table, qkv)},
            mostly_close,
        )


# --- measuring ----------------------------------------------------------------------------------------------------


def seconds(call: Call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(case: Case, *, rounds: int, budget: float) -> Row:
    """Contenders in turn, until `rounds` are done or `budget` seconds are spent (at least one round)."""
    with torch.no_grad() if "bwd" not in case.op else torch.enable_grad():
        result = case.ours()  # also compiles
        if case.agree is not None and not case.agree(case.naive(), result):
            raise SystemExit(f"{case.op} {case.shape}: naive and ours do not agree")
        taken: dict[str, list[float]] = {name: [] for name in ("naive", "ours", *case.peers)}
        start = time.perf_counter()
        while len(taken["naive"]) < rounds and (time.perf_counter() - start < budget or not taken["naive"]):
            taken["naive"].append(seconds(case.naive))
            taken["ours"] += [seconds(case.ours) for _ in range(3)]
            for name, call in case.peers.items():
                taken[name].append(seconds(call))
    median = {name: statistics.median(times) * 1e3 for name, times in taken.items()}
    peer = min(case.peers, key=lambda name: median[name], default="")
    return Row(
        op=case.op,
        shape=case.shape,
        rounds=len(taken["naive"]),
        naive_ms=median["naive"],
        ours_ms=median["ours"],
        ratio=median["naive"] / median["ours"],
        goal=case.goal,
        peer=peer,
        peer_ms=median[peer] if peer else None,
        peer_ratio=median[peer] / median["ours"] if peer else None,
    )


def show(row: Row) -> None:
    goal = f"{row.goal:g}x" if row.goal else ""
    peer = f"{row.peer} {row.peer_ms:.4g} ms, {row.peer_ratio:.2g}x" if row.peer else ""
    print(
        f"{row.op:<25}{row.shape:<30}{row.naive_ms:>9.4g}{row.ours_ms:>9.3g}{row.ratio:>7.0f}x{goal:>6}   {peer}",
        flush=True,
    )


def machine() -> dict[str, object]:
    import numpy
    import scipy

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith(("model name", "flags"))]
        name = lines[0].split(":")[1].strip()
        name += " (AVX-512)" if " avx512f" in "".join(lines) else " (AVX2)" if " avx2" in "".join(lines) else ""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"numpy": numpy.__version__, "scipy": scipy.__version__}
    if "numba" in sys.modules:
        versions["numba"] = sys.modules["numba"].__version__
    return {"cpu": name, "threads": torch.get_num_threads(), "backends": ops.backends(), "versions": versions}


def million() -> dict[str, float]:
    """1,000,000 points through sampling to 8,192 and their 32 neighbours: seconds and peak resident GB."""
    warm = cube(1, 20_000)  # compiles
    ops.knn(warm[:, ops.farthest_point_sample(warm, 2048)[0]], warm, 32)
    xyz = cube(1, 1_000_000)
    start = time.perf_counter()
    centers = ops.gather(xyz, ops.farthest_point_sample(xyz, 8192))
    sampled = time.perf_counter()
    ops.knn(centers, xyz, 32)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"fps_seconds": sampled - start, "knn_seconds": end - sampled, "peak_gb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="an eighth of the batch, fewer rounds")
    parser.add_argument("--only", default="", help="only operations whose name contains this")
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--memory", action="store_true", help="one million points instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record: dict[str, object] = {"command": "python -m benchmarks.ops " + " ".join(sys.argv[1:])}
    if options.memory:
        record["million"] = million()
        print(json.dumps(record["million"], indent=1))
    else:
        print(f"{'op':<25}{'shape':<30}{'naive ms':>9}{'ours ms':>9}{'ratio':>8}{'goal':>6}   best peer")
        rows = []
        for case in cases(8 if options.quick else 1):
            if options.only.lower() in case.op.lower():
                rows.append(measure(case, rounds=3 if options.quick else 7, budget=5 if options.quick else 20))
                show(rows[-1])
        record["rows"] = [asdict(row) for row in rows]
    record["machine"] = machine()
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
