"""Reference tensors of the geometry operations, held against every back end.

One checker per kind of output name; sizes, k and numbers of centres come from the shapes. A file may hold any
case names; an output without a checker is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from pointlift import ops
from pointlift.engine.schedules import released_cosine

BACKENDS = tuple(dict.fromkeys([str(ops.backends()["knn"]), "reference"]))  # the fastest here, and the truth
EXACT = {"rtol": 0.0, "atol": 0.0}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

# The file names schedules without describing them: peak rate, warm-up and period are those of the cards.
SCHEDULES = {
    "pretrain_mae": {"lr": 1e-3, "warmup_epochs": 10, "t_initial": 300},
    "pretrain_bert": {"lr": 5e-4, "warmup_epochs": 3, "t_initial": 300},
    "pretrain_m2ae": {"lr": 1e-3, "warmup_epochs": 10, "t_initial": 400},
    "finetune": {"lr": 5e-4, "warmup_epochs": 10, "t_initial": 300},
    "fewshot": {"lr": 5e-4, "warmup_epochs": 10, "t_initial": 150},
    "partseg": {"lr": 2e-4, "warmup_epochs": 10, "t_initial": 300},
}


def check_ops(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Compare every `out/` tensor of a file of system `ops`; the AssertionError names the first mismatch."""
    assert metadata.get("system") == "ops", f"{path.name}: system is {metadata.get('system')!r}"
    cases: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("out/") and "/" in name[4:]:
            case, output = name[4:].split("/", 1)
            cases.setdefault(case, {})[output] = tensor
        elif name.startswith("out/"):
            _check_lone(path, name, tensors)
    used = {"in/pc_norm"}
    for case, expected in cases.items():
        inputs = {name.split("/", 2)[2]: t for name, t in tensors.items() if name.startswith(f"in/{case}/")}
        used |= {f"in/{case}/{name}" for name in inputs}
        for backend in BACKENDS:
            with ops.use_backend(backend):
                _check_case(f"{path.name} [{backend}] {case}", inputs, expected)
    unused = [name for name in tensors if name.startswith("in/") and name not in used]
    assert not unused, f"{path.name}: inputs without outputs: {unused}"


def _check_lone(path: Path, name: str, tensors: dict[str, Tensor]) -> None:
    expected = tensors[name]
    if name == "out/pc_norm":
        cloud = tensors["in/pc_norm"]
        _same(f"{path.name} {name}", ops.normalize_unit_sphere(cloud), expected, CLOSE)
        _same(
            f"{path.name} {name} (numpy)",
            torch.from_numpy(ops.normalize_unit_sphere(cloud.numpy())),
            expected,
            CLOSE,
        )
        return
    schedule = name.removeprefix("out/coslr_")
    assert schedule in SCHEDULES, f"{path.name}: no checker for {name}"
    rates = released_cosine(len(expected), warmup_lr=1e-6, min_lr=1e-6, **SCHEDULES[schedule])
    _same(
        f"{path.name} {name}",
        torch.tensor(rates, dtype=torch.float64),
        expected,
        {"rtol": 1e-9, "atol": 1e-15},
    )


def _check_case(where: str, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    case: _Cloud | _Pair | _Ball
    if "a" in inputs:
        case = _Pair(inputs, expected)
    elif "centers" in inputs:
        case = _Ball(inputs)
    else:
        case = _Cloud(inputs, expected)
    for output, tensor in expected.items():
        checker = case.checkers().get(output)
        assert checker is not None, f"{where}: no checker for out/{output}"
        checker(f"{where}/{output}", tensor)


def _same(where: str, ours: Tensor, theirs: Tensor, tolerance: dict[str, float]) -> None:
    ours = ours.detach()
    assert ours.shape == theirs.shape, f"{where}: shape {tuple(ours.shape)}, reference {tuple(theirs.shape)}"
    if not theirs.is_floating_point():
        wrong = int((ours.long() != theirs.long()).sum())
        assert wrong == 0, f"{where}: {wrong} of {theirs.numel()} integers differ"
        return
    worst = float((ours - theirs).abs().max())
    assert torch.allclose(ours.to(theirs.dtype), theirs, **tolerance), f"{where}: largest difference {worst:.3g}"


def _gradient(where: str, ours: Tensor, theirs: Tensor) -> None:
    _same(where, ours, theirs, {"rtol": 0.0, "atol": 1e-4 * float(theirs.abs().max()) + 1e-9})


Checkers = dict[str, Callable[[str, Tensor], None]]


@dataclass
class _Cloud:
    """One cloud and features on its first centres: sampling, neighbours, interpolation."""

    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]

    @property
    def xyz(self) -> Tensor:
        return self.inputs["xyz"]

    @property
    def centers(self) -> Tensor:
        return self.expected["centers"]

    @cached_property
    def three(self) -> ops.Neighbors:
        return ops.three_nn(self.xyz, self.centers)

    def checkers(self) -> Checkers:
        return {
            "fps_idx": lambda w, t: _same(w, self._fps(t, skip_near_origin=True, ties="block"), t, EXACT),
            "fps_idx_lowest_tie": lambda w, t: _same(w, self._fps(t, skip_near_origin=True), t, EXACT),
            "fps_idx_noskip": lambda w, t: _same(w, self._fps(t, skip_near_origin=False), t, EXACT),
            "centers": self._check_centers,
            "knn_idx": lambda w, t: _same(w, ops.knn(self.centers, self.xyz, t.shape[2]).idx, t, EXACT),
            "knn_dist": lambda w, t: _same(w, ops.knn(self.centers, self.xyz, t.shape[2]).dist, t, CLOSE),
            "ball_idx": lambda w, t: _same(w, self._ball(t.shape[2]), t, EXACT),
            "three_nn_idx": lambda w, t: _same(w, self.three.idx, t, EXACT),
            "three_nn_dist": lambda w, t: _same(w, self.three.dist, t, CLOSE),
            "three_interp_squared": lambda w, t: _same(w, self._interpolated(2), t, CLOSE),
            "three_interp_euclid": lambda w, t: _same(w, self._interpolated(1), t, CLOSE),
        }

    def _fps(self, like: Tensor, **rules) -> Tensor:
        return ops.farthest_point_sample(self.xyz, like.shape[1], **rules)

    def _check_centers(self, where: str, expected: Tensor) -> None:
        grouping = ops.group(self.xyz, expected.shape[1], 1, skip_near_origin=True, ties="block")
        _same(where, grouping.centers, expected, EXACT)

    def _ball(self, k: int) -> Tensor:
        return ops.ball_query(self.centers, self.xyz, self.inputs["ball_radius"].item(), k)

    def _interpolated(self, power: int) -> Tensor:
        weight = ops.interpolation_weights(self.three.dist, power=power)
        return ops.three_interpolate(self.inputs["feat"].transpose(1, 2), self.three.idx, weight).transpose(1, 2)


@dataclass
class _Ball:
    """Given centres: ball query only. Without a radius in the file the centres are far from every point."""

    inputs: dict[str, Tensor]

    def checkers(self) -> Checkers:
        return {"idx": self._check_idx, "ball_idx": self._check_idx}

    def _check_idx(self, where: str, expected: Tensor) -> None:
        radius = self.inputs["ball_radius"].item() if "ball_radius" in self.inputs else 0.2
        ours = ops.ball_query(self.inputs["centers"], self.inputs["xyz"], radius, expected.shape[2])
        _same(where, ours, expected, EXACT)


@dataclass
class _Pair:
    """Two clouds: Chamfer distances, or transport where the file holds a match."""

    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]

    @cached_property
    def a(self) -> Tensor:
        return self.inputs["a"].clone().requires_grad_()

    @cached_property
    def b(self) -> Tensor:
        return self.inputs["b"].clone().requires_grad_()

    @cached_property
    def nearest(self) -> ops.ChamferResult:
        return ops.chamfer(self.a, self.b)

    @cached_property
    def losses(self) -> dict[str, Tensor]:
        """Both Chamfer losses; files that hold padding say so by holding no distances."""
        zeros = "dist_a" not in self.expected
        return {
            "l1": ops.chamfer_l1(self.a, self.b, ignore_zeros=zeros),
            "l2": ops.chamfer_l2(self.a, self.b, ignore_zeros=zeros),
        }

    @cached_property
    def transport(self) -> ops.ApproximateEMD:
        return ops.emd_approx(self.a, self.b)

    @cached_property
    def assignment(self) -> ops.ExactEMD:
        return ops.emd_exact(self.a, self.b)

    def checkers(self) -> Checkers:
        checkers: Checkers = {
            "dist_a": lambda w, t: _same(w, self.nearest.dist_a, t, CLOSE),
            "dist_b": lambda w, t: _same(w, self.nearest.dist_b, t, CLOSE),
            "idx_a": lambda w, t: _same(w, self.nearest.idx_a, t, EXACT),
            "idx_b": lambda w, t: _same(w, self.nearest.idx_b, t, EXACT),
            "match": lambda w, t: _same(w, self.transport.match, t, {"rtol": 1e-4, "atol": 1e-5}),
            "cost": lambda w, t: _same(w, self.transport.cost, t, {"rtol": 1e-5, "atol": 1e-5}),
            "loss": lambda w, t: _same(w, self.transport.loss[None], t, CLOSE),
            "grad_a": lambda w, t: self._check_gradient(w, self.transport.loss, self.a, t),
            "grad_b": lambda w, t: self._check_gradient(w, self.transport.loss, self.b, t),
            "exact_assignment": lambda w, t: _same(w, self.assignment.assignment, t, EXACT),
            "exact_cost_squared": lambda w, t: _same(w, self.assignment.cost, t, CLOSE),
        }
        for name in ("l1", "l2"):
            checkers[name] = lambda w, t, name=name: _same(w, self.losses[name][None], t, CLOSE)
            for side in ("a", "b"):
                check = partial(self._check_loss_gradient, name, side)
                checkers |= {f"{name}_grad_{side}": check, f"{name}_grad_{side}_nan_upstream": check}
        return checkers

    def _check_loss_gradient(self, name: str, side: str, where: str, expected: Tensor) -> None:
        self._check_gradient(where, self.losses[name], self.a if side == "a" else self.b, expected)

    @staticmethod
    def _check_gradient(where: str, loss: Tensor, leaf: Tensor, expected: Tensor) -> None:
        (ours,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        if where.endswith("_nan_upstream"):  # 12345 marks the released NaN; ours is finite there
            assert bool(ours.isfinite().all()), f"{where}: not finite"
            undefined = expected == 12345
            ours, expected = ours.masked_fill(undefined, 0), expected.masked_fill(undefined, 0)
        _gradient(where, ours, expected)
