"""Median and ends of very many numbers, which lie in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 17
_DIGIT = 16  # bits of a key that one pass over the file tells
_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some numbers."""

    median: float
    lowest: float
    highest: float


class Values:
    """Finite numbers, whose memory does not grow with their count."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="gaussianverse-")  # noqa: SIM115
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, values: NDArray[np.float64]) -> None:
        """Add numbers."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(values, np.float64).data)
        self._count += len(values)

    def spread(self) -> Spread | None:
        """Their spread, None of no numbers; the median of an even count is the mean of the two in the middle."""
        if not self._count:
            return None
        low, high = (self._ranked(rank) for rank in ((self._count - 1) // 2, self._count // 2))
        return Spread((low + high) / 2, self._ranked(0), self._ranked(self._count - 1))

    def _ranked(self, rank: int) -> float:
        """The number that `rank` others come before, by the bits of keys that are ordered as the numbers are."""
        known = np.uint64(0)
        for shift in range(64 - _DIGIT, -1, -_DIGIT):
            counts = np.zeros(1 << _DIGIT, np.int64)
            for keys in self._keys():
                if shift + _DIGIT < 64:
                    keys = keys[keys >> np.uint64(shift + _DIGIT) == known]
                digits = (keys >> np.uint64(shift)) & np.uint64((1 << _DIGIT) - 1)
                counts += np.bincount(digits.astype(np.int64), minlength=1 << _DIGIT)
            ends = np.cumsum(counts)
            digit = int(np.searchsorted(ends, rank, side="right"))
            rank -= int(ends[digit - 1]) if digit else 0
            known = (known << np.uint64(_DIGIT)) | np.uint64(digit)
        bits = known ^ _SIGN if known & _SIGN else ~known
        return float(np.array([bits], np.uint64).view(np.float64)[0])

    def _keys(self) -> Iterator[NDArray[np.uint64]]:
        self._file.seek(0)
        while data := self._file.read(8 * _PIECE):
            bits = np.frombuffer(data, np.uint64)
            yield np.where(bits & _SIGN, ~bits, bits | _SIGN)
