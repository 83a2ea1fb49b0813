"""Past failures stay fixed, and some dozens of fresh cases of every reader pass; `python -m fuzz` runs 100,000."""

from __future__ import annotations

from collections import Counter

import pytest

from fuzz import corpus
from fuzz.judge import Case
from fuzz.pool import Pool
from fuzz.targets import TARGETS
from pointlift.data.catalog import DATASETS
from pointlift.data.files import FORMATS
from pointlift.data.loading import registered

CASES = 24  # of every target


@pytest.fixture(scope="module")
def pool():
    with Pool(workers=1) as pool:
        yield pool


def test_past_failures_stay_fixed(pool):
    kept = corpus.kept()
    jobs = [(target, corpus.load(folder)) for target, folder in kept]
    verdicts = dict(zip([folder for _, folder in kept], pool.judge(iter(jobs)), strict=True))
    failed = {str(folder): verdict.reason for folder, (_, verdict) in verdicts.items() if verdict.outcome == "failed"}
    assert not failed


def test_fresh_cases_pass(pool):
    cases = (Case(target, 12345, number) for target in TARGETS for number in range(CASES))
    failed, outcomes = [], Counter()
    for case, verdict in pool.judge(cases):
        outcomes[case.target, verdict.outcome] += 1
        if verdict.outcome == "failed":
            failed.append(f"python -m fuzz --case {case.target}/{case.seed}/{case.number}: {verdict.reason}")
    assert not failed
    # Every reader was given something that it reads, and something that it does not.
    assert {target for target, outcome in outcomes if outcome == "read"} == set(TARGETS)
    assert {target for target, outcome in outcomes if outcome == "refused"} == set(TARGETS)


def test_every_reader_is_a_target():
    assert {ending.lstrip(".") for ending in FORMATS} <= set(TARGETS)
    layouts = {name for name, entry in registered() if DATASETS.get(name).detect is not None}
    assert {f"set-{name}" for name in layouts} <= set(TARGETS)
