"""Mergeable statistics of atlases, for standardisation (paper section 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.arrays import npz, read_npz
from gaussianverse.atlas.dataset_format import CHANNELS
from gaussianverse.atlas.errors import AtlasError

# Quantiles come from a histogram over the leading 12 bits of float16: sign, exponent, 6 bits of mantissa. Counts
# merge exactly, in any order, and a quantile is accurate to 1/64 of its value.
_BINS = 4096
_DROPPED_BITS = 4

Floats = npt.NDArray[np.float64]


class Moments:
    """Count, mean and sum of squared deviations per pixel and channel; range and histogram per channel.

    Parts are merged by Chan's formula in float64, so the result depends on the division into parts by at most 1e-12.

    Attributes:
        count: number of atlases.
        lowest, highest: float64 [16]; infinite while `count` is 0.
        histogram: int64 [16, 4096], cells per bin.
    """

    def __init__(self, size: int) -> None:
        shape = (size, size, CHANNELS)
        self.count = 0
        self._mean, self._m2 = np.zeros(shape), np.zeros(shape)
        self.lowest, self.highest = np.full(CHANNELS, np.inf), np.full(CHANNELS, -np.inf)
        self.histogram = np.zeros((CHANNELS, _BINS), np.int64)

    def add(self, atlas: npt.NDArray[np.floating]) -> None:
        """Add one atlas, [size, size, 16], finite."""
        values = np.asarray(atlas, np.float64)
        self._check_shape(values.shape)
        if not np.isfinite(values).all():
            raise AtlasError("the atlas has values that are not finite")
        self.count += 1
        delta = values - self._mean
        self._mean += delta / self.count
        self._m2 += delta * (values - self._mean)
        flat = values.reshape(-1, CHANNELS)
        self.lowest = np.minimum(self.lowest, flat.min(axis=0))
        self.highest = np.maximum(self.highest, flat.max(axis=0))
        for channel, codes in enumerate(_codes(flat).T):
            self.histogram[channel] += np.bincount(codes, minlength=_BINS)

    def merge(self, other: Moments) -> None:
        """Add the atlases of `other`."""
        self._check_shape(other._mean.shape)
        total = self.count + other.count
        if total == 0:
            return
        delta = other._mean - self._mean
        self._mean += delta * (other.count / total)
        self._m2 += other._m2 + delta * delta * (self.count * other.count / total)
        self.count = total
        self.lowest = np.minimum(self.lowest, other.lowest)
        self.highest = np.maximum(self.highest, other.highest)
        self.histogram += other.histogram

    def mean(self) -> Floats:
        """Mean per pixel and channel, [size, size, 16]."""
        self._check_count()
        return self._mean.copy()

    def std(self, floor: float = 0.0) -> Floats:
        """Population standard deviation per pixel and channel, [size, size, 16], at least `floor`."""
        self._check_count()
        return np.asarray(np.maximum(np.sqrt(self._m2 / self.count), floor))

    def quantiles(self, fractions: npt.ArrayLike) -> Floats:
        """Quantiles of all cells per channel, accurate to 1/64 of the value.

        Args:
            fractions: in [0, 1], [Q].

        Returns:
            [16, Q].
        """
        self._check_count()
        wanted = np.asarray(fractions, np.float64)
        cumulative = self.histogram.cumsum(axis=1)
        ranks = wanted * (cumulative[0, -1] - 1)
        bins = np.stack([np.searchsorted(row, ranks, side="right") for row in cumulative])
        return np.asarray(np.clip(_CENTRES[bins], self.lowest[:, None], self.highest[:, None]))

    def to_bytes(self) -> bytes:
        """Encode as an uncompressed .npz file; equal statistics give equal bytes."""
        return npz(self._arrays())

    @classmethod
    def from_bytes(cls, data: bytes) -> Moments:
        """Decode the bytes of `to_bytes`.

        Raises:
            AtlasError: `data` is not such an .npz file.
        """
        try:
            found = read_npz(data, cls(0)._arrays())
            size = len(found["mean"]) if found["mean"].ndim else 0
            if found["mean"].shape != (size, size, CHANNELS):
                raise AtlasError(f"mean is {found['mean'].shape}, expected [size, size, {CHANNELS}]")
            moments = cls(size)
            for name, array in moments._arrays().items():
                if (found[name].dtype, found[name].shape) != (array.dtype, array.shape):
                    raise AtlasError(
                        f"{name} is {found[name].dtype} {found[name].shape}, expected {array.dtype} {array.shape}"
                    )
            if found["count"] < 0 or found["histogram"].min() < 0:
                raise AtlasError(f"count is {found['count']} or a bin is below 0, expected no negative number")
        except AtlasError as error:
            raise AtlasError(f"not an .npz file of moments: {error}") from error
        moments.count = int(found["count"])
        moments._mean, moments._m2 = found["mean"], found["m2"]
        moments.lowest, moments.highest = found["lowest"], found["highest"]
        moments.histogram = found["histogram"]
        return moments

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "count": np.asarray(self.count, np.int64), "mean": self._mean, "m2": self._m2,
            "lowest": self.lowest, "highest": self.highest, "histogram": self.histogram,
        }  # fmt: skip

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self._mean.shape:
            raise AtlasError(f"statistics of atlases {self._mean.shape} cannot include {shape}")

    def _check_count(self) -> None:
        if self.count == 0:
            raise AtlasError("there are no statistics of 0 atlases; add one first")


def _codes(values: Floats) -> npt.NDArray[np.int64]:
    """Bin of each value, ascending with it; values beyond float16 are clipped to its range."""
    largest = float(np.finfo(np.float16).max)
    bits = np.clip(values, -largest, largest).astype(np.float16).view(np.uint16).astype(np.int64)
    # float16 is sign and magnitude: negative values count downwards from the middle
    ordered = np.where(bits & 0x8000, 0x7FFF - (bits & 0x7FFF), bits + 0x8000)
    return np.asarray(ordered >> _DROPPED_BITS, np.int64)


def _centres() -> Floats:
    """Value at the centre of each bin."""
    ordered = np.arange(_BINS) * (1 << _DROPPED_BITS) + (1 << (_DROPPED_BITS - 1))
    bits = np.where(ordered < 0x8000, 0x8000 | (0x7FFF - ordered), ordered - 0x8000)
    return np.nan_to_num(bits.astype(np.uint16).view(np.float16).astype(np.float64))


_CENTRES = _centres()
