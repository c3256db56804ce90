import numpy as np
import pytest
from atlas_objects import cloud, gaussians
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.interchange.fixed_count import fixed_count
from gaussianverse.atlas.interchange.ply import INVISIBLE, read_ply, write_ply
from gaussianverse.atlas.padding import prune


@given(given_count=st.integers(1, 40), count=st.integers(1, 100))
def test_always_as_many(given_count: int, count: int) -> None:
    g = gaussians(cloud("volume", given_count))
    fixed = fixed_count(g, count)
    assert len(fixed) == count
    live = fixed.opacities > 0
    assert live.sum() == min(given_count, count)
    kept = g[prune(g, count)]
    np.testing.assert_array_equal(fixed.means[live], kept.means)
    np.testing.assert_array_equal(fixed.opacities[live], kept.opacities)
    # padding stays invisible after a round trip through PLY
    assert (read_ply(write_ply(fixed)).opacities > INVISIBLE).sum() == live.sum()


def test_duplicates_are_of_the_smallest_and_cycle() -> None:
    g = gaussians(cloud("volume", 4))
    order = np.argsort(g.scales.astype(np.float64).mean(axis=1))
    np.testing.assert_array_equal(fixed_count(g, 10).means[4:], g.means[np.r_[order, order[:2]]])


def test_the_largest_stay() -> None:
    g = gaussians(cloud("volume", 3000))
    dropped = np.setdiff1d(np.arange(3000), prune(g, 1024))
    kept = fixed_count(g, 1024)
    assert kept.scales.mean(axis=1).min() >= g.scales[dropped].mean(axis=1).max()


def test_nothing_of_nothing() -> None:
    with pytest.raises(AtlasError, match="cannot make 0 Gaussians of 5"):
        fixed_count(gaussians(cloud("volume", 5)), 0)
    with pytest.raises(AtlasError, match="cannot make 5 Gaussians of 0"):
        fixed_count(gaussians(np.zeros((0, 3))), 5)
