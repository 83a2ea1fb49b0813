from __future__ import annotations

import logging

import pytest
import torch

from pointlift.core.errors import UsageError
from pointlift.engine import precision
from pointlift.engine.precision import cpuinfo_has_bf16, native_bf16, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "native"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 vaes\n", True),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd i8mm bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512bw\n", False),
        ("model name\t: bf16 machine\nflags\t\t: fpu avx2\n", False),
        ("", False),
    ],
)
def test_native_bf16_is_read_from_the_cpu_flags(text: str, native: bool) -> None:
    assert cpuinfo_has_bf16(text) is native


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_bf16_only_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, native: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: native)
    assert resolve_precision("auto", CPU).name == expected
    assert not caplog.records


def test_auto_on_cuda_asks_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, n=native: n)
        assert native_bf16(cuda) is native
        assert resolve_precision("auto", cuda).name == ("bf16" if native else "fp32")


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_an_emulated_format_is_allowed_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    with caplog.at_level(logging.WARNING):
        chosen = resolve_precision(name, CPU)
    assert chosen.name == name
    assert "slower than fp32" in caplog.text


def test_autocast_and_scaler_follow_the_name() -> None:
    weight = torch.randn(4, 4)
    dtypes = {}
    for name in ("fp32", "bf16", "fp16"):
        chosen = resolve_precision(name, CPU)
        with chosen.autocast():
            dtypes[name] = torch.nn.functional.linear(weight, weight).dtype
        assert chosen.scaler().is_enabled() is (name == "fp16")
    assert dtypes == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="auto, fp32, bf16 or fp16"):
        resolve_precision("fp8", CPU)
