"""The harness itself: it notices each kind of fault, names it, and goes on."""

from __future__ import annotations

import pytest

from fuzz import corpus
from fuzz.judge import SECONDS, Case
from fuzz.mutate import MOST_BYTES
from fuzz.pool import Pool
from fuzz.targets import TARGETS


def test_a_case_is_the_same_every_time():
    for name in ("ply", "stl", "set-npz"):
        cases = [Case(name, 1, number) for number in range(40)]
        assert [c.files() for c in cases] == [c.files() for c in cases]
        assert Case(name, 1, 35).files() != Case(name, 2, 35).files()


def test_mutated_files_stay_small():
    size = max(sum(map(len, Case("ply", 3, n).files().values())) for n in range(400))
    assert size <= 4 * MOST_BYTES


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("error", "ZeroDivisionError"),
        ("exit", "SystemExit"),
        ("crash", "SIGSEGV"),
        ("time", f"over {SECONDS} s"),
        ("memory", "bytes of memory"),
        ("child time", f"over {SECONDS} s"),
        ("child memory", "bytes of memory"),
        ("request", "more memory asked for"),
        ("warning", "warns"),
        ("prints", "printed"),
        ("nan", "not finite"),
        ("long", "characters"),
    ],
)
def test_faults_are_noticed(faulty_pool, fault, reason):
    verdict = faulty_pool.one(("faulty", {"cloud": fault.encode()}))
    assert verdict.outcome == "failed"
    assert reason in verdict.reason
    assert faulty_pool.one(("faulty", {"cloud": b"fine"})).outcome == "read"
    assert faulty_pool.one(("faulty", {"cloud": b"refuse"})).outcome == "refused"


def test_shrinking_keeps_the_fault():
    files = {"a": b"x" * 500 + b"BAD" + b"y" * 500, "b": b"z" * 9}
    small = corpus.shrink(files, lambda f: b"BAD" in f["a"])
    assert small == {"a": b"BAD", "b": b""}


def test_kept_failures_come_back(tmp_path):
    files = {"train/a/1.xyz": b"1 2 3", "cloud.label": b""}
    folder = corpus.keep("set-class_folders", files, tmp_path)
    assert corpus.kept(tmp_path) == [("set-class_folders", folder)]
    assert corpus.load(folder) == files
    assert corpus.keep("ply", {"cloud.ply": bytes(corpus.LARGEST + 1)}, tmp_path) is None


@pytest.fixture(scope="module")
def faulty_pool():
    """A pool whose workers know one more target, whose reader does what the file says."""
    with Pool(workers=1, extra="fuzz.faulty") as pool:
        yield pool


def test_targets_have_seeds():
    assert all(target.seeds() for target in TARGETS.values())
