"""Choosing a back end, living without numba, data-loader workers, compile and export."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pointlift import ops
from pointlift.core.errors import UnknownNameError, UsageError
from pointlift.ops import library
from pointlift.ops.dispatch import TABLE, active

needs_numba = pytest.mark.skipif(ops.backends()["knn"] == "reference", reason="numba is not installed")


@needs_numba
def test_fastest_is_active_and_can_be_overridden(monkeypatch):
    assert set(ops.backends()) == set(TABLE)
    assert ops.backends()["knn"] == "numba"
    with ops.use_backend("reference"):
        assert set(ops.backends().values()) == {"reference"}
        with ops.use_backend("numba"):
            assert ops.backends()["knn"] == "numba"
            assert ops.backends()["emd_match"] == "reference"
        assert ops.backends()["knn"] == "reference"
    monkeypatch.setenv("POINTLIFT_OPS", "reference")
    assert ops.backends()["knn"] == "reference"
    assert "POINTLIFT_OPS" in ops.backends()["knn"].why


def test_unknown_names_and_devices_are_refused(monkeypatch):
    with pytest.raises(UnknownNameError, match="'reference'"), ops.use_backend("referense"):
        pass
    monkeypatch.setenv("POINTLIFT_OPS", "numbaa")
    with pytest.raises(UnknownNameError):
        ops.backends()


@needs_numba
def test_numba_does_not_serve_other_devices():
    assert active("knn", "cuda") == "reference"
    assert "cuda" in active("knn", "cuda").why
    with ops.use_backend("numba"), pytest.raises(UsageError, match="cuda"):
        active("knn", "cuda")


def test_works_without_numba():
    """A process in which numba cannot be imported: reference results, a reason, and a clear refusal."""
    program = """
import sys
sys.modules["numba"] = None
import torch
from pointlift import ops
from pointlift.core.errors import UsageError
assert ops.backends()["knn"] == "reference", ops.backends()
assert "numba" in ops.backends()["knn"].why
assert ops.group(torch.randn(1, 9, 3), 3, 2).idx.shape == (1, 3, 2)
try:
    with ops.use_backend("numba"):
        raise SystemExit("not refused")
except UsageError as error:
    assert "numba" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


class _Grouped(Dataset):
    def __init__(self, xyz: torch.Tensor) -> None:
        self.xyz = xyz

    def __len__(self) -> int:
        return len(self.xyz)

    def __getitem__(self, index: int) -> torch.Tensor:
        return ops.group(self.xyz[index : index + 1], 64, 16).idx[0]


def test_forked_workers_after_the_parent_used_threads():
    xyz = torch.randn(4, 4096, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = ops.group(xyz, 64, 16).idx
        ops.chamfer_l2(xyz, xyz + 0.1)
    finally:
        torch.set_num_threads(before)
    loader = DataLoader(_Grouped(xyz), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert torch.equal(torch.cat(list(loader)), expected)


X = torch.randn(2, 12, 3)
START = torch.zeros(2, dtype=torch.int64)
IDX = torch.randint(0, 12, (2, 4, 3))
SAMPLES = {
    "farthest_point_sample": (X, 4, START, True),
    "knn": (X[:, :5].contiguous(), X, 3),
    "ball_query": (X, X, 0.5, 4),
    "three_nn": (X, X),
    "three_interpolate": (X.clone().requires_grad_(), IDX, torch.rand(2, 4, 3).requires_grad_()),
    "three_interpolate_backward": (torch.randn(2, 4, 3), X, IDX, torch.rand(2, 4, 3)),
    "chamfer": (X.clone().requires_grad_(), torch.randn(2, 7, 3).requires_grad_()),
    "chamfer_backward": (torch.rand(2, 12), torch.rand(2, 12), X, X + 0.1, IDX.view(2, -1), IDX.view(2, -1)),
    "linear_max": (X.clone().requires_grad_(), torch.randn(5, 3).requires_grad_()),
    "linear_max_backward": (torch.rand(2, 5), torch.randint(0, 12, (2, 5)), X, torch.randn(5, 3)),
    "neighborhood_max": (
        torch.randn(2, 12, 5).requires_grad_(),
        IDX,
        torch.randn(*IDX.shape, 4).requires_grad_(),
        torch.randn(5, 4).requires_grad_(),
    ),
    "neighborhood_attention": (torch.randn(2, 12, 18).requires_grad_(), IDX, 2, 0.5),
    "neighborhood_attention_backward": (torch.randn(2, 4, 3, 6), torch.randn(2, 12, 18), IDX, 2, 0.5),
    "emd_match": (X, X + 0.2),
}


@pytest.mark.parametrize("name", TABLE)
def test_custom_operators_are_sound(name):
    torch.library.opcheck(getattr(library, name), SAMPLES[name])


class _Tokenizer(torch.nn.Module):
    def forward(self, xyz):
        grouping = ops.group(xyz, 8, 4, skip_near_origin=True)
        return grouping.neighborhoods, ops.knn(xyz, grouping.centers, 3).dist


def test_export_with_dynamic_batch():
    program = torch.export.export(
        _Tokenizer(), (torch.randn(3, 40, 3),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"pointlift.farthest_point_sample.default", "pointlift.knn.default"} <= targets
    other = torch.randn(5, 40, 3)
    for ours, theirs in zip(program.module()(other), _Tokenizer()(other), strict=True):
        assert torch.equal(ours, theirs)


def test_compiles_into_one_graph_with_gradients():
    def loss(a, b):
        return ops.chamfer_l1(a, b) + ops.interpolate(a, b, b).sum()

    a, b = torch.randn(2, 16, 3, requires_grad=True), torch.randn(2, 9, 3)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(a, b), a)
    (expected,) = torch.autograd.grad(loss(a, b), a)
    torch.testing.assert_close(found, expected)
