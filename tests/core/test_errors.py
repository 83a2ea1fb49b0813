"""What users read when something is wrong, and that it survives a process border."""

from __future__ import annotations

import pickle

import pytest

from pointlift.core import errors
from pointlift.core.errors import PointLiftError, UsageError, did_you_mean, unknown_name

KINDS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, PointLiftError)]


def test_the_message_says_given_expected_and_fix() -> None:
    error = PointLiftError("a.ply has 3 points", "at least 64 points", "sample more points.")
    assert str(error) == "a.ply has 3 points. Expected: at least 64 points. sample more points."
    assert (error.given, error.expected, error.fix) == (
        "a.ply has 3 points",
        "at least 64 points",
        "sample more points.",
    )


def test_parts_that_are_empty_leave_no_trace() -> None:
    assert str(PointLiftError("the disk is full")) == "the disk is full."
    assert str(PointLiftError("no x", fix="Did you mean 'y'?")) == "no x. Did you mean 'y'?"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_cross_process_borders(kind: type[PointLiftError]) -> None:
    error = pickle.loads(pickle.dumps(kind("given", "expected", "fix")))  # noqa: S301  our own bytes
    assert type(error) is kind
    assert (error.given, error.expected, error.fix) == ("given", "expected", "fix")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_wrong_use_exits_with_2_and_all_else_with_1(kind: type[PointLiftError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, UsageError) else 1)


def test_the_nearest_name_is_offered() -> None:
    assert did_you_mean("point_mea_base", ["point_mae_base", "point_m2ae"]) == " Did you mean 'point_mae_base'?"
    assert did_you_mean("zzz", ["point_mae_base"]) == ""
    assert did_you_mean("x", []) == ""


def test_an_unknown_name_lists_what_there_is() -> None:
    error = unknown_name(
        "model", "pointmae", [f"model_{i}" for i in range(9)] + ["point_mae"], "`pointlift list models`"
    )
    assert "no model 'pointmae'" in str(error)
    assert "Did you mean 'point_mae'?" in str(error)
    assert "`pointlift list models` shows all 10" in str(error)
    assert "…" in error.expected


def test_an_unknown_name_among_none() -> None:
    assert str(unknown_name("adaptation", "x", [])) == "no adaptation 'x'."


def test_a_message_never_steers_the_terminal() -> None:
    assert str(PointLiftError("header '\x1b[2J\x9b\x07'\n\tfine é")) == "header '\\x1b[2J\\x9b\\x07'\n\tfine é."


def test_what_is_quoted_of_a_file_stays_short() -> None:
    error = errors.FileFormatError("a.ply: columns " + "x, " * 60_000 + "last", "x, y, z")
    assert len(str(error)) < 1_200
    assert str(error).startswith("a.ply: columns x, x,")
    assert "last" in str(error)
