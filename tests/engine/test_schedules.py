from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pointlift.engine.config import ScheduleConfig
from pointlift.engine.schedules import cosine, learning_rate, released_cosine

OPS = Path(__file__).parents[1] / "parity" / "files" / "ops.safetensors"
RELEASED = {  # epochs, peak, warm-up, length: the configurations behind `out/coslr_*`
    "finetune": (301, 5e-4, 10, 300),
    "fewshot": (151, 5e-4, 10, 150),
    "pretrain_mae": (301, 1e-3, 10, 300),
    "pretrain_bert": (301, 5e-4, 3, 300),
    "pretrain_m2ae": (301, 1e-3, 10, 400),
}


def released(name: str) -> list[float]:
    epochs, lr, warmup, length = RELEASED[name]
    return released_cosine(epochs, lr=lr, warmup_epochs=warmup, warmup_lr=1e-6, min_lr=1e-6, t_initial=length)


@pytest.mark.parametrize("name", RELEASED)
def test_released_cosine_is_the_reference_table(name: str) -> None:
    reference = load_file(OPS)[f"out/coslr_{name}"]
    np.testing.assert_allclose(released(name), reference, rtol=1e-12, atol=0)


def test_released_cosine_lags_one_epoch() -> None:
    rates = released("finetune")
    assert rates[:3] == [1e-6, 1e-6, pytest.approx(1e-6 + 4.99e-4 / 10)]
    # The cosine counts from the start of the run: no peak at the end of the warm-up.
    assert rates[11] == pytest.approx(1e-6 + 0.5 * 4.99e-4 * (1 + math.cos(math.pi * 10 / 300)))
    assert max(rates) < 5e-4


def test_released_cosine_stays_at_its_floor_after_its_length() -> None:
    rates = released_cosine(6, lr=1.0, warmup_epochs=0, warmup_lr=0.5, min_lr=0.25, t_initial=3)
    assert rates[:2] == [1.0, 1.0]
    assert rates[4:] == [0.25, 0.25]


def test_rate_of_a_step_follows_the_released_table() -> None:
    schedule = ScheduleConfig("released_cosine", warmup_epochs=10)
    table = released("finetune")
    for epoch in (0, 1, 2, 11, 300):
        for step in (0, 6):
            rate = learning_rate(schedule, lr=5e-4, epochs=301, steps_per_epoch=7, epoch=epoch, step=step)
            assert rate == table[epoch]


def test_released_length_can_differ_from_the_epochs() -> None:
    schedule = ScheduleConfig("released_cosine", warmup_epochs=10, t_initial=400)
    rate = learning_rate(schedule, lr=1e-3, epochs=301, steps_per_epoch=7, epoch=300, step=0)
    assert rate == released("pretrain_m2ae")[-1]


def test_cosine_meets_its_corners() -> None:
    rates = [cosine(step, 101, lr=1.0, warmup_steps=20, warmup_lr=0.1, min_lr=0.01) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(0.55)
    assert rates[20] == 1.0 == max(rates)
    assert rates[60] == pytest.approx((1 + 0.01) / 2)
    assert rates[-1] == pytest.approx(0.01, abs=1e-15)
    assert sorted(rates[20:], reverse=True) == rates[20:]


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (3, 5)])
def test_cosine_of_a_run_shorter_than_its_warmup_still_decays(epochs: int, steps: int) -> None:
    schedule = ScheduleConfig("cosine", warmup_epochs=10, min_lr=1e-6)
    rates = [
        learning_rate(schedule, lr=1.0, epochs=epochs, steps_per_epoch=steps, epoch=e, step=s)
        for e in range(epochs)
        for s in range(steps)
    ]
    assert max(rates) == 1.0
    assert len(rates) == 1 or len(rates) == 2 or rates[-1] == pytest.approx(1e-6)


def test_constant_never_moves() -> None:
    schedule = ScheduleConfig("constant")
    rates = {
        learning_rate(schedule, lr=0.3, epochs=4, steps_per_epoch=3, epoch=e, step=s)
        for e in range(4)
        for s in range(3)
    }
    assert rates == {0.3}
