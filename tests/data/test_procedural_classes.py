"""Classes made by formula: members are alike, classes are not, and everything is the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pointlift.core.errors import UsageError
from pointlift.data.loading import load_dataset
from pointlift.data.procedural import ProceduralConfig, VariedDraw, make_member
from pointlift.data.shapes.draw import Draw

CONFIG = ProceduralConfig(points=512)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance to the nearest point, both ways."""
    return float(cKDTree(a).query(b)[0].mean() + cKDTree(b).query(a)[0].mean()) / 2


def test_a_member_is_the_same_every_time_and_another_one_is_not() -> None:
    first, normals = make_member(3, 0, CONFIG)
    again, _ = make_member(3, 0, CONFIG)
    other, _ = make_member(3, 1, CONFIG)
    assert first.dtype == np.float32
    assert first.shape == normals.shape == (512, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(np.linalg.norm(first, axis=1).max() - 1) < 1e-6
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


def test_members_of_a_class_are_more_alike_than_classes() -> None:
    members = [[make_member(label, j, CONFIG)[0] for j in range(3)] for label in range(8)]
    within = [apart(m[0], other) for m in members for other in m[1:]]
    between = [apart(members[i][0], members[j][0]) for i in range(8) for j in range(i)]
    assert np.mean(within) < 0.6 * np.mean(between)


def test_variation_says_how_much_members_differ() -> None:
    def spread(variation: float) -> float:
        clouds = [[make_member(k, j, CONFIG, variation=variation)[0] for j in range(2)] for k in range(6)]
        return float(np.mean([apart(a, b) for a, b in clouds]))

    none, some, much = (spread(v) for v in (0.0, 0.3, 1.0))
    assert none < some < much


def test_a_varied_draw_moves_amounts_and_nothing_else() -> None:
    own = Draw(np.random.default_rng(1))
    varied = VariedDraw(np.random.default_rng(1), np.random.default_rng(2), 0.5)
    for _ in range(40):
        assert varied.count(0, 9) == own.count(0, 9)
        assert varied.pick("abcdef") == own.pick("abcdef")
        assert varied.unit() == own.unit()
        amount, base = varied.uniform(2.0, 3.0), own.uniform(2.0, 3.0)
        assert 2.0 <= amount <= 3.0
        assert abs(amount - base) <= 0.25 + 1e-12
        assert amount != base


def test_the_data_set() -> None:
    data = load_dataset(name="procedural_classes", classes=5, count=20, test=10, points=256)
    assert len(data.meta.classes) == 5
    assert data.train.class_labels().tolist() == [*range(5)] * 4
    assert data.test is not None
    assert data.test.class_labels().tolist() == [*range(5)] * 2
    sample = data.train.with_fields("normals")[7]
    assert sample["xyz"].shape == sample["normals"].shape == (256, 3)
    assert sample["label"] == 2
    # A test cloud is a member that training does not have.
    assert not any(np.array_equal(data.test[0]["xyz"], data.train[i]["xyz"]) for i in (0, 5, 10, 15))
    hashes = {load_dataset(name="procedural_classes", classes=5, count=20, points=256, variation=v).content_hash()
              for v in (0.1, 0.2)}  # fmt: skip
    assert len(hashes) == 2


@pytest.mark.parametrize("options", [{"classes": 1}, {"count": 3, "classes": 4}, {"variation": 1.5}, {"test": -1}])
def test_wrong_options(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="classes="):
        load_dataset(name="procedural_classes", **options)


@pytest.mark.parametrize("options", [{"classes": "abc"}, {"count": 2.5}, {"seed": True}, {"variation": "0.5"}])
def test_options_of_another_kind(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=rf"option {next(iter(options))} of data set 'procedural_classes'.*valid"):
        load_dataset(name="procedural_classes", **options)
