"""Our files: what is written is read, and what is broken, changed or newer is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pointlift.core.errors import CheckpointError, PointLiftError
from pointlift.weights.modelfile import (
    FORMAT,
    HEADER,
    describe,
    read_model_file,
    write_model_file,
    write_model_folder,
)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shared = torch.randn(4, 3)
    return {"a.weight": shared, "tied": shared, "view": shared.T, "n": torch.tensor(3), "half": torch.ones(2).half()}


def description(**changes: Any) -> dict[str, Any]:
    config = {"embed_dim": 12, "patch_widths": [1, 2, 3], "quirks": {"skip_near_origin": True}}
    told = describe("point_mae_tiny", config, state(), classes=("a", "b"), preprocess={"points": 64}, note={"x": [1]})
    return {**told, **changes}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_model_file(tmp_path / "new" / "folder" / "m.safetensors", state(), description())
    file = read_model_file(path)
    assert (file.path, file.arch, file.holds, file.classes) == (path, "point_mae_tiny", "model", ("a", "b"))
    assert file.config == description()["config"]
    assert (file.preprocess, file.extra, file.quirks, file.source) == ({"points": 64}, {"note": {"x": [1]}}, None, None)
    assert file.state.keys() == state().keys()
    assert all(torch.equal(v, file.state[k]) and v.dtype == file.state[k].dtype for k, v in state().items())
    assert os.listdir(path.parent) == ["m.safetensors"]


def test_without_class_names(tmp_path: Path) -> None:
    path = write_model_file(tmp_path / "m.safetensors", state(), description(classes=None))
    assert read_model_file(path).classes is None


def test_run_folders(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "run" / "model", state(), description())
    for place in (tmp_path / "run", tmp_path / "run" / "model", tmp_path / "run" / "model" / "weights.safetensors"):
        assert read_model_file(place).arch == "point_mae_tiny"
    assert json.loads((tmp_path / "run" / "model" / "model.json").read_text()) == description()
    with pytest.raises(CheckpointError, match=r"no model in .*--resume continues it"):
        read_model_file(tmp_path)


def test_any_safetensors_reader_can_read_it(tmp_path: Path) -> None:
    path = write_model_file(tmp_path / "m.safetensors", state(), description())
    assert load_file(path).keys() == state().keys()


@pytest.mark.parametrize("how", ["value", "name", "bytes"])
def test_changed_tensors_are_noticed(tmp_path: Path, how: str) -> None:
    path = write_model_file(tmp_path / "m.safetensors", state(), description())
    if how == "bytes":
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    else:
        changed = {k: v.contiguous().clone() for k, v in state().items()}
        if how == "value":
            changed["a.weight"][0, 0] += 1e-6
        else:
            changed["b.weight"] = changed.pop("a.weight")
        save_file(changed, path, metadata={HEADER: json.dumps(description())})
    with pytest.raises(CheckpointError, match="the tensors are not those that were written"):
        read_model_file(path)


def with_header(path: Path, header: str) -> Path:
    save_file({k: v.contiguous().clone() for k, v in state().items()}, path, metadata={HEADER: header})
    return path


def test_a_newer_format(tmp_path: Path) -> None:
    path = with_header(tmp_path / "m.safetensors", json.dumps(description(format=FORMAT + 1)))
    with pytest.raises(CheckpointError, match=r"has format 2. Expected: at most 1. upgrade pointlift"):
        read_model_file(path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 20000,
        json.dumps({k: v for k, v in description().items() if k != "arch"}),
        json.dumps(description(format="one")),
        json.dumps(description(config=[1, 2])),
        json.dumps(description(classes=3)),
    ],
    ids=lambda header: header[:20] or "empty",
)
def test_a_damaged_description(tmp_path: Path, header: str) -> None:
    with pytest.raises(CheckpointError, match="damaged description"):
        read_model_file(with_header(tmp_path / "m.safetensors", header))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model_file(tmp_path / "m.safetensors", state(), description())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PointLiftError, match=r"could not write .*m\.safetensors: No space left on device"):
        write_model_file(path, {"x": torch.zeros(3)}, description(hash="other"))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_a_write_that_is_killed_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model_file(tmp_path / "m.safetensors", state(), description())

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_model_file(path, {"x": torch.zeros(3)}, description())
    monkeypatch.undo()
    assert read_model_file(path).arch == "point_mae_tiny"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PointLiftError, match="could not write"):
        write_model_file(tmp_path / "file" / "m.safetensors", state(), description())
    (tmp_path / "m.safetensors").mkdir()
    with pytest.raises(PointLiftError, match="could not write"):
        write_model_file(tmp_path / "m.safetensors", state(), description())
