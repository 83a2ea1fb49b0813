"""Whatever bytes a file holds: tensors come out or a clear error, and nothing in it is executed."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pointlift.core.errors import CheckpointError, UnsafeCheckpointError
from pointlift.weights.reading import read_checkpoint, strip_prefixes

STATE = {"norm.weight": torch.arange(6.0).view(2, 3), "norm.bias": torch.ones(()), "n": torch.tensor([3])}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[k], v) for k, v in STATE.items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("top", [None, "base_model", "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "base_model.", "MAE_encoder.", "module.base_model.MAE_encoder."])
def test_torch_files(tmp_path: Path, zipped: bool, top: str | None, prefix: str) -> None:
    state = {prefix + k: v for k, v in STATE.items()}
    value: Any = {top: state, "epoch": 3, "metrics": {"acc": 0.5}, "optimizer": {}} if top else state
    path = tmp_path / "weights.pth"
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(path).state)


def test_safetensors_files_by_content(tmp_path: Path) -> None:
    for name in ("weights.safetensors", "weights.bin"):
        save_file({f"module.{k}": v for k, v in STATE.items()}, tmp_path / name, metadata={"who": "me"})
        raw = read_checkpoint(str(tmp_path / name))
        assert same(raw.state)
        assert raw.metadata == {"who": "me"}
        assert raw.path == tmp_path / name


def test_ordered_dicts_and_parameters(tmp_path: Path) -> None:
    state = collections.OrderedDict((k, torch.nn.Parameter(v.float())) for k, v in STATE.items())
    torch.save(state, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").state.keys() == STATE.keys()


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_scalars_among_the_metrics(tmp_path: Path, zipped: bool) -> None:
    metrics = {"a": np.float64(1), "b": np.float32(2), "c": np.int64(3), "d": np.bool_(True), "e": np.int32(1)}
    torch.save({"model": STATE, "metrics": metrics}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(tmp_path / "w.pth").state)


def test_numpy_scalars_as_numpy_1_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": STATE, "metrics": {"acc": np.float64(1)}}, path)
    rewritten = tmp_path / "old.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(rewritten, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            new.writestr(name, data)
    assert same(read_checkpoint(rewritten).state)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle2", "pickle4", "inside"])
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, kind: str) -> None:
    touched, path = tmp_path / "touched", tmp_path / "evil.pth"
    evil = Evil(f"touch {touched}")
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps({"model": STATE, "x": evil}, protocol=int(kind[-1])))
    elif kind == "inside":
        torch.save({"base_model": {**STATE, "x": evil}}, path)
    else:
        torch.save({"base_model": STATE, "x": evil}, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UnsafeCheckpointError, match="could run code, so it was not read") as caught:
        read_checkpoint(path)
    assert not touched.exists()
    assert "torch.save({'model': checkpoint['base_model']}" in caught.value.fix
    assert "weights_only=False" not in str(caught.value)
    assert len(str(caught.value)) < 600


class Foreign(torch.nn.Module):
    pass


@pytest.mark.parametrize(
    "beside",
    [argparse.Namespace(lr=1), collections.defaultdict(int), Foreign(), np.zeros(3), np.array([object()])],
    ids=lambda value: type(value).__name__,
)
def test_what_is_neither_tensor_nor_plain_is_named_and_refused(tmp_path: Path, beside: Any) -> None:
    torch.save({"model": STATE, "beside": beside}, tmp_path / "w.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"\([\w.]+\): reading it could run code"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_are_refused(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "program.pt"))
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint(tmp_path / "program.pt")


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.98])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_files_cut_short(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    state = {f"layer.{i}": torch.randn(20) for i in range(20)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=kind == "zip")
    cut(path, share)
    with pytest.raises(CheckpointError, match=r"w\.(pth|safetensors)"):
        read_checkpoint(path)


GARBAGE = np.random.default_rng(0).bytes(3000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello world\n" * 30,
        b"extends: demo/shapes\n",
        GARBAGE,
        b"\x80\x02" + GARBAGE,
        b"\x80\x04" + GARBAGE,
        b"PK\x03\x04" + GARBAGE,
        pickle.dumps({"a": 1}),
        pickle.dumps([1, 2, 3], protocol=2),
        struct.pack("<Q", 2**63) + b"{" + GARBAGE,
        struct.pack("<Q", 40) + b"{not json at all" + GARBAGE,
        b"ply\nformat ascii 1.0\nend_header\n",
    ],
    ids=lambda data: repr(data[:12]),
)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.filterwarnings("error")
def test_files_that_are_no_checkpoint(tmp_path: Path, data: bytes, ending: str) -> None:
    path = tmp_path / f"file{ending}"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert f"file{ending}" in str(caught.value)
    assert "weights_only`" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_headers_of_safetensors_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    entry = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)


def test_places_without_a_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            read_checkpoint(path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "w.pth")

    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"w\.pth cannot be opened: Permission denied"):
        read_checkpoint(tmp_path / "w.pth")


def test_a_pickle_that_swells_costs_no_time(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"K\x000" * 5_000_000 + b"N.")
        archive.writestr("archive/version", "3\n")
    start = time.process_time()
    with pytest.raises(CheckpointError, match="its pickle unpacks to 15,000,004 bytes"):
        read_checkpoint(path)
    assert time.process_time() - start < 1


def test_a_packed_archive_is_read_like_a_plain_one(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as old, zipfile.ZipFile(tmp_path / "w.pt", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert same(read_checkpoint(tmp_path / "w.pt").state)


def test_a_long_name_is_found_in_a_pickle_of_any_size(tmp_path: Path) -> None:
    body = b"\x80\x02B" + struct.pack("<I", 17 << 20) + bytes(17 << 20) + b"0c" + b"x" * 2_000 + b"\ny\n."
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("archive/data.pkl", body)
    with pytest.raises(CheckpointError, match="a name of more than 1000 bytes"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize("value", [{}, {"epoch": 3}, {"model": {"a": 1}}, {"nested": {"deep": dict(STATE)}}])
def test_files_without_tensors(tmp_path: Path, value: dict) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(tmp_path / "w.pth")


def test_a_list_is_no_state(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(tmp_path / "w.pth")


def test_prefixes_go_from_the_front_only() -> None:
    one = torch.zeros(1)
    state = {"module.a.module.b": one, "base_model.module.c": one, "d.MAE_encoder.e": one, "modules.f": one}
    assert list(strip_prefixes(state)) == ["a.module.b", "c", "d.MAE_encoder.e", "modules.f"]


def test_two_tensors_with_one_name() -> None:
    with pytest.raises(CheckpointError, match="two tensors are called 'a' once prefixes are removed"):
        strip_prefixes({"a": torch.zeros(1), "module.a": torch.ones(1)})
