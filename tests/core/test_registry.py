"""Names, and what is said about a name that is not there."""

from __future__ import annotations

import pytest

from pointlift.core.errors import UnknownNameError
from pointlift.core.registry import Registry


@pytest.fixture
def registry() -> Registry[int]:
    registry: Registry[int] = Registry("model", "`pointlift list models`")
    for number, name in enumerate(("point_mae_tiny", "point_mae_base", "point_bert")):
        registry.register(name, number)
    return registry


def test_entries_keep_their_order(registry: Registry[int]) -> None:
    assert list(registry) == registry.names() == ["point_mae_tiny", "point_mae_base", "point_bert"]
    assert registry.names("*mae*") == ["point_mae_tiny", "point_mae_base"]
    assert registry.get("point_bert") == 2
    assert len(registry) == 3
    assert "point_bert" in registry
    assert "bert" not in registry


def test_registering_as_a_decorator() -> None:
    registry: Registry[type] = Registry("thing")

    @registry.register("a")
    class A:
        pass

    assert registry.get("a") is A


def test_a_name_is_taken_once(registry: Registry[int]) -> None:
    with pytest.raises(ValueError, match="'point_bert' is registered already"):
        registry.register("point_bert", 9)
    assert registry.get("point_bert") == 2


def test_an_unknown_name(registry: Registry[int]) -> None:
    with pytest.raises(UnknownNameError, match=r"no model 'point_mae_tinny'.* Did you mean 'point_mae_tiny'.* all 3"):
        registry.get("point_mae_tinny")
