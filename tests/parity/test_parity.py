"""Every reference file against our code."""

from __future__ import annotations

from pathlib import Path

from classifier_cases import check_classifier
from objective_cases import check_masking, check_objective
from ops_cases import check_ops
from states import read

from pointlift.weights.upstream import upstream_for


def test_parity(case: Path) -> None:
    metadata, tensors = read(case)
    if metadata["system"] == "ops":
        check_ops(case, metadata, tensors)
        return
    if case.name.startswith("point-mae-masking"):
        check_masking(case, metadata, tensors)
        return
    upstream = upstream_for(metadata["system"], metadata["upstream"])
    assert upstream is not None, f"{case.name}: {metadata['upstream']} is neither built nor pending"
    check = check_objective if upstream.kind == "objective" else check_classifier
    check(case, upstream, metadata, tensors)
