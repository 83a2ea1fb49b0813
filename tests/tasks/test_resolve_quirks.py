"""`--quirks`: the same weights, computed as the paper says or as the released code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointlift.core.errors import UsageError
from pointlift.tasks.inputs import data_config_of
from pointlift.tasks.record import describe_quirks
from pointlift.tasks.resolve import resolve_model


def test_quirks_of_a_run_can_be_chosen(finished: Path) -> None:
    paper, upstream = (resolve_model(str(finished), quirks=name) for name in ("paper", "upstream"))
    assert describe_quirks(paper) == {}
    assert describe_quirks(upstream) == {"skip_near_origin": True, "fps_ties": "block"}
    assert data_config_of(upstream).resample.skip_near_origin is True
    assert data_config_of(paper).resample.skip_near_origin is False
    with pytest.raises(UsageError, match="paper or upstream"):
        resolve_model(str(finished), quirks="released")
