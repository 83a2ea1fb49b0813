"""Hashes name weights: the same for ever, on any device, in any order."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from pointlift.weights.hashing import file_sha256, state_hash

STATE = {
    "b.weight": torch.arange(6, dtype=torch.float32).view(2, 3) / 4,
    "a": torch.tensor(7),
    "c": torch.tensor([True, False]),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "none": torch.zeros(0, 3),
}


def test_the_hash_never_changes() -> None:
    """Adapters name their base by it: a changed formula would orphan every file."""
    assert state_hash(STATE) == HASH
    assert state_hash({}) == hashlib.sha256().hexdigest()


HASH = "c802a3f859c2cd71e85195f58a3a839a4e790d74c2e1fb2f3605204dcfbdf2bd"


def test_order_layout_and_gradients_do_not_count() -> None:
    shuffled = {k: STATE[k] for k in reversed(STATE)}
    assert state_hash(shuffled) == HASH
    strided = {**STATE, "b.weight": STATE["b.weight"].T.contiguous().T}
    assert not strided["b.weight"].is_contiguous()
    assert state_hash(strided) == HASH
    assert state_hash({**STATE, "b.weight": torch.nn.Parameter(STATE["b.weight"])}) == HASH


@pytest.mark.parametrize(
    "change",
    [
        {"b.weight": STATE["b.weight"].nextafter(torch.tensor(9.0))},
        {"b.weight": STATE["b.weight"].view(3, 2)},
        {"b.weight": STATE["b.weight"].double()},
        {"b.weight": STATE["b.weight"].view(torch.int32)},
        {"d": torch.zeros(0)},
        {"none": torch.zeros(0, 4)},
    ],
    ids=range(6),
)
def test_names_shapes_types_and_bytes_count(change: dict) -> None:
    assert state_hash({**STATE, **change}) != HASH


def test_file_hashes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
