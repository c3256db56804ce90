"""Reference views: a few of an object's views that see it from all around, as squares of one size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.errors import BadInput, MissingViews
from gaussianverse.fitter.views import Views, drop_duplicate_poses, resize


def reference_views(views: Views, count: int, size: int) -> Views:
    """`count` views of distinct poses that show something, spread over the directions from which there are any.

    The first is the first view; each next one is the view that looks from farthest away from those chosen, so
    that also the first few of them are spread. Images are cropped to the square about their centre, which no
    projection notices, and shrunk.

    Args:
        views: of one object, as large as they were read.
        count: how many, at least 1.
        size: pixels of the square's side.

    Returns:
        Views of [count, size, size, 4], their cameras in the same world; without depths.

    Raises:
        MissingViews: fewer than `count` such views.
        BadInput: images are smaller than `size`; they are never enlarged.
    """
    shown = views[np.flatnonzero(views.images[..., 3].any(axis=(1, 2)))]
    distinct = drop_duplicate_poses(shown)
    if len(distinct) < count:
        raise MissingViews(
            f"{len(distinct)} distinct views that show something, run.views asks for {count}; render more, or "
            "lower run.views"
        )
    if min(views.height, views.width) < size:
        raise BadInput(
            f"views of {views.width} x {views.height} pixels give no reference views of {size} x {size}; render "
            "larger ones, or lower run.views_size"
        )
    chosen = distinct[_spread(distinct.c2w, count)]
    return resize(_square(replace(chosen, depths=None)), size)


def _spread(c2w: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Farthest-point sampling of the optical axes, from the first view on; of equals the first."""
    axes = c2w[:, :3, 2]
    chosen = [0]
    nearest = np.full(len(axes), np.inf)
    while len(chosen) < count:
        # rounded, so that views which mirror each other are equals on every machine
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
