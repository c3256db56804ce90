"""One auction phase: epsilon-complementary slackness, checked against all pairs."""

import numpy as np
import pytest
from atlas_objects import SHAPES, cloud
from scipy.optimize import linear_sum_assignment

from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport.auction import auction
from gaussianverse.atlas.transport.blocks import build_blocks, settle


def bid(bidders: np.ndarray, points: np.ndarray, reserves: np.ndarray, epsilon: float, kept: int = 2):  # type: ignore[no-untyped-def]
    blocks, order = build_blocks(points)
    profits, held = np.full(len(bidders), np.inf), np.full(len(bidders), -1)
    owner = np.full(len(order), -1)
    settle(blocks, bidders, owner)
    hints = np.full(len(bidders), -1)
    bids = auction(
        blocks, bidders, profits, reserves, np.arange(len(bidders)), held, owner, hints, epsilon, kept
    )  # fmt: skip
    placed = np.stack([blocks.x.ravel(), blocks.y.ravel(), blocks.z.ravel()], axis=1)
    return bids, bidders @ placed.T, blocks.prices.ravel(), profits, held, owner, order


@pytest.mark.parametrize("kept", [2, 4])
@pytest.mark.parametrize("epsilon", [0.1, 1e-2, 1e-4])
@pytest.mark.parametrize("shape", SHAPES)
def test_everybody_holds_a_point_within_epsilon_of_the_best(shape: str, epsilon: float, kept: int) -> None:
    bidders, points = cloud(shape, 200), fibonacci_sphere(300)
    no_reserve = np.full(200, -np.inf)
    bids, value, prices, profits, held, owner, order = bid(bidders, points, no_reserve, epsilon, kept)
    assert bids >= 200
    assert (held >= 0).all()
    assert (order[held] < 300).all()
    assert len(np.unique(held)) == 200
    np.testing.assert_array_equal(owner[held], np.arange(200))
    assert (owner >= 0).sum() == 200
    net = value - prices
    got = net[np.arange(200), held]
    assert (got >= net.max(axis=1) - epsilon - 1e-12).all()
    np.testing.assert_allclose(profits, got, atol=1e-12)
    # the prices of points without a holder are unchanged
    assert (prices[(owner < 0) & (order < 300)] == 0).all()


def test_a_square_auction_is_within_n_epsilon_of_the_optimum() -> None:
    bidders, points = cloud("volume", 256), fibonacci_sphere(256)
    for epsilon in (1e-2, 1e-4):
        _, value, _, _, held, _, _ = bid(bidders, points, np.full(256, -np.inf), epsilon)
        best = value[linear_sum_assignment(value, maximize=True)].sum()
        got = value[np.arange(256), held].sum()
        assert best - 256 * epsilon <= got <= best + 1e-12


def test_bidders_are_content_with_their_reserve() -> None:
    bidders, points = cloud("volume", 100), fibonacci_sphere(300)
    reserves = np.full(100, -np.inf)
    reserves[::2] = 10.0
    _, _, _, profits, held, _, _ = bid(bidders, points, reserves, 1e-3)
    assert (held[::2] == -1).all()
    assert (profits[::2] == 10.0).all()
    assert (held[1::2] >= 0).all()


@pytest.mark.parametrize("kept", [3, 4, 8])
def test_the_few_that_are_kept_change_no_bid(kept: int) -> None:
    bidders, points = cloud("volume", 256), fibonacci_sphere(256)
    reserves = np.full(256, -np.inf)
    for searched, remembered in zip(
        bid(bidders, points, reserves, 1e-3), bid(bidders, points, reserves, 1e-3, kept), strict=True
    ):
        np.testing.assert_allclose(remembered, searched, rtol=0, atol=1e-13)
