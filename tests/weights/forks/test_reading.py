"""Where `_base_` files are looked for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from released_forks import HARDEST, MAE, RELEASED, SCAN, fork, write_base, write_fork

from pointlift.core.errors import FileFormatError, UsageError
from pointlift.weights.forks import read_released_yaml


def test_bases_are_found_above_beside_and_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fork(tmp_path / "fork", RELEASED["mae"], "deep/er/finetune.yaml")
    assert set(read_released_yaml(path).missing) == {HARDEST}
    write_base(tmp_path / "here", HARDEST, {"NAME": "here"})
    monkeypatch.chdir(tmp_path / "here")
    assert read_released_yaml(path).bases == {HARDEST: {"NAME": "here"}}
    write_base(tmp_path / "fork", HARDEST, SCAN)
    assert read_released_yaml(path).bases == {HARDEST: SCAN}  # that of the fork itself comes first
    beside = write_fork(tmp_path / "flat", fork(MAE, "gone/Mine.yaml"))
    write_base(beside.parent, "Mine.yaml", {"NAME": "beside"})
    assert read_released_yaml(beside).bases == {"gone/Mine.yaml": {"NAME": "beside"}}


@pytest.mark.parametrize(
    "written", ["../secret.yaml", "a/../../secret.yaml", "{folder}/secret.yaml", "secret.txt", "x" * 400 + ".yaml"]
)
def test_nothing_outside_is_opened(tmp_path: Path, written: str) -> None:
    (tmp_path / "secret.yaml").write_text("NAME: secret")
    (tmp_path / "fork" / "cfgs").mkdir(parents=True)
    (tmp_path / "fork" / "cfgs" / "secret.txt").write_text("NAME: secret")
    path = write_fork(tmp_path / "fork", fork(MAE, written.format(folder=tmp_path)))
    found = read_released_yaml(path)
    assert not found.bases
    assert "not looked for" in next(iter(found.missing.values()))


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "a: [", "a: &x 1\nb: *x\n", "a: !!python/object:os.system x\n", "a: " + "[" * 80 + "]" * 80]
)
def test_what_is_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"x\.yaml"):
        read_released_yaml(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no YAML file"):
        read_released_yaml(tmp_path / "x.yaml")
    with pytest.raises(UsageError, match="no YAML file"):
        read_released_yaml(tmp_path)


def test_a_broken_base_is_an_error(tmp_path: Path) -> None:
    path = write_fork(tmp_path, RELEASED["mae"])
    base = tmp_path / HARDEST
    base.parent.mkdir(parents=True)
    base.write_text("NAME: [")
    with pytest.raises(FileFormatError, match="ScanObjectNN_hardest"):
        read_released_yaml(path)
