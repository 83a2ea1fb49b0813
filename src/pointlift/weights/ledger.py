"""The ledger: every released checkpoint of the eight systems, where it is and how far it loads.

`python -m pointlift.weights.ledger > docs/ledger.md` writes the page.
"""

from __future__ import annotations

from collections.abc import Sequence

from pointlift.weights.entries import WEIGHTS, Weights
from pointlift.weights.later import LATER, NONE_PUBLISHED

OURS = "pointlift"  # heading of what comes with the package


def ledger() -> dict[str, Weights]:
    """All known checkpoints by name: those that `create_model` takes by name first, then those of later systems."""
    return {name: WEIGHTS.get(name) for name in WEIGHTS} | {entry.name: entry for entry in LATER}


def known_weights(name: str) -> Weights | None:
    """The entry of this name, of a system that is built or not; None for other names."""
    return ledger().get(name)


def scores(entry: Weights) -> str:
    """Reported scores as people write them."""
    return ", ".join(f"{name.replace('/', ' ')} {100 * value:.2f} %" for name, value in entry.reported.items())


def ledger_page() -> str:
    """`docs/ledger.md`."""
    systems = list(dict.fromkeys([*(entry.system or OURS for entry in ledger().values()), *NONE_PUBLISHED]))
    return "\n\n".join([_HEAD, *(_section(system) for system in systems), _LEGEND]) + "\n"


_HEAD = """# Ledger of released checkpoints

Written by `python -m pointlift.weights.ledger > docs/ledger.md`; a test holds the page to what that says. The same
facts: `pointlift list weights`, `pointlift info NAME`.

| load | means |
|---|---|
| keys verified | our loader takes every tensor of the released class's key list (`tests/parity/files`) |
| not built yet | the network comes with a later version |
| file not obtainable here | nobody here had the file in hand: its keys are those that the released code writes |
| announced, never published | the authors' page has no working link |

Scores are those that the authors report, on the official data, mostly with the epoch chosen on the test split."""


def _section(system: str) -> str:
    entries = [entry for entry in ledger().values() if (entry.system or OURS) == system]
    if not entries:
        return f"## {system}\n\nNo checkpoint was published: {NONE_PUBLISHED[system]}."
    papers = ", ".join(f"arXiv {paper}" for paper in dict.fromkeys(e.paper for e in entries if e.paper))
    licences = _grouped([(entry.name, entry.licence) for entry in entries])
    quirks = _grouped([(entry.name, ", ".join(entry.quirks) or "none") for entry in entries])
    rows = (
        f"| `{e.name}` | {_file(e)} | {e.holds} | {e.status} | {scores(e) or '–'} | "
        f"{f'`{e.keys}`' if e.keys else '–'} | {e.note} |"
        for e in entries
    )
    table = "\n".join(
        ["| name | file | holds | load | reported | key list | |", "|---|---|---|---|---|---|---|", *rows]
    )
    return "\n\n".join(
        part for part in (f"## {system}", papers, f"Licence: {licences}.", table, f"Quirks: {quirks}.") if part
    )


def _file(entry: Weights) -> str:
    name = entry.file or "file"
    return f"[{name}]({entry.url})" if entry.published and entry.url.startswith("https:") else name


def _grouped(pairs: Sequence[tuple[str, str]]) -> str:
    """`X` where it is so for all, else `a, b: X; c: Y`."""
    groups: dict[str, list[str]] = {}
    prefixes = {name.partition(".")[0] for name, _ in pairs}
    for name, value in pairs:
        groups.setdefault(value, []).append(f"`{name if len(prefixes) > 1 else name.partition('.')[2]}`")
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{', '.join(names)}: {value}" for value, names in groups.items())


_LEGEND = """## Quirks by name

| quirk | what the released code does |
|---|---|
| skip_near_origin | sampling never picks points within 0.0316 of the origin |
| fps_ties | exact ties in sampling are resolved by thread order, not by the lowest index |
| leak_first | under a mask, token 0 of the first cloud is visible at the finer levels |
| see_padding | under a mask, tokens near the origin attend to padding: results depend on the batch |
| features_as_pretrained | features of the pre-trained network come from a pass of pre-training that hides nothing |
| max_skips_first | the maximum of the pooled features passes over the first token |
| stale_distances | two levels with equally many rows share distances |
| divergence_from_prior | the dVAE's divergence is taken from the prior to the codes |
| noise_in_eval | the dVAE draws codes by Gumbel noise in evaluation too |

`--quirks paper` switches them off for one evaluation, and the record says so."""


if __name__ == "__main__":
    print(ledger_page(), end="")
