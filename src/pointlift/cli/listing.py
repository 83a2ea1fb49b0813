"""`pointlift list KIND [PATTERN]`: everything that has a name; of one name alone, what can be set."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from pointlift.cli.output import print_entries, print_json, print_options, print_table, say
from pointlift.core.errors import did_you_mean

_WIDE = 160  # characters of a row that no terminal shows in one line


class Kind(StrEnum):
    models = "models"
    weights = "weights"
    adaptations = "adaptations"
    objectives = "objectives"
    sources = "sources"
    datasets = "datasets"
    recipes = "recipes"


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    pattern: Annotated[str | None, typer.Argument(help="Shell pattern: '*mae*'; or one name, for its details.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Everything that has a name; of one name, every option with its default and what it does."""
    every = _ROWS[kind]()
    rows = [r for r in every if pattern is None or fnmatch.fnmatch(r["name"], pattern)]
    one = rows[0] if [r["name"] for r in rows] == [pattern] else None
    options = None if one is None or kind not in _OPTIONS else _options(kind, one["name"])
    if json:
        print_json(rows if one is None or options is None else [one | {"options": options}])
    elif one is not None:
        print_entries(rows)
        if options is not None:
            print_options(_OPTIONS[kind], options)
    elif not rows:
        near = "" if pattern is None else did_you_mean(pattern, [r["name"] for r in every])
        print(f"no {kind.value}" + (f" match {pattern!r}.{near}" if pattern else " yet"))
    elif kind in _SHORT:
        print_table(_SHORT[kind], [[r[key].partition(";")[0] for key in _SHORT[kind]] for r in rows])
        say(f"`pointlift list {kind.value} NAME` says more of one")
    elif max(len("  ".join(map(str, r.values()))) for r in rows) > _WIDE:
        print_entries(rows)
    else:
        print_table(list(rows[0]), [list(r.values()) for r in rows])


# What a line says of kinds of which more is known than anybody reads at once.
_SHORT = {Kind.weights: ("name", "holds", "load", "reported")}
# How the options of a kind are given.
_OPTIONS = {
    Kind.models: "--model.options",
    Kind.adaptations: "--adaptation.options",
    Kind.objectives: "--objective.options",
}


def _options(kind: Kind, name: str) -> list[dict[str, Any]]:
    """Name, default and meaning of everything that can be set about one model, adaptation or objective."""
    from pointlift.core.config import build
    from pointlift.core.options import options_of

    config: Any
    if kind is Kind.models:
        from pointlift.models.registry import MODELS

        config = build(MODELS.get(name).config, MODELS.get(name).sizes)
    elif kind is Kind.adaptations:
        from pointlift.adapt.registry import ADAPTATIONS

        config = ADAPTATIONS.get(name)()
    else:
        from pointlift.pretrain.registry import OBJECTIVES

        config = OBJECTIVES.get(name).config()
    return [{"name": o.name, "default": o.default, "about": o.about} for o in options_of(config)]


def _models() -> list[dict[str, Any]]:
    from pointlift.models.registry import MODELS

    return [{"name": n, "about": MODELS.get(n).about, "paper": MODELS.get(n).paper} for n in MODELS]


def _weights() -> list[dict[str, Any]]:
    from pointlift.weights.ledger import ledger, scores

    return [
        {
            "name": e.name,
            "holds": e.holds,
            "load": e.status,
            "licence": e.licence,
            "url": e.url,
            "reported": scores(e),
            "quirks": ", ".join(e.quirks),
            "note": e.note,
        }
        for e in ledger().values()
    ]


def _adaptations() -> list[dict[str, Any]]:
    from pointlift.adapt.registry import ADAPTATIONS

    kinds = {name: ADAPTATIONS.get(name) for name in ADAPTATIONS}
    return [
        {"name": name, "about": (kind.__doc__ or "").splitlines()[0], "paper": kind.paper}
        for name, kind in kinds.items()
    ]


def _objectives() -> list[dict[str, Any]]:
    from pointlift.pretrain.registry import OBJECTIVES

    return [{"name": n, "about": OBJECTIVES.get(n).about, "paper": OBJECTIVES.get(n).paper} for n in OBJECTIVES]


def _sources() -> list[dict[str, Any]]:
    return []  # frozen models of other modalities arrive with Any2Point


def _datasets() -> list[dict[str, Any]]:
    from pointlift.data import registered

    return [{"name": n, "about": e.title, "layout": e.layout, "get": e.get, "terms": e.terms} for n, e in registered()]


def _recipes() -> list[dict[str, Any]]:
    from pointlift.core.config import recipe_names, recipe_text

    return [{"name": n, "about": recipe_text(n)[0].splitlines()[0].lstrip("# ")} for n in recipe_names()]


_ROWS: dict[Kind, Callable[[], list[dict[str, Any]]]] = {
    Kind.models: _models,
    Kind.weights: _weights,
    Kind.adaptations: _adaptations,
    Kind.objectives: _objectives,
    Kind.sources: _sources,
    Kind.datasets: _datasets,
    Kind.recipes: _recipes,
}
