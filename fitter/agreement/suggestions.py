"""What would make cameras and silhouettes agree: the usual mistakes, tried one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement.rays import Array, look
from gaussianverse.fitter.agreement.silhouettes import Silhouettes, silhouettes
from gaussianverse.fitter.agreement.verdict import AGREES, agreement

_SIZE, _RAYS, _DEPTHS = 64, 640, 96  # enough to tell one mistake from another
_ZOOMS = np.exp(np.arange(-10, 11) * 0.05)  # factors of the focal lengths, 0.6 to 1.65
_BETTER = 0.01  # by which a correction must improve the agreement
_ZOOMED = 0.06  # logarithm of the least factor worth a word
_FLAT = 0.005  # agreements that differ by less say the same; the middle of such factors is named


class Suggestion(NamedTuple):
    """A mistake that may have been made: `agreement` once it is corrected; `text` completes "they agree if ..."."""

    agreement: float
    text: str


def suggest(alpha: NDArray[np.uint8], c2w: Array, K: Array) -> Suggestion | None:
    """Find the mistake whose correction makes all views agree; None if no usual one does.

    Args:
        alpha: uint8 [V, H, W].
        c2w: OpenCV camera-to-world, float64 [V, 4, 4].
        K: intrinsics in pixels, float64 [V, 3, 3].
    """
    views, best = silhouettes(alpha, _SIZE), Suggestion(0.0, "")
    # what agrees as it is, seen as coarsely as here, needs no correction
    least = max(AGREES, _agreement(views, c2w, K) + _BETTER)
    for text, corrected, poses, intrinsics in _corrections(views, alpha, c2w, K):
        found = _agreement(corrected, poses, intrinsics)
        if found > best.agreement:
            best = Suggestion(found, text)
    if best.agreement < least:
        zoomed = np.array([_agreement(views, c2w, K * _zoom(zoom)) for zoom in _ZOOMS])
        fitting = zoomed >= zoomed.max() - _FLAT
        zoom = np.exp(np.log(_ZOOMS[fitting]).mean())
        if abs(np.log(zoom)) >= _ZOOMED:
            text = f"focal lengths are multiplied by about {zoom:.2f}: the field of view is wrong"
            best = max(best, Suggestion(float(zoomed.max()), text))
    return best if best.agreement >= least else None


def _agreement(views: Silhouettes, c2w: Array, K: Array) -> float:
    return agreement(look(views, c2w, K, _RAYS, _DEPTHS)) if views.tell else 0.0


def _zoom(factor: float) -> Array:
    zoom = np.ones((3, 3))
    zoom[0, 0] = zoom[1, 1] = factor
    return zoom


def _corrections(
    views: Silhouettes, alpha: NDArray[np.uint8], c2w: Array, K: Array
) -> Iterator[tuple[str, Silhouettes, Array, Array]]:
    """Yield the text of each correction, and what views would be with it.

    Flips on the other side of the matrices move the world as a whole. Silhouettes cannot tell, and need not.
    """
    flip, turned = np.array([1.0, -1.0, -1.0, 1.0]), c2w.copy()
    inverse = np.linalg.inv(c2w).astype(np.float64, copy=False)
    turned[:, :3, :3] = np.swapaxes(c2w[:, :3, :3], 1, 2)
    yield "the matrices are inverted: they are world-to-camera", views, inverse, K
    yield "y and z axes of the cameras are negated: OpenGL and OpenCV were mixed up", views, c2w * flip, K
    yield "the matrices are inverted and then y and z axes negated: OpenGL world-to-camera", views, inverse * flip, K
    yield "the rotations are transposed", views, turned, K
    if alpha.shape[1] != alpha.shape[2]:
        swapped = K.copy()
        swapped[:, [0, 1], [0, 1]], swapped[:, [0, 1], [2, 2]] = K[:, [1, 0], [1, 0]], K[:, [1, 0], [2, 2]]
        yield "width and height are swapped in the intrinsics", views, c2w, swapped
    yield "the pictures are mirrored left to right", _pixels(views, np.s_[:, :, ::-1]), c2w, K
    yield "the pictures are mirrored top to bottom", _pixels(views, np.s_[:, ::-1]), c2w, K
    yield "the pictures are turned by half a turn", _pixels(views, np.s_[:, ::-1, ::-1]), c2w, K
    if alpha.shape[1] == alpha.shape[2]:
        for way, k in (("left", 1), ("right", -1)):
            yield f"the pictures are turned {way} by a quarter turn", _quarter(views, k), c2w, K
    V = len(c2w)
    order = np.arange(V)
    as_text = np.array(sorted(range(V), key=str))
    for text, index in (
        ("each picture takes the pose before its own", np.roll(order, -1)),
        ("each picture takes the pose after its own", np.roll(order, 1)),
        ("the pictures are put in reverse order", order[::-1]),
        ("the pictures are ordered by number: 2 comes before 10", np.argsort(as_text)),
        ("the poses are ordered by number: 2 comes before 10", as_text),
    ):
        yield text, _reordered(views, index), c2w, K
    yield "alpha is inverted", silhouettes(255 - alpha, _SIZE), c2w, K


def _pixels(views: Silhouettes, index: tuple[slice, ...]) -> Silhouettes:
    # kernels are compiled for contiguous arrays
    beyond = np.ascontiguousarray(views.beyond[index])
    return replace(views, solid=views.solid[index], rim=views.rim[index], beyond=beyond)


def _quarter(views: Silhouettes, k: int) -> Silhouettes:
    solid, rim = np.rot90(views.solid, k, (1, 2)), np.rot90(views.rim, k, (1, 2))
    return replace(views, solid=solid, rim=rim, beyond=np.ascontiguousarray(np.rot90(views.beyond, k, (1, 2))))


def _reordered(views: Silhouettes, index: NDArray[np.intp]) -> Silhouettes:
    arrays = {name: getattr(views, name)[index] for name in ("solid", "rim", "beyond", "cropped", "shown", "border")}
    return replace(views, **arrays)
