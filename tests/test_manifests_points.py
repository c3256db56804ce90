"""Samples of surfaces and voxels against exact geometry."""

import numpy as np
import pytest

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.layouts.points import on_surface
from gaussianverse.manifests.rendering.layouts.posed import Surface
from gaussianverse.manifests.rendering.layouts.voxels import occupied


def triangles(count: int, seed: int, reach: float = 0.5) -> Surface:
    corners = np.random.default_rng(seed).uniform(-reach, reach, (3 * count, 3)).astype(np.float32)
    return Surface(corners, np.arange(3 * count).reshape(count, 3))


def clipped(polygon: list[np.ndarray], low: np.ndarray, high: np.ndarray) -> bool:
    """Whether anything of a polygon is left when it is cut by the six planes of a box, one after another."""
    for axis in range(3):
        for sign, end in ((1, high[axis]), (-1, -low[axis])):
            kept: list[np.ndarray] = []
            for one, other in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                a, b = end - sign * one[axis], end - sign * other[axis]
                if a >= 0:
                    kept.append(one)
                if (a < 0) != (b < 0):
                    kept.append(one + (other - one) * a / (a - b))
            polygon = kept
            if not polygon:
                return False
    return True


@pytest.mark.parametrize("seed", range(3))
def test_voxels_are_those_in_which_something_of_a_triangle_is_left(seed: int) -> None:
    side, surface = 7, triangles(6, seed)
    found = {tuple(index) for index in np.floor((occupied(surface, side) + 0.5) * side).astype(int)}
    expected = set()
    for corners in (surface.vertices.astype(np.float64)[surface.faces] + 0.5) * side:
        for index in np.ndindex(side, side, side):
            if clipped(list(corners), np.array(index), np.array(index) + 1):
                expected.add(index)
    assert found == expected
    assert 20 < len(found) < side**3


def test_voxels_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from gaussianverse.manifests.rendering.layouts import voxels

    whole = occupied(triangles(50, 0), 32)
    monkeypatch.setattr(voxels, "_BATCH", 100)
    np.testing.assert_array_equal(occupied(triangles(50, 0), 32), whole)


def test_voxels_of_a_cube_that_fills_the_grid_are_its_shell() -> None:
    import trimesh

    box = trimesh.creation.box((1, 1, 1))
    centres = occupied(Surface(box.vertices.astype(np.float32), box.faces), 64)
    assert len(centres) == 64**3 - 62**3
    steps = (centres.astype(np.float64) + 0.5) * 64 - 0.5
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert steps.min() > -0.01
    assert steps.max() < 63.01
    assert (np.diff(np.rint(steps) @ [4096, 64, 1]) > 0).all()


def test_a_mesh_that_leaves_the_grid_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"reaches 0\.\d+ from the middle.*--extent 1"):
        occupied(triangles(5, 0, 0.9), 16)


def test_points_of_a_surface_lie_on_it_and_are_spread_by_area() -> None:
    large = np.float32([[0, 0, 0], [0.4, 0, 0], [0, 0.4, 0]])
    small = np.float32([[0, 0, 0.3], [0.2, 0, 0.3], [0, 0.2, 0.3]])
    surface = Surface(np.concatenate([large, small]), np.array([[0, 1, 2], [3, 4, 5]]))
    points = on_surface(surface, 4000)
    np.testing.assert_array_equal(points, on_surface(surface, 4000))
    upper = points[:, 2] > 0.15
    np.testing.assert_allclose(points[:, 2], np.where(upper, 0.3, 0), atol=1e-6)
    x, y = points[:, :2].T
    assert (x > -1e-6).all()
    assert (y > -1e-6).all()
    assert (x + y < np.where(upper, 0.2, 0.4) + 1e-6).all()
    assert upper.mean() == pytest.approx(0.2, abs=0.03)  # five standard deviations of 4,000 draws
    assert np.median(x[~upper]) == pytest.approx(0.4 * (1 - 0.5**0.5), abs=0.02)


def test_a_surface_without_area_is_refused() -> None:
    with pytest.raises(LayoutError, match="no area"):
        on_surface(Surface(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]])), 9)
