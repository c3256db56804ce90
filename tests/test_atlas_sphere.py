import numpy as np
import pytest
from scipy.spatial import cKDTree

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.sphere import fibonacci_sphere, ring_sphere, sphere_of


@pytest.mark.parametrize("count", [2, 64, 1024, 16_384])
def test_points_are_the_lattice_of_the_paper_sorted_by_x_y_z(count: int) -> None:
    points = fibonacci_sphere(count)
    assert points.shape == (count, 3)
    assert points.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, rtol=0, atol=1e-15)
    # each height of the lattice occurs once
    np.testing.assert_allclose(np.sort(points[:, 1]), -1 + 2 * np.arange(count) / (count - 1), atol=1e-15)
    keys = [tuple(row) for row in points]
    assert keys == sorted(keys)


def test_longitude_turns_by_the_golden_angle() -> None:
    points = fibonacci_sphere(100)
    by_height = points[np.argsort(points[:, 1])][1:-1]
    turn = np.diff(np.unwrap(np.arctan2(by_height[:, 2], by_height[:, 0]))) % (2 * np.pi)
    np.testing.assert_allclose(turn, np.pi * (3 - np.sqrt(5)), atol=1e-9)


def test_neighbours_are_evenly_far() -> None:
    points = fibonacci_sphere(16_384)
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    even = np.sqrt(4 * np.pi / 16_384)
    assert 0.5 * even < nearest.min()
    assert nearest.max() < 1.2 * even


@pytest.mark.parametrize("count", [1, 0, -3])
def test_too_few_points(count: int) -> None:
    with pytest.raises(AtlasError, match=f"at least 2 points, got n = {count}"):
        fibonacci_sphere(count)


@pytest.mark.parametrize("size", [1, 8, 31, 128])
def test_rings_have_equal_area_and_equal_longitudes(size: int) -> None:
    points = ring_sphere(size).reshape(size, size, 3)
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), 1.0, rtol=0, atol=1e-15)
    # by Archimedes, the area of a band is proportional to its height: the centres are 2 / size apart
    np.testing.assert_allclose(points[0, :, 2], 1 - (2 * np.arange(size) + 1) / size, atol=1e-15)
    assert (points[..., 2] == points[:1, :, 2]).all()
    longitude = np.arctan2(points[..., 1], points[..., 0])
    np.testing.assert_allclose(
        longitude, np.repeat(-np.pi + 2 * np.pi * (np.arange(size)[:, None] + 0.5) / size, size, 1), atol=1e-12
    )


def test_no_ring_of_nothing() -> None:
    with pytest.raises(AtlasError, match="at least 1 band, got size = 0"):
        ring_sphere(0)


def test_the_layout_chooses_the_sphere() -> None:
    assert (sphere_of(AtlasConfig(size=16)) == fibonacci_sphere(256)).all()
    assert (sphere_of(AtlasConfig(size=16, layout="ring")) == ring_sphere(16)).all()
