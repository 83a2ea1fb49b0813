"""Masks that agree across levels, and visible tokens as padded rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pointlift.core.errors import UsageError
from pointlift.layers.visible import Visible, hide_all_but_members, most_shown


@pytest.fixture
def hidden() -> Tensor:
    """Three clouds of seven tokens that show 3, 1 and 5 of them."""
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, [1, 4, 6]] = mask[1, [3]] = mask[2, [0, 2, 3, 4, 5]] = False
    return mask


@pytest.mark.parametrize("leak", [False, True])
def test_a_token_is_visible_when_it_belongs_to_a_visible_group(leak: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(4, 6, generator=generator) < 0.6
    members = torch.randint(20, (4, 6, 3), generator=generator)
    mask = hide_all_but_members(hidden, members, 20, leak_first=leak)
    for b in range(4):
        wanted = {int(m) for g in range(6) if not hidden[b, g] for m in members[b, g]}
        if leak and b == 0:
            wanted |= {0}
        assert set((~mask[b]).nonzero().flatten().tolist()) == wanted


def test_nothing_leaks_where_nothing_is_hidden() -> None:
    members = torch.tensor([[[1, 2]]])
    mask = hide_all_but_members(torch.zeros(1, 1, dtype=torch.bool), members, 4, leak_first=True)
    assert mask.tolist() == [[True, False, False, True]]


@pytest.mark.parametrize("length", [5, 7])
def test_rows_are_the_visible_tokens_in_order(hidden: Tensor, length: int) -> None:
    tokens = torch.arange(1, 22, dtype=torch.float).view(3, 7, 1)
    view = Visible.of(hidden, length)
    rows = view.take(tokens)
    assert rows.shape == (3, length, 1)
    for row, valid, token, mask in zip(rows, view.valid, tokens, hidden, strict=True):
        shown = token[~mask]
        assert torch.equal(row[: len(shown)], shown)
        assert not row[len(shown) :].any()
        assert valid.tolist() == [True] * len(shown) + [False] * (length - len(shown))


@pytest.mark.parametrize("length", [5, 7])
def test_rows_go_back_to_their_places(hidden: Tensor, length: int) -> None:
    tokens = torch.randn(3, 7, 2)
    view = Visible.of(hidden, length)
    rows = torch.full((3, length, 2), 9.0, requires_grad=True)
    grid = view.put(tokens, rows)
    assert (grid[~hidden] == 9).all()
    assert torch.equal(grid[hidden], tokens[hidden])
    grid.sum().backward()
    assert torch.equal(rows.grad[..., 0] > 0, view.valid)
    assert torch.equal(view.put(tokens, view.take(tokens)), tokens)


def test_what_is_no_mask(hidden: Tensor) -> None:
    tokens = torch.zeros(3, 7, 2)
    assert most_shown(hidden, tokens) == 5
    with pytest.raises(UsageError, match=r"torch\.float32 mask \(3, 7\).*bool \(3, 7\)"):
        most_shown(hidden.float(), tokens)
    with pytest.raises(UsageError, match=r"bool \(3, 6\)"):
        most_shown(hidden, tokens[:, :6])
    with pytest.raises(UsageError, match="hides every patch of a cloud"):
        most_shown(hidden | torch.tensor([[True], [False], [False]]), tokens)
