"""Recognition of views that were made or exported wrongly, beyond what one view alone tells."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.config import InputsConfig
from gaussianverse.fitter.errors import BadInput
from gaussianverse.fitter.initial import focus_box, inside_hull
from gaussianverse.fitter.resample import shrink_rgba
from gaussianverse.fitter.views import Views

log = logging.getLogger(__name__)

_ROUNDED = 1e-3  # step of float32 at a camera's position that is refused, as a fraction of the cameras' spread
_SAMPLED, _THUMBNAIL = 64, 16  # pixels a side
_SAME = 3  # largest difference of two thumbnails of one picture, in levels
_SAMPLES, _BORDER = 64, 12  # along a ray, and rays per side of the border
_FILLED = 0.5  # least share of the border's rays that meet the object in a view that it fills
_COMPARED = 64  # pictures that each view is compared with


def check_inputs(views: Views, inputs: InputsConfig) -> None:
    """Refuse views without a background or with one in place of the object, and cameras whose positions were rounded.

    Raises:
        BadInput: alpha is 255 in all pixels of all views, or seems to be inverted; or the cameras' positions are so
            far from the origin that float32, which they were written in, moved them by a visible distance.
    """
    if inputs.opaque == "refuse" and all((image[..., 3] == 255).all() for image in views.images):
        raise BadInput(
            "alpha is 255 in every pixel of every view, so nothing separates the object from its background; render "
            "with a transparent background, add a mask as alpha, or set fit.inputs.opaque = 'keep'"
        )
    if inputs.opaque == "refuse" and _inverted(views.images[..., 3]):
        raise BadInput(
            "alpha is 255 along the borders of all views and 0 within, so it seems to be inverted: the background is "
            "opaque; invert it, or set fit.inputs.opaque = 'keep'"
        )
    if inputs.rounded == "refuse":
        _check_positions(views.c2w[:, :3, 3])


def _inverted(alpha: NDArray[np.uint8]) -> bool:
    """Whether alpha [V, H, W] is opaque along all borders of all views and clear somewhere within each."""
    framed = all((edge == 255).all() for edge in (alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]))
    return framed and bool((alpha == 0).any(axis=(1, 2)).all())


def _check_positions(centers: NDArray[np.float64]) -> None:
    rounded = centers.astype(np.float32)
    spread = float(np.linalg.norm(centers - centers.mean(0), axis=1).max())
    step = float(np.spacing(np.abs(rounded).max()))
    if (rounded == centers).all() and step > _ROUNDED * spread > 0:
        raise BadInput(
            f"the cameras' positions were rounded to float32, whose numbers are {step:.2g} apart there, and the "
            f"cameras lie within {spread:.2g}; write them in float64 or move them to the origin before they are "
            "written, or set fit.inputs.rounded = 'keep'"
        )


def same_picture(views: Views) -> int:
    """Largest number of views that show one picture, of views with distinct poses; 1 if all differ.

    Pictures are compared as thumbnails, premultiplied. Round objects look the same from around, so this is no error.
    """
    found: list[NDArray[np.int32]] = []
    counts: list[int] = []
    for image in views.images:
        coarse = image[:: -(-image.shape[0] // _SAMPLED), :: -(-image.shape[1] // _SAMPLED)]
        height, width = (min(_THUMBNAIL, side) for side in coarse.shape[:2])
        small = shrink_rgba(coarse, height, width).astype(np.int32)
        small[..., :3] = small[..., :3] * small[..., 3:] // 255
        for k, other in enumerate(found):
            if int(np.abs(small - other).max()) <= _SAME:
                counts[k] += 1
                break
        else:
            if len(found) < _COMPARED:
                found.append(small)
                counts.append(1)
    largest = max(counts, default=0)
    if len(views) > 2 and largest > len(views) / 2:
        log.warning("%d of %d views show one picture; right for a round object, else check them", largest, len(views))
    return largest


def without_mask(views: Views) -> NDArray[np.intp]:
    """Indices of views whose alpha is 255 everywhere, although other views show that the object does not fill them.

    A close-up may fill its frame. So rays through the frame's border are followed: they meet the object as the others
    outline it, or the view has no mask.
    """
    full = np.flatnonzero([(image[..., 3] == 255).all() for image in views.images])
    others = np.setdiff1d(np.arange(len(views)), full)
    if not len(full) or len(others) < max(3, len(full)):
        return np.zeros(0, np.intp)
    outlined = views[others]
    low, high = focus_box(outlined)
    focus, half = (low + high) / 2, float((high - low).max()) / 2
    return np.array([v for v in full.tolist() if _met(views, v, outlined, focus, half) < _FILLED], np.intp)


def _met(views: Views, v: int, outlined: Views, focus: NDArray[np.float64], half: float) -> float:
    """Share of rays through the border of view `v` that meet the visual hull of `outlined`, in the ball in view."""
    K, c2w = views.Ks[v], views.c2w[v]
    x, y = (np.linspace(0.5, side - 0.5, _BORDER) for side in (views.width, views.height))
    border = [(u, w) for u in x for w in (y[0], y[-1])] + [(u, w) for u in (x[0], x[-1]) for w in y]
    rays = np.array([((u - K[0, 2]) / K[0, 0], (w - K[1, 2]) / K[1, 1], 1.0) for u, w in border]) @ c2w[:3, :3].T
    depths = float((focus - c2w[:3, 3]) @ c2w[:3, 2]) + np.linspace(-half, half, _SAMPLES)
    points = (c2w[:3, 3] + rays[:, None] * depths[:, None]).reshape(-1, 3)
    # farther out, where few views see anything, the hull is open
    met = inside_hull(points, outlined) & (np.linalg.norm(points - focus, axis=1) <= half)
    return float((met.reshape(len(rays), -1) & (depths > 0)).any(1).mean())
