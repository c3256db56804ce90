import numpy as np
import pytest
from atlas_objects import cloud, gaussians

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.plane import plane_indices
from gaussianverse.atlas.smoothness import smoothness, unrolled
from gaussianverse.atlas.sphere import fibonacci_sphere

GRID = np.stack(np.divmod(np.arange(32 * 32), 32), axis=1)


def sheet(order: np.ndarray) -> Gaussians:
    """A sheet of Gaussians laid out as the grid, in the given order; colours follow positions."""
    means = np.concatenate([GRID, np.zeros((1024, 1))], axis=1) / 32
    colors = np.clip(means * [1, 1, 0] + [0, 0, 0.5], 0, 1)
    g = gaussians(means)
    one = np.ones(1024)
    return Gaussians(means, np.tile(0.01 * one[:, None], 3), g.quats, one, colors)[order]


def test_a_sheet_in_its_own_order_is_perfect() -> None:
    measured = smoothness(sheet(np.arange(1024)), GRID)
    assert measured.position == pytest.approx(1.0, abs=1e-6)
    assert measured.appearance == pytest.approx(1.0, abs=1e-6)


def test_a_random_order_is_near_zero() -> None:
    for seed in range(10):
        measured = smoothness(sheet(np.random.default_rng(seed).permutation(1024)), GRID)
        # measured over 40 seeds: -0.031 to 0.025, both
        assert abs(measured.position) < 0.06
        assert abs(measured.appearance) < 0.06


def test_position_is_at_most_one_whatever_the_proportions() -> None:
    for shape in ("rod", "plate", "line", "volume"):
        g = gaussians(cloud(shape, 1024))
        assert smoothness(g, GRID).position <= 1.0


def test_size_and_place_do_not_matter() -> None:
    g = gaussians(cloud("shell", 1024))
    moved = Gaussians(100 * g.means + 7, g.scales, g.quats, g.opacities, g.colors)
    assert smoothness(g, GRID).position == pytest.approx(smoothness(moved, GRID).position, abs=1e-4)


def test_sparse_cells_are_compared_with_their_nearest_live_cells() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(1024)[:100])
        # the grid is the sheet, so its neighbours are those in space
        assert smoothness(sheet(chosen), GRID[chosen]).position == pytest.approx(1)
        # measured over 40 seeds: -0.17 to 0.11
        assert abs(smoothness(sheet(rng.permutation(chosen)), GRID[chosen]).position) < 0.3


def test_few_or_equal_gaussians() -> None:
    g = gaussians(cloud("volume", 5))
    assert np.isnan(smoothness(g, GRID[:5]).position)
    same = gaussians(np.zeros((20, 3)))
    assert smoothness(same, GRID[:20]).position == 1.0


def test_unrolled_tells_right_from_wrong_at_every_size() -> None:
    for size in (8, 10, 16, 31, 64, 128):
        sphere, plane = fibonacci_sphere(size * size), plane_indices(size)
        inverted = np.empty_like(plane)
        inverted[plane] = np.arange(len(plane))
        unsorted = sphere[np.argsort(sphere[:, 1], kind="stable")]
        shuffled = np.random.default_rng(0).permutation(len(plane))

        def measured(points: np.ndarray, size: int = size) -> float:
            return unrolled(points.reshape(size, size, 3))

        # 0.87 at size 8 and more at each larger one; the wrong ones reach 0.50, those at random 0.19 over 40 seeds
        assert measured(sphere[plane]) > 0.86
        for wrong in (sphere[inverted], unsorted[plane], sphere, unsorted, sphere[shuffled]):
            assert measured(wrong) < 0.55


def test_measures_are_repeatable() -> None:
    g = gaussians(cloud("volume", 1024))
    assert smoothness(g, GRID) == smoothness(g, GRID)


def nearest(points: np.ndarray, count: int = 4) -> np.ndarray:
    """Nearest other points by reading all distances, [M, count]."""
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :count]


def by_definition(features: np.ndarray, in_grid: np.ndarray, in_space: np.ndarray) -> float:
    """The formula, with all pairs as the random ones."""
    apart = np.linalg.norm(features[:, None] - features, axis=-1)
    random = apart.sum() / (len(apart) * (len(apart) - 1))
    grid, space = (np.take_along_axis(apart, partners, axis=1).mean() for partners in (in_grid, in_space))
    return float((random - grid) / (random - space))


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_formula_over_four_neighbours(seed: int) -> None:
    """Cells without ties, laid out roughly as the object lies."""
    rng = np.random.default_rng(seed)
    g = gaussians(cloud("shell", 300, seed))
    g = g[np.lexsort((g.means[:, 1], np.round(4 * g.means[:, 0])))]
    cells = 30 * rng.random((300, 2))
    cells = cells[np.lexsort((cells[:, 1], np.round(cells[:, 0] / 4)))]
    means = g.means.astype(np.float64)
    expected = by_definition(means, nearest(cells), nearest(means))
    assert 0.4 < expected < 0.5
    # all pairs against 300 of them: measured, 0.004 to 0.010
    assert smoothness(g, cells).position == pytest.approx(expected, abs=0.03)


def test_neighbours_are_four() -> None:
    """Five in a heap, heaps apart, and not the same heaps side by side in the grid and in space."""
    rng = np.random.default_rng(0)
    heap = np.repeat(np.arange(40), 5)
    means = 10.0 * rng.permutation(40)[heap, None] * [1, 0, 0] + 0.1 * rng.random((200, 3))
    cells = 10 * np.stack([heap, 0 * heap], axis=1) + np.tile([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]], (40, 1))
    assert smoothness(gaussians(means), cells).position == pytest.approx(1.0, abs=1e-9)


def test_the_fewest_that_have_a_smoothness_are_six() -> None:
    g = gaussians(cloud("volume", 6))
    assert np.isfinite(smoothness(g, GRID[:6]).position)
    assert np.isnan(smoothness(g[np.arange(5)], GRID[:5]).appearance)


def test_appearance_does_not_depend_on_units_nor_on_what_is_the_same_everywhere() -> None:
    """On a sheet whose colours vary along x and whose scales along y, turned so that only one of both is smooth."""
    means = np.concatenate([GRID, np.zeros((1024, 1))], axis=1) / 32
    g, one = gaussians(means), np.ones(1024)
    colors = np.stack([means[:, 0], 0.5 * one, 0.5 * one], axis=1)
    scales = 0.01 + 0.01 * means[:, [1, 1, 1]]
    cells = GRID[np.random.default_rng(0).permutation(32)[GRID[:, 0]] * 32 + GRID[:, 1]]
    found = smoothness(Gaussians(means, scales, g.quats, one, colors), cells).appearance
    assert 0.1 < found < 0.9
    large = Gaussians(means, 512 * scales, g.quats, one, colors)
    assert smoothness(large, cells).appearance == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("size", [8, 31])
def test_unrolled_is_the_formula_over_adjacent_cells(size: int) -> None:
    points = fibonacci_sphere(size * size)[plane_indices(size)].reshape(size, size, 3)
    flat = points.reshape(-1, 3)
    apart = np.linalg.norm(flat[:, None] - flat, axis=-1)
    random = apart.sum() / (len(flat) * (len(flat) - 1))
    space = np.take_along_axis(apart, nearest(flat), axis=1).mean()
    across, down = points[:, 1:] - points[:, :-1], points[1:] - points[:-1]
    grid = np.linalg.norm(np.concatenate([across.reshape(-1, 3), down.reshape(-1, 3)]), axis=1).mean()
    # a pair of each point in place of all of them: measured, 0.0026 and 0.0001
    assert unrolled(points) == pytest.approx((random - grid) / (random - space), abs=0.01)
