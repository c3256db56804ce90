"""Points of an object: farthest-point samples of its pixels, samples of its surface, its voxels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.layouts.encode import ply
from gaussianverse.manifests.rendering.layouts.posed import Subject, Views

MOST = 1 << 20
_INSIDE = 0.45  # GaussianAnything samples points within this cube
_LEAF = 7  # 2 ** 7 points in a leaf of the sampler's tree; the choice of points does not depend on it


@dataclass(frozen=True)
class Points:
    """A kind of points and how many.

    Attributes:
        kind: one of `KINDS`.
        count: number of points; of voxels, those a side.
    """

    kind: str
    count: int

    @property
    def name(self) -> str:
        """Name of the file, without suffix."""
        return f"{self.kind}-{self.count}"

    @property
    def of_pixels(self) -> bool:
        """Whether they are made of the depth of views."""
        return self.kind == "fps"

    def encode(self, subject: Subject, views: Views) -> bytes:
        """The points as PLY.

        Raises:
            LayoutError: the views have no depth or too few pixels, or the mesh is not known.
        """
        return ply(KINDS[self.kind](subject, views, self.count))


def parse(text: str) -> Points:
    """Parse KIND:COUNT.

    Raises:
        LayoutError: it has another form.
    """
    kind, _, count = text.partition(":")
    if kind not in KINDS or not count.isascii() or not count.isdigit() or not 0 < int(count[:9]) <= MOST:
        raise LayoutError(f"points {text!r}: expected one of {', '.join(KINDS)}, a colon, and a number up to {MOST}")
    return Points(kind, int(count))


def farthest(subject: Subject, views: Views, count: int) -> NDArray[np.float32]:
    """Sample the positions of all pixels that the object covers: each point is the farthest from those before it."""
    try:
        import fpsample
    except ImportError as error:
        raise LayoutError("farthest points need fpsample: pip install 'gaussianverse[render]'") from error
    found = np.concatenate([view.points() for view in views])
    found = found[(np.abs(found) < _INSIDE).all(axis=1)]
    if len(found) < count:
        raise LayoutError(
            f"fps:{count}: all views together have {len(found)} pixels with depth on the object; render larger ones"
        )
    chosen = fpsample.bucket_fps_kdline_sampling(found, count, h=_LEAF, start_idx=0)
    sample: NDArray[np.float32] = found[chosen.astype(np.intp)]
    return sample


KINDS: dict[str, Callable[[Subject, Views, int], NDArray[np.float32]]] = {"fps": farthest}
