"""The real sets beside the checkout open, with the numbers of their README files."""

from __future__ import annotations

import numpy as np
import pytest

from pointlift.data.config import AugmentConfig, DataConfig
from pointlift.data.loader import make_loader
from pointlift.data.loading import load_dataset
from pointlift.data.pipeline import build_transform
from pointlift.data.sets.known import MODELNET40_CLASSES

pytestmark = pytest.mark.shared

# folder: name, train, test, classes, native points, content hash (first digits)
SETS = {
    "modelnet40": ("modelnet40", 9843, 1234, 40, 1024, "9cd9360b52d7"),
    "shapedb69": ("shapedb69", 1442, 478, 69, 1024, "ec96b45427a2"),
    "dales_objects": ("dales_objects", 299, 100, 5, None, "4f993eeba651"),
    "labeled_psb": ("labeled_psb", 228, 76, 19, 4096, "5bda5ccb9afb"),
    "bimnet10": ("bimnet10", 165, None, 10, 2048, "fca5cf101cab"),
}


@pytest.mark.parametrize("folder", SETS)
def test_opens(folder, shared):
    name, train, test, classes, native, digest = SETS[folder]
    data = load_dataset(shared / "data" / folder)
    assert data.meta.name == name
    assert len(data.train) == train
    assert (None if data.test is None else len(data.test)) == test
    assert len(data.meta.classes) == classes
    assert data.meta.native_points == native
    assert data.content_hash().startswith(digest)
    for part in filter(None, (data.train, data.test)):
        xyz = part[len(part) - 1]["xyz"]
        assert xyz.dtype == np.float32
        assert np.isfinite(xyz).all()


def test_modelnet40_counts(shared):
    data = load_dataset(shared / "data" / "modelnet40", up_axis="z")
    assert data.meta.classes == MODELNET40_CLASSES
    counts = np.bincount(data.train.labels)
    assert (counts[0], counts[6], counts[39]) == (626, 64, 103)
    assert data.train.names[0] == "airplane_0001"
    assert np.linalg.norm(data.train[0]["xyz"], axis=1).max() == pytest.approx(1, abs=1e-4)
    train, validation = data.hold_out(0.1)
    assert (len(train), len(validation)) == (8858, 985)


def test_dales_objects_are_metric_and_of_all_sizes(shared):
    data = load_dataset(shared / "data" / "dales_objects", up_axis="z")
    assert data.meta.unit == "m"
    counts = np.concatenate([data.train.counts(), data.test.counts()])
    assert (counts.min(), counts.max()) == (101, 28_100)
    config = DataConfig(augment=AugmentConfig(rotate=180))
    transform = build_transform(config, data.meta, "train")
    batches = list(make_loader(data.test, transform, batch_size=50, seed=0, shuffle=True))
    assert [b["xyz"].shape for b in batches] == [(50, 1024, 3)] * 2


def test_labelled_psb_fields(shared):
    sample = load_dataset(shared / "data" / "labeled_psb").train.with_fields("normals", "part")[7]
    assert sample["part"].shape == (4096,)
    assert np.linalg.norm(sample["normals"], axis=1).mean() == pytest.approx(1, abs=0.02)
