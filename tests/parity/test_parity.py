"""Every reference file against our code."""

from __future__ import annotations

from pathlib import Path

from classifier_cases import check_classifier
from ops_cases import check_ops
from states import read

from pointlift.weights.upstream import upstream_for


def test_parity(case: Path) -> None:
    metadata, tensors = read(case)
    if metadata["system"] == "ops":
        check_ops(case, metadata, tensors)
        return
    upstream = upstream_for(metadata["system"], metadata["upstream"])
    assert upstream is not None, f"{case.name}: {metadata['upstream']} is neither built nor pending"
    check_classifier(case, upstream, metadata, tensors)
