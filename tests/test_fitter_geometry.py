"""Geometry of Gaussians against depth, normals and points, by definition and on a ball."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from analytic import RADIUS, ball_geometry, ball_views
from scipy.spatial.transform import Rotation

from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.fitter import geometry
from gaussianverse.fitter.geometry import THRESHOLDS, VOXEL, Geometry, compare_geometry, compare_points, unprojected
from gaussianverse.fitter.views import Views


def ball(radius: float = RADIUS, count: int = 12_000) -> Gaussians:
    """Opaque discs that lie on a sphere."""
    k = np.arange(count) + 0.5
    z, angle = 1 - 2 * k / count, np.pi * (1 + np.sqrt(5)) * k
    r = np.sqrt(1 - z * z)
    normals = np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)
    quats = np.stack([1 + z, -normals[:, 1], normals[:, 0], np.zeros(count)], -1)  # turn z to the normal
    scales = np.tile([0.01, 0.01, 5e-4], (count, 1))
    return Gaussians(radius * normals, scales, canonical_quats(quats), np.full(count, 0.99), np.full((count, 3), 0.5))


def views_of_ball(size: int = 96) -> Views:
    views = ball_views(4, size)
    depths, normals = ball_geometry(views)
    return dataclasses.replace(views, depths=depths, normals=normals)


def compared(gaussians: Gaussians, views: Views, **options: Any) -> Geometry:
    found = compare_geometry(gaussians, views, **options)
    assert found is not None
    return found


def test_a_ball_of_gaussians_has_the_balls_depth_normals_and_points() -> None:
    found = compared(ball(), views_of_ball())
    # measured: 0.0089, 2.1 degrees, 1.0, 0.0073, (0.842, 0.997, 1.000), 0.54
    assert found.depth_l1 < 0.012
    assert found.normal_degrees < 4
    assert found.covered > 0.99
    assert found.chamfer < 0.01
    assert found.f_scores[0] > 0.7
    assert found.f_scores[1] > 0.98
    assert found.f_scores[2] > 0.99
    assert found.iou > 0.4


def test_a_ball_that_is_too_large_is_off_by_as_much() -> None:
    found = compared(ball(RADIUS + 0.04), views_of_ball())
    # along the optical axis the surfaces are 0.04 apart in the middle, and farther towards the rim
    assert 0.05 < found.depth_l1 < 0.08
    assert 0.035 < found.chamfer < 0.05
    assert found.f_scores[0] == found.f_scores[1] == 0
    assert found.f_scores[2] > 0.9
    assert found.iou == 0
    twice = compared(ball(RADIUS + 0.04), views_of_ball(), unit=2.0)
    assert twice.depth_l1 == pytest.approx(2 * found.depth_l1)
    assert twice.chamfer == pytest.approx(2 * found.chamfer)
    assert twice.f_scores[2] == 0
    assert twice.normal_degrees == found.normal_degrees


def test_normals_that_are_turned_are_off_by_the_angle() -> None:
    views = views_of_ball()
    assert views.normals is not None
    exact = compared(ball(), views).normal_degrees
    away = dataclasses.replace(views, normals=-views.normals)
    assert compared(ball(), away).normal_degrees == pytest.approx(180 - exact, abs=1e-4)
    turn = Rotation.from_rotvec([0, 0, np.radians(40)]).as_matrix()
    turned = dataclasses.replace(views, normals=(views.normals @ turn.T).astype(np.float32))
    known = views.normals[np.isfinite(views.normals).all(-1)].astype(np.float64)
    tilt = np.degrees(np.arccos(np.clip((known * (known @ turn.T)).sum(1), -1, 1)))
    assert compared(ball(), turned).normal_degrees == pytest.approx(tilt.mean(), abs=3)
    longer = dataclasses.replace(views, normals=3 * views.normals)
    assert compared(ball(), longer).normal_degrees == pytest.approx(exact, abs=1e-4)


def test_half_a_ball_covers_half_of_its_masks() -> None:
    whole = ball()
    half = whole[whole.means[:, 2] > 0]
    views = views_of_ball()
    found = compared(half, views)
    assert found.covered < 0.8
    assert compared(half, views).f_scores[1] < compared(whole, views).f_scores[1] - 0.1


def test_points_are_compared_by_definition() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        one, other = (rng.uniform(0, 0.1, (n, 3)) for n in (70, 90))
        apart = np.linalg.norm(one[:, None] - other[None], axis=-1)
        chamfer, scores, iou = compare_points(one, other)
        assert chamfer == pytest.approx((apart.min(1).mean() + apart.min(0).mean()) / 2)
        for threshold, score in zip(THRESHOLDS, scores, strict=True):
            p, r = (apart.min(1) < threshold).mean(), (apart.min(0) < threshold).mean()
            assert score == pytest.approx(2 * p * r / (p + r) if p + r else 0)
        cells = [{tuple(int(c // VOXEL) for c in point) for point in points} for points in (one, other)]
        assert iou == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]))
    assert compare_points(one, one) == (0.0, (1.0, 1.0, 1.0), 1.0)
    assert compare_points(one, np.zeros((0, 3))) == (-1.0, (-1.0, -1.0, -1.0), -1.0)


def test_many_points_are_drawn_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MOST_POINTS", 400)
    rng = np.random.default_rng(0)
    one, other = (rng.uniform(0, 1, (5000, 3)) for _ in range(2))
    assert compare_points(one, other) == compare_points(one, other)


def test_a_depth_map_goes_back_to_the_points_it_came_from() -> None:
    K = np.array([[30.0, 0, 7], [0, 25.0, 5], [0, 0, 1]])
    depth = np.random.default_rng(0).uniform(1, 3, (10, 14))
    points = unprojected(depth, K)
    uvw = points @ K.T
    np.testing.assert_allclose(uvw[..., 0] / uvw[..., 2], np.broadcast_to(np.arange(14) + 0.5, (10, 14)))
    np.testing.assert_allclose(uvw[..., 1] / uvw[..., 2], np.broadcast_to(np.arange(10)[:, None] + 0.5, (10, 14)))
    np.testing.assert_array_equal(points[..., 2], depth)


def test_views_without_depth_are_not_compared() -> None:
    views = ball_views(2, 24)
    assert compare_geometry(ball(), views) is None
    empty = np.full((2, 24, 24), np.nan, np.float32)
    assert compare_geometry(ball(), dataclasses.replace(views, depths=empty)) is None
