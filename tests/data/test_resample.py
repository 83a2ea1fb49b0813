"""The resampling table, and what happens when it cannot be followed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointlift.core.errors import DataError
from pointlift.data.config import ResampleConfig
from pointlift.data.resample import farthest_rows, fixed_rows, needs_fps, pool_size, resample_stage, thin_rows
from pointlift.ops import farthest_point_sample

RNG = np.random.default_rng(0)


def cloud(n: int) -> np.ndarray:
    return RNG.normal(size=(n, 3)).astype(np.float32)


@pytest.mark.parametrize(("points", "pool"), [(1024, 1200), (2048, 2400), (4096, 4800), (8192, 8192), (512, 600)])
def test_the_table(points, pool):
    assert pool_size(points) == pool
    assert resample_stage(100_000, points).pool == pool
    assert resample_stage(100_000, points).note == ""


@pytest.mark.parametrize(
    ("native", "points", "pool", "says"),
    [
        (8192, 1024, 1200, ""),
        (1100, 1024, 1100, "have 1,100 points where the protocol draws from 1,200"),
        (1024, 1024, 1024, "draws from 1,200 farthest-point samples: all are used"),
        (2048, 2048, 2048, "have 2,048 points where the protocol draws from 2,400"),
        (500, 1024, 500, "500 native points, 1,024 wanted: all points are used and some are repeated"),
    ],
)
def test_small_clouds_degrade_and_say_so(native, points, pool, says):
    stage = resample_stage(native, points)
    assert stage.pool == pool
    assert says in stage.note
    assert bool(says) == bool(stage.note)


def test_all_points_and_a_number_as_pool():
    assert resample_stage(5000, 1024, "all").pool == 5000
    assert resample_stage(5000, 1024, 3000).pool == 3000
    assert resample_stage(2000, 1024, 3000).note


def test_farthest_rows_are_those_of_ops():
    xyz = cloud(300)
    expected = farthest_point_sample(torch.from_numpy(xyz)[None], 40)[0].numpy()
    np.testing.assert_array_equal(farthest_rows(xyz, 40), expected)
    np.testing.assert_array_equal(farthest_rows(xyz, 20), expected[:20])


def test_train_and_vote_take_a_pool_of_farthest_points():
    xyz = cloud(400)
    for stage in ("train", "vote"):
        rows = fixed_rows(xyz, stage, 64, ResampleConfig())
        np.testing.assert_array_equal(rows, farthest_rows(xyz, 75))
        assert fixed_rows(xyz, stage, 64, ResampleConfig(pool="all")) is None
    assert fixed_rows(cloud(64), "train", 64, ResampleConfig()) is None


def test_plain_test_takes_farthest_or_first_points():
    xyz = cloud(400)
    np.testing.assert_array_equal(fixed_rows(xyz, "test", 64, ResampleConfig()), farthest_rows(xyz, 64))
    np.testing.assert_array_equal(fixed_rows(xyz, "test", 64, ResampleConfig(test="first")), np.arange(64))
    assert fixed_rows(cloud(64), "test", 64, ResampleConfig()) is None


def test_the_released_near_origin_rule_is_an_option():
    xyz = cloud(64) * 3
    xyz[10:20] *= 1e-3
    rows = fixed_rows(xyz, "test", 64, ResampleConfig(skip_near_origin=True))
    assert len(rows) == 64
    assert not set(range(10, 20)) & set(rows.tolist())
    assert fixed_rows(xyz, "train", 64, ResampleConfig(skip_near_origin=True)) is not None


def test_too_few_points_in_test_are_repeated_evenly():
    xyz = cloud(30)
    rows = fixed_rows(xyz, "test", 100, ResampleConfig())
    assert np.bincount(rows).tolist() in [[3 + (i in rows[90:]) for i in range(30)]]
    np.testing.assert_array_equal(rows[90:], farthest_rows(xyz, 10))
    np.testing.assert_array_equal(fixed_rows(xyz, "test", 60, ResampleConfig()), np.tile(np.arange(30), 2))


@pytest.mark.parametrize("stage", ["train", "test", "vote"])
def test_too_few_points_can_be_refused(stage):
    with pytest.raises(DataError, match=r"a cloud of 30 points.*at least 100"):
        fixed_rows(cloud(30), stage, 100, ResampleConfig(pad="error"))


def test_needs_fps_says_what_fixed_rows_does():
    for stage in ("train", "test", "vote"):
        for available in (10, 63, 64, 70, 75, 76, 400):
            for config in (ResampleConfig(), ResampleConfig(test="first", pool="all")):
                rows = fixed_rows(cloud(available), stage, 64, config)
                if needs_fps(available, stage, 64, config):
                    assert rows is not None


def test_huge_clouds_are_thinned_the_same_way_every_time():
    rows = thin_rows(50_000, 2_000)
    assert len(np.unique(rows)) == 2_000
    np.testing.assert_array_equal(rows, thin_rows(50_000, 2_000))
    assert thin_rows(2_000, 2_000) is None
