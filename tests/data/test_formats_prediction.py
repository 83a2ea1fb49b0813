"""One cloud written in every format and read back: a model says the same of it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from pointlift.data.cloud import PointCloud
from pointlift.data.files import FORMATS, read, write
from pointlift.models.registry import create_model
from pointlift.tasks.predict import predict


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("point_mae_tiny", num_classes=4).eval()


@pytest.mark.parametrize("ending", [ending for ending in FORMATS if FORMATS.get(ending).write])
def test_the_same_prediction(ending, model, tmp_path):
    cloud = PointCloud(np.random.default_rng(5).normal(size=(1500, 3)).astype(np.float32))
    expected = predict(model, cloud)
    got = predict(model, read(write(cloud, tmp_path / f"a{ending}")))
    other = predict(model, PointCloud(cloud.xyz * np.float32([1, 2, 0.5])))
    assert max(abs(other.probabilities[name] - p) for name, p in expected.probabilities.items()) > 1e-3
    assert got.label == expected.label
    np.testing.assert_allclose(
        list(got.probabilities.values()), list(expected.probabilities.values()), atol=1e-5, rtol=0
    )


def test_formats_are_there_without_the_libraries_behind_them():
    """Reading text must not cost the import of torch, h5py, laspy or numba."""
    heavy = {"torch", "h5py", "laspy", "numba", "trimesh"}
    code = f"import sys; import pointlift.data.files; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
