"""Starting points: inside the hull, near its surface, wherever the cameras stand."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from analytic import RADIUS, ball_views
from scipy.spatial import Delaunay

from gaussianverse.fitter.errors import BadInput, TooFewGaussians
from gaussianverse.fitter.initial import (
    camera_extent,
    depth_points,
    focus_box,
    hull_points,
    inside_hull,
    neighbour_distance,
)
from gaussianverse.fitter.views import Views


def test_hull_points_lie_just_under_the_surface() -> None:
    points = hull_points(ball_views(24, 64), 500, np.random.default_rng(0))
    radius = np.linalg.norm(points, axis=1)
    assert points.shape == (500, 3)
    assert radius.max() < RADIUS * 1.25  # the hull of 24 silhouettes is a little larger than the ball
    assert radius.min() > RADIUS * 0.8


def test_the_box_does_not_depend_on_the_world() -> None:
    views = ball_views(12)
    shift, scale = np.array([40.0, -7, 3]), 13.0
    c2w = views.c2w.copy()
    c2w[:, :3, 3] = scale * c2w[:, :3, 3] + shift
    moved = dataclasses.replace(views, c2w=c2w)
    low, high = focus_box(views)
    low2, high2 = focus_box(moved)
    np.testing.assert_allclose(low2, scale * low + shift, atol=1e-3)
    np.testing.assert_allclose(high2, scale * high + shift, atol=1e-3)
    assert low.max() < -RADIUS
    assert high.min() > RADIUS
    assert np.isclose(camera_extent(moved), scale * camera_extent(views))


def slab_views(half: tuple[float, float, float], alpha: int = 255) -> Views:
    """Silhouettes of a box about the origin, of `half` its sides, from where the ball's cameras stand."""
    views = ball_views(24, 128)
    corners = np.array(list(itertools.product(*[(-h, h) for h in half])))
    images = np.zeros_like(views.images)
    for image, viewmat, K in zip(images, views.viewmats, views.Ks, strict=True):
        camera = corners @ viewmat[:3, :3].T + viewmat[:3, 3]
        pixels = camera[:, :2] / camera[:, 2:] * (K[0, 0], K[1, 1]) + K[:2, 2]
        y, x = np.mgrid[: views.height, : views.width] + 0.5
        inside = Delaunay(pixels).find_simplex(np.stack([x, y], -1)) >= 0
        image[inside] = (200, 100, 50, alpha)
    return dataclasses.replace(views, images=images)


@pytest.mark.parametrize("half", [(0.4, 0.3, 0.011), (0.011, 0.011, 0.45), (0.3, 0.011, 0.3)])
def test_a_blade_between_the_cells_is_found(half: tuple[float, float, float]) -> None:
    points = hull_points(slab_views(half), 400, np.random.default_rng(0))
    assert points.shape == (400, 3)
    # silhouettes of 128 pixels know edges to a pixel, 0.01
    assert (np.abs(points).max(0) < np.array(half) + 0.02).all()
    assert (np.abs(points).max(0) > 0.7 * np.array(half)).all()


def test_glass_has_a_silhouette() -> None:
    points = hull_points(slab_views((0.3, 0.3, 0.3), alpha=60), 50, np.random.default_rng(0))
    assert 0.2 < np.abs(points).max() < 0.4


def test_an_empty_hull_is_an_error() -> None:
    views = ball_views(6, 32)
    images = views.images.copy()
    images[..., 3] = 0
    images[0, 16, 16, 3] = 255  # one pixel that every other view denies
    with pytest.raises(TooFewGaussians, match="no point in common"):
        hull_points(dataclasses.replace(views, images=images), 10, np.random.default_rng(0))


def test_points_outside_all_images_are_outside() -> None:
    assert inside_hull(np.array([[0.0, 0, 0], [0, 0, 50.0]]), ball_views(6)).tolist() == [True, False]


def test_depth_points_lie_on_the_ball() -> None:
    views = ball_views(8, 64)
    with pytest.raises(BadInput, match="needs depth maps"):
        depth_points(views, 10, np.random.default_rng(0))
    eyes = views.c2w[:, :3, 3]
    y, x = np.mgrid[:64, :64] + 0.5
    rays = np.stack([(x - 32) / views.Ks[0, 0, 0], (y - 32) / views.Ks[0, 1, 1], np.ones_like(x)], -1)
    depths = []
    for pose, eye in zip(views.c2w, eyes, strict=True):
        d = rays @ pose[:3, :3].T
        a, b, c = (d * d).sum(-1), d @ eye, eye @ eye - RADIUS**2
        depths.append((-b - np.sqrt(np.maximum(b * b - a * c, 0))) / a)
    points = depth_points(
        dataclasses.replace(views, depths=np.stack(depths).astype(np.float32)), 400, np.random.default_rng(0)
    )
    error = np.abs(np.linalg.norm(points, axis=1) - RADIUS)
    assert np.median(error) < 0.01


def test_neighbour_distance_of_a_lattice_and_of_few_points() -> None:
    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    np.testing.assert_allclose(neighbour_distance(lattice), 1)
    assert neighbour_distance(np.zeros((1, 3))) > 0
    assert (neighbour_distance(np.zeros((5, 3))) > 0).all()
