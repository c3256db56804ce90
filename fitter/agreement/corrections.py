"""The usual mistakes, each as the views would be once it is corrected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement.rays import Array, look
from gaussianverse.fitter.agreement.silhouettes import Silhouettes
from gaussianverse.fitter.agreement.verdict import Rays

SIZE, RAYS, DEPTHS = 64, 640, 96
"""Pixels, rays and samples that are enough to tell one mistake from another."""
SWAPPED = "width and height are swapped in the intrinsics"
_FLIP = np.array([1.0, -1.0, -1.0, 1.0])


class Corrected(NamedTuple):
    """Views once a mistake is corrected; `text` completes "they agree if ..."."""

    text: str
    views: Silhouettes
    c2w: Array
    K: Array

    def some(self, index: NDArray[np.intp]) -> Corrected:
        """The same correction of some views."""
        return Corrected(self.text, self.views.some(index), self.c2w[index], self.K[index])

    def agreement(self, rays: int = RAYS, depths: int = DEPTHS) -> tuple[float, float]:
        """Share of the rays that say something which are explained, and the share that says something."""
        if not self.views.tell:
            return 0.0, 0.0
        evidence = look(self.views, self.c2w, self.K, rays, depths)
        explained, told = Rays(evidence, 1).judged()
        return (float(explained[told].mean()), float(told.mean())) if told.any() else (0.0, 0.0)


def of_cameras(views: Silhouettes, shape: tuple[int, ...], c2w: Array, K: Array) -> Iterator[Corrected]:
    """Yield corrections of all matrices or intrinsics; `shape` of the alpha is [V, H, W].

    Flips on the other side of the matrices move the world as a whole. Silhouettes cannot tell, and need not.
    """
    turned = c2w.copy()
    inverse = np.linalg.inv(c2w).astype(np.float64, copy=False)
    turned[:, :3, :3] = np.swapaxes(c2w[:, :3, :3], 1, 2)
    negated = "y and z axes of the cameras are negated: OpenGL and OpenCV were mixed up"
    both = "the matrices are inverted and then y and z axes negated: OpenGL world-to-camera"
    yield Corrected("the matrices are inverted: they are world-to-camera", views, inverse, K)
    yield Corrected(negated, views, c2w * _FLIP, K)
    yield Corrected(both, views, inverse * _FLIP, K)
    yield Corrected("the rotations are transposed", views, turned, K)
    if shape[1] != shape[2]:
        yield Corrected(SWAPPED, views, c2w, swapped(K))


def of_pictures(views: Silhouettes, shape: tuple[int, ...], c2w: Array, K: Array) -> Iterator[Corrected]:
    """Yield corrections of all pictures, or of their order; `shape` of the alpha is [V, H, W]."""
    yield Corrected("the pictures are mirrored left to right", _pixels(views, np.s_[:, :, ::-1]), c2w, K)
    yield Corrected("the pictures are mirrored top to bottom", _pixels(views, np.s_[:, ::-1]), c2w, K)
    yield Corrected("the pictures are turned by half a turn", _pixels(views, np.s_[:, ::-1, ::-1]), c2w, K)
    if shape[1] == shape[2]:
        for way, k in (("left", 1), ("right", -1)):
            yield Corrected(f"the pictures are turned {way} by a quarter turn", _quarter(views, k), c2w, K)
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
        yield Corrected(text, views.some(index), c2w, K)


def swapped(K: Array) -> Array:
    """Intrinsics [V, 3, 3] of pictures with width and height exchanged."""
    other = K.copy()
    other[:, [0, 1], [0, 1]], other[:, [0, 1], [2, 2]] = K[:, [1, 0], [1, 0]], K[:, [1, 0], [2, 2]]
    return other


def _pixels(views: Silhouettes, index: tuple[slice, ...]) -> Silhouettes:
    # kernels are compiled for contiguous arrays
    beyond = np.ascontiguousarray(views.beyond[index])
    return replace(views, solid=views.solid[index], rim=views.rim[index], beyond=beyond)


def _quarter(views: Silhouettes, k: int) -> Silhouettes:
    solid, rim = np.rot90(views.solid, k, (1, 2)), np.rot90(views.rim, k, (1, 2))
    return replace(views, solid=solid, rim=rim, beyond=np.ascontiguousarray(np.rot90(views.beyond, k, (1, 2))))
