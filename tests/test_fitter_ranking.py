"""Visibility ranking: the bound holds for any state, and the offsets dropped are those of the paper."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.fitter.ranking import drop_to_bound

RANKINGS = ("gaussian+anchor", "gaussian", "opacity", "random", "none")


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 200), st.sampled_from(RANKINGS), st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_the_bound_holds(count: int, k: int, tau: int, ranking: str, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    alive = torch.rand((count, k), generator=g) > 0.3
    own = torch.round(4 * torch.rand((count, k), generator=g))  # many ties
    kept = drop_to_bound(alive, tau, own, own.mean(1), own, ranking, g)
    assert int(kept.sum()) == min(tau, int(alive.sum()))
    assert not (kept & ~alive).any()


def test_ranks_are_averaged_and_ties_share_them() -> None:
    alive = torch.ones((2, 2), dtype=torch.bool)
    own = torch.tensor([[0.9, 0.1], [0.5, 0.4]])
    anchor = torch.tensor([0.2, 0.8])
    # own ranks 4, 1, 3, 2; anchor ranks 1.5, 1.5, 3.5, 3.5; sums 5.5, 2.5, 6.5, 5.5
    kept = drop_to_bound(alive, 3, own, anchor, own, "gaussian+anchor", torch.Generator())
    assert kept.tolist() == [[True, False], [True, True]]
    # of the two sums of 5.5 the lower index goes first
    kept = drop_to_bound(alive, 2, own, anchor, own, "gaussian+anchor", torch.Generator())
    assert kept.tolist() == [[False, False], [True, True]]
    # by its own visibility alone, 0.9 is the best of all
    kept = drop_to_bound(alive, 1, own, anchor, own, "gaussian", torch.Generator())
    assert kept.tolist() == [[True, False], [False, False]]


def test_unknown_ranking_is_refused() -> None:
    alive = torch.ones((2, 2), dtype=torch.bool)
    with pytest.raises(ValueError, match="'best'"):
        drop_to_bound(alive, 1, alive.float(), alive.float()[:, 0], alive.float(), "best", torch.Generator())
