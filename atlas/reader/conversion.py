"""Conversions of stored atlases and views to the values that are trained on, in one pass over the memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gaussianverse.atlas.dataset_format import CHANNEL_NAMES, CHANNELS
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.standard import Standard

DTYPES = (torch.float32, torch.bfloat16)
"""Types that atlases are converted to."""
VIEWS_DTYPES = (torch.float32, torch.uint8)
"""Types that views are read as: float32 in [0, 1], or the bytes of the files, 0 to 255."""
_BLOCK = 1 << 16
"""Values that are converted at a time, few enough to stay in a core's cache from one step to the next."""


def channels_of(channels: Sequence[int | str] | None) -> list[int]:
    """Numbers of channels that are given by number or name; None = all.

    Raises:
        DatasetError: none at all, one twice, or no such channel.
    """
    if channels is None:
        return list(range(CHANNELS))
    numbers = [CHANNEL_NAMES.index(c) if c in CHANNEL_NAMES else c for c in channels]
    if isinstance(channels, str) or not numbers or len(set(numbers)) < len(numbers):
        raise DatasetError(f"channels {channels!r}: expected a list of one or more different channels")
    for number in numbers:
        if type(number) is not int or not 0 <= number < CHANNELS:
            known = ", ".join(dict.fromkeys(CHANNEL_NAMES))
            raise DatasetError(f"no channel {number!r}: expected 0 to {CHANNELS - 1}, or one of {known}")
    return [int(number) for number in numbers]


def write_images(images: npt.NDArray[np.uint8], out: Tensor) -> None:
    """Write images [K, s, s, 4] into `out`, as its type has them: see `VIEWS_DTYPES`."""
    # one by one: an image stays in a core's cache from one step to the next
    for into, image in zip(out, torch.from_numpy(images), strict=True):
        into.copy_(image)
        if into.is_floating_point():
            into.div_(255)


class Conversion:
    """Standardises atlases, selects channels and changes the type. Rounds once, to the type that is asked for.

    Args:
        standard: of all channels; None = keep the values.
        channels: numbers of the channels to keep, in their new order.
        dtype: one of `DTYPES`.

    Raises:
        DatasetError: another type.
    """

    def __init__(self, standard: Standard | None, channels: Sequence[int], dtype: torch.dtype) -> None:
        if dtype not in DTYPES:
            raise DatasetError(f"dtype {dtype!r} is none of {', '.join(map(str, DTYPES))}")
        self.channels, self.dtype = list(channels), dtype
        self._picked = None if self.channels == list(range(CHANNELS)) else torch.tensor(self.channels)
        self._moments: tuple[Tensor, Tensor] | None = None
        if standard is not None:
            chosen = standard.select(self.channels)
            self._moments = tuple(t.permute(1, 2, 0).contiguous() for t in (chosen.mean, chosen.std))  # type: ignore[assignment]

    @property
    def standardises(self) -> bool:
        """Whether values are standardised."""
        return self._moments is not None

    def write(self, array: npt.NDArray[Any], out: Tensor) -> None:
        """Write an atlas as it is stored, float32 or float16 [size, size, 16], into `out` [size, size, C]."""
        source = torch.from_numpy(array)
        rows = max(1, _BLOCK // (source.shape[1] * CHANNELS))
        for first in range(0, len(source), rows):
            block = slice(first, first + rows)
            part, into = source[block], out[block]
            if self._picked is not None:
                part = part.index_select(2, self._picked)
            if self._moments is not None:
                mean, std = (moment[block] for moment in self._moments)
                exact = into if self.dtype == torch.float32 else torch.empty(into.shape)
                part = torch.sub(part, mean, out=exact).div_(std)
            if part is not into:
                into.copy_(part)

    def __call__(self, array: npt.NDArray[Any]) -> Tensor:
        """An atlas [C, size, size], channels last in memory; in the memory of `array` if nothing is to be done."""
        stored_as_asked = array.dtype == np.float32 and self.dtype == torch.float32
        if stored_as_asked and self._picked is None and self._moments is None:
            return torch.from_numpy(array).permute(2, 0, 1)
        out = torch.empty((*array.shape[:2], len(self.channels)), dtype=self.dtype)
        self.write(array, out)
        return out.permute(2, 0, 1)
