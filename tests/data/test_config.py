"""What the configuration refuses, and that it needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pointlift.core.config import build, to_dict
from pointlift.core.errors import ConfigError
from pointlift.data.config import AugmentConfig, DataConfig, ResampleConfig


@pytest.mark.parametrize(
    ("cls", "values", "says"),
    [
        (AugmentConfig, {"scale": (0.0, 1.0)}, "scale"),
        (AugmentConfig, {"scale": (1.5, 0.5)}, "scale"),
        (AugmentConfig, {"rotate": 200}, "rotate"),
        (AugmentConfig, {"shift": -1}, "shift"),
        (AugmentConfig, {"jitter": -1}, "jitter"),
        (AugmentConfig, {"drop": 1}, "drop"),
        (ResampleConfig, {"pool": 0}, "pool"),
        (ResampleConfig, {"thin_above": 10}, "thin_above"),
        (DataConfig, {"points": 0}, "points"),
        (DataConfig, {"batch_size": 0}, "batch_size"),
        (DataConfig, {"workers": -1}, "workers"),
        (DataConfig, {"limit": 0}, "limit"),
        (DataConfig, {"val_fraction": 1.0}, "val_fraction"),
        (DataConfig, {"test_fraction": -0.1}, "test_fraction"),
        (DataConfig, {"points": 2048, "resample": ResampleConfig(pool=2000)}, "resample.pool"),
    ],
)
def test_refuses(cls, values, says):
    with pytest.raises(ValueError, match=says):
        cls(**values)


def test_round_trip_through_plain_values():
    config = DataConfig(
        root="x", augment=AugmentConfig(rotate=30, scale=(0.8, 1.25)), resample=ResampleConfig(pool=1500)
    )
    assert build(DataConfig, to_dict(config)) == config


def test_typos_name_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown key 'augment\.rotat'. Did you mean 'augment\.rotate'"):
        build(DataConfig, {"augment": {"rotat": 3}})


def test_the_configuration_does_not_import_torch():
    code = "import sys, pointlift.data.config, pointlift.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
