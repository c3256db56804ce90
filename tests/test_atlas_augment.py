"""Augmenting paths from an empty assignment: exact without an auction before them."""

import numpy as np
import pytest
from atlas_objects import SHAPES, cloud
from scipy.optimize import linear_sum_assignment

from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport.augment import DUMMY, FREE, augment
from gaussianverse.atlas.transport.blocks import build_blocks, settle

FILLING = -3


def from_nothing(bidders: np.ndarray, points: np.ndarray, reach: float, patience: int = 2**62):  # type: ignore[no-untyped-def]
    """Release all bidders at prices of 0; the dummy holds the remaining places."""
    count = len(bidders)
    blocks, order = build_blocks(points)
    placed = np.stack([blocks.x.ravel(), blocks.y.ravel(), blocks.z.ravel()], axis=1)
    real = order < len(points)
    owner = np.where(real, DUMMY, FILLING)
    held = np.flatnonzero(real)[:count]
    owner[held] = FREE
    settle(blocks, bidders, owner)
    value = bidders @ placed.T
    profits = value[:, real].max(axis=1)
    reserves = np.zeros(len(order))
    done, level = augment(
        blocks, bidders, profits, np.arange(count), reserves, held, owner, reach, patience
    )  # fmt: skip
    return done, level, value, blocks.prices.ravel(), profits, held, owner, real


@pytest.mark.parametrize("reach", [1e-9, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("count", "sites"), [(100, 160), (256, 256)])
def test_exact_with_feasible_duals(shape: str, count: int, sites: int, reach: float) -> None:
    bidders, points = cloud(shape, count), fibonacci_sphere(sites)
    done, level, value, prices, profits, held, owner, real = from_nothing(bidders, points, reach)
    assert done == count
    assert len(np.unique(held)) == count
    np.testing.assert_array_equal(owner[held], np.arange(count))
    best = value[:, real]
    best = best[linear_sum_assignment(best, maximize=True)].sum()
    np.testing.assert_allclose(value[np.arange(count), held].sum(), best, rtol=0, atol=1e-11)
    # optimality by the duals: no pair's value exceeds its prices, and pairs that hold are tight
    slack = profits[:, None] + prices[real] - value[:, real]
    assert slack.min() >= -1e-12
    np.testing.assert_allclose(profits + prices[held], value[np.arange(count), held], rtol=0, atol=1e-12)
    assert (prices[real] >= level - 1e-12).all() or count == sites
    np.testing.assert_allclose(prices[owner == DUMMY], level, rtol=0, atol=1e-12)


def test_no_new_path_is_begun_when_patience_is_over() -> None:
    done, _, _, _, _, held, owner, _ = from_nothing(cloud("volume", 100), fibonacci_sphere(160), 1.0, patience=50)
    assert 0 < done < 100
    np.testing.assert_array_equal(owner[held[:done]], np.arange(done))
    assert (owner == FREE).sum() == 100 - done
