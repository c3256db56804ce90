"""Reference views: a few views of an object from all directions, as squares of one size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.errors import BadInput, MissingViews
from gaussianverse.fitter.views import Views, drop_duplicate_poses, resize


def reference_views(views: Views, count: int, size: int) -> Views:
    """Choose `count` views with distinct poses that are not blank, spread over all directions.

    Farthest-point sampling from the first view on, so that the first few are spread as well. Images are cropped to
    the square about their centre, with intrinsics to match, and shrunk.

    Args:
        views: the views of one object, at full size.
        count: number of reference views, at least 1.
        size: side of the square in pixels.

    Returns:
        Views with images [count, size, size, 4] and cameras in the same world; without depths.

    Raises:
        MissingViews: there are fewer than `count` such views.
        BadInput: images are smaller than `size`; they are not enlarged.
    """
    shown = views[np.flatnonzero(views.images[..., 3].any(axis=(1, 2)))]
    distinct = drop_duplicate_poses(shown)
    if len(distinct) < count:
        raise MissingViews(
            f"{len(distinct)} distinct views are not blank, expected at least {count}; render more, or lower "
            "run.views"
        )
    if min(views.height, views.width) < size:
        raise BadInput(
            f"views have {views.width} x {views.height} pixels, expected at least {size} x {size}; render larger "
            "ones, or lower run.views_size"
        )
    chosen = distinct[_spread(distinct.c2w, count)]
    return resize(_square(replace(chosen, depths=None)), size)


def _spread(c2w: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Farthest-point sampling of the optical axes, from the first view on; ties take the first."""
    axes = c2w[:, :3, 2]
    chosen = [0]
    nearest = np.full(len(axes), np.inf)
    while len(chosen) < count:
        # rounded, so that mirrored views tie on every machine
        apart = np.round(((axes - axes[chosen[-1]]) ** 2).sum(axis=1), 6)
        nearest = np.minimum(nearest, apart)
        nearest[chosen[-1]] = -1.0
        chosen.append(int(nearest.argmax()))
    return np.array(chosen, np.intp)


def _square(views: Views) -> Views:
    side = min(views.height, views.width)
    top, left = (views.height - side) // 2, (views.width - side) // 2
    Ks = views.Ks.copy()
    Ks[:, 0, 2] -= left
    Ks[:, 1, 2] -= top
    return replace(views, images=views.images[:, top : top + side, left : left + side], Ks=Ks)
