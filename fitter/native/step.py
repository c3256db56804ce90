"""A whole training step of plain Gaussians in one native call: drawing, loss, gradient and Adam, without autograd."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import byref, c_double, c_int
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.native import library
from gaussianverse.fitter.native.library import LANES, WINDOW, Training, camera_of, enough

Floats = NDArray[np.float32]

COLUMNS = {"means": 3, "log_scales": 3, "quats": 4, "logits": 1, "colors": 3}
"""Trained values of a Gaussian in the order of the kernels' planes, and how many numbers each has."""
SIDE_MIN = WINDOW
"""Shortest side of a picture: that of SSIM's window."""


@dataclass(frozen=True)
class Pictures:
    """Reference views as the kernels read them, four bytes a pixel.

    Attributes:
        rgba: uint8 [V, H, W, 4], straight alpha, contiguous.
        viewmats: world-to-camera, float32 [V, 4, 4].
        Ks: float32 [V, 3, 3], in pixels.
        silhouettes: int32 [V, 4]: rows and columns y0, y1, x0, x1 outside which alpha is 0.
    """

    rgba: NDArray[np.uint8]
    viewmats: Floats
    Ks: Floats
    silhouettes: NDArray[np.int32]

    @classmethod
    def of(cls, rgba: NDArray[np.uint8], viewmats: NDArray[Any], Ks: NDArray[Any]) -> Pictures:
        """Pictures of images [V, H, W, 4] and their cameras.

        Raises:
            ValueError: a side is shorter than `SIDE_MIN`.
        """
        height, width = rgba.shape[1:3]
        if min(height, width) < SIDE_MIN:
            raise ValueError(f"pictures have {width} x {height} pixels, expected at least {SIDE_MIN} x {SIDE_MIN}")
        boxes = np.empty((len(rgba), 4), np.int32)
        for box, image in zip(boxes, rgba, strict=True):
            shown = image[..., 3] != 0
            rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
            # the middle, if nothing is shown
            box[:2] = (rows[0], rows[-1] + 1) if len(rows) else (height // 2, height // 2)
            box[2:] = (columns[0], columns[-1] + 1) if len(columns) else (width // 2, width // 2)
        return cls(np.ascontiguousarray(rgba), viewmats.astype(np.float32), Ks.astype(np.float32), boxes)


@dataclass(frozen=True)
class Weights:
    """Weights of the loss: l1 L1 + l2 L2 + ssim (1 - SSIM) + volume R.

    L1 and L2 are the mean absolute and the mean squared difference, R is the mean volume of the Gaussians in view.
    """

    l1: float
    ssim: float
    volume: float
    l2: float = 0.0


class PlainStep:
    """Plain Gaussians with the state of their training: float32 planes, one number of all Gaussians after the other.

    Adam is torch's, with betas 0.9 and 0.999 and eps 1e-15. All that a step sums up is summed in one order, so equal
    calls give equal bits, on processors with AVX2, with AVX-512 and without.

    Args:
        values: rows by the names of `COLUMNS`: [G, 3], [G, 3], [G, 4], [G], [G, 3].

    Attributes:
        steps: number of steps so far.
        screen: per Gaussian, sum of the norm of its screen gradient, in half-image units, over the views of
            `views`, float32 [G].
        views: number of views in which the Gaussian was drawn, [G].
        weights: sum over those views of its blending weight T alpha, as a share of the picture, [G].
    """

    def __init__(self, values: Mapping[str, NDArray[Any]]) -> None:
        self._kernels = library.kernels()
        self._fit = self._kernels.gv_fit_new()
        enough(bool(self._fit))
        self.count, self.steps = len(values["means"]), 0
        self._planes = np.zeros((3, sum(COLUMNS.values()), _whole(self.count)), np.float32)
        self._seen = np.zeros((3, _whole(self.count)), np.float32)
        self._gradients: Floats | None = None
        for name, plane in self._named(self._planes[0]).items():
            plane[..., : self.count] = np.asarray(values[name], np.float32).T

    def __del__(self) -> None:
        if fit := getattr(self, "_fit", None):
            self._kernels.gv_fit_free(fit)

    def __len__(self) -> int:
        return self.count

    @staticmethod
    def _named(planes: Floats) -> dict[str, Floats]:
        """The planes [14, stride] of each name; a single plane has one axis, as its rows have."""
        named, first = {}, 0
        for name, columns in COLUMNS.items():
            named[name] = planes[first] if columns == 1 else planes[first : first + columns]
            first += columns
        return named

    @property
    def values(self) -> dict[str, Floats]:
        """Copies of the trained values as rows, by name."""
        named = self._named(self._planes[0])
        return {name: plane[..., : self.count].T.copy() for name, plane in named.items()}

    @property
    def screen(self) -> Floats:  # noqa: D102  # described with the class
        return self._seen[0, : self.count]

    @property
    def views(self) -> Floats:  # noqa: D102
        return self._seen[1, : self.count]

    @property
    def weights(self) -> Floats:  # noqa: D102
        return self._seen[2, : self.count]

    def clear_statistics(self) -> None:
        """Set `screen`, `views` and `weights` to 0."""
        self._seen[:] = 0

    def step(
        self, pictures: Pictures, views: Sequence[int], background: Sequence[float], rates: Mapping[str, float],
        weights: Weights, max_alpha: float,
    ) -> float:  # fmt: skip
        """Take one step with the mean loss over some views, and return that loss before the step.

        Args:
            pictures: the references, of any size.
            views: indices of at least one.
            background: RGB behind all of them.
            rates: learning rate of each name.
            weights: weights of the loss.
            max_alpha: largest alpha.

        Raises:
            MemoryError: the lists of a view find no memory.
        """
        if self._gradients is None and len(views) > 1:
            self._gradients = np.zeros_like(self._planes[0])
        self.steps += 1
        training, share, loss = self._training(rates, weights), 1 / len(views), 0.0
        height, width = pictures.rgba.shape[1:3]
        for k, view in enumerate(views):
            camera = camera_of(
                pictures.viewmats[view], pictures.Ks[view], width, height, background, max_alpha=max_alpha
            )
            losses = (c_double * 4)()
            enough(
                self._kernels.gv_step(
                    self._fit, byref(training), byref(camera), pictures.rgba[view].ctypes.data,
                    (c_int * 4)(*pictures.silhouettes[view].tolist()), share, k == 0, k == len(views) - 1, losses,
                )
            )  # fmt: skip
            l1, l2, ssim, volume = losses
            loss += share * (weights.l1 * l1 + weights.l2 * l2 + weights.ssim * (1 - ssim) + weights.volume * volume)
        return loss

    def removal_costs(
        self, pictures: Pictures, backgrounds: NDArray[Any], max_alpha: float
    ) -> tuple[NDArray[np.float64], float]:
        """The change that the removal of each Gaussian would make to the renders of all views, and their error now.

        Args:
            pictures: the references.
            backgrounds: RGB behind each view, [V, 3].
            max_alpha: largest alpha.

        Returns:
            Per Gaussian, the sum over views, pixels and channels of the squared change of the image without it, [G];
            and the sum of the squared differences of the images from the references.

        Raises:
            MemoryError: the lists of a view find no memory.
        """
        training = self._training(dict.fromkeys(COLUMNS, 0.0), Weights(0, 0, 0))
        height, width = pictures.rgba.shape[1:3]
        costs, total, error = np.zeros(self.count), 0.0, c_double()
        for rgba, viewmat, K, background in zip(
            pictures.rgba, pictures.viewmats, pictures.Ks, backgrounds, strict=True
        ):
            camera, of_view = (
                camera_of(viewmat, K, width, height, background, max_alpha=max_alpha),
                np.zeros_like(self.views),
            )
            enough(
                self._kernels.gv_removal(
                    self._fit, byref(training), byref(camera), rgba.ctypes.data, of_view.ctypes.data, byref(error)
                )
            )
            costs += of_view
            total += error.value
        return costs, total

    def _training(self, rates: Mapping[str, float], weights: Weights) -> Training:
        steps = max(self.steps, 1)
        bias = 1 - 0.9**steps
        each = [rates[name] / bias for name, columns in COLUMNS.items() for _ in range(columns)]
        gradients = self._planes[0] if self._gradients is None else self._gradients
        return Training(
            *(planes.ctypes.data for planes in (*self._planes, gradients)), *(row.ctypes.data for row in self._seen),
            self._planes.shape[2], self.count, (ctypes.c_float * len(each))(*each), (1 - 0.999**steps) ** -0.5,
            weights.l1, weights.l2, weights.ssim, weights.volume,
        )  # fmt: skip

    def replace(self, keep: NDArray[np.bool_], added: Mapping[str, NDArray[Any]]) -> None:
        """Keep some Gaussians with their moments, and append others without; statistics begin anew.

        Args:
            keep: mask [G].
            added: rows by name.
        """
        kept, total = int(keep.sum()), int(keep.sum()) + len(added["means"])
        planes = np.zeros((3, self._planes.shape[1], _whole(total)), np.float32)
        planes[:, :, :kept] = self._planes[:, :, : self.count][:, :, keep]
        for name, plane in self._named(planes[0]).items():
            plane[..., kept:total] = np.asarray(added[name], np.float32).T
        self._planes, self._gradients, self.count = planes, None, total
        self._seen = np.zeros((3, planes.shape[2]), np.float32)

    def set_rows(self, rows: NDArray[np.intp], values: Mapping[str, NDArray[Any]]) -> None:
        """Set the values of some Gaussians, and forget their moments."""
        for name, plane in self._named(self._planes[0]).items():
            plane[..., rows] = np.asarray(values[name], np.float32).T
        self._planes[1:, :, rows] = 0


def _whole(count: int) -> int:
    """Count rounded up to whole vectors, at least one."""
    return max(1, -(-count // LANES)) * LANES
