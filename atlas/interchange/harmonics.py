"""View-dependent colour as real spherical harmonics, in the order and with the signs of the original 3DGS.

A Gaussian at `m` that a camera at `e` sees has the colour max(0, 0.5 + sum_k basis_k((m - e) / |m - e|) h_k).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians

MAX_DEGREE = 3
# the constant spherical harmonic, 1 / (2 sqrt(pi))
SH_C0 = 0.28209479177387814
_C1 = 0.4886025119029199
_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)

Floats = npt.NDArray[np.float64]


def basis(directions: npt.ArrayLike, degree: int) -> Floats:
    """Evaluate all harmonics up to a degree.

    Args:
        directions: unit vectors, [..., 3].
        degree: 0 to 3.

    Returns:
        float64 [..., (degree + 1)^2].
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise AtlasError(f"the degree of spherical harmonics is {degree}, expected 0 to {MAX_DEGREE}")
    x, y, z = np.moveaxis(np.asarray(directions, np.float64), -1, 0)
    values = [np.full_like(x, SH_C0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    xx, yy, zz = x * x, y * y, z * z
    if degree >= 2:
        a, b, c = _C2
        values += [a * x * y, -a * y * z, b * (2 * zz - xx - yy), -a * x * z, c * (xx - yy)]
    if degree >= 3:
        a, b, c, d, e = _C3
        values += [
            -a * y * (3 * xx - yy),
            b * x * y * z,
            -c * y * (4 * zz - xx - yy),
            d * z * (2 * zz - 3 * xx - 3 * yy),
            -c * x * (4 * zz - xx - yy),
            e * z * (xx - yy),
            -a * x * (xx - 3 * yy),
        ]
    return np.stack(values, axis=-1)


@dataclass(frozen=True)
class ViewDependent:
    """Gaussians whose colour depends on the direction from which they are seen.

    Attributes:
        gaussians: everything else, [M]; their `colors` are the constant harmonic's, clipped to [0, 1].
        harmonics: coefficients with the constant one first, [M, K, 3], float64; K is 1, 4, 9 or 16.

    Raises:
        AtlasError: `harmonics` has another shape, or a coefficient is not finite.
    """

    gaussians: Gaussians
    harmonics: Floats

    def __post_init__(self) -> None:
        allowed = [(len(self.gaussians), (degree + 1) ** 2, 3) for degree in range(MAX_DEGREE + 1)]
        if self.harmonics.shape not in allowed:
            raise AtlasError(
                f"spherical harmonics have shape {self.harmonics.shape}, expected [{len(self.gaussians)}, K, 3] with "
                "K = 1, 4, 9 or 16"
            )
        bad = ~np.isfinite(self.harmonics).all(axis=(1, 2))
        if bad.any():
            row = int(bad.argmax())
            raise AtlasError(f"the spherical harmonics of row {row} are not finite")

    def __len__(self) -> int:
        return len(self.gaussians)

    def __getitem__(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice) -> ViewDependent:
        return ViewDependent(self.gaussians[rows], self.harmonics[rows])

    @property
    def degree(self) -> int:
        """Largest degree with a coefficient other than 0."""
        used = np.flatnonzero(self.harmonics.any(axis=(0, 2)))
        return int(np.sqrt(used[-1])) if len(used) else 0

    @property
    def plain(self) -> bool:
        """Whether all directions see the colours of `gaussians`."""
        colors = 0.5 + SH_C0 * self.harmonics[:, 0]
        # room for rounding: colours of exactly 0 and 1 are common
        return self.degree == 0 and bool(((colors >= -1e-6) & (colors <= 1 + 1e-6)).all())

    def colors_from(self, eye: npt.ArrayLike) -> Floats:
        """Colours that a camera at `eye`, [3], sees; at least 0, and above 1 where they are; [M, 3]."""
        rays = self.gaussians.means.astype(np.float64) - np.asarray(eye, np.float64)
        lengths = np.linalg.norm(rays, axis=1, keepdims=True)
        values = basis(rays / np.where(lengths > 0, lengths, 1.0), self.degree)
        colors: Floats = np.maximum(0.5 + np.einsum("mk,mkc->mc", values, self.harmonics[:, : values.shape[1]]), 0)
        return colors

    def swap_red_blue(self) -> ViewDependent:
        """Exchange red and blue, which published fits need."""
        swapped = replace(self.gaussians, colors=self.gaussians.colors[:, ::-1])
        return ViewDependent(swapped, self.harmonics[:, :, ::-1])


def constant(gaussians: Gaussians) -> ViewDependent:
    """Gaussians that have one colour in all directions."""
    return ViewDependent(gaussians, ((gaussians.colors.astype(np.float64) - 0.5) / SH_C0)[:, None])
