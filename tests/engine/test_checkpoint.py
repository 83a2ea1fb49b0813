from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pointlift.core.errors import CheckpointError, PointLiftError
from pointlift.engine.checkpoint import Checkpoint, Checkpoints, read_checkpoint, write_checkpoint


def made(epoch: int, best: int | None = None) -> Checkpoint:
    generator = torch.Generator().manual_seed(epoch)
    weight = torch.randn(40, 5, generator=generator)
    model = {"a.weight": weight, "a.tied": weight, "a.count": torch.tensor(epoch), "a.cut": weight[:, ::2]}
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8):
        model[f"a.{dtype}"] = weight.to(dtype)
    model["a.mask"] = weight > 0
    model["a.empty"] = torch.zeros(0, 3)
    optimizer = {"a.weight/exp_avg": weight * 2, "a.weight/step": torch.tensor(3.0)}
    return Checkpoint(epoch, best, {"seconds": 0.1 + 0.2, "best": None, "list": [1, "ä"]}, model, optimizer)


def same(a: Checkpoint, b: Checkpoint) -> None:
    assert (a.epoch, a.best_epoch, a.state) == (b.epoch, b.best_epoch, b.state)
    for one, other in ((a.model, b.model), (a.optimizer, b.optimizer)):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            assert tensor.dtype == other[name].dtype
            assert torch.equal(tensor, other[name])


def test_comes_back_bit_for_bit(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", made(7, 3))
    same(read_checkpoint(tmp_path / "c"), made(7, 3))


def test_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", made(7))
    tensors = load_file(tmp_path / "c")
    assert {f"model/{name}" for name in made(7).model} <= tensors.keys()
    for name, tensor in made(7).model.items():
        assert torch.equal(tensors[f"model/{name}"], tensor)


def test_keeps_the_newest_two_and_the_best_of_either(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    kept = []
    for epoch, best in enumerate([0, 0, 2, 2, 2, 5]):
        checkpoints.save(made(epoch, best))
        kept.append(checkpoints.epochs())
    assert kept == [[0], [1, 0], [2, 1, 0], [3, 2], [4, 3, 2], [5, 4, 2]]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "checkpoints").newest() is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'\\"best\\": null', b'\\"best\\": true'))


@pytest.mark.parametrize("damage", [cut, empty, flip, edit])
def test_a_damaged_file_is_noticed_and_the_one_before_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(3):
        checkpoints.save(made(epoch, 0))
    before = checkpoints.path(2).read_bytes()
    damage(checkpoints.path(2))
    assert checkpoints.path(2).read_bytes() != before
    with pytest.raises(CheckpointError, match="epoch-0002"):
        read_checkpoint(checkpoints.path(2))
    again = Checkpoints(tmp_path)
    with caplog.at_level(logging.WARNING):
        found = again.newest()
    assert found is not None
    same(found, made(1, 0))
    assert "epoch-0002" in caplog.text
    assert again.epochs() == [1, 0]
    again.save(made(2, 2))
    assert again.epochs() == [2, 1, 0]  # the best of the one before stays too


def test_nothing_readable_is_an_error_and_not_a_new_start(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(2):
        checkpoints.save(made(epoch))
        cut(checkpoints.path(epoch))
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        checkpoints.newest()
    assert checkpoints.epochs() == [1, 0]


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="not written by a training run"):
        read_checkpoint(tmp_path / "x.safetensors")
    torch.save({"x": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "x.pt")


def test_full_disk_keeps_the_old_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(made(0))
    checkpoints.save(made(1))

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(PointLiftError, match=r"No space left on device.*--resume"):
            checkpoints.save(made(2))
    assert sorted(os.listdir(tmp_path)) == ["epoch-0000.safetensors", "epoch-0001.safetensors"]
    same(checkpoints.newest() or made(0), made(1))
