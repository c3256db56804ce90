import numpy as np
import pytest
from atlas_objects import cloud, gaussians
from scipy.optimize import linear_sum_assignment

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.interchange.gaussiancube import CubeMoments, from_cube, to_cube
from gaussianverse.atlas.interchange.harmonics import SH_C0
from gaussianverse.atlas.padding import prune


def voxels(bound: float = 0.45) -> np.ndarray:
    return np.moveaxis(np.mgrid[:32, :32, :32], 0, -1) * (2 * bound / 31) - bound


def test_channels_and_voxels_are_where_the_published_code_has_them() -> None:
    g = gaussians(cloud("volume", 300))
    cube = to_cube(g)
    assert (cube.shape, cube.dtype) == ((32, 32, 32, 14), np.float32)
    live = cube[..., 6] > 0
    means = (cube[..., :3] + voxels())[live]
    match = np.argmin(np.abs(means[:, None] - g.means).sum(axis=2), axis=1)
    np.testing.assert_array_equal(np.sort(match), np.arange(300))
    np.testing.assert_allclose(means, g.means[match], atol=1e-6)
    np.testing.assert_allclose(0.5 + SH_C0 * cube[live][:, 3:6], g.colors[match], atol=1e-6)
    np.testing.assert_array_equal(cube[live][:, 6], g.opacities[match])
    np.testing.assert_array_equal(cube[live][:, 7:10], g.scales[match])
    np.testing.assert_array_equal(cube[live][:, 10:14], g.quats[match])
    empty = cube[~live]
    np.testing.assert_array_equal(empty, np.tile(np.float32([0] * 7 + [1e-6] * 3 + [1, 0, 0, 0]), (len(empty), 1)))


def test_the_transport_is_the_cheapest() -> None:
    g = gaussians(cloud("ball", 60))
    squares = ((g.means[:, None].astype(np.float64) - voxels().reshape(-1, 3)) ** 2).sum(axis=2)
    cheapest = squares[linear_sum_assignment(squares)].sum()
    assert (to_cube(g)[..., :3].astype(np.float64) ** 2).sum() == pytest.approx(cheapest, rel=1e-5)


@pytest.mark.parametrize(("count", "bound"), [(1, 0.45), (5000, 0.45), (5000, 0.5)])
def test_there_and_back(count: int, bound: float) -> None:
    g = gaussians(cloud("shell", count))
    back = from_cube(to_cube(g, bound), bound)
    assert len(back) == count
    rows = np.lexsort(g.means.T), np.lexsort(back.means.T)
    for field in ("means", "scales", "quats", "opacities", "colors"):
        np.testing.assert_allclose(getattr(back, field)[rows[1]], getattr(g, field)[rows[0]], atol=1e-6)


def test_too_many_are_pruned_to_a_full_cube() -> None:
    g = gaussians(cloud("volume", 33_000))
    back = from_cube(to_cube(g))
    assert len(back) == 32**3
    np.testing.assert_array_equal(np.sort(back.opacities), np.sort(g.opacities[prune(g, 32**3)]))


def test_the_published_padding_is_at_the_corner_of_the_grid_and_is_no_gaussian() -> None:
    g = gaussians(cloud("volume", 300))
    cube = to_cube(g, 0.5, "published")
    plain = to_cube(g, 0.5)
    live = plain[..., 6] > 0
    np.testing.assert_array_equal(cube[live], plain[live])
    np.testing.assert_allclose((cube[..., :3] + voxels(0.5))[~live], 0.5, atol=1e-6)
    np.testing.assert_array_equal(
        cube[~live][:, 3:], np.tile(np.float32([0] * 3 + [1e-6] * 4 + [0.5] * 4), (len(cube[~live]), 1))
    )
    assert len(from_cube(cube, 0.5)) == 300
    with pytest.raises(AtlasError, match="padding 'zero': expected one of centre, published"):
        to_cube(g, 0.5, "zero")


def test_moments_of_cubes() -> None:
    cubes = np.random.default_rng(0).normal(size=(5, 32, 32, 32, 14)).astype(np.float32)
    cubes[..., 13] = 0.5
    moments = CubeMoments()
    for cube in cubes:
        moments.add(cube)
    np.testing.assert_allclose(moments.mean(), cubes.astype(np.float64).mean(axis=0), atol=1e-12)
    expected = cubes.astype(np.float64).std(axis=0)
    expected[..., 13] = 1
    np.testing.assert_allclose(moments.std(), expected, atol=1e-12)


def test_what_is_no_cube() -> None:
    with pytest.raises(AtlasError, match="a GaussianCube has shape"):
        from_cube(np.zeros((32, 32, 14)))
    cube = to_cube(gaussians(cloud("volume", 9)))
    cube[0, 0, 0, 6] = np.nan
    with pytest.raises(AtlasError, match="not finite"):
        from_cube(cube)
