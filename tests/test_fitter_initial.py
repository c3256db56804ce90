"""Initial points: inside the hull, near its surface, for any position of the cameras."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from analytic import RADIUS, ball_views, look_at
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
    views = ball_views(24, 64)
    for seed in range(2):
        points = hull_points(views, 500, np.random.default_rng(seed))
        radius = np.linalg.norm(points, axis=1) / RADIUS
        assert points.shape == (500, 3)
        # measured over seeds 0 to 5: 0.911 to 1.020; the hull of 24 silhouettes is a little larger than the ball
        assert 0.88 < radius.min() < radius.max() < 1.06


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


@pytest.mark.parametrize("axis", [0, 1])
def test_pixels_that_are_wider_than_high_do_not_widen_the_box(axis: int) -> None:
    views = ball_views(12)
    low, high = focus_box(views)
    images, Ks = np.repeat(views.images, 2, axis=2 - axis), views.Ks.copy()
    Ks[:, axis] *= 2
    wide_low, wide_high = focus_box(dataclasses.replace(views, images=images, Ks=Ks))
    np.testing.assert_allclose([wide_low, wide_high], [low, high], atol=1e-6)


def test_images_cropped_off_centre_move_the_box_to_what_they_show() -> None:
    views = ball_views(12)
    right, down = np.array([0.3, 0, 0]), np.array([0, -0.2, 0.1])
    # cameras that look past the ball, and images of which only the part with the ball was kept
    c2w, Ks = views.c2w.copy(), views.Ks.copy()
    for pose, K in zip(c2w, Ks, strict=True):
        camera = np.linalg.inv(pose) @ [*(-right - down), 1]
        K[:2, 2] -= K[0, 0] * camera[:2] / camera[2]
    c2w[:, :3, 3] += right + down
    low, high = focus_box(dataclasses.replace(views, c2w=c2w, Ks=Ks))
    np.testing.assert_allclose((low + high) / 2, 0, atol=0.03)


def slab_views(half: tuple[float, float, float], alpha: int = 255) -> Views:
    """Silhouettes of a box about the origin, with half sides `half`, from the cameras of the ball."""
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
    # silhouettes of 128 pixels resolve edges to a pixel, 0.01
    # measured over seeds 0 to 5: at most 0.011 beyond the blade, and 0.78 of it or more is reached
    assert (np.abs(points).max(0) < np.array(half) + 0.015).all()
    assert (np.abs(points).max(0) > 0.7 * np.array(half)).all()


def test_glass_has_a_silhouette() -> None:
    points = hull_points(slab_views((0.3, 0.3, 0.3), alpha=60), 50, np.random.default_rng(0))
    # measured over seeds 0 to 5: 0.316 to 0.338
    assert 0.28 < np.abs(points).max() < 0.36


@pytest.mark.parametrize("depth", [3.5, 1e30, np.inf])
def test_depths_beyond_the_space_in_view_are_no_part_of_the_object(depth: float) -> None:
    views = ball_views(6)
    depths = np.full(views.images.shape[:3], 1.25, np.float32)
    depths[:3] = depth
    mixed = depth_points(dataclasses.replace(views, depths=depths), 200, np.random.default_rng(0))
    assert np.linalg.norm(mixed, axis=1).max() < 1
    with pytest.raises(TooFewGaussians, match="check the unit of the depths"):
        depth_points(dataclasses.replace(views, depths=np.full_like(depths, depth)), 9, np.random.default_rng(0))


def test_an_empty_hull_is_an_error() -> None:
    views = ball_views(6, 32)
    images = views.images.copy()
    images[..., 3] = 0
    images[0, 16, 16, 3] = 255  # one pixel that no other view confirms
    with pytest.raises(TooFewGaussians, match="no point in common"):
        hull_points(dataclasses.replace(views, images=images), 10, np.random.default_rng(0))


def test_points_outside_all_images_are_outside() -> None:
    assert inside_hull(np.array([[0.0, 0, 0], [0, 0, 50.0]]), ball_views(6)).tolist() == [True, False]


def opaque_views(*eyes: tuple[float, float, float]) -> Views:
    """Opaque views from these positions towards the origin."""
    views = ball_views(len(eyes), 16)
    images = np.full_like(views.images, 255)
    c2w = np.stack([look_at(np.array(eye)) for eye in eyes])
    return dataclasses.replace(views, images=images, c2w=c2w)


def test_a_point_needs_two_judges_or_the_only_one_there_is() -> None:
    """Otherwise a cone in front of one camera, outside all other views, would be part of the hull."""
    near, far = np.array([0.0, 0, 0]), np.array([1.0, 0, 0])
    two = opaque_views((1.5, 0, 0), (0.0, 1.5, 0))
    assert inside_hull(np.stack([near, far]), two).tolist() == [True, False]
    three = opaque_views((1.5, 0, 0), (0.0, 1.5, 0), (2.5, 0, 0))
    assert inside_hull(np.stack([near, far]), three).tolist() == [True, True]
    assert inside_hull(np.stack([near, far]), two[np.array([0])]).tolist() == [True, True]


def test_one_silhouette_that_denies_a_point_is_enough() -> None:
    views = opaque_views((1.5, 0, 0), (0.0, 1.5, 0), (0.0, -1.5, 0.1))
    images = views.images.copy()
    images[2, :, 8:] = 0  # the right half of the view along +y, where x > 0
    points = np.array([[-0.1, 0, 0], [0.1, 0, 0]])
    assert inside_hull(points, dataclasses.replace(views, images=images)).tolist() == [True, False]


def test_what_is_beside_the_image_or_behind_the_camera_is_not_judged() -> None:
    """The view is empty, so it would refuse every point that it judges."""
    both = opaque_views((1.5, 0, 0), (0.0, 1.5, 0), (0.0, 0.3, 0.0))
    images = both.images.copy()
    images[2] = 0
    views = dataclasses.replace(both, images=images)
    behind, ahead, beside = [0.0, 0.4, 0], [0.0, 0.1, 0], [0.25, 0.1, 0]
    assert inside_hull(np.array([behind, ahead, beside]), views).tolist() == [True, False, True]


@pytest.mark.parametrize("reach", [0.05, 0.1])
def test_a_ball_is_outside_where_all_of_it_is_and_inside_where_all_of_it_is(reach: float) -> None:
    """The silhouette has a straight edge at x = 0, where a pixel is 0.0225 wide."""
    views = ball_views(2, 128, distance=4.0)
    c2w = np.stack([look_at(np.array([0, y, 0.0])) for y in (-4.0, 4.0)])
    images = np.full_like(views.images, 255)
    images[0, :, 64:] = 0
    images[1, :, :64] = 0
    views = dataclasses.replace(views, images=images, c2w=c2w)
    x = np.linspace(-0.3, 0.3, 241)
    points = np.stack([x, 0 * x, 0 * x], -1)
    pixel = 0.0225
    touching, within = x[inside_hull(points, views, reach)], x[inside_hull(points, views, -reach)]
    assert inside_hull(points, views).tolist() == (x < 0).tolist()
    # conservative by a pixel plus rounding, and not more
    assert reach <= touching.max() <= reach + 2.5 * pixel
    assert -reach - 2.5 * pixel <= within.max() <= -reach


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
    views = dataclasses.replace(views, depths=np.stack(depths).astype(np.float32))
    for seed in range(5):
        points = depth_points(views, 400, np.random.default_rng(seed))
        error = np.abs(np.linalg.norm(points, axis=1) - RADIUS)
        # measured: 0.0036 to 0.0041; a pixel is 0.018 wide, and depth is that of its centre
        assert np.median(error) < 0.006


@pytest.mark.parametrize("seed", range(4))
def test_depth_points_fill_the_pixels_that_have_depth_and_no_others(seed: int) -> None:
    """Points fill the whole pixel, whose centre is at 0.5, at the depth of its own view."""
    views = ball_views(3, 8)
    images, depths = np.zeros_like(views.images), np.full((3, 8, 8), np.nan, np.float32)
    opaque = {(0, 2, 5): 1.0, (1, 7, 0): 2.5}
    for place, depth in opaque.items():
        images[(*place, 3)], depths[place] = 128, depth
    images[0, 3, 3, 3], depths[0, 3, 3] = 127, 1.0  # not opaque
    images[0, 4, 4, 3], depths[0, 4, 4] = 255, 0.0  # the background of a depth map
    images[0, 5, 5, 3] = 255  # no depth
    views = dataclasses.replace(views, images=images, depths=depths)
    points = depth_points(views, 2000, np.random.default_rng(seed))
    found = 0
    for (v, row, column), depth in opaque.items():
        camera = points @ views.viewmats[v, :3, :3].T + views.viewmats[v, :3, 3]
        x, y = ((views.Ks[v] @ camera.T)[:2] / camera[:, 2]).round(9)
        own = np.isclose(camera[:, 2], depth) & (x >= column) & (x <= column + 1) & (y >= row) & (y <= row + 1)
        found += own.sum()
        # of about 1000 uniform draws: the mean is within 5 deviations, 0.05, and the ends are reached
        for offset in (x[own] - column, y[own] - row):
            assert abs(offset.mean() - 0.5) < 0.05
            assert offset.min() < 0.05
            assert offset.max() > 0.95
        assert 0.4 < own.mean() < 0.6
    assert found == len(points)


def test_neighbour_distance_of_a_lattice_and_of_few_points() -> None:
    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    np.testing.assert_allclose(neighbour_distance(lattice), 1)
    assert neighbour_distance(np.zeros((1, 3))) > 0
    assert (neighbour_distance(np.zeros((5, 3))) > 0).all()
