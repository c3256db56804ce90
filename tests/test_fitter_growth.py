"""Growth into empty cells, pruning of the faint, and the bound after an adjust step."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.fitter.anchors import Anchors, make_anchors
from gaussianverse.fitter.config import RANKINGS, GrowthConfig
from gaussianverse.fitter.growth import Statistics, bounded, grow, survivors

CONFIG = GrowthConfig(voxel=0.01)


def state(count: int, seed: int) -> tuple[Anchors, Statistics]:
    g = torch.Generator().manual_seed(seed)
    anchors = make_anchors(torch.rand((count, 3), generator=g), torch.full((count,), 0.1), 4, 8, g)
    statistics = Statistics.empty(anchors)
    statistics.seen += 100
    statistics.drawn += 100
    statistics.visibility += 100 * anchors.opacities().clamp(min=0)
    return anchors, statistics


def cells(positions: torch.Tensor, side: float) -> set[tuple[int, ...]]:
    return {tuple(row) for row in torch.round(positions / side).long().tolist()}


def test_only_steep_offsets_grow_and_only_into_empty_cells() -> None:
    anchors, statistics = state(50, 1)
    assert len(grow(anchors, statistics, CONFIG, 100, torch.Generator())["positions"]) == 0
    statistics.gradient[:10] = 100 * 1e-3  # mean 1e-3: over the threshold of every level
    fresh = grow(anchors, statistics, CONFIG, 100, torch.Generator().manual_seed(0))
    assert len(fresh["positions"]) > 10
    sides = torch.exp(fresh["scalings"][:, 0])
    for voxels in CONFIG.cells:
        side = CONFIG.voxel * voxels
        own = fresh["positions"][torch.isclose(sides, torch.tensor(side))]
        assert len(cells(own, side)) == len(own)
        assert not cells(own, side) & cells(anchors.positions, side)


def test_finer_grids_grow_when_the_coarse_one_is_full() -> None:
    anchors, statistics = state(4, 2)
    anchors.positions[:] = 0
    anchors.offsets.data.fill_(0.3)  # 0.3 x 0.1: in the same 0.16 cell as the anchor, another 0.01 cell
    statistics.gradient[:] = 100 * 1e-2
    fresh = grow(anchors, statistics, CONFIG, 100, torch.Generator().manual_seed(0))
    assert len(fresh["positions"]) > 0
    assert torch.exp(fresh["scalings"]).max() < 0.05


def test_what_was_rarely_drawn_does_not_grow() -> None:
    anchors, statistics = state(50, 1)
    statistics.drawn[:] = 0.5 * CONFIG.success * 100
    statistics.gradient[:] = 1e3
    assert len(grow(anchors, statistics, CONFIG, 100, torch.Generator())["positions"]) == 0


def test_new_features_are_the_largest_of_the_proposers() -> None:
    anchors, statistics = state(2, 3)
    anchors.positions[:] = torch.tensor([[0.0, 0, 0], [0.001, 0, 0]])
    anchors.offsets.data.zero_()
    anchors.offsets.data[..., 0] = 5.0  # both propose the cell about 0.5
    statistics.gradient[:] = 1e3
    config = dataclasses.replace(CONFIG, cells=(16,))
    fresh = grow(anchors, statistics, config, 100, torch.Generator().manual_seed(1))
    assert len(fresh["positions"]) == 1
    torch.testing.assert_close(fresh["features"][0], anchors.features.amax(0))


def test_faint_anchors_go_once_they_were_seen_often_enough() -> None:
    anchors, statistics = state(6, 4)
    statistics.visibility[:] = 100 * 0.5
    statistics.visibility[0] = 100 * 0.001
    statistics.visibility[1] = 0
    statistics.seen[1] = 0.5 * CONFIG.success * 100
    anchors.alive[2] = False
    assert survivors(anchors, statistics, CONFIG, 100).tolist() == [False, True, False, True, True, True]


@given(
    st.integers(1, 60), st.integers(1, 240), st.integers(0, 50), st.sampled_from(RANKINGS), st.floats(0, 1)
)
@settings(max_examples=200, deadline=None)
def test_the_bound_holds_for_any_state(count: int, tau: int, seed: int, ranking: str, share: float) -> None:
    anchors, statistics = state(count, seed)
    g = torch.Generator().manual_seed(seed)
    # some anchors no view has met, some offsets are gone
    statistics.seen[torch.rand(count, generator=g) < share] = 0
    anchors.alive &= torch.rand(anchors.alive.shape, generator=g) > share / 2
    existing, before = int((anchors.opacities() > 0).sum()), anchors.alive.clone()
    after = bounded(anchors, statistics, tau, ranking, g)
    assert len(after.decode().means) == min(tau, existing)
    assert not (after.alive & ~before).any()
