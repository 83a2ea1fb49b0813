"""The same batches for any number of workers and ranks, and errors that arrive as they were."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from pointlift.core.errors import DataError, FileFormatError, UsageError
from pointlift.data.config import AugmentConfig, ResampleConfig
from pointlift.data.dataset import CloudSplit
from pointlift.data.loader import make_loader
from pointlift.data.pipeline import CloudTransform
from pointlift.data.stores import ArrayStore, FileStore

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(23, 90, 3)).astype(np.float32)
SPLIT = CloudSplit(ArrayStore(POINTS), np.arange(23) % 4)
AUGMENT = AugmentConfig(rotate=180, rotate_shared=True, jitter=0.01, drop=0.2)
# 90 -> 75 by farthest-point sampling -> 64 at random, one subset per batch: everything that could differ.
TRAIN = CloudTransform(64, "train", augment=AUGMENT, up_axis="z", resample=ResampleConfig(shared_subset=True))
TEST = CloudTransform(64, "test")


def loader(split=SPLIT, transform=TRAIN, **options):
    return make_loader(split, transform, **{"batch_size": 4, "seed": 5, "shuffle": True} | options)


def epochs(made, *numbers: int) -> list[list[dict]]:
    result = []
    for number in numbers:
        made.set_epoch(number)
        result.append(list(made))
    made.close()
    return result


def same(one, two) -> bool:
    return len(one) == len(two) and all(
        set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_bit_for_bit_with_workers(workers):
    alone = epochs(loader(), 0, 1, 0)
    helped = epochs(loader(workers=workers), 0, 1, 0)
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))
    assert not same(alone[0], alone[1])
    assert same(alone[0], alone[2])


def test_an_epoch_left_early_does_not_disturb_the_next():
    made = loader(workers=2)
    made.set_epoch(0)
    next(iter(made))
    assert same(epochs(made, 1)[0], epochs(loader(), 1)[0])


@pytest.mark.parametrize("whole", [False, True])
def test_workers_end_with_the_last_reference(whole):
    made = loader(workers=1)
    batches = iter(made)
    first = next(batches)
    if whole:
        for _ in batches:
            pass
    (process,) = made._processes._iterator._workers
    gc.disable()  # no cycles: nothing waits for the collector
    try:
        del made, batches, first
        process.join(20)
        assert not process.is_alive()
    finally:
        gc.enable()


def test_every_cloud_comes_once_in_stored_order_without_shuffle():
    made = loader(transform=TEST, shuffle=False)
    batches = list(made)
    assert len(made) == len(batches) == 6
    assert torch.cat([b["index"] for b in batches]).tolist() == list(range(23))
    assert torch.cat([b["label"] for b in batches]).tolist() == SPLIT.labels.tolist()
    assert batches[0]["xyz"].shape == (4, 64, 3)


def test_shuffle_depends_on_seed_and_epoch():
    orders = {tuple(torch.cat([b["index"] for b in e]).tolist()) for e in epochs(loader(), 0, 1)}
    orders |= {tuple(torch.cat([b["index"] for b in epochs(loader(seed=6), 0)[0]]).tolist())}
    assert len(orders) == 3
    assert all(sorted(o) == list(range(23)) for o in orders)


def test_a_cloud_is_changed_in_the_same_way_wherever_it_lands():
    transform = CloudTransform(64, "train", augment=AugmentConfig())
    large, small = loader(transform=transform, batch_size=23), loader(transform=transform, batch_size=1, shuffle=False)
    by_index = {int(b["index"][0]): b["xyz"][0] for b in small}
    (batch,) = large
    for i, xyz in zip(batch["index"].tolist(), batch["xyz"], strict=True):
        assert torch.equal(by_index[i], xyz)


def test_drop_last():
    assert [len(b["label"]) for b in loader(drop_last=True)] == [4] * 5
    assert len(loader(drop_last=True)) == 5
    with pytest.raises(UsageError, match=r"23 clouds do not fill one batch of 24.*at most 23"):
        loader(drop_last=True, batch_size=24)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_training_shares_make_up_the_global_batches(world):
    ranks = [list(loader(rank=r, world_size=world)) for r in range(world)]
    assert len({len(r) for r in ranks}) == 1
    whole = list(loader(batch_size=4 * world))
    for step, batch in enumerate(whole):
        shares = [r[step]["index"] for r in ranks]
        assert len({len(s) for s in shares}) == 1
        joined = torch.cat(shares)
        assert torch.equal(joined[: len(batch["index"])], batch["index"])
        assert len(joined) - len(batch["index"]) < world


def test_a_share_holds_the_same_tensors_as_the_whole():
    whole = next(iter(loader(batch_size=8)))
    halves = [next(iter(loader(rank=r, world_size=2))) for r in range(2)]
    assert torch.equal(torch.cat([h["xyz"] for h in halves]), whole["xyz"])


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 23])
def test_evaluation_shares_are_disjoint_and_complete(world, count):
    split = SPLIT.subset(range(count))
    seen = [
        int(i)
        for r in range(world)
        for b in loader(split, TEST, shuffle=False, rank=r, world_size=world)
        for i in b["index"]
    ]
    assert sorted(seen) == list(range(count))


def test_fewer_clouds_than_ranks_are_padded_in_training():
    tiny = SPLIT.subset([0, 1])
    shares = [list(loader(tiny, rank=r, world_size=5)) for r in range(5)]
    assert [[len(b["label"]) for b in s] for s in shares] == [[1]] * 5


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_arrive_as_they_were(workers, tmp_path):
    (tmp_path / "broken.ply").write_text("ply\n")
    split = CloudSplit(FileStore([tmp_path / "broken.ply"]), np.zeros(1))
    with pytest.raises(FileFormatError, match=r"broken\.ply is not a PLY file") as info:
        list(loader(split, TEST, workers=workers))
    assert "Traceback" not in str(info.value)
    assert len(str(info.value)) < 400


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cloud_that_a_transform_refuses_is_named(workers):
    split = CloudSplit(ArrayStore(POINTS[:2]), [0, 1], ["chair/a.ply", "chair/b.ply"])
    strict = CloudTransform(200, "train", resample=ResampleConfig(pad="error"))
    with pytest.raises(DataError, match=r"chair/[ab]\.ply: a cloud of 90 points"):
        list(loader(split, strict, workers=workers))


def test_what_cannot_be_loaded():
    with pytest.raises(UsageError, match="without clouds"):
        loader(SPLIT.subset([]))
    with pytest.raises(UsageError, match="batch size of 0"):
        loader(batch_size=0)
    with pytest.raises(UsageError, match="rank 2 of 2"):
        loader(rank=2, world_size=2)


def test_farthest_points_are_found_once_per_cloud(monkeypatch):
    from pointlift.data import resample

    calls = []
    original = resample.farthest_rows
    monkeypatch.setattr(resample, "farthest_rows", lambda *a, **k: calls.append(1) or original(*a, **k))
    first, second = epochs(loader(transform=TEST, shuffle=False), 0, 1)
    assert len(calls) == len(SPLIT)
    assert same(first, second)
