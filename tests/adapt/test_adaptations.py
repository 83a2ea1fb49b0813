"""What every adaptation must do on every model: change what it declares, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from pointlift.adapt import Adaptation, AdaptationHandle, adapt_model, list_adaptations
from pointlift.adapt.head_only import Linear
from pointlift.adapt.io import load_adapter, load_model
from pointlift.adapt.registry import ADAPTATIONS
from pointlift.core.errors import CheckpointMismatchError, ConfigError, UnknownNameError, UsageError
from pointlift.models.base import PointModel
from pointlift.models.registry import create_model

ARCHS = ["point_mae_tiny", "point_bert_tiny", "point_m2ae_tiny"]
NAMES = [*list_adaptations(), "toy"]
LABELS = torch.tensor([0, 1, 2, 0])
Pretrained = Callable[..., PointModel]


def step(model: PointModel, clouds: Tensor) -> None:
    """Optimiser steps on whatever has a gradient: behind two layers that begin at zero it learns in the third."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model({"xyz": clouds}), LABELS[: len(clouds)]).backward()
        optimizer.step()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    after = model.state_dict()
    assert after.keys() == before.keys()
    return {k for k, v in after.items() if not torch.equal(v, before[k])}


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", NAMES)
class TestEveryAdaptation:
    @pytest.fixture
    def model(self, pretrained: Pretrained, arch: str) -> PointModel:
        return pretrained(arch)

    @pytest.fixture
    def handle(self, model: PointModel, name: str, adapt: Callable[..., AdaptationHandle]) -> AdaptationHandle:
        return adapt(model, name)

    def test_it_begins_as_the_base_where_it_says_so(self, model, name, adapt, clouds) -> None:
        kind = ADAPTATIONS.get(name)
        if kind.head is not None:
            model.reset_classifier(3, head=kind.head)
        expected = model.eval()({"xyz": clouds})
        adapt(model, name)
        same = torch.allclose(model.eval()({"xyz": clouds}), expected, atol=1e-6)
        assert same == kind.starts_as_base

    def test_clouds_of_a_batch_do_not_mix(self, model, handle, clouds) -> None:
        step(model, clouds)
        together = model.eval()({"xyz": clouds})
        order = torch.tensor([2, 0, 3, 1])
        assert torch.allclose(model({"xyz": clouds[order]}), together[order], atol=1e-5)
        alone = torch.cat([model({"xyz": cloud[None]}) for cloud in clouds])
        assert torch.allclose(alone, together, atol=1e-5)

    def test_only_what_is_declared_changes(self, model, handle, clouds) -> None:
        declared = set(handle.changing())
        before = snapshot(model)
        step(model, clouds)
        assert changed(model, before) == declared
        before = snapshot(model)
        model.eval()({"xyz": clouds})
        assert changed(model, before) == set()

    def test_every_trainable_parameter_learns(self, model, handle, clouds) -> None:
        step(model, clouds)  # layers that begin at zero have gradients now
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model({"xyz": clouds}), LABELS).backward()
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad.isfinite().all(), parameter_name
                assert parameter.grad.any(), parameter_name
            else:
                assert parameter.grad is None, parameter_name

    def test_held_norms_stand_still_at_once(self, model, handle) -> None:
        """A fresh model is in training mode: adapting it must not wait for the next call of `train`."""
        held = handle.config.held_in_eval(model.parts())
        norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm1d)}
        assert model.training
        assert {n for n, m in norms.items() if not m.training} == {n for n in norms if held and n.startswith(held)}

    def test_saved_and_loaded_it_computes_the_same(self, model, handle, clouds, tmp_path, pretrained, arch) -> None:
        step(model, clouds)
        model.classes, model.preprocess = ("a", "b", "c"), {"points": 40}
        expected = model.eval()({"xyz": clouds})
        path = handle.save(tmp_path / "adapter.safetensors")
        with safe_open(str(path), "pt") as file:
            assert set(file.keys()) == set(handle.state())
        loaded, _ = load_model(path)
        assert torch.equal(loaded({"xyz": clouds}), expected)
        assert not loaded.training
        assert (loaded.classes, loaded.preprocess) == (model.classes, model.preprocess)
        assert loaded.adaptation.config == handle.config
        onto = pretrained(arch, num_classes=7, head="linear")
        again = load_adapter(onto, path)
        assert torch.equal(onto.eval()({"xyz": clouds}), expected)
        assert again.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()

    def test_the_file_holds_the_adapter_alone(self, model, handle) -> None:
        declared = set(handle.changing())
        held = set(handle.state())
        assert held >= declared
        inserted = {k for k in model.state_dict() if k.startswith("adapters.")}
        assert held - declared <= set(model.load_report.new) | inserted

    def test_another_base_is_refused_and_left_alone(
        self, handle, clouds, tmp_path, pretrained, arch, base_file
    ) -> None:
        path = handle.save(tmp_path / "adapter.safetensors")
        other = pretrained(arch, seed=1)
        before, trainable = snapshot(other), [p.requires_grad for p in other.parameters()]
        if handle.config.name == "full":  # it brings the whole model
            load_adapter(other, path)
            return
        with pytest.raises(CheckpointMismatchError, match="was made on another base"):
            load_adapter(other, path)
        assert changed(other, before) == set()
        assert trainable == [p.requires_grad for p in other.parameters()]
        assert other.adaptation is None
        with pytest.raises(CheckpointMismatchError, match="was made on another base"):
            load_model(path, base=base_file(arch, 1))

    def test_disable_and_enable(self, model, handle, clouds, tmp_path) -> None:
        model.eval()
        handle.disable()
        base = model({"xyz": clouds})
        handle.enable()
        step(model, clouds)
        learned = model.eval()({"xyz": clouds})
        saved = handle.save(tmp_path / "enabled.safetensors").read_bytes()
        assert not torch.allclose(learned, base)
        handle.disable()
        handle.disable()
        assert not handle.enabled
        assert torch.equal(model({"xyz": clouds}), base)
        assert handle.save(tmp_path / "disabled.safetensors").read_bytes() == saved
        handle.enable()
        assert handle.enabled
        assert torch.equal(model({"xyz": clouds}), learned)

    def test_remove(self, model, handle, clouds, pretrained, arch) -> None:
        handle.disable()
        base = model.eval()({"xyz": clouds})
        handle.enable()
        step(model, clouds)
        handle.remove()
        assert torch.equal(model.eval()({"xyz": clouds}), base)
        assert model.adaptation is None
        assert not model.adapters
        assert all(p.requires_grad for p in model.parameters())
        fresh = pretrained(arch).eval()
        stored = {k: v for k, v in fresh.state_dict().items() if not k.startswith("head.")}
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in stored.items())
        assert adapt_model(model, "linear").enabled

    def test_twice_is_a_mistake(self, model, handle) -> None:
        for other in ("linear", "full"):
            with pytest.raises(UsageError, match=rf"adapted already \({handle.config.name}\).*remove"):
                adapt_model(model, other)
        with pytest.raises(UsageError, match="adapted already"):
            model.reset_classifier(2)

    def test_the_report_counts(self, model, handle) -> None:
        report = handle.report()
        learned = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
        head = sum(p.numel() for p in model.head.parameters())
        assert report.trainable == sum(learned.values())
        assert report.trainable_without_head == report.trainable - head
        assert report.parameters == sum(p.numel() for p in model.parameters())
        assert str(report).startswith(f"{handle.config.name}: trainable ")
        assert str(report).endswith(f"{100 * report.trainable / report.parameters:.2f}%")

    def test_a_batch_of_one(self, model, handle, clouds) -> None:
        step(model, clouds[:1])
        assert all(v.isfinite().all() for v in model.state_dict().values())
        assert model.eval()({"xyz": clouds[:1]}).isfinite().all()

    def test_autocast(self, model, handle, clouds) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model({"xyz": clouds}), LABELS)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)

    def test_autocast_stays_near_full_precision(self, model, handle, clouds) -> None:
        """Measured: 0.2 to 2.2 % of the logits' spread; the wrong rows of a memory bank are 7 % and more."""
        step(model, clouds)  # what begins at zero acts now
        expected = model.eval()({"xyz": clouds})
        with torch.autocast("cpu", torch.bfloat16):
            found = model({"xyz": clouds})
        assert (found.float() - expected).pow(2).mean().sqrt() < 0.05 * expected.std()

    def test_copies_are_independent(self, model, handle, clouds) -> None:
        twin = copy.deepcopy(model)
        expected = model.eval()({"xyz": clouds})
        before = snapshot(model)
        step(twin, clouds)
        assert changed(model, before) == set()
        assert torch.equal(model({"xyz": clouds}), expected)
        assert twin.adaptation.model is twin
        twin.adaptation.disable()
        assert model.adaptation.enabled

    def test_the_base_hash_knows_the_base(self, model, handle, clouds) -> None:
        before = handle.base_hash()
        step(model, clouds)
        assert handle.base_hash() == before
        handle.disable()
        assert handle.base_hash() == before
        if handle.config.name != "full":
            with torch.no_grad():
                first = next(iter(model.parts().values()))
                next(p for n, p in model.named_parameters() if n.startswith(first)).view(-1)[0] += 1
            assert handle.base_hash() != before

    def test_loading_onto_a_handle(self, model, handle, clouds, tmp_path) -> None:
        step(model, clouds)
        learned = snapshot(model)
        path = handle.save(tmp_path / "adapter.safetensors")
        step(model, clouds)
        assert changed(model, learned)
        assert not handle.load(path).unexplained
        assert changed(model, learned) == set()


@pytest.mark.parametrize(("name", "count"), [("linear", 12_303), ("mlp3", 268_303)])
def test_act_counts_the_class_token(name: str, count: int) -> None:
    """Card act, section 4: 15 classes at the official size."""
    with torch.device("meta"):
        model = create_model("point_mae_base", num_classes=15)
    trainable = (
        Linear(train_cls=True).trainable if name == "linear" else ADAPTATIONS.get(name)(train_cls=True).trainable
    )
    model.reset_classifier(15, head=name)
    learned = trainable(model.parts())
    assert sum(p.numel() for n, p in model.named_parameters() if n.startswith(learned)) == count


@pytest.mark.parametrize(("name", "count"), [("linear", 12_303), ("mlp3", 268_303)])
@pytest.mark.parametrize("train_cls", [True, False])
def test_reports_of_the_frozen_protocols(name: str, count: int, train_cls: bool) -> None:
    model = create_model("point_mae_base", num_classes=15, depth=1)
    report = adapt_model(model, name, train_cls=train_cls, train_mode=True).report()
    assert report.trainable == count - (0 if train_cls else 768)
    assert report.trainable_without_head == (768 if train_cls else 0)


def test_released_frozen_protocols_move_the_statistics(pretrained: Pretrained, clouds: Tensor) -> None:
    model = pretrained("point_mae_tiny")
    handle = adapt_model(model, "linear", train_mode=True)
    before = snapshot(model)
    step(model, clouds)
    assert changed(model, before) == set(handle.changing())
    assert "patch_embed.bn1.running_mean" in changed(model, before)
    assert "patch_embed.bn1.weight" not in changed(model, before)


def test_heads_follow_the_protocol(pretrained: Pretrained) -> None:
    model = pretrained("point_mae_tiny")
    model.classes = ("a", "b", "c")
    adapt_model(model, "linear")
    assert model.config.head == "linear"
    assert model.classes == ("a", "b", "c")
    same = pretrained("point_mae_tiny")
    head = same.head
    adapt_model(same, "mlp3")
    assert same.head is head


def test_a_class_token_that_began_at_random_travels_with_the_adapter(
    pretrained: Pretrained, clouds: Tensor, tmp_path: Path, base_file: Callable[..., Path]
) -> None:
    """Pre-trained Point-MAE weights have no class token: a frozen trunk still needs the one it was trained with."""
    from dataclasses import replace

    from pointlift.models.registry import from_file
    from pointlift.weights.modelfile import read_model_file

    file = read_model_file(base_file("point_mae_tiny"))
    encoder = {k: v for k, v in file.state.items() if not k.startswith("cls_")}
    model = from_file(replace(file, state=encoder, new=("cls_token", "cls_pos", "head.")), num_classes=3)
    handle = adapt_model(model, "linear")
    assert {"cls_token", "cls_pos"} <= set(handle.state())
    assert "cls_token" not in handle.changing()
    expected = model.eval()({"xyz": clouds})
    loaded, _ = load_model(handle.save(tmp_path / "adapter.safetensors"))
    assert torch.equal(loaded({"xyz": clouds}), expected)


def test_what_can_be_adapted(pretrained: Pretrained) -> None:
    for name in NAMES[:-1]:
        with pytest.raises(UsageError, match=r"point_mae_tiny has no head.*num_classes"):
            adapt_model(pretrained("point_mae_tiny", num_classes=0), name)
    model = pretrained("point_mae_tiny")
    with pytest.raises(UnknownNameError, match=r"no adaptation 'liner'.* Did you mean 'linear'"):
        adapt_model(model, "liner")
    with pytest.raises(ConfigError, match=r"options of linear: unknown key 'train_clss'.* 'train_cls'"):
        adapt_model(model, "linear", train_clss=True)
    with pytest.raises(UsageError, match=r"options \['train_cls'\] beside a config"):
        adapt_model(model, Linear(), train_cls=True)
    assert model.adaptation is None
    assert adapt_model(model, Linear(train_cls=True)).config == Linear(train_cls=True)


def test_the_base_contract_does_nothing(pretrained: Pretrained) -> None:
    parts = pretrained("point_mae_tiny").parts()
    nothing = Adaptation()
    assert nothing.trainable(parts) == nothing.held_in_eval(parts) == ()
    assert nothing.build(pretrained("point_mae_tiny")) is None
