"""`pointlift info` of adapter files and memory banks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapter_files import write_adapter, write_base
from safetensors.torch import save_file
from tiny_runs import cli, refused

import pointlift as pl
from pointlift import ops
from pointlift.adapt.memory_bank import BankFacts, MemoryBank
from pointlift.adapt.registry import ADAPTATIONS
from pointlift.models.base import PointModel
from pointlift.tasks.inspect import _Counter, flops
from pointlift.weights.modelfile import describe, read_model_file, write_model_file

QUIRKS = {"leak_rows": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "base.safetensors")


def bank(seed: int = 0) -> MemoryBank:
    rows = torch.randn(30, 16, generator=torch.Generator().manual_seed(seed))
    facts = BankFacts(dataset="shapes", size=40, feature_hash="f" * 64, more={"num_groups": [4]})
    return MemoryBank(torch.nn.functional.normalize(rows, dim=1).half(), facts)


def peft(base: Path) -> PointModel:
    """A tiny model under Point-PEFT, with one quirk of the released code."""
    model = pl.create_model("point_transformer", pretrained=base, num_classes=4)
    pl.adapt_model(model, "point_peft", prompts=4, quirks=QUIRKS).inserted.set_bank(bank())
    return model


def told(path: Path | str) -> dict:
    ended = cli("info", path, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


@pytest.mark.parametrize("kind", ["linear", "bias_norm", "lora", "prompt", "stag"])
def test_an_adapter_is_told_with_what_it_adds(kind: str, base: Path, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", base, kind)
    about = told(path)
    model = pl.load(path)
    own, adds = about["adaptation"], about["adaptation"]["adds"]
    inserted, every = (sum(p.numel() for p in part.parameters()) for part in (model.adapters, model))
    assert (own["name"], own["paper"], own["quirks"]) == (kind, ADAPTATIONS.get(kind).paper, [])
    assert adds["parameters"] == inserted
    assert about["parameters"] == sum(about["parameters_by_part"].values()) == every
    assert about["gflops"] == flops(model, 64) / 1e9
    model.adaptation.disable()
    assert adds["gflops"] == pytest.approx(about["gflops"] - flops(model, 64) / 1e9)
    assert (adds["gflops"] > 0) == (inserted > 0)
    text = cli("info", path).out
    assert f"adapted by {kind} ({own['paper']})" in text
    assert f"{kind} adds {inserted:,} parameters" in text
    assert "learned: " in text


def test_options_and_quirks_of_an_adaptation(base: Path, tmp_path: Path) -> None:
    path = peft(base).adaptation.save(tmp_path / "a.safetensors")
    about = told(path)
    assert about["adaptation"]["quirks"] == about["file"]["quirks"] == ["leak_rows"]
    assert about["adaptation"]["options"]["prompts"] == 4
    assert about["adaptation"]["adds"]["gflops"] > 0
    text = cli("info", path).out
    assert "options: prompts 4, " in text
    assert "    quirks: leak_rows" in text
    for other, said in ((None, False), (bank(1), "another one"), (b"cut", "cannot be read")):
        beside = tmp_path / "a.bank.safetensors"
        beside.unlink(missing_ok=True)
        if isinstance(other, bytes):
            beside.write_bytes(other)
        elif other is not None:
            other.save(beside)
        about = told(path)  # what the bank decides is not known, all else is
        assert (about["file"]["bank"]["found"], about["gflops"]) == (said, None)
        assert about["adaptation"]["adds"] == {"parameters": 2676, "gflops": None}


def test_a_released_file_says_nothing_of_counts_and_they_are_counted(base: Path, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", base, "lora")
    file = read_model_file(path)
    extra = {k: v for k, v in file.extra.items() if k != "counts"}
    said = describe(
        file.arch, file.config, file.state, classes=file.classes, preprocess=file.preprocess, holds="adapter", **extra
    )
    write_model_file(tmp_path / "b.safetensors", file.state, said)
    assert told(tmp_path / "b.safetensors")["file"]["counts"] == file.extra["counts"]


def test_sizes_that_an_adaptation_claims_take_no_memory(base: Path, tmp_path: Path) -> None:
    file = read_model_file(write_adapter(tmp_path / "a.safetensors", base, "adapter"))
    extra = file.extra | {"adaptation": file.extra["adaptation"] | {"hidden": 10**13}}
    said = describe(
        file.arch, file.config, file.state, classes=file.classes, preprocess=file.preprocess, holds="adapter", **extra
    )
    path = write_model_file(tmp_path / "b.safetensors", file.state, said)
    refused(cli("info", path), "the model has (10000000000000, 16)", code=1)


def test_operations_of_our_own_are_counted(base: Path) -> None:
    """In double precision they are plain matrix products, which torch counts."""
    idx = torch.randint(0, 7, (2, 3, 4))

    def counted(dtype: torch.dtype) -> int:
        qkv, table, weight = (torch.randn(*shape, dtype=dtype) for shape in ((2, 7, 18), (2, 7, 5), (5, 6)))
        with torch.no_grad(), _Counter() as counter:
            ops.neighborhood_max(table, idx, ops.neighborhood_attention(qkv, idx, 2, 1.0), weight)
        return counter.total

    assert counted(torch.float32) == counted(torch.float64) > 0
    own = pl.create_model("point_transformer", pretrained=base, num_classes=4)
    assert flops(peft(base), 64) > 1.2 * flops(own, 64)


@pytest.mark.parametrize("arch", ["point_mae_tiny", "point_m2ae_tiny"])
def test_the_count_is_that_of_torch(arch: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = pl.create_model(arch, num_classes=4).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model({"xyz": torch.rand(1, 1024, 3)})
    assert flops(model, 1024) == counter.get_total_flops() > 1e8


def test_neither_torch_s_compiler_nor_ours_is_loaded() -> None:
    """They take longer than everything else."""
    code = """
import sys
from pointlift.cli import main
try: main(["info", "point_mae_tiny", "--json"])
except SystemExit: pass
assert not {"torch._dynamo", "numba"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["gflops"] > 0.1


def test_facts_of_a_memory_bank(tmp_path: Path) -> None:
    path = bank().save(tmp_path / "mine.safetensors")
    about = told(path)
    facts = about["bank"]
    assert (facts["rows"], facts["width"], facts["dtype"]) == (30, 16, "float16")
    assert (facts["dataset"], facts["size"]) == ("shapes", 40)
    assert (facts["hash"], facts["feature_hash"]) == (bank().hash, "f" * 64)
    assert facts["bytes"] == path.stat().st_size
    text = cli("info", path).out
    assert "memory bank, 30 rows of 16 (float16)" in text
    assert "data set: shapes (40 training clouds)" in text
    assert f"feature model: {'f' * 64}" in text
    assert "features: num_groups 4" in text
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(cli("info", path), "holds other rows than it names", code=1)


def test_a_released_memory_bank(tmp_path: Path) -> None:
    torch.save(torch.randn(16, 40), tmp_path / "cache_shape.pt")
    facts = told(tmp_path / "cache_shape.pt")["bank"]
    assert (facts["rows"], facts["width"], facts["source"], facts["dataset"]) == (40, 16, "cache_shape.pt", None)
    assert "not recorded" in cli("info", tmp_path / "cache_shape.pt").out
    save_file({"weight": torch.ones(3, 4)}, tmp_path / "matrix.safetensors")  # no name says that it is a bank
    refused(cli("info", tmp_path / "matrix.safetensors"), "of no system that is supported", code=1)
