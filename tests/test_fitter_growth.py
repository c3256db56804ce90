"""Growth into empty cells, pruning of faint anchors, and the bound after an adjust step."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.fitter.anchors import Anchors, Decoded, make_anchors
from gaussianverse.fitter.config import RANKINGS, GrowthConfig
from gaussianverse.fitter.growth import Statistics, bounded, grow, observe, screen_gradient, survivors

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


def test_only_what_was_drawn_in_more_than_half_of_the_judged_share_grows() -> None:
    anchors, statistics = state(50, 1)
    statistics.gradient[:] = 1e6
    least = 0.5 * CONFIG.success * 100
    for drawn, grows in ((least - 1, False), (least, False), (least + 1, True)):
        statistics.drawn[:] = drawn
        fresh = grow(anchors, statistics, CONFIG, 100, torch.Generator().manual_seed(0))
        assert (len(fresh["positions"]) > 0) == grows


def apart(count: int) -> tuple[Anchors, Statistics]:
    """Anchors with one offset each, which propose different empty cells."""
    g = torch.Generator().manual_seed(0)
    places = torch.arange(count)[:, None] * torch.tensor([1.0, 0, 0])
    anchors = make_anchors(places, torch.ones(count), 1, 8, g)
    anchors.offsets.data[:] = torch.tensor([0.0, 0.5, 0.0])
    statistics = Statistics.empty(anchors)
    statistics.drawn += 100
    return anchors, statistics


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_each_finer_grid_passes_over_half_as_many_at_random(level: int, seed: int) -> None:
    count, share = 4000, 1 - 0.5 ** (level + 1)
    anchors, statistics = apart(count)
    statistics.gradient += 100.0
    # the coarser grids are one cell, which is taken
    config = dataclasses.replace(CONFIG, cells=(*[10**7] * level, 10))
    grown = len(grow(anchors, statistics, config, 100, torch.Generator().manual_seed(seed))["positions"])
    # five deviations of a binomial draw, 0.03 to 0.04 of all; the shares of two grids are 0.125 apart or more
    assert abs(grown / count - share) < 5 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_threshold_on_the_mean_gradient_doubles_with_each_finer_grid(level: int) -> None:
    anchors, statistics = apart(400)
    config = dataclasses.replace(CONFIG, cells=(*[10**7] * level, 10), gradient_threshold=2.0**-10)
    threshold = 2.0 ** (level - 10)
    statistics.drawn[:200] += 28  # a mean over the views that drew it, however many
    for mean, grows in ((0.99 * threshold, False), (threshold, True)):
        statistics.gradient = mean * statistics.drawn
        fresh = grow(anchors, statistics, config, 100, torch.Generator().manual_seed(0))
        assert (len(fresh["positions"]) > 0) == grows
    assert {*(fresh["positions"][:, 0] < 200).tolist()} == {True, False}
    torch.testing.assert_close(torch.exp(fresh["scalings"]), torch.full((len(fresh["positions"]), 6), 0.1))
    torch.testing.assert_close(fresh["positions"][:, 1], torch.full((len(fresh["positions"]),), 0.5))


def test_offsets_that_are_gone_do_not_ask() -> None:
    anchors, statistics = apart(100)
    statistics.gradient += 100.0
    anchors.alive[::2] = False
    config = dataclasses.replace(CONFIG, cells=(10,))
    fresh = grow(anchors, statistics, config, 100, torch.Generator().manual_seed(0))
    assert {int(x) % 2 for x in fresh["positions"][:, 0].round()} == {1}


def cameras(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Viewmats of cameras side by side that look along z, and Ks of 20 x 10 pixels with focal length 10."""
    viewmats = torch.eye(4).repeat(count, 1, 1)
    viewmats[:, 0, 3] = 0.25 * torch.arange(count)
    return viewmats, torch.tensor([[10.0, 0, 10], [0, 10, 5], [0, 0, 1]]).repeat(count, 1, 1)


def test_what_is_observed_are_sums_over_the_views_that_could_see_and_that_drew() -> None:
    g = torch.Generator().manual_seed(0)
    places = torch.tensor(
        [
            [0.0, 0, 1], [-1.1, 0, 1], [0.9, 0, 1], [0.6, 0, 1], [0, 0.49, 1], [0, 0.51, 1], [0, -0.51, 1],
            [0, 0, -1], [0, 0, 0.009], [0, 0, 0.011], [-1, 0, 1], [1, 0, 1], [0, 0.5, 1], [0, -0.5, 1],
            [0.9, 0, 2], [0, 0.9, 2], [-0.45, 0, 0.5], [0, 0.4, 0.5],
        ]
    )  # fmt: skip
    anchors = make_anchors(places, torch.ones(len(places)), 3, 8, g)
    opacities = 2 * torch.rand((len(places), 3), generator=g) - 1
    source = (opacities.reshape(-1) > 0).nonzero()[:, 0]
    viewmats, Ks = cameras(3)
    statistics = Statistics.empty(anchors)
    seen, visibility, gradient, drawn = (torch.zeros(len(places), 3) for _ in range(4))
    for _ in range(2):
        means2d = torch.zeros((3, len(source), 2))
        means2d.grad = torch.randn((3, len(source), 2), generator=g)
        radii = torch.randint(0, 2, (3, len(source), 2), generator=g)
        nothing = torch.empty(0)
        decoded = Decoded(nothing, nothing, nothing, nothing, nothing, source)
        observe(statistics, anchors, decoded, opacities, {"means2d": means2d, "radii": radii}, viewmats, Ks, 20, 10)
        for view in range(3):
            for a, place in enumerate(places):
                x, y, z = (place + viewmats[view, :3, 3]).tolist()
                if z > 0.01 and -z < x < z and -z < 2 * y < z:
                    seen[a] += 1
                    visibility[a] += opacities[a].clamp(min=0)
            for row, place in enumerate(source.tolist()):
                if radii[view, row].min() > 0:
                    du, dv = (3 * means2d.grad[view, row] * torch.tensor([10.0, 5.0])).tolist()
                    gradient.view(-1)[place] += math.hypot(du, dv)
                    drawn.view(-1)[place] += 1
    assert set(seen[:, 0].tolist()) == {0, 2, 4, 6}
    assert statistics.seen.tolist() == seen[:, 0].tolist()
    torch.testing.assert_close(statistics.visibility, visibility)
    torch.testing.assert_close(statistics.gradient, gradient)
    assert statistics.drawn.tolist() == drawn.tolist()


@pytest.mark.parametrize(("count", "finer"), [(1, 1), (3, 1), (1, 4), (3, 4)])
def test_a_screen_gradient_depends_neither_on_pixels_nor_on_the_number_of_cameras(count: int, finer: int) -> None:
    """The loss is a mean over cameras of points in pixels."""
    width, height = 20 * finer, 10 * finer
    means2d = (torch.tensor([[5.0, 4.0], [12.0, 9.0]]) * finer).repeat(count, 1, 1).requires_grad_()
    (means2d / torch.tensor([width, height])).square().sum((1, 2)).mean().backward()
    # in half images the loss is |h / 2|^2 and its gradient h / 2
    expected = torch.tensor([math.hypot(5 / 20, 4 / 10), math.hypot(12 / 20, 9 / 10)])
    torch.testing.assert_close(screen_gradient(means2d, width, height), expected.repeat(count, 1))


def test_visibility_is_a_mean_over_the_views_that_saw_the_anchor() -> None:
    anchors, _ = state(3, 0)
    statistics = Statistics.empty(anchors)
    assert not any(field.any() for field in dataclasses.astuple(statistics))
    statistics.seen[:] = torch.tensor([0.0, 1, 4])
    statistics.visibility[1:] = torch.tensor([[0.1, 0.2, 0.3, 0.4], [4.0, 0.0, 1.0, 2.0]])
    opacities = torch.tensor([0.5, -0.5, 0.25, -1]).repeat(3, 1)
    torch.testing.assert_close(statistics.anchor_visibility, torch.tensor([0, 1, 7 / 4]))
    # the first was not seen, so its current opacities count
    torch.testing.assert_close(
        statistics.mean_visibility(opacities),
        torch.tensor([[0.5, 0, 0.25, 0], [0.1, 0.2, 0.3, 0.4], [1, 0, 0.25, 0.5]]),
    )


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


def test_an_anchor_is_judged_beyond_a_share_of_the_steps_and_kept_at_the_least_opacity() -> None:
    anchors, statistics = state(6, 4)
    config = dataclasses.replace(CONFIG, success=0.5, min_opacity=0.25)
    statistics.seen[:] = torch.tensor([50.0, 51, 60, 60, 60, 60])
    statistics.visibility[:] = 0
    statistics.visibility[2, :2] = torch.tensor([10.0, 5])  # the sum over its offsets is a quarter of 60
    statistics.visibility[3, :2] = torch.tensor([10.0, 4.75])
    statistics.visibility[4:] = 60
    anchors.alive[4, 1:] = False
    anchors.alive[5] = False
    assert survivors(anchors, statistics, config, 100).tolist() == [True, False, True, False, True, False]


def test_an_anchor_that_no_view_has_met_is_ranked_by_its_present_opacities() -> None:
    anchors, statistics = state(40, 5)
    opacities = anchors.opacities().clamp(min=0)
    statistics.seen[::2] = 0
    statistics.visibility[::2] = 0
    # sums of seen anchors equal their opacities, so the result must not depend on which were seen
    met = bounded(anchors, state(40, 5)[1], 30, "gaussian+anchor", torch.Generator())
    after = bounded(anchors, statistics, 30, "gaussian+anchor", torch.Generator())
    assert after.alive.tolist() == met.alive.tolist()
    kept = after.alive & (opacities > 0)
    assert int(kept.sum()) == 30
    assert opacities[kept].mean() > opacities[(opacities > 0) & ~kept].mean()


def test_offsets_without_opacity_are_no_part_of_the_bound_and_stay_alive() -> None:
    anchors, statistics = state(40, 6)
    exists = anchors.opacities() > 0
    after = bounded(anchors, statistics, 10, "gaussian", torch.Generator())
    assert after.alive[~exists].all()
    assert int((after.alive & exists).sum()) == 10


def test_faint_anchors_go_once_they_were_seen_often_enough() -> None:
    anchors, statistics = state(6, 4)
    statistics.visibility[:] = 100 * 0.5
    statistics.visibility[0] = 100 * 0.001
    statistics.visibility[1] = 0
    statistics.seen[1] = 0.5 * CONFIG.success * 100
    anchors.alive[2] = False
    assert survivors(anchors, statistics, CONFIG, 100).tolist() == [False, True, False, True, True, True]


@given(st.integers(1, 60), st.integers(1, 240), st.integers(0, 50), st.sampled_from(RANKINGS), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_the_bound_holds_for_any_state(count: int, tau: int, seed: int, ranking: str, share: float) -> None:
    anchors, statistics = state(count, seed)
    g = torch.Generator().manual_seed(seed)
    # some anchors were not seen, some offsets are dead
    statistics.seen[torch.rand(count, generator=g) < share] = 0
    anchors.alive &= torch.rand(anchors.alive.shape, generator=g) > share / 2
    existing, before = int((anchors.opacities() > 0).sum()), anchors.alive.clone()
    after = bounded(anchors, statistics, tau, ranking, g)
    assert len(after.decode().means) == min(tau, existing)
    assert not (after.alive & ~before).any()
