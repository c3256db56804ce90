"""Reference views: the choice of views, and that cropping and shrinking keep the geometry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analytic import ball_views
from pipeline_runs import write_views

from gaussianverse.fitter import load_views
from gaussianverse.fitter.errors import BadInput, MissingViews
from gaussianverse.fitter.reference import reference_views
from gaussianverse.fitter.views import Views, resize

VIEWS = ball_views(20, 48)


def test_they_look_from_all_around_and_the_first_few_do_too() -> None:
    whole = reference_views(VIEWS, 6, 32)
    assert whole.names[0] == VIEWS.names[0]
    assert len(set(whole.names)) == 6
    assert reference_views(VIEWS, 4, 32).names == whole.names[:4]
    axes = VIEWS.c2w[:, :3, 2]
    chosen = whole.c2w[:, :3, 2]

    def gap(some: np.ndarray) -> float:
        """Largest distance of any view's direction to the nearest of some views."""
        return float(np.linalg.norm(axes[:, None] - some, axis=-1).min(axis=1).max())

    assert gap(chosen) < gap(axes[:6])
    assert gap(chosen) < 1.0


def test_empty_views_and_repeated_poses_are_not_chosen() -> None:
    images = VIEWS.images.copy()
    images[[0, 5]] = 0
    twice = np.r_[np.arange(20), np.arange(20)]
    views = replace(VIEWS, images=images)[twice]
    found = reference_views(views, 18, 48)
    assert sorted(found.names) == sorted(set(VIEWS.names) - {VIEWS.names[0], VIEWS.names[5]})
    with pytest.raises(MissingViews, match="18 distinct views are not blank, expected at least 19"):
        reference_views(views, 19, 48)


def wide(views: Views) -> Views:
    """Add empty columns to views, 7 at the left and 11 at the right."""
    Ks = views.Ks.copy()
    Ks[:, 0, 2] += 7
    return replace(views, images=np.pad(views.images, ((0, 0), (0, 0), (7, 11), (0, 0))), Ks=Ks)


def test_a_crop_moves_no_point() -> None:
    views, size = wide(VIEWS), 24
    found = reference_views(views, 5, size)
    assert found.images.shape == (5, size, size, 4)
    assert found.Ks[:, 0, 0] == pytest.approx(VIEWS.Ks[:5, 0, 0] * size / 48)
    for image, c2w, K in zip(found.images, found.c2w, found.Ks, strict=True):
        # the ball is at the origin, so its outline is centred at the image of the origin
        x, y, z = (np.linalg.inv(c2w) @ [0, 0, 0, 1])[:3]
        center = K @ [x / z, y / z, 1]
        weight = image[..., 3] / 255.0
        grid = np.arange(size) + 0.5
        seen = (weight.sum(0) @ grid / weight.sum(), weight.sum(1) @ grid / weight.sum())
        assert seen == pytest.approx(center[:2], abs=0.1)
    tall = replace(views, images=views.images.swapaxes(1, 2).copy(), Ks=views.Ks[:, [1, 0, 2]][:, :, [1, 0, 2]])
    assert reference_views(tall, 5, size).Ks[:, 1, 2] == pytest.approx(found.Ks[:, 0, 2])


def test_nothing_is_enlarged() -> None:
    assert reference_views(wide(VIEWS), 2, 48).images.shape == (2, 48, 48, 4)
    with pytest.raises(BadInput, match="views have 66 x 48 pixels, expected at least 49 x 49"):
        reference_views(wide(VIEWS), 2, 49)


def test_a_fit_sees_the_same_whether_views_were_shrunk_when_read_or_later(tmp_path: Path) -> None:
    write_views(tmp_path / "ball", size=50)
    read, later = load_views(tmp_path / "ball", size=32), resize(load_views(tmp_path / "ball"), 32)
    np.testing.assert_array_equal(read.images, later.images)
    np.testing.assert_array_equal(read.Ks, later.Ks)
