"""Silhouettes and rays of the pose gate: distances, shrinking, what views say of points out of their frames."""

from __future__ import annotations

import numpy as np
import pytest
from made_silhouettes import BALL, CREATURE, HAIR, draw, spiral
from scipy.ndimage import distance_transform_edt

from gaussianverse.fitter.agreement import kernels
from gaussianverse.fitter.agreement.rays import look
from gaussianverse.fitter.agreement.silhouettes import silhouettes

M = kernels.MARGIN


def one(alpha: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(alpha[None].astype(np.uint8))


def test_distances_are_those_to_the_nearest_pixel_of_the_silhouette_also_around_the_frame() -> None:
    rng = np.random.default_rng(0)
    alpha = np.zeros((40, 30))
    alpha[8:30, 6:24] = 255 * (rng.random((22, 18)) > 0.7)
    found = silhouettes(one(alpha))
    distance = distance_transform_edt(np.pad(alpha, M) == 0)
    expected = np.where(distance <= M, np.rint(distance**2), kernels.FAR)
    np.testing.assert_array_equal(np.minimum(found.beyond[0], M * M + 1), np.minimum(expected, M * M + 1))
    assert not found.cropped[0]


def test_around_the_frame_of_a_cropped_silhouette_nothing_is_known() -> None:
    alpha = np.zeros((40, 30))
    alpha[10:20, :5] = 255
    found = silhouettes(one(alpha))
    assert found.cropped[0]
    outside = np.ones((40 + 2 * M, 30 + 2 * M), bool)
    outside[M:-M, M:-M] = False
    assert (found.beyond[0][outside] == kernels.UNSEEN).all()
    assert (found.beyond[0][~outside] != kernels.UNSEEN).all()


@pytest.mark.parametrize("shape", [(96, 96), (192, 192), (512, 384), (250, 333)])
def test_shrinking_keeps_thin_parts_in_what_rays_are_held_against(shape: tuple[int, int]) -> None:
    alpha = np.zeros(shape)
    alpha[shape[0] // 3, 20 : shape[1] // 2] = 255
    found = silhouettes(one(alpha))
    assert max(found.solid.shape) == 96
    inside = found.beyond[0, M:-M, M:-M] == 0
    rows, columns = np.nonzero(inside)
    assert len(set(rows)) == 1
    assert len(columns) >= (shape[1] // 2 - 20) * found.scale[0] - 1


def test_blank_and_full_views_are_not_shown_and_faint_ones_are() -> None:
    alpha = np.zeros((4, 32, 32), np.uint8)
    alpha[1] = 255
    alpha[2, 8:20, 8:20] = 255
    alpha[3, 8:20, 8:20] = 20
    found = silhouettes(alpha)
    assert found.shown.tolist() == [False, False, True, True]
    np.testing.assert_array_equal(found.solid[2], found.solid[3])


def test_masks_that_were_cut_and_thin_ones_are_told() -> None:
    poses = spiral(6)
    soft, thin = draw(CREATURE, poses), draw(HAIR, poses)
    cut = np.where(soft.alpha >= 128, 255, 0).astype(np.uint8)
    assert [silhouettes(a).cut for a in (soft.alpha, cut, thin.alpha)] == [False, True, False]
    assert [silhouettes(a).thin for a in (soft.alpha, cut, thin.alpha)] == [False, False, True]


def test_rays_pass_through_the_silhouettes_they_start_from() -> None:
    posed = draw(CREATURE, spiral(6))
    evidence = look(silhouettes(posed.alpha), posed.c2w, posed.K)
    for ray in range(0, len(evidence.source), 7):
        assert (evidence.seen[evidence.source[ray], ray] == 0).all()


def test_uncropped_views_deny_what_is_out_of_their_frames_and_cropped_ones_say_nothing() -> None:
    apart = spiral(2)
    apart[1, :3, 3] += 50 * apart[1, :3, 0]  # moved aside: it does not have the first one's object in frame
    whole = draw(BALL, spiral(2))
    evidence = look(silhouettes(whole.alpha), apart, whole.K)
    assert (evidence.seen[1][evidence.source == 0] >= kernels.FAR).all()
    assert (evidence.seen[1] != kernels.UNSEEN).all()
    near = draw(BALL, spiral(2, distance=0.9))
    cropped = silhouettes(near.alpha)
    assert cropped.cropped.all()
    far_apart = look(cropped, apart, near.K)
    assert (far_apart.seen[1][far_apart.source == 0] == kernels.UNSEEN).all()


def test_points_are_looked_up_where_the_camera_shows_them() -> None:
    """The middle of a ball lies in all of its silhouettes, and a ray through it says so at its middle sample."""
    posed = draw(BALL, spiral(9))
    shifted = posed.c2w.copy()
    shifted[:, :3, 3] += (3e5, -2e6, 40.0)
    evidence = look(silhouettes(posed.alpha), shifted, posed.K)
    # rays start near the rim, so that the nearest point to the ball's middle is on its surface: all views show it
    middle = evidence.seen[:, :, evidence.seen.shape[2] // 2]
    assert (middle <= 1).mean() > 0.99
    ends = evidence.seen[:, :, [0, -1]]
    others = evidence.source[None, :, None] != np.arange(9)[:, None, None]
    assert (ends[np.broadcast_to(others, ends.shape)] > 1).mean() > 0.8
