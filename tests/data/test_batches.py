"""Dense and packed batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointlift.core.errors import DataError
from pointlift.data.batches import collate, collate_packed, to_dense, to_packed

RNG = np.random.default_rng(0)


def samples(*sizes: int) -> list[dict]:
    return [
        {
            "xyz": RNG.normal(size=(n, 3)).astype(np.float32),
            "part": np.arange(n),
            "label": np.int64(i),
            "index": np.int64(i),
        }
        for i, n in enumerate(sizes)
    ]


def test_collate():
    batch = collate(samples(5, 5, 5))
    assert batch["xyz"].shape == (3, 5, 3)
    assert batch["xyz"].dtype == torch.float32
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert batch["label"].tolist() == [0, 1, 2]


def test_collate_refuses_different_sizes():
    with pytest.raises(DataError, match="clouds of 2 to 9 points"):
        collate(samples(9, 2))


def test_packed_and_back():
    given = samples(4, 1, 6)
    packed = collate_packed(given)
    assert packed["offsets"].tolist() == [0, 4, 5, 11]
    assert packed["xyz"].shape == (11, 3)
    assert packed["label"].tolist() == [0, 1, 2]
    dense = to_dense(packed)
    assert dense["xyz"].shape == (3, 6, 3)
    assert dense["valid"].sum(1).tolist() == [4, 1, 6]
    np.testing.assert_array_equal(dense["xyz"][1], np.repeat(given[1]["xyz"], 6, 0))
    again = to_packed(dense)
    assert set(again) == set(packed)
    for key in packed:
        torch.testing.assert_close(again[key], packed[key], rtol=0, atol=0)


def test_dense_and_back():
    dense = collate(samples(5, 5))
    packed = to_packed(dense)
    assert packed["offsets"].tolist() == [0, 5, 10]
    again = to_dense(packed)
    assert set(again) == set(dense)
    for key in dense:
        torch.testing.assert_close(again[key], dense[key], rtol=0, atol=0)


def test_what_is_right_already_is_left_alone():
    dense, packed = collate(samples(3, 3)), collate_packed(samples(3, 2))
    assert to_dense(dense) is dense
    assert to_packed(packed) is packed
