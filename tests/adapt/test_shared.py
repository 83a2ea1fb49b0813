"""Several adapters on one trunk: one memory, one pass where it can, and the answers that each gives alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointlift.adapt import AdaptationHandle, adapt_model, list_adaptations
from pointlift.adapt.io import load_model
from pointlift.adapt.prior import Prior
from pointlift.adapt.shared import SharedTrunk
from pointlift.core.config import to_dict
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, UnknownNameError, UsageError
from pointlift.models.base import PointModel
from pointlift.models.registry import create_model
from pointlift.weights.modelfile import describe, write_model_file

ARCH = "point_mae_tiny"
Pretrained = Callable[..., PointModel]
Adapt = Callable[..., AdaptationHandle]


@pytest.fixture
def saved(pretrained: Pretrained, adapt: Adapt, clouds: Tensor, tmp_path: Path) -> Callable[..., Path]:
    """`saved(kind, name)`: an adapter file on the same base, after a step of training."""

    def save(
        kind: str, name: str, arch: str = ARCH, seed: int = 0, classes: int = 3, prior: dict | None = None, **options
    ) -> Path:
        own = {} if prior is None else {"prior": prior}
        handle = adapt(pretrained(arch, seed, num_classes=classes, **options), kind, **own)
        model = handle.model
        torch.manual_seed(len(name))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
        F.cross_entropy(model.train()({"xyz": clouds}), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        return handle.save(tmp_path / "adapters" / f"{name}.safetensors")

    return save


def memory(*models: nn.Module) -> int:
    """Bytes that parameters and buffers hold, whoever shares them."""
    storages = [t.untyped_storage() for m in models for t in (*m.parameters(), *m.buffers())]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("arch", ["point_mae_tiny", "point_m2ae_tiny"])
@pytest.mark.parametrize("kind", [*list_adaptations(), "toy"])
def test_each_is_what_it_is_alone_on_the_bases_own_memory(kind, arch, saved, base_file, clouds) -> None:
    paths = {"a": saved(kind, "a", arch), "plain": saved("linear", "plain", arch)}
    shared = SharedTrunk(base_file(arch), paths)
    before = {k: v.clone() for k, v in shared.base.state_dict().items()}
    with torch.inference_mode():
        together = shared.logits({"xyz": clouds})
        for name, path in paths.items():
            alone, file = load_model(path)
            assert torch.equal(together[name], alone({"xyz": clouds}))
            assert torch.equal(shared[name]({"xyz": clouds}), together[name])
            assert shared[name].preprocess == alone.preprocess == {"points": 40}
            own = file.state.keys()
            base, state = shared.base.state_dict(), shared[name].state_dict()
            assert {k for k in state if k in base and state[k].data_ptr() == base[k].data_ptr()} == state.keys() - own
    assert all(torch.equal(v, before[k]) for k, v in shared.base.state_dict().items())


def test_memory_is_the_trunks_and_the_adapters_own(saved, base_file) -> None:
    paths = [saved("linear", f"adapter-{i}") for i in range(4)]
    shared = SharedTrunk(base_file(ARCH), paths)
    heads = sum(p.numel() * 4 for model in shared.models.values() for p in model.head.parameters())
    assert memory(shared.base, *shared.models.values()) == memory(shared.base) + heads
    assert list(shared.models) == [f"adapter-{i}" for i in range(4)]


@pytest.mark.usefixtures("toy")
def test_common_work_is_done_once(saved, base_file, clouds, monkeypatch) -> None:
    kinds = {"one": "linear", "two": "mlp3", "three": "linear", "own": "toy", "all": "full"}
    paths = {name: saved(kind, name) for name, kind in kinds.items()}
    paths["fewer"] = saved("linear", "fewer", num_groups=5)
    shared = SharedTrunk(base_file(ARCH), paths)
    trunks, cuts = [], []
    for name, model in shared.models.items():
        model.trunk.register_forward_pre_hook(lambda *_, name=name: trunks.append(name))
        groups = model.groups
        monkeypatch.setattr(model, "groups", lambda xyz, g=groups, n=name: cuts.append(n) or g(xyz))
    together = shared.logits({"xyz": clouds})
    assert list(together) == list(paths)
    assert trunks == ["one", "own", "all", "fewer"]
    assert cuts == ["one", "fewer"]
    assert list(shared.logits({"xyz": clouds}, ["three", "two"])) == ["three", "two"]
    assert trunks[4:] == ["three"]


@pytest.mark.parametrize("arch", ["point_mae_tiny", "point_m2ae_tiny"])
def test_those_who_ask_alike_ask_once(arch, saved, base_file, clouds, monkeypatch) -> None:
    """The frozen query pass of several `point_peft`: one, where weights and groupings are the same."""
    paths = {name: saved("point_peft", name, arch) for name in ("a", "bc", "def")}
    paths["plain"] = saved("linear", "plain", arch)
    paths["coarse"] = saved("point_peft", "coarse", arch, prior={"group_size": 2 if arch == ARCH else (2, 2)})
    alone = {name: load_model(path)[0]({"xyz": clouds}) for name, path in paths.items()}
    shared = SharedTrunk(base_file(arch), paths)
    asked = []
    compute = Prior._compute
    monkeypatch.setattr(Prior, "_compute", lambda self, *given: asked.append(self) or compute(self, *given))
    together = shared.logits({"xyz": clouds})
    assert len(asked) == 2
    assert all(torch.allclose(together[name], expected, atol=1e-6) for name, expected in alone.items())
    shared["a"].adaptation.remove()
    asked.clear()
    again = shared.logits({"xyz": clouds}, ["a", "def", "bc"])
    assert len(asked) == 1
    assert all(torch.equal(again[name], together[name]) for name in ("bc", "def"))
    given = {"xyz": clouds, "prior": torch.randn(len(clouds), shared["bc"].embed_dim)}
    assert torch.equal(shared.logits(given)["bc"], shared["bc"](given))


def test_other_frozen_weights_ask_for_themselves(pretrained, adapt) -> None:
    """What the adapter file keeps of the base (biases, norms) may differ while all that is frozen is the same."""
    one, other = (adapt(pretrained(ARCH), "point_peft").inserted.prior for _ in range(2))
    assert one.same_as(other)
    next(other.kept.buffers()).add_(1)
    assert not one.same_as(other)


@pytest.mark.usefixtures("toy")
def test_switching_changes_no_state_and_is_safe_in_threads(saved, base_file, clouds) -> None:
    paths = {"linear": saved("linear", "linear"), "toy": saved("toy", "toy")}
    shared = SharedTrunk(base_file(ARCH), paths)

    def ask(i: int) -> Tensor:
        with torch.inference_mode():
            return shared[("linear", "toy")[i % 2]]({"xyz": clouds})

    expected = [ask(0), ask(1)]
    with ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(ask, range(24))):
            assert torch.equal(found, expected[i % 2])


@pytest.mark.usefixtures("toy")
def test_disabling_one_leaves_the_others(saved, base_file, clouds) -> None:
    shared = SharedTrunk(base_file(ARCH), {"toy": saved("toy", "toy"), "full": saved("full", "full")})
    expected = shared.logits({"xyz": clouds})
    for name in shared.models:
        shared[name].adaptation.disable()
    tokens = {n: m.forward_features({"xyz": clouds}).pool() for n, m in shared.models.items()}
    base = shared.base.forward_features({"xyz": clouds}).pool()
    assert torch.equal(tokens["toy"], base)
    assert torch.equal(tokens["full"], base)
    for name in shared.models:
        shared[name].adaptation.enable()
    assert all(torch.equal(v, expected[n]) for n, v in shared.logits({"xyz": clouds}).items())


@pytest.mark.parametrize("kind", ["lora", "bias_norm"])
def test_merging_one_leaves_the_others_and_the_base(kind, saved, base_file, clouds) -> None:
    shared = SharedTrunk(base_file(ARCH), {"merged": saved(kind, "merged"), "other": saved("linear", "other")})
    before = {k: v.clone() for k, v in shared.base.state_dict().items()}
    expected = shared.logits({"xyz": clouds})
    shared["merged"].adaptation.merge()
    assert torch.allclose(shared["merged"]({"xyz": clouds}), expected["merged"], atol=1e-5)
    assert torch.equal(shared["other"]({"xyz": clouds}), expected["other"])
    assert all(torch.equal(v, before[k]) for k, v in shared.base.state_dict().items())


def test_where_the_base_is(saved, base_file, pretrained, clouds) -> None:
    path = saved("linear", "a")
    given = SharedTrunk(pretrained(ARCH).eval(), {"a": path})
    named = SharedTrunk(None, [path])
    assert torch.equal(given.logits({"xyz": clouds})["a"], named.logits({"xyz": clouds})["a"])
    assert named.base.origin == str(base_file(ARCH))
    base_file(ARCH).unlink()
    with pytest.raises(CheckpointError, match="--base PATH"):
        SharedTrunk(None, [path])


def test_a_base_by_name(tmp_path, clouds) -> None:
    """An architecture stands for its default weights, as where a model is asked for."""
    model = create_model(ARCH, pretrained=True, num_classes=3)
    path = adapt_model(model, "linear").save(tmp_path / "a.safetensors")
    dense = {"xyz": clouds.repeat(1, 30, 1)}
    assert torch.equal(SharedTrunk(ARCH, [path]).logits(dense)["a"], model.eval()(dense))
    with pytest.raises(CheckpointError, match="no default weights for 'point_mae_small'"):
        SharedTrunk("point_mae_small", [path])


def test_refused(saved, base_file, pretrained, tmp_path) -> None:
    base, path = base_file(ARCH), saved("linear", "a")
    with pytest.raises(CheckpointMismatchError, match=r"other\.safetensors was made on another base"):
        SharedTrunk(base, [path, saved("linear", "other", seed=1)])
    with pytest.raises(CheckpointMismatchError, match=r"adapts point_m2ae_tiny, and the base is point_mae_tiny"):
        SharedTrunk(base, [path, saved("linear", "m2ae", "point_m2ae_tiny")])
    with pytest.raises(UsageError, match="two adapters are called 'a'"):
        SharedTrunk(base, [path, tmp_path / "a.safetensors"])
    with pytest.raises(UsageError, match="no adapters"):
        SharedTrunk(base, [])
    with pytest.raises(UsageError, match="a list of adapter files"):
        SharedTrunk(base, path)
    with pytest.raises(CheckpointError, match="Expected: an adapter file"):
        SharedTrunk(base, [base])
    with pytest.raises(UsageError, match="adapted already"):
        SharedTrunk(load_model(path)[0], [path])
    with pytest.raises(UnknownNameError, match=r"no adapter 'aa'\. Expected: one of a\. Did you mean 'a'"):
        SharedTrunk(base, [path])["aa"]
    with pytest.raises(CheckpointMismatchError, match=r"a\.safetensors on this point_mae_tiny: .* are unexplained"):
        SharedTrunk(create_model(ARCH, num_classes=3), [path])


def test_a_headless_trunk_and_adapters_with_other_classes(saved, base_file, clouds) -> None:
    shared = SharedTrunk(base_file(ARCH), {"a": saved("linear", "a"), "b": saved("mlp3", "b", classes=5)})
    assert shared.base.config.num_classes == 0
    assert {k: v.shape[1] for k, v in shared.logits({"xyz": clouds}).items()} == {"a": 3, "b": 5}


def test_an_adapter_of_a_base_that_is_read_otherwise(base_file, clouds, tmp_path) -> None:
    """A base with norms at every level (as after pre-training), of which a classifier has no use."""
    model = create_model("point_m2ae_tiny", pretrained=base_file("point_m2ae_tiny"), level_norms=True)
    said = describe(model.arch, to_dict(model.config), model.state_dict(), classes=None, preprocess={})
    base = write_model_file(tmp_path / "levels.safetensors", model.state_dict(), said)
    handle = adapt_model(create_model("point_m2ae_tiny", pretrained=base, num_classes=3, level_norms=False), "linear")
    path = handle.save(tmp_path / "adapter.safetensors")
    expected = handle.model.eval()({"xyz": clouds})
    assert torch.equal(load_model(path)[0]({"xyz": clouds}), expected)
    assert torch.equal(SharedTrunk(base, {"a": path}).logits({"xyz": clouds})["a"], expected)
