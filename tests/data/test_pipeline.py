"""The whole way of a sample: determinism, stages, and what is said when a step cannot apply."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointlift.core.errors import UsageError
from pointlift.data.config import AugmentConfig, DataConfig, ResampleConfig
from pointlift.data.dataset import DatasetMeta
from pointlift.data.pipeline import CloudTransform, build_transform
from pointlift.data.transforms import normalize_unit_sphere

RNG = np.random.default_rng(0)
EVERYTHING = AugmentConfig(rotate=180, jitter=0.01, drop=0.3)


def sample(n: int = 128) -> dict:
    normals = RNG.normal(size=(n, 3))
    return {
        "xyz": RNG.normal(size=(n, 3)).astype(np.float32) + 5,
        "normals": (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        "part": np.arange(n),
        "label": np.int64(3),
        "index": np.int64(0),
    }


@given(seed=st.integers(0, 10_000), n=st.integers(1, 300), points=st.integers(1, 128))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_the_same_seed_gives_the_same_sample_and_the_wanted_points(seed, n, points):
    transform = CloudTransform(points, "train", augment=EVERYTHING, up_axis="z")
    given_sample = sample(n)
    before = {k: np.copy(v) for k, v in given_sample.items()}
    one, two = (transform(given_sample, np.random.default_rng(seed)) for _ in range(2))
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])
    for key, value in before.items():
        np.testing.assert_array_equal(given_sample[key], value)
    assert one["xyz"].shape == (points, 3)
    assert one["xyz"].dtype == np.float32
    assert one["part"].shape == (points,)
    assert one["label"] == 3


def test_other_seeds_give_other_samples():
    transform = CloudTransform(64, "train", augment=AugmentConfig())
    shapes = {transform(sample(64), np.random.default_rng(s))["xyz"].tobytes() for s in range(5)}
    assert len(shapes) == 5


def test_plain_evaluation_is_deterministic_and_not_augmented():
    transform = CloudTransform(128, "test", augment=EVERYTHING)
    stored = sample()
    np.testing.assert_array_equal(transform(stored)["xyz"], normalize_unit_sphere(stored["xyz"]))
    np.testing.assert_array_equal(transform(stored, np.random.default_rng(1))["part"], np.arange(128))


def test_random_stages_need_a_generator():
    with pytest.raises(ValueError, match="pass a numpy generator"):
        CloudTransform(64, "train")(sample())


def test_points_and_their_arrays_stay_together():
    transform = CloudTransform(100, "train", augment=AugmentConfig(scale=(1.0, 1.0), shift=0.0, drop=0.2))
    stored = sample(300)
    result = transform(stored, np.random.default_rng(0))
    np.testing.assert_array_equal(result["xyz"], normalize_unit_sphere(stored["xyz"])[result["part"]])
    np.testing.assert_array_equal(result["normals"], stored["normals"][result["part"]])


def test_normals_turn_with_the_cloud():
    config = AugmentConfig(rotate=180, scale=(1.0, 1.0), shift=0.0, shuffle=False)
    stored = sample(64)
    stored["normals"] = normalize_unit_sphere(stored["xyz"])
    result = CloudTransform(64, "train", augment=config, up_axis="y")(stored, np.random.default_rng(0))
    np.testing.assert_allclose(result["xyz"], result["normals"], atol=1e-6)
    np.testing.assert_allclose(result["xyz"][:, 1], normalize_unit_sphere(stored["xyz"])[:, 1], atol=1e-6)
    assert np.abs(result["xyz"] - normalize_unit_sphere(stored["xyz"])).max() > 0.1


def test_training_draws_from_the_pool_of_farthest_points():
    transform = CloudTransform(64, "vote", augment=AugmentConfig.none())
    stored = sample(400)
    pool = set(transform.prepare(stored)["part"].tolist())
    assert len(pool) == 75
    drawn = [set(transform(stored, np.random.default_rng(s))["part"].tolist()) for s in range(3)]
    assert all(len(d) == 64 and d < pool for d in drawn)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(("points", "pool"), [(1024, 1200), (2048, 2400), (4096, 4800), (8192, 8192)])
def test_votes_are_drawn_from_the_published_pool_at_every_number_of_points(points, pool):
    transform = CloudTransform(points, "vote", augment=AugmentConfig.none())
    stored = sample(8192)
    prepared = transform.prepare(stored)
    assert len(prepared["xyz"]) == pool
    votes = [transform.draw(prepared, np.random.default_rng(s)) for s in range(2)]
    assert all(len(np.unique(v["part"])) == points for v in votes), "no point twice"
    assert transform.notes == ()
    if pool > points:
        assert set(votes[0]["part"]) != set(votes[1]["part"])


@pytest.mark.parametrize("stage", ["train", "vote", "test"])
def test_a_subset_may_be_normalised_by_itself(stage):
    stored = sample(400)
    rng = np.random.default_rng
    config = ResampleConfig(pool="all")
    whole, subset = (
        CloudTransform(64, stage, augment=AugmentConfig.none(), resample=config, normalize_subset=again)
        for again in (False, True)
    )
    first, second = (t(stored, rng(0)) for t in (whole, subset))
    np.testing.assert_array_equal(first["part"], second["part"])
    # As the released loaders do it: of the stored points, those that were drawn, and then their centre and radius.
    released = stored["xyz"][second["part"]]
    released = released - released.mean(0)
    released = released / np.linalg.norm(released, axis=1).max()
    np.testing.assert_allclose(second["xyz"], released, atol=1e-6)
    assert np.abs(first["xyz"] - released).max() > 1e-3
    assert (whole.describe()["normalize_subset"], subset.describe()["normalize_subset"]) == (False, True)


def test_augmentation_comes_after_a_normalised_subset():
    shifted = AugmentConfig(scale=(2.0, 2.0), anisotropic=False, shift=0.0)
    transform = CloudTransform(64, "train", augment=shifted, resample=ResampleConfig(pool="all"), normalize_subset=True)
    xyz = transform(sample(400), np.random.default_rng(0))["xyz"]
    assert np.linalg.norm(xyz, axis=1).max() == pytest.approx(2, rel=1e-5)


def test_what_a_batch_may_share():
    config = AugmentConfig(rotate=180, rotate_shared=True, scale=(1.0, 1.0), shift=0.0)
    transform = CloudTransform(32, "train", augment=config, resample=ResampleConfig(shared_subset=True), up_axis="z")

    def shared():
        return np.random.default_rng(7)

    stored = sample(64)
    one = transform(stored, np.random.default_rng(1), shared)
    two = transform(stored, np.random.default_rng(2), shared)
    np.testing.assert_array_equal(one["xyz"], two["xyz"])
    other = transform(stored, np.random.default_rng(2), lambda: np.random.default_rng(8))
    assert (one["part"] != other["part"]).any()
    apart = CloudTransform(32, "train", augment=AugmentConfig(), up_axis="z")
    assert (
        apart(stored, np.random.default_rng(1), shared)["part"]
        != apart(stored, np.random.default_rng(2), shared)["part"]
    ).any()


def test_rotation_without_an_up_axis_is_refused_at_once():
    with pytest.raises(UsageError, match="up axis is unknown"):
        CloudTransform(64, "train", augment=AugmentConfig(rotate=10))
    CloudTransform(64, "test", augment=AugmentConfig(rotate=10))


def test_a_step_that_cannot_apply_is_recorded_and_said_once(caplog):
    meta = DatasetMeta("m", None, ("a",), native_points=997)
    config = DataConfig(points=997)
    with caplog.at_level("WARNING"):
        first = build_transform(config, meta, "train")
        voting = build_transform(config, meta, "vote")
    assert not any("vote" in note for note in first.notes)
    assert voting.notes[:-1] == first.notes
    assert "votes differ by augmentation only" in voting.notes[-1]
    assert "clouds have 997 points where the protocol draws from 1,168" in first.describe()["notes"][0]
    assert sum("997 points" in r.message for r in caplog.records) == 1
    assert build_transform(config, meta, "test").notes == ()
    assert build_transform(DataConfig(points=2000), meta, "test").notes[0].startswith("997 native points, 2,000 wanted")


def test_describe_is_plain_data():
    import json

    text = json.dumps(CloudTransform(64, "train", augment=AugmentConfig(), native_points=64).describe())
    assert '"anisotropic": true' in text


@pytest.mark.parametrize("how", ["unit_sphere", "center", "none"])
def test_normalisation_by_name(how):
    stored = sample()
    result = CloudTransform(128, "test", normalize=how)(stored)["xyz"]
    radius = np.linalg.norm(result - result.mean(0), axis=1).max()
    assert (abs(radius - 1) < 1e-4) == (how == "unit_sphere")
    assert (abs(result.mean()) < 1e-4) == (how != "none")


@pytest.mark.parametrize("size", [1, 2, 5])
def test_tiny_and_identical_clouds(size):
    for stage in ("train", "test", "vote"):
        transform = CloudTransform(64, stage, augment=AugmentConfig())
        flat = {"xyz": np.ones((size, 3), np.float32), "label": np.int64(0), "index": np.int64(0)}
        result = transform(flat, np.random.default_rng(0))["xyz"]
        assert result.shape == (64, 3)
        assert np.isfinite(result).all()
