"""3D Gaussians as arrays, and their .npz file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gaussianverse import foreign
from gaussianverse.atlas.arrays import npz, read_npz
from gaussianverse.atlas.errors import AtlasError

FloatArray = npt.NDArray[np.float32]

_TAILS = {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "colors": (3,)}


@dataclass(frozen=True)
class Gaussians:
    """M view-independent 3D Gaussians with activated values (paper section 3).

    Attributes:
        means: positions, [M, 3], float32.
        scales: standard deviations along the Gaussian's own axes, linear, > 0, [M, 3].
        quats: unit rotations, wxyz, w >= 0, [M, 4].
        opacities: in (0, 1], [M].
        colors: RGB albedo in [0, 1], [M, 3].

    Raises:
        AtlasError: a wrong shape, or NaN or infinity in a field; the message names field and row.
    """

    means: FloatArray
    scales: FloatArray
    quats: FloatArray
    opacities: FloatArray
    colors: FloatArray

    def __post_init__(self) -> None:
        count = len(self.means)
        for name, tail in _TAILS.items():
            value = np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            if value.shape != (count, *tail):
                raise AtlasError(f"Gaussians.{name} has shape {value.shape}, expected {(count, *tail)}")
            bad = ~np.isfinite(value)
            if bad.any():
                row = int(np.argwhere(bad)[0][0])
                raise AtlasError(f"Gaussians.{name} row {row} is not finite: {value[row]}")
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice) -> Gaussians:
        return Gaussians(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def bounds(self) -> dict[str, float]:
        """`bbox_min_x` to `bbox_max_z` of the means, and `thinness`: smallest over largest side of that box, 0 to 1.

        `thinness` is -1 where all means are at one point.
        """
        low, high = self.means.min(axis=0), self.means.max(axis=0)
        sides = high.astype(np.float64) - low
        return {
            **{f"bbox_min_{a}": float(v) for a, v in zip("xyz", low, strict=True)},
            **{f"bbox_max_{a}": float(v) for a, v in zip("xyz", high, strict=True)},
            "thinness": float(sides.min() / sides.max()) if sides.max() > 0 else -1.0,
        }

    def to_bytes(self) -> bytes:
        """Encode as an uncompressed .npz file; equal Gaussians give equal bytes."""
        return npz({f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Gaussians:
        """Decode the bytes of `to_bytes`.

        Raises:
            AtlasError: `data` is not such an .npz file, or a field is missing.
        """
        try:
            return cls(**read_npz(data, _TAILS))
        except AtlasError as error:
            raise AtlasError(f"not an .npz file of Gaussians: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write `to_bytes` to a file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Gaussians:
        """Read a file that `save` wrote; errors name the file."""
        try:
            return cls.from_bytes(foreign.read_bytes(path))
        except AtlasError as error:
            raise AtlasError(f"{path}: {error}") from error


def canonical_quats(quats: npt.ArrayLike) -> FloatArray:
    """Normalise quaternions to norm 1 and w >= 0, since q and -q are the same rotation.

    If w is 0, the first non-zero component is made positive. A zero quaternion becomes the identity.

    Args:
        quats: wxyz, of any norm, [M, 4].

    Returns:
        float32 [M, 4], unit to float32 precision.
    """
    q = np.array(quats, dtype=np.float64)
    norm = np.linalg.norm(q, axis=1)
    q[norm == 0] = (1.0, 0.0, 0.0, 0.0)
    q /= np.where(norm == 0, 1.0, norm)[:, None]
    leading = np.take_along_axis(q, (q != 0).argmax(axis=1)[:, None], axis=1)
    q *= np.where(leading < 0, -1.0, 1.0)
    # + 0.0 turns -0.0, which has other bytes, into 0.0
    return (q + 0.0).astype(np.float32)
