"""From a file to a model that predicts; and files whose base cannot be had."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pointlift.adapt import adapt_model
from pointlift.adapt.io import load_adapter, load_model
from pointlift.adapt.memory_bank import bank_beside
from pointlift.core.config import to_dict
from pointlift.core.errors import CheckpointError, CheckpointMismatchError, PointLiftError, UsageError
from pointlift.models.registry import create_model
from pointlift.weights.hashing import state_hash
from pointlift.weights.modelfile import HEADER, describe, write_model_file

Pretrained = Callable[..., torch.nn.Module]
ARCH = "point_mae_tiny"


@pytest.fixture
def adapter(pretrained: Pretrained, tmp_path: Path) -> Path:
    return adapt_model(pretrained(ARCH), "linear").save(tmp_path / "adapters" / "a.safetensors")


def rewrite(path: Path, **changes) -> Path:
    """The file with another description."""
    with safe_open(str(path), "pt") as file:
        description = json.loads(file.metadata()[HEADER])
    save_file(load_file(path), path, metadata={HEADER: json.dumps({**description, **changes})})
    return path


def test_whole_models(base_file: Callable[..., Path], clouds: Tensor) -> None:
    model, file = load_model(base_file(ARCH))
    assert not model.training
    assert model.adaptation is None
    assert (model.arch, model.preprocess, file.holds) == (ARCH, {"points": 40}, "model")
    assert model({"xyz": clouds}).shape == (4, model.num_features)


def test_the_base_moved(adapter: Path, base_file: Callable[..., Path], clouds: Tensor, tmp_path: Path) -> None:
    expected = load_model(adapter)[0]({"xyz": clouds})
    elsewhere = tmp_path / "elsewhere.safetensors"
    shutil.move(base_file(ARCH), elsewhere)
    with pytest.raises(CheckpointError, match=r"the base weights '.*' are not there.*base=PATH"):
        load_model(adapter)
    model, _ = load_model(adapter, base=elsewhere)
    assert torch.equal(model({"xyz": clouds}), expected)
    assert model.origin == str(elsewhere)


def test_a_base_that_was_never_a_file(tmp_path: Path, clouds: Tensor) -> None:
    """A frozen random trunk: the adapter works on that model alone, and says so elsewhere."""
    torch.manual_seed(0)
    model = create_model(ARCH, num_classes=3, num_groups=6, group_size=4)
    path = adapt_model(model, "linear").save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="is an adapter and does not say where its base is"):
        load_model(path)
    expected = model.eval()({"xyz": clouds})
    model.adaptation.remove()
    load_adapter(model, path)
    assert torch.equal(model.eval()({"xyz": clouds}), expected)
    full = create_model(ARCH, num_classes=3, num_groups=6, group_size=4)
    path = adapt_model(full, "full").save(tmp_path / "full.safetensors")
    assert torch.equal(load_model(path)[0]({"xyz": clouds}), full.eval()({"xyz": clouds}))


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("kind", ["bias_norm", "toy"])
def test_disabling_what_came_from_a_file_gives_the_base(kind, pretrained: Pretrained, clouds: Tensor, tmp_path) -> None:
    model = pretrained(ARCH)
    expected = model.eval().forward_features({"xyz": clouds}).pool()
    handle = adapt_model(model, kind)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter += 1
    loaded = load_model(handle.save(tmp_path / "a.safetensors"))[0]
    assert not torch.allclose(loaded.forward_features({"xyz": clouds}).pool(), expected)
    loaded.adaptation.disable()
    assert torch.equal(loaded.forward_features({"xyz": clouds}).pool(), expected)


def test_a_hint_where_the_base_is(pretrained: Pretrained, tmp_path: Path, base_file: Callable[..., Path]) -> None:
    shutil.copy(base_file(ARCH), tmp_path / "copy.safetensors")
    path = adapt_model(pretrained(ARCH), "linear").save(
        tmp_path / "a.safetensors", base=str(tmp_path / "copy.safetensors")
    )
    base_file(ARCH).unlink()
    assert load_model(path)[0].origin == str(tmp_path / "copy.safetensors")


def test_files_that_are_no_adapter(base_file: Callable[..., Path], pretrained: Pretrained, adapter: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds a model. Expected: an adapter file"):
        load_adapter(pretrained(ARCH), base_file(ARCH))
    with pytest.raises(CheckpointError, match="Expected: an adapter file"):
        load_adapter(pretrained(ARCH), rewrite(adapter, adaptation="linear"))


def test_another_kind_of_adapter(pretrained: Pretrained, adapter: Path) -> None:
    handle = adapt_model(pretrained(ARCH), "mlp3")
    with pytest.raises(CheckpointMismatchError, match=r"holds 'linear'. Expected: an adapter of kind 'mlp3'"):
        handle.load(adapter)


def test_an_adapter_that_lacks_a_tensor(pretrained: Pretrained, tmp_path: Path) -> None:
    from pointlift.weights.modelfile import read_model_file

    handle = adapt_model(pretrained(ARCH), "mlp3")
    path = handle.save(tmp_path / "a.safetensors")
    file = read_model_file(path)
    file.state.pop("head.fc2.weight")
    before = {k: v.clone() for k, v in handle.model.state_dict().items()}
    with pytest.raises(CheckpointMismatchError, match=r"head\.fc2\.weight .* is not in the checkpoint"):
        handle.load(file)
    assert all(torch.equal(v, before[k]) for k, v in handle.model.state_dict().items())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"embed_dim": 576_000}, r"head\.fc\.weight is \(3, 24\), the model has \(3, 1152000\)"),
        ({"depth": 20_000}, "asks for depth=20000"),
        ({"pos_hidden": 10**13}, r"the model has \(10000000000000, 3\)"),
        ({"num_classes": 10**12}, r"head\.fc\.weight is \(3, 24\), the model has \(1000000000000, 24\)"),
        ({"head": "mlp3", "head_hidden": [10**8, 10**8]}, r"none of the 2 tensors"),
    ],
)
def test_sizes_that_an_adapter_claims_take_no_memory(
    adapter: Path, pretrained: Pretrained, sizes: dict[str, Any], message: str
) -> None:
    with safe_open(str(adapter), "pt") as file:
        config = json.loads(file.metadata()[HEADER])["config"]
    rewrite(adapter, config={**config, **sizes})
    with pytest.raises(CheckpointMismatchError, match=message):
        load_model(adapter)
    if not {"num_classes", "head"} & sizes.keys():
        return
    model = pretrained(ARCH, num_classes=5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = model.config
    with pytest.raises(CheckpointMismatchError, match=message):
        load_adapter(model, adapter)
    assert model.config == config
    assert model.adaptation is None
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_adapter_decides_the_classes(pretrained: Pretrained, adapter: Path) -> None:
    model = pretrained(ARCH, num_classes=9, head_hidden=(3, 3))
    load_adapter(model, adapter)
    assert (model.config.num_classes, model.config.head, model.config.head_hidden) == (3, "linear", (7, 9))


def whole(model: torch.nn.Module, path: Path, without: str = "") -> Path:
    """A whole model with what was inserted into it, as a run writes it; without the tensors whose name holds a word."""
    adaptation = model.adaptation.config
    state = {k: v for k, v in model.state_dict().items() if not without or without not in k}
    said = {"name": adaptation.name, **to_dict(adaptation)}
    description = describe(
        model.arch, to_dict(model.config), state, classes=None, preprocess={"points": 40}, adaptation=said
    )
    return write_model_file(path, state, description)


def test_a_whole_model_that_lacks_what_was_inserted(pretrained: Pretrained, clouds: Tensor, tmp_path: Path) -> None:
    model = pretrained(ARCH)
    adapt_model(model, "lora")
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_()
    loaded, _ = load_model(whole(model, tmp_path / "whole.safetensors"))
    assert torch.equal(loaded({"xyz": clouds}), model.eval()({"xyz": clouds}))
    with pytest.raises(CheckpointMismatchError, match=r"adapters\.lora.*up.* is not in the checkpoint"):
        load_model(whole(model, tmp_path / "cut.safetensors", without=".up"))
    with pytest.raises(CheckpointError, match=r"is adapted by lora.*convert"):
        create_model(ARCH, pretrained=tmp_path / "whole.safetensors")


@pytest.mark.parametrize("damage", ["shape", "bank", "option"])
def test_a_model_that_refuses_an_adapter_is_as_it_was(
    pretrained: Pretrained, adapt, tmp_path: Path, damage: str
) -> None:
    path = adapt(pretrained(ARCH), "point_peft").save(tmp_path / "peft.safetensors")
    if damage == "bank":
        bank_beside(path).unlink()
    elif damage == "option":
        with safe_open(str(path), "pt") as file:
            said = json.loads(file.metadata()[HEADER])["adaptation"]
        rewrite(path, adaptation={**said, "bank": "/etc/passwd"})
    else:
        state = load_file(path)
        key = next(k for k in state if k.endswith("prompt_xyz"))
        state[key] = torch.zeros(4, 3)
        with safe_open(str(path), "pt") as file:
            said = json.loads(file.metadata()[HEADER])
        save_file(state, path, metadata={HEADER: json.dumps({**said, "hash": state_hash(state)})})
    model = pretrained(ARCH, num_classes=7, head="linear")
    config, before = model.config, {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(PointLiftError):
        load_adapter(model, path)
    assert (model.adaptation, model.config, len(model.adapters)) == (None, config, 0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert adapt_model(model, "linear").enabled


def test_half_a_lora_is_none(pretrained: Pretrained) -> None:
    model = pretrained(ARCH)
    block = model.trunk.blocks[1]
    block.qkv = torch.nn.utils.parametrizations.weight_norm(block.qkv)
    with pytest.raises(UsageError, match="lora on a layer that is a"):
        adapt_model(model, "lora")
    assert (model.adaptation, len(model.adapters)) == (None, 0)
    assert type(model.trunk.blocks[0].qkv) is torch.nn.Linear


def test_a_base_for_what_needs_none(pretrained: Pretrained, base_file: Callable[..., Path], adapt, tmp_path) -> None:
    """Nothing that a user gives is ignored: neither beside a whole model nor beside one with its adapter in it."""
    base = base_file(ARCH)
    files = [base]
    for kind in ("lora", "point_peft"):
        model = pretrained(ARCH)
        adapt(model, kind)
        files.append(whole(model, tmp_path / f"{kind}.safetensors"))
    for file in files:
        with pytest.raises(UsageError, match=rf"base weights .* with .*{file.name}, which is no adapter.*no --base"):
            load_model(file, base=base)


def test_an_adapter_without_its_bank_is_not_saved(pretrained: Pretrained, tmp_path: Path) -> None:
    handle = adapt_model(pretrained(ARCH), "point_peft")
    with pytest.raises(UsageError, match=r"without its memory bank.*bank=FILE in Python, --bank FILE"):
        handle.save(tmp_path / "peft.safetensors")
    assert list(tmp_path.glob("peft*")) == []


def test_a_bank_that_lies_elsewhere(pretrained: Pretrained, adapt, clouds: Tensor, tmp_path: Path) -> None:
    handle = adapt(pretrained(ARCH), "point_peft")
    path = handle.save(tmp_path / "peft.safetensors")
    shutil.move(bank_beside(path), tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match=r"needs its memory bank peft\.bank\.safetensors.*--bank FILE.*bank=FILE"):
        load_model(path)
    expected = handle.model.eval()({"xyz": clouds})
    assert torch.equal(load_model(path, bank=tmp_path / "elsewhere.safetensors")[0]({"xyz": clouds}), expected)
    onto = pretrained(ARCH)
    load_adapter(onto, path, bank=tmp_path / "elsewhere.safetensors")
    assert torch.equal(onto.eval()({"xyz": clouds}), expected)


def test_a_base_by_name(tmp_path: Path, clouds: Tensor) -> None:
    """What `--model` takes: an architecture stands for its default weights."""
    path = adapt_model(create_model(ARCH, pretrained=True, num_classes=3), "linear").save(tmp_path / "a.safetensors")
    expected = load_model(path)[0]({"xyz": clouds.repeat(1, 30, 1)})
    for name in (ARCH, f"{ARCH}.procedural"):
        model, _ = load_model(path, base=name)
        assert torch.equal(model({"xyz": clouds.repeat(1, 30, 1)}), expected)
        assert model.origin == f"{ARCH}.procedural"
    with pytest.raises(CheckpointError, match=r"no default weights for 'point_mae_small'.*--base PATH"):
        load_model(path, base="point_mae_small")
    with pytest.raises(CheckpointError, match=r"'point_mea' are not there.*name of `pointlift list weights`"):
        load_model(path, base="point_mea")


def said_of_base(path: Path) -> dict[str, Any]:
    with safe_open(str(path), "pt") as file:
        return json.loads(file.metadata()[HEADER])["base"]


def test_adapters_of_one_base_say_so(pretrained: Pretrained, adapt, base_file: Callable[..., Path], tmp_path) -> None:
    """The hash that is checked leaves out what an adapter brings; beside it stands one of the whole base."""
    said = {}
    for kind, classes in (("linear", 3), ("bias_norm", 5), ("lora", 3), ("point_peft", 3), ("full", 3)):
        handle = adapt(pretrained(ARCH, num_classes=classes), kind)
        with torch.no_grad():  # as training would
            for parameter in (p for p in handle.model.parameters() if p.requires_grad):
                parameter += 1
        path = handle.save(tmp_path / f"{kind}.safetensors")
        said[kind] = said_of_base(path)
        again = load_model(path)[0].adaptation.save(tmp_path / "again.safetensors")
        assert said_of_base(again)["whole"] == said[kind]["whole"]
    assert len({each["whole"] for each in said.values()}) == 1
    assert len({each["hash"] for each in said.values()}) > 1
    other = adapt_model(pretrained(ARCH, seed=1), "linear").save(tmp_path / "other.safetensors")
    assert said_of_base(other)["whole"] != said["linear"]["whole"]


def test_what_no_longer_knows_its_whole_base_says_nothing(
    pretrained: Pretrained, adapt, adapter: Path, tmp_path: Path
) -> None:
    """Files written before, and whole models in which the base's own biases are gone."""
    base = {k: v for k, v in said_of_base(adapter).items() if k != "whole"}
    loaded, _ = load_model(rewrite(adapter, base=base))
    assert said_of_base(loaded.adaptation.save(tmp_path / "a.safetensors"))["whole"] is None
    model = pretrained(ARCH)
    adapt(model, "lora")
    loaded, _ = load_model(whole(model, tmp_path / "whole.safetensors"))
    assert said_of_base(loaded.adaptation.save(tmp_path / "b.safetensors"))["whole"] is None
