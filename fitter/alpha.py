"""Recognition of colours that were multiplied by alpha, in images whose alpha should be straight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# measured on 48 objects, 128 to 800 pixels: straight alpha has slopes of -0.08 to 0.38 and leaves 1.09 or more;
# premultiplied 0.89 to 1.26 and 0.59 or less, also after lossy compression
_SLOPE = (0.7, 1.4)
_LEFT = 0.8  # of the squared deviation from straight alpha that premultiplied alpha may leave
_DARKENING = 6.0  # levels, root mean square, that premultiplication would take from the rims at hand; at least 18
_BRIGHTER = 0.12  # share of pixels brighter than premultiplied ones can be but for noise; at most 0.09
_NOISE = 3  # levels
_PIXELS = 64
_CHUNK = 1 << 20  # pixels


@dataclass
class RimColors:
    """Sums over the partly transparent pixels of an object's images.

    A pixel on a silhouette's rim has the colour C0 of the opaque pixels beside it if alpha is straight, and a C0 if
    colours are premultiplied by the alpha a. So C is fitted by C0 (1 - t (1 - a)): t is 0 for straight alpha, 1 for
    premultiplied.
    """

    pixels: int = 0
    partial: int = 0
    brighter: int = 0
    drop2: float = 0.0
    lost2: float = 0.0
    both: float = 0.0

    def add(self, image: NDArray[np.uint8]) -> None:
        """Add one image, uint8 [H, W, 4]."""
        alpha = image[..., 3]
        partial = (alpha > 0) & (alpha < 255)
        y, x = np.nonzero(partial)
        self.partial += len(y)
        self.brighter += int((image[y, x, :3].max(-1) > alpha[y, x].astype(np.int16) + _NOISE).sum())
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        for start in range(0, len(y), _CHUNK):
            self._add_rim(image, padded, y[start : start + _CHUNK], x[start : start + _CHUNK])

    def _add_rim(
        self, image: NDArray[np.uint8], padded: NDArray[np.uint8], y: NDArray[np.intp], x: NDArray[np.intp]
    ) -> None:
        total, count = np.zeros((len(y), 3)), np.zeros(len(y))
        for dy in range(3):
            for dx in range(3):
                beside = padded[y + dy, x + dx]
                opaque = beside[:, 3] == 255
                total += np.where(opaque[:, None], beside[:, :3], 0)
                count += opaque
        rim = count > 0
        inner = total[rim] / count[rim, None]
        pixel = image[y[rim], x[rim]].astype(np.float64)
        drop = inner * (1 - pixel[:, 3:] / 255)
        lost = inner - pixel[:, :3]
        self.pixels += int(rim.sum())
        self.drop2 += float((drop * drop).sum())
        self.lost2 += float((lost * lost).sum())
        self.both += float((drop * lost).sum())

    @property
    def slope(self) -> float:
        """t, 0 for straight alpha and 1 for premultiplied; 0 where nothing can be told."""
        return self.both / self.drop2 if self.drop2 > 0 else 0.0

    @property
    def premultiplied(self) -> bool:
        """Whether colours are premultiplied: rims are darker by just that, and nothing is brighter than its alpha."""
        if self.pixels < _PIXELS or self.drop2 < 3 * self.pixels * _DARKENING**2:
            return False
        left = self.lost2 - 2 * self.both + self.drop2
        return (
            _SLOPE[0] <= self.slope <= _SLOPE[1]
            and left <= _LEFT * self.lost2
            and self.brighter <= _BRIGHTER * self.partial
        )


def straight(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Divide the colours of a premultiplied image, uint8 [H, W, 4], by alpha."""
    alpha = image[..., 3:].astype(np.float32)
    colors = image[..., :3] * np.divide(255, alpha, out=np.zeros_like(alpha), where=alpha > 0)
    return np.concatenate([np.rint(colors).clip(0, 255).astype(np.uint8), image[..., 3:]], -1)
