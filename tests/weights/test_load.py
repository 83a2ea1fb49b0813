"""A load explains every tensor, or changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pointlift.core.errors import CheckpointMismatchError
from pointlift.weights.load import load_state


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {k: torch.rand_like(v.float()).to(v.dtype) for k, v in make().state_dict().items()}


def test_a_whole_state(state) -> None:
    model = make()
    report = load_state(model, state)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert report.loaded == tuple(state)
    assert str(report) == "9 loaded, 0 derived, 0 dropped on purpose, 0 new, 0 unexplained"


def test_what_is_dropped_derived_and_new(state) -> None:
    model = make()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state["decoder.weight"] = torch.zeros(2)
    del state["2.weight"], state["2.bias"], state["1.num_batches_tracked"]
    report = load_state(model, state, dropped=["decoder.weight"], derived=["0.bias"], expected_new=["2."])
    assert report.dropped == ("decoder.weight",)
    assert report.derived == ("0.bias",)
    assert "0.bias" not in report.loaded
    assert set(report.new) == {"2.weight", "2.bias", "1.num_batches_tracked"}
    assert torch.equal(model.state_dict()["2.weight"], before["2.weight"])


def refused(model: nn.Module, state: dict, **options) -> str:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointMismatchError) as caught:
        load_state(model, state, **options)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "changed on failure"
    return str(caught.value)


def test_shapes_are_said(state) -> None:
    state["2.weight"] = torch.zeros(5, 4)
    assert "1 tensors are unexplained: 2.weight is (5, 4), the model has (2, 4)" in refused(make(), state)


def test_missing_and_homeless_tensors_are_said(state) -> None:
    state["extra"] = torch.zeros(7)
    del state["0.weight"]
    text = refused(make(), state)
    assert "0.weight (4, 3) is not in the checkpoint" in text
    assert "extra (7,) has no place in the model" in text


def test_many_mistakes_fit_on_one_screen(state) -> None:
    text = refused(make(), {**state, **{f"x{i}": torch.zeros(1) for i in range(100)}})
    assert "100 tensors are unexplained" in text
    assert "and 96 more" in text
    assert len(text) < 500


def test_shapes_are_said_even_if_none_fits() -> None:
    state = {k: torch.zeros(9, 9) for k in make().state_dict()}
    assert "0.weight is (9, 9), the model has (4, 3)" in refused(make(), state)


def test_another_model_altogether() -> None:
    text = refused(make(), {"encoder.0.weight": torch.zeros(4, 3)})
    assert "none of the 1 tensors is called like one of the model's 9 (first: encoder.0.weight" in text
    assert "pointlift info FILE" in text


def test_nothing_to_load_is_a_mistake() -> None:
    assert "none of the 0 tensors" in refused(make(), {}, expected_new=[""])
    dropped = {"a": torch.zeros(1)}
    assert "none of the 0 tensors" in refused(make(), dropped, dropped=["a"], expected_new=[""])


def test_half_precision_is_widened(state) -> None:
    model = make()
    load_state(model, {k: v.half() if v.is_floating_point() else v for k, v in state.items()})
    assert model[0].weight.dtype == torch.float32
    torch.testing.assert_close(model[0].weight.data, state["0.weight"].half().float())
