"""`pointlift prepare`: the same command gives the same files, and what it writes opens as a data set."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_runs import cli, refused

import pointlift as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("words", "train"),
    [
        (("shapes", "--train", "16", "--test", "16", "--points", "64", "--ending", ".npz"), 16),
        (("procedural", "--count", "5", "--points", "64"), 5),
    ],
)
def test_made_data_is_seeded_and_opens(words: tuple[str, ...], train: int, tmp_path: Path) -> None:
    for out in ("a", "b"):
        ended = cli("prepare", words[0], tmp_path / out, *words[1:], "--seed", "3")
        assert ended.code == 0, ended.err
        assert ended.out.strip() == str(tmp_path / out)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(pl.load_dataset(tmp_path / "a").train) == train


def test_shapes_of_some_classes(tmp_path: Path) -> None:
    words = ("prepare", "shapes", tmp_path / "a", "--classes", "lamp, chair", "--points", "16")
    ended = cli(*words, "--train", "4", "--test", "2")
    assert (ended.code, ended.err) == (0, "")
    made = pl.load_dataset(tmp_path / "a")
    assert made.meta.classes == ("chair", "lamp")
    assert sorted(made.test.labels.tolist()) == [0, 1]
    refused(cli(*words[:2], tmp_path / "b", "--classes", "lamp,chiar"), "'chiar'", "Did you mean 'chair'", code=2)
    refused(cli(*words[:2], tmp_path / "b", "--classes", ""), "no shape class ''", code=2)
    refused(cli(*words[:2], tmp_path / "b", "--classes", "lamp,lamp"), "each once", code=2)
    assert not (tmp_path / "b").exists()


def test_classes_without_a_cloud_are_named(tmp_path: Path) -> None:
    words = ("prepare", "shapes", tmp_path / "a", "--classes", "chair,lamp,mug", "--points", "16", "--train", "3")
    ended = cli(*words, "--test", "1")
    assert ended.code == 0
    assert ended.err == "note: 1 test clouds leave 2 classes out: lamp, mug; --test 3 has one of each\n"
    assert cli(*words[:2], tmp_path / "b", *words[3:], "--test", "0").err == ""


def test_few_shot_folds(tmp_path: Path) -> None:
    assert cli("prepare", "shapes", tmp_path / "set", "--train", "64", "--test", "320", "--points", "16").code == 0
    ended = cli(
        *("prepare", "few-shot", tmp_path / "set", "--out", tmp_path / "folds"),
        *("--way", "5", "--shot", "2", "--folds", "2", "--pickles"),
    )
    assert ended.code == 0, ended.err
    refused(cli("prepare", "few-shot", tmp_path / "set", "--out", tmp_path / "f", "--dat.x", "1"), "--data.KEY", code=2)
    fold = pl.load_dataset(tmp_path / "folds", fold=1)
    assert (len(fold.train), len(fold.test), len(fold.meta.classes)) == (10, 100, 5)


def test_modelnet_cache(tmp_path: Path) -> None:
    import trees

    root = trees.modelnet(tmp_path)
    ended = cli("prepare", "modelnet-cache", root, "--points", "16")
    assert ended.code == 0, ended.err
    for path in ended.out.split():
        assert Path(path).is_file()
    first, second = (Path(line) for line in ended.out.split())
    before = first.stat().st_mtime_ns
    second.unlink()  # stopped between the two: only what is missing is made
    again = cli("prepare", "modelnet-cache", root, "--points", "16")
    assert (again.code, again.out.strip(), first.stat().st_mtime_ns) == (0, str(second), before)
    assert "is there already" in again.err
    assert cli("prepare", "modelnet-cache", root, "--points", "16", "--overwrite").code == 0


def test_wrong_use(tmp_path: Path) -> None:
    refused(cli("prepare", "modelnet-cache", tmp_path), "modelnet40_train.txt", code=1)
    refused(cli("prepare", "few-shot", tmp_path / "no", "--out", tmp_path / "x"), "no folder", code=1)
    refused(cli("prepare", "shapes", tmp_path / "x", "--ending", ".nope"), ".nope", code=2)
    refused(cli("prepare", "cache"), "cache", code=2)
