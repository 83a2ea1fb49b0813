"""Run against run: what differs, what is comparable, what a difference is worth, and the page that says so."""

from __future__ import annotations

import json
import re
from itertools import combinations
from math import comb

import numpy as np
import pytest

from pointlift.core.errors import DataError, UsageError
from pointlift.data.stores import NAMES_AND_SIZES
from pointlift.report import write_comparison
from pointlift.report.compare import (
    differing,
    disputed,
    letters,
    mcnemar,
    pairs,
    read_runs,
    same_clouds,
    seed_groups,
    short_names,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run):
    """Folders of runs: three seeds of one setting, another learning rate, and one on other data."""
    root = tmp_path_factory.mktemp("compare")

    def make(name, accuracy, seed, lr=0.0005, **options):
        folder = root / name
        write_run(folder, accuracy=accuracy, clouds=24, count=320, record={"seed": seed, **options})
        (folder / "config.yaml").write_text(f"seed: {seed}\nnote: try {seed}\nepochs: 30\noptim:\n  lr: {lr}\n")
        return folder

    made = {
        "s0": make("s0", 0.88, 0),
        "s1": make("s1", 0.84, 1),
        "s2": make("s2", 0.91, 2),
        "lr": make("lr", 0.6, 0, lr=0.05),
    }
    other = make("other", 0.99, 0)
    record = json.loads((other / "record.json").read_text())
    record["dataset"]["content_hash"] = "of other clouds"
    (other / "record.json").write_text(json.dumps(record))
    return made | {"other": other}


def page_of(folders, out):
    page = write_comparison(folders, out / "page.html").read_text("utf-8")
    visible = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", visible).replace("\u202f", " "))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (10, 2), (3, 21), (400, 350)])
def test_mcnemar_is_the_exact_binomial_test(b, c):
    tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_pairs_count_the_clouds_that_one_run_alone_recognised(runs):
    a, b = read_runs([runs["s0"], runs["lr"]])
    (pair,) = pairs([a, b])
    right_a, right_b = (np.asarray(run.right) for run in (a, b))
    assert (pair.only_a, pair.only_b) == (sum(right_a & ~right_b), sum(right_b & ~right_a))
    assert pair.p < 1e-6
    assert len(pairs(read_runs([runs[k] for k in ("s0", "s1", "s2", "lr")]))) == 6
    assert pairs(read_runs([runs["s0"], runs["other"]])) == []


def test_only_what_differs_is_listed(runs):
    rows = dict(differing(read_runs([runs["s0"], runs["lr"]])))
    assert rows == {"optim.lr": ["0.0005", "0.05"]}
    rows = dict(differing(read_runs([runs["s0"], runs["other"]])))
    assert rows == {"data content hash": ["9f31c2a86be7d4410c5f2a7e83b96d10", "of other clouds"]}


def test_seeds_of_one_setting_make_a_group(runs):
    (group,) = seed_groups(read_runs([runs[k] for k in ("s0", "lr", "s1", "s2")]))
    values = [run.accuracy for run in group.runs]
    assert [run.name for run in group.runs] == ["s0", "s1", "s2"]
    assert (group.mean, group.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert group.claim
    (two,) = seed_groups(read_runs([runs["s0"], runs["s1"]]))
    assert not two.claim
    assert seed_groups(read_runs([runs["s0"], runs["other"]])) == [], "other clouds are no repetition"


def test_clouds_are_the_same_only_by_hash_split_and_labels(runs, tmp_path, write_run):
    a, b, other = read_runs([runs["s0"], runs["s1"], runs["other"]])
    assert same_clouds(a, b)
    assert not same_clouds(a, other)
    write_run(tmp_path / "fewer", count=100)
    write_run(tmp_path / "val", count=320, record={"split": "val"})
    write_run(tmp_path / "nameless", count=320, record={"dataset": {"name": "shapes"}})
    for name in ("fewer", "val", "nameless"):
        assert not same_clouds(*read_runs([runs["s0"], tmp_path / name])), name


def test_without_predictions_the_same_clouds_need_the_same_cut_and_a_hash_of_the_bytes(tmp_path, write_run):
    def make(name, split="val", fraction=0.1, note="", config=True):
        folder = tmp_path / name
        data = {"name": "shapes", "content_hash": "c0", "note": note}
        write_run(folder, count=60, record={"split": split, "dataset": data})
        (folder / "predictions.npz").unlink()
        if config:
            (folder / "config.yaml").write_text(f"data:\n  val_fraction: {fraction}\n  split_seed: 0\n")
        return folder

    first = make("first")
    assert same_clouds(*read_runs([first, make("again")]))
    for other in (make("more", fraction=0.2), make("bare", config=False)):
        assert not same_clouds(*read_runs([first, other])), other.name
    assert same_clouds(*read_runs([make("t0", "test"), make("t1", "test", fraction=0.2)])), "test was not held out"
    names_only = [make(name, "test", note=f"as published; {NAMES_AND_SIZES}") for name in ("n0", "n1")]
    assert not same_clouds(*read_runs(names_only))
    assert "content hash and split agree, but" in page_of(names_only, tmp_path)


def test_disputed_clouds_are_those_with_different_answers(runs):
    compared = read_runs([runs["s0"], runs["lr"]])
    found = disputed(compared)
    a, b = (run.answers for run in compared)
    assert sorted(d.row for d in found) == list(np.flatnonzero(a != b))
    assert [d.apart for d in found] == sorted((d.apart for d in found), reverse=True)
    kept = [d for d in found if d.kept]
    assert kept
    for d in kept:
        owner, position = d.kept
        assert compared[owner].run.predictions.cloud_rows[position] == d.row


def test_the_page_ranks_runs_on_the_same_clouds(runs, tmp_path):
    text = page_of([runs[k] for k in ("s1", "lr", "s2", "s0")], tmp_path)
    places = [text.index(f" {key} {name} ") for key, name in zip("ABCD", ("s2", "s0", "s1", "lr"), strict=True)]
    assert places == sorted(places)
    assert "optim.lr" in text
    assert "n = 3 seeds" in text
    assert "Fewer than three seeds make no claim" in text
    assert "exact McNemar p" in text
    assert "Clouds in dispute" in text
    assert "Not comparable" not in text


def test_the_page_warns_of_other_data_and_does_not_rank(runs, tmp_path):
    text = page_of([runs["s0"], runs["other"]], tmp_path)
    assert "Not comparable: the runs were scored on different data" in text
    assert text.index(" A s0 ") < text.index(" B other "), "the order given, though the second is better"
    assert "Best first" not in text
    assert "No tests" in text
    assert "Recall by class" not in text


def test_warnings_of_single_runs_are_repeated(runs, tmp_path, write_run):
    write_run(tmp_path / "t", count=320, accuracy=0.8, record={"epoch_rule": "best on test"})
    text = page_of([runs["s0"], tmp_path / "t"], tmp_path)
    assert "B: The epoch was chosen on the split it is scored on" in text
    assert "others did not" in text


def test_bare_and_broken_folders(runs, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text("{}")
    (tmp_path / "b" / "config.yaml").write_text("[not: a mapping")
    text = page_of([tmp_path / "a", tmp_path / "b"], tmp_path)
    assert "recorded no content hash" in text
    assert "No configuration of A, B" in text
    with pytest.raises(DataError, match=r"record\.json"):
        write_comparison([runs["s0"], tmp_path])


def test_evil_names_are_text(tmp_path, write_run):
    evil = ["<script>window.pwned=1</script>", '"><img src=x onerror=window.pwned=1>', "{{ 7*7 }}"]
    for name, accuracy in (("<b>one", 0.9), ("two", 0.4)):
        write_run(tmp_path / name, classes=evil, count=60, names=evil * 20, accuracy=accuracy, clouds=6)
    page = write_comparison([tmp_path / "<b>one", tmp_path / "two"]).read_text("utf-8")
    assert (tmp_path / "comparison.html").is_file(), "beside the first run"
    for bad in ("<script>window", "<img", "<b>one"):
        assert bad not in page
    assert "&lt;script&gt;window.pwned=1" in page


def test_wrong_calls(runs):
    with pytest.raises(UsageError, match="two or more"):
        write_comparison([runs["s0"]])
    with pytest.raises(UsageError, match="twice"):
        write_comparison([runs["s0"], runs["s1"], runs["s0"].parent / "s1" / "."])


def test_names_tell_folders_apart(tmp_path):
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert short_names([tmp_path / "x" / "run", tmp_path / "y" / "run"]) == ["x/run", "y/run"]
    keys = [letters(i) for i in range(800)]
    assert keys[:2] == ["A", "B"]
    assert keys[26] == "AA"
    assert all(a != b for a, b in combinations(keys, 2))


ODD = [None, "x", -1, 0.5, True, [], [[1], None], {"a": {"b": 1}}]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_values_in_records_still_make_a_page(tmp_path, write_run, odd):
    good = write_run(tmp_path / "a", classes=3, count=12, epochs=2)
    write_run(tmp_path / "b", classes=3, count=12, epochs=2)
    for key in good:
        (tmp_path / "b" / "record.json").write_text(json.dumps(good | {key: odd}))
        assert write_comparison([tmp_path / "a", tmp_path / "b"]).stat().st_size > 10_000, key
