"""Exact transport compared with scipy's dense solver, and the certificate with dense arithmetic."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from atlas_objects import SHAPES, Floats, cloud
from fresh_and_cached import fresh_and_cached
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from gaussianverse.atlas.errors import TransportFailed
from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport import solver as transport
from gaussianverse.atlas.transport.solver import MAX_REL_GAP, Assignment, assign

SITES = 1024

SOLVES = """
import hashlib
from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport.solver import assign
from atlas_objects import SHAPES, cloud
digest = hashlib.sha256()
for shape in SHAPES:
    for count, sites in ((700, 1500), (500, 500)):
        result = assign(cloud(shape, count), fibonacci_sphere(sites))
        digest.update(result.indices.tobytes())
        digest.update(repr((result.primal, result.dual, result.rel_gap)).encode())
print(digest.hexdigest())
"""


@lru_cache
def sphere(count: int) -> Floats:
    return fibonacci_sphere(count)


def squared_distances(points: Floats, sites: Floats) -> Floats:
    """Squared distances from differences, without cancellation."""
    return ((points[:, None] - sites[None]) ** 2).sum(axis=2)


def energy(points: Floats, sites: Floats) -> float:
    return float(((points - points.mean(0)) ** 2).sum() + ((sites - sites.mean(0)) ** 2).sum())


def dual_bound(points: Floats, sites: Floats, indices: np.ndarray) -> float:
    """Lower bound on the cost of every assignment, by Bellman-Ford on the dense residual graph.

    Independent of the solver: shortest paths from an empty site (price 0) give prices that are feasible if,
    and only if, the assignment is optimal.
    """
    cost = squared_distances(points, sites)
    rows = np.arange(len(points))
    prices = np.zeros(len(sites))
    for _ in range(len(points) + 1):
        # each row's profit at its own place, then the lowest feasible price of every place
        profits = cost[rows, indices] + prices[indices]
        better = np.maximum(prices, (profits[:, None] - cost).max(axis=0))
        empty = np.setdiff1d(np.arange(len(sites)), indices)
        better[empty] = prices[empty]
        if np.allclose(better, prices, rtol=0, atol=1e-15):
            break
        prices = better
    profits = (cost + prices).min(axis=1)
    return float(profits.sum() - prices[indices].sum())


def check(points: Floats, sites: Floats) -> Assignment:
    """Assign, compare with scipy, and verify the certificate."""
    result = assign(points, sites)
    assert result.indices.dtype == np.int64
    assert len(np.unique(result.indices)) == len(points)
    assert result.indices.min() >= 0
    assert result.indices.max() < len(sites)
    cost = squared_distances(points, sites)
    rows = np.arange(len(points))
    ours = float(cost[rows, result.indices].sum())
    best = float(cost[linear_sum_assignment(cost)].sum())
    scale = max(best, energy(points, sites[result.indices]))
    assert abs(ours - best) <= 1e-12 * scale
    assert result.primal == pytest.approx(ours, rel=1e-12, abs=1e-300)
    assert result.dual <= best + 1e-12 * scale
    assert 0.0 <= result.rel_gap <= MAX_REL_GAP
    assert result.primal - result.dual <= MAX_REL_GAP * scale * (1 + 1e-9)
    return result


@settings(max_examples=150, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    count=st.one_of(st.integers(1, 20), st.integers(1, 600)),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-3, 1.0, 2.0, 1e3]),
    shift=st.sampled_from([0.0, 0.7, 100.0]),
)
def test_rectangular_costs_what_scipys_costs(shape: str, count: int, seed: int, scale: float, shift: float) -> None:
    points = cloud(shape, count, seed) * scale + [shift, 0.0, -shift]
    check(points, sphere(SITES))


@settings(max_examples=100, deadline=None)
@given(shape=st.sampled_from(SHAPES), count=st.integers(1, 300), seed=st.integers(0, 2**16))
def test_square_costs_what_scipys_costs(shape: str, count: int, seed: int) -> None:
    check(cloud(shape, count, seed), sphere(max(count, 2))[:count])


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.tuples(st.sampled_from(SHAPES), st.sampled_from(SHAPES)),
    count=st.integers(1, 150),
    more=st.integers(0, 150),
    seed=st.integers(0, 2**16),
)
def test_sites_need_not_be_a_sphere_nor_distinct(shapes: tuple[str, str], count: int, more: int, seed: int) -> None:
    check(cloud(shapes[0], count, seed), cloud(shapes[1], count + more, seed + 1))


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.tuples(*[st.floats(-1e3, 1e3, allow_subnormal=True)] * 3), min_size=1, max_size=40
    )
)  # fmt: skip
def test_whatever_numbers_hypothesis_thinks_of(values: list[tuple[float, float, float]]) -> None:
    check(np.array(values), sphere(64))


@pytest.mark.parametrize("shape", ["shell", "volume", "rod", "plate"])
def test_same_permutation_as_scipy_on_generic_points(shape: str) -> None:
    points, sites = cloud(shape, 1000), sphere(4096)
    found = assign(points, sites).indices
    np.testing.assert_array_equal(found, linear_sum_assignment(squared_distances(points, sites))[1])


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["shell", "volume"])
def test_same_permutation_as_scipy_at_4000_on_16384(shape: str) -> None:
    points, sites = cloud(shape, 4000), sphere(16_384)
    found = assign(points, sites).indices
    # ordered like the squared distance (the sites are unit vectors), with a fifth of the memory
    np.testing.assert_array_equal(found, linear_sum_assignment(-points @ sites.T)[1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("count", "sites"), [(120, 200), (150, 150)])
def test_certificate_agrees_with_a_dense_one(shape: str, count: int, sites: int) -> None:
    points, places = cloud(shape, count), sphere(sites)
    result = assign(points, places)
    bound = dual_bound(points, places, result.indices)
    scale = max(result.primal, energy(points, places[result.indices]))
    assert bound <= result.primal + 1e-12 * scale
    assert result.primal - bound <= 1e-12 * scale
    assert abs(result.dual - bound) <= 1e-12 * scale


def test_dense_certificate_notices_one_swap() -> None:
    """The check above can fail: exchanging two neighbours is not optimal, and no prices certify it."""
    points, places = cloud("volume", 120), sphere(200)
    indices = assign(points, places).indices.copy()
    indices[[3, 4]] = indices[[4, 3]]
    cost = float(((points - places[indices]) ** 2).sum())
    assert cost - dual_bound(points, places, indices) > 1e-6 * cost


@pytest.mark.parametrize("shape", SHAPES)
def test_repeated_runs_are_equal(shape: str) -> None:
    points, sites = cloud(shape, 700), sphere(1500)
    first, second = assign(points, sites), assign(points.copy(), sites.copy())
    np.testing.assert_array_equal(first.indices, second.indices)
    assert (first.primal, first.dual, first.rel_gap) == (second.primal, second.dual, second.rel_gap)


def test_blocks_of_sites_seen_before_are_as_new() -> None:
    points, sites = cloud("volume", 700), sphere(1500)
    first = assign(points, sites)
    assign(cloud("rod", 900), sites)
    again = assign(points, sites)
    transport._blocks_of.cache_clear()
    anew = assign(points, sites)
    for other in (again, anew):
        np.testing.assert_array_equal(other.indices, first.indices)
        assert (other.primal, other.dual, other.rel_gap) == (first.primal, first.dual, first.rel_gap)


def test_compiled_now_or_before_the_answer_has_the_same_bits(tmp_path: Path) -> None:
    fresh, cached = fresh_and_cached(SOLVES, tmp_path)
    assert len(fresh) == 65
    assert fresh == cached


def test_order_of_generic_points_does_not_matter() -> None:
    points, sites = cloud("volume", 500), sphere(900)
    order = np.random.default_rng(2).permutation(500)
    np.testing.assert_array_equal(assign(points[order], sites).indices, assign(points, sites).indices[order])


def test_centring_matters_when_places_stay_empty() -> None:
    points, sites = cloud("shell", 100), sphere(400)
    moved = points + np.array([0.3, 0.0, 0.0])
    assert (assign(moved, sites).indices != assign(points, sites).indices).any()
    full = sites[:100]
    np.testing.assert_array_equal(assign(moved, full).indices, assign(points, full).indices)


def test_other_types_and_layouts_of_memory() -> None:
    points, sites = cloud("volume", 60).astype(np.float32), sphere(100)
    expected = assign(points.astype(np.float64), sites).indices
    np.testing.assert_array_equal(assign(points, sites).indices, expected)
    np.testing.assert_array_equal(assign(np.asfortranarray(points), sites[:, ::-1][:, ::-1]).indices, expected)
    np.testing.assert_array_equal(assign(points.tolist(), sites.tolist()).indices, expected)


def test_zero_cost_has_a_gap_of_zero() -> None:
    sites = sphere(300)
    order = np.random.default_rng(0).permutation(300)[:200]
    result = assign(sites[order], sites)
    np.testing.assert_array_equal(result.indices, order)
    assert result.primal == 0.0
    assert result.rel_gap <= MAX_REL_GAP


def test_one_point_and_all_points_one() -> None:
    sites = sphere(50)
    nearest = int(((sites - [0.1, 0.2, 0.3]) ** 2).sum(axis=1).argmin())
    assert assign([[0.1, 0.2, 0.3]], sites).indices.tolist() == [nearest]
    check(np.tile([0.1, 0.2, 0.3], (40, 1)), sites)
    check(np.zeros((50, 3)), np.zeros((50, 3)))


@pytest.mark.parametrize("apart", [1e-12, 1e-19, 1e-40, 1e-209])
@pytest.mark.parametrize("far", [0.0, 1.0, 1e30])
def test_points_that_all_but_coincide(apart: float, far: float) -> None:
    check(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, apart], [far, 0.0, 0.0]]), sphere(64))
    check(np.array([[far, 0.0, 0.0], [far, 0.0, apart]]), sphere(64))


@pytest.mark.parametrize(
    ("points", "sites", "says"),
    [
        (np.zeros((0, 3)), np.zeros((4, 3)), "points is empty"),
        (np.zeros((4, 3)), np.zeros((0, 3)), "sites is empty"),
        (np.zeros((5, 3)), np.zeros((4, 3)), "5 points do not fit on 4 sites"),
        (np.zeros((4, 2)), np.zeros((4, 3)), r"points must be \[n, 3\], got shape \(4, 2\)"),
        (np.zeros(3), np.zeros((4, 3)), r"points must be \[n, 3\]"),
        ([[0, 0, 0], [0, np.nan, 0]], np.zeros((4, 3)), "points row 1 is not finite"),
        ([[np.inf, 0, 0]], np.zeros((4, 3)), "points row 0 is not finite"),
        ([[1e200, 0, 0]], np.zeros((4, 3)), "points row 0 is not finite or beyond 1e100"),
        ([[0, 0, 0]], [[0, 0, -np.inf]], "sites row 0 is not finite"),
    ],
)  # fmt: skip
def test_bad_input_is_named(points: object, sites: object, says: str) -> None:
    with pytest.raises(TransportFailed, match=says):
        assign(points, sites)  # type: ignore[arg-type]


def test_a_certificate_that_does_not_hold_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = transport._solve

    def swapped(*arguments: Floats) -> tuple[np.ndarray, float]:
        indices, slack = honest(*arguments)
        return indices, slack + 1e-6

    monkeypatch.setattr(transport, "_solve", swapped)
    with pytest.raises(TransportFailed, match="does not hold: relative gap"):
        assign(cloud("volume", 50), sphere(80))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["copies", "lattice", "plane", "corner", "line", "cluster"])
def test_hard_inputs_at_full_size_are_certified(shape: str) -> None:
    result = assign(cloud(shape, 10_435), sphere(16_384))
    assert result.rel_gap <= MAX_REL_GAP
