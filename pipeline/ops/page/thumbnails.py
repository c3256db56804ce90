"""Thumbnails of objects in sheets: one picture of many cells, so that a gallery loads few files."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.comparison import drawn
from gaussianverse.fitter.turntable import turntable

SIDE = 128
"""Pixels of a thumbnail."""
COLUMNS, ROWS = 10, 10
_QUALITY = 80


class Sheets:
    """Collects thumbnails and writes a sheet as soon as it is full."""

    def __init__(self, write: Callable[[str, bytes], None]) -> None:
        self._write, self._pending, self.count = write, list[NDArray[np.uint8]](), 0

    def add(self, gaussians: Gaussians) -> int:
        """Draw an object; returns its place: the number of the sheet times the cells of a sheet, plus the cell."""
        self._pending.append(drawn(turntable(gaussians, 1, SIDE), [gaussians])[1][0])
        self.count += 1
        if len(self._pending) == COLUMNS * ROWS:
            self.finish()
        return self.count - 1

    def finish(self) -> None:
        """Write the last sheet."""
        if not self._pending:
            return
        number = (self.count - 1) // (COLUMNS * ROWS)
        rows = -(-len(self._pending) // COLUMNS)
        sheet = np.full((rows * SIDE, COLUMNS * SIDE, 3), 255, np.uint8)
        for k, image in enumerate(self._pending):
            top, left = k // COLUMNS * SIDE, k % COLUMNS * SIDE
            sheet[top : top + SIDE, left : left + SIDE] = image
        self._write(f"thumbs-{number:04d}.webp", webp(sheet, _QUALITY))
        self._pending.clear()


def webp(pixels: NDArray[np.uint8], quality: int = 85) -> bytes:
    """Encode a picture [H, W, 3] as WebP."""
    sink = BytesIO()
    Image.fromarray(pixels).save(sink, "WEBP", quality=quality, method=2)
    return sink.getvalue()
