"""`pointlift list KIND NAME`: what can be set."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from tiny_runs import cli

from pointlift.adapt.registry import ADAPTATIONS
from pointlift.core.config import build, parse_overrides
from pointlift.core.options import options_of
from pointlift.models.registry import MODELS
from pointlift.pretrain.registry import OBJECTIVES


def options(kind: str, name: str) -> list[dict[str, Any]]:
    ended = cli("list", kind, name, "--json")
    assert ended.code == 0, ended.err
    (row,) = json.loads(ended.out)
    assert row["name"] == name
    return row["options"]


def written(text: str, name: str) -> str:
    """The default as the lines of `list` have it: the second column, which a wide gap ends."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"    {name} ")]
    return line.strip().removeprefix(name).strip().split("  ")[0]


@pytest.mark.parametrize(
    ("kind", "name", "where", "default"),
    [
        *[("adaptations", name, "adaptation", ADAPTATIONS.get(name)()) for name in ADAPTATIONS],
        *[("objectives", name, "objective", OBJECTIVES.get(name).config()) for name in OBJECTIVES],
        *[
            ("models", name, "model", build(MODELS.get(name).config, MODELS.get(name).sizes))
            for name in ("point_mae_tiny", "point_m2ae_tiny")
        ],
    ],
)
def test_defaults_are_what_the_command_line_takes(kind: str, name: str, where: str, default: Any) -> None:
    found, text = options(kind, name), cli("list", kind, name).out
    if not found:
        assert "no options" in text
    words = [f"--{where}.options.{o['name']} {shlex.quote(written(text, o['name']))}" for o in found]
    given = parse_overrides(shlex.split(" ".join(words))).get(where, {}).get("options", {})
    assert build(type(default), given) == default
    assert not found or f"--{where}.options.NAME VALUE" in text


def test_options_say_what_they_do() -> None:
    found = {o["name"]: o for o in options("adaptations", "point_peft")}
    assert found["prompts"] == {
        "name": "prompts",
        "default": None,
        "about": "Prompt rows of a block; None: 10, in a hierarchy 16.",
    }
    assert found["prior.group_size"]["about"].startswith("Members of a patch")
    assert found["quirks.leak_rows"]["default"] is False
    assert "other clouds" in found["quirks.leak_rows"]["about"]
    lora = {o["name"]: o for o in options("adaptations", "lora")}
    assert lora["rank"]["about"] == "Of the update."
    assert "Of the update." in cli("list", "adaptations", "lora").out


def test_a_name_that_is_none() -> None:
    ended = cli("list", "adaptations", "lorra")
    assert (ended.code, ended.out) == (0, "no adaptations match 'lorra'. Did you mean 'lora'?\n")


def test_weights_in_one_line_each_and_one_in_full() -> None:
    ended = cli("list", "weights")
    assert max(map(len, ended.out.splitlines())) <= 140
    assert "https://" not in ended.out
    assert "list weights NAME" in ended.err
    row = json.loads(cli("list", "weights", "--json").out)[1]
    text = cli("list", "weights", row["name"]).out
    for key in ("licence", "url", "load"):
        assert f"  {key}: {row[key]}" in text


@pytest.mark.parametrize(
    "config",
    [
        *[ADAPTATIONS.get(name)() for name in ADAPTATIONS],
        *[OBJECTIVES.get(name).config() for name in OBJECTIVES],
        *[build(MODELS.get(name).config, MODELS.get(name).sizes) for name in MODELS],
    ],
    ids=lambda config: type(config).__name__,
)
def test_everything_that_can_be_set_is_explained(config: Any) -> None:
    assert [o.name for o in options_of(config) if not o.about] == []
