from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from pointlift.engine.config import FitConfig, OptimConfig, ScheduleConfig


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: OptimConfig(lr=0), "lr"),
        (lambda: OptimConfig(weight_decay=-1), "weight_decay"),
        (lambda: OptimConfig(betas=(0.9, 1.0)), "betas"),
        (lambda: OptimConfig(momentum=1.0), "momentum"),
        (lambda: OptimConfig(grad_clip=0), "grad_clip"),
        (lambda: OptimConfig(accumulate=0), "accumulate"),
        (lambda: OptimConfig(lr_scales={"head": -1}), "lr_scales"),
        (lambda: ScheduleConfig(warmup_epochs=-1), "warmup_epochs"),
        (lambda: ScheduleConfig(t_initial=0), "t_initial"),
        (lambda: FitConfig(epochs=0), "epochs"),
        (lambda: FitConfig(eval_every=0), "eval_every"),
        (lambda: FitConfig(checkpoint_every=0), "checkpoint_every"),
        (lambda: FitConfig(metric=""), "metric"),
    ],
)
def test_a_wrong_value_names_its_field(build, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        build()


def test_yaml_values_become_a_config() -> None:
    adapter = TypeAdapter(FitConfig)
    config = adapter.validate_python(
        {
            "epochs": 3,
            "optim": {"name": "sgd", "grad_clip": None, "betas": [0.9, 0.95], "lr_scales": {"head": 10}},
            "schedule": {"name": "released_cosine", "warmup_epochs": 1},
        }
    )
    assert config.optim == OptimConfig("sgd", grad_clip=None, betas=(0.9, 0.95), lr_scales={"head": 10.0})
    assert config.schedule.name == "released_cosine"
    with pytest.raises(ValidationError, match="accumulate"):
        adapter.validate_python({"optim": {"accumulate": 0}})


def test_configuration_and_schedules_do_not_import_torch() -> None:
    code = (
        "import sys, pointlift.engine.config, pointlift.engine.schedules, pointlift.engine.logs;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
