"""Numba kernels of the pose gate. They use no fast mathematics: what they find decides which views are fitted."""

from __future__ import annotations

from typing import Any

import numpy as np

from gaussianverse.atlas.compiled import kernel

UNSEEN = np.uint8(255)
"""Stands for a point that a view does not have in frame."""
FAR = np.uint8(64)
"""Squared distance, in pixels, from which a point counts as far outside a silhouette."""
_REACH = 7  # pixels, the largest distance that is told apart
_RIM = 2  # pixels
_FAINT, _OPAQUE = 25, 127.5  # alpha above which a pixel may be object, and from which it is


@kernel(nogil=True, error_model="numpy")
def shrink(alpha: Any, rows: Any, columns: Any, mean: Any, faint: Any) -> None:
    """Shrink alpha [V, H, W] to cells between `rows` [h + 1] and `columns` [w + 1].

    Args:
        alpha: uint8 [V, H, W].
        rows, columns: first pixel of each cell, and the end.
        mean: float64 [V, h, w], is set to the mean alpha of each cell.
        faint: bool [V, h, w], is set where a pixel of the cell may be object.
    """
    V, h, w = mean.shape
    for v in range(V):
        top = 0
        for y in range(alpha.shape[1]):
            for x in range(alpha.shape[2]):
                top = max(top, alpha[v, y, x])
        limit = min(_FAINT, top // 4)
        for i in range(h):
            for j in range(w):
                total, most = 0, 0
                for y in range(rows[i], rows[i + 1]):
                    for x in range(columns[j], columns[j + 1]):
                        total += alpha[v, y, x]
                        most = max(most, alpha[v, y, x])
                mean[v, i, j] = total / ((rows[i + 1] - rows[i]) * (columns[j + 1] - columns[j]))
                faint[v, i, j] = most > limit


@kernel(nogil=True, error_model="numpy")
def outlines(mean: Any, faint: Any, solid: Any, rim: Any, beyond: Any) -> None:
    """Find where rays start, and how far outside its silhouette each pixel of a view lies.

    Args:
        mean, faint: from `shrink`.
        solid: bool [V, h, w], is set where alpha is at least half of 255, or half of the view's most (glass).
        rim: bool [V, h, w], is set where `solid` has a pixel that is not within two steps.
        beyond: uint8 [V, h, w], is set to the squared distance to the nearest `faint` pixel, at most `FAR`.
    """
    V, h, w = mean.shape
    for v in range(V):
        top = 1.0
        for y in range(h):
            for x in range(w):
                top = max(top, mean[v, y, x])
        limit = min(_OPAQUE, 0.5 * top)
        for y in range(h):
            for x in range(w):
                solid[v, y, x] = mean[v, y, x] >= limit
                beyond[v, y, x] = 0 if faint[v, y, x] else FAR
        for y in range(h):
            for x in range(w):
                if solid[v, y, x]:
                    near = False
                    for j in range(max(0, y - _RIM), min(h, y + _RIM + 1)):
                        steps = _RIM - abs(j - y)
                        for i in range(max(0, x - steps), min(w, x + steps + 1)):
                            near |= mean[v, j, i] < limit
                    rim[v, y, x] = near
                if faint[v, y, x]:
                    inner = 0 < y < h - 1 and 0 < x < w - 1
                    if (
                        inner
                        and faint[v, y - 1, x]
                        and faint[v, y + 1, x]
                        and faint[v, y, x - 1]
                        and faint[v, y, x + 1]
                    ):
                        continue
                    for j in range(max(0, y - _REACH), min(h, y + _REACH + 1)):
                        for i in range(max(0, x - _REACH), min(w, x + _REACH + 1)):
                            squared = (j - y) ** 2 + (i - x) ** 2
                            if squared < beyond[v, j, i]:
                                beyond[v, j, i] = squared


@kernel(nogil=True, error_model="numpy")
def follow(
    origins: Any, directions: Any, first: Any, step: Any, projections: Any, views: Any, beyond: Any, seen: Any
) -> None:
    """Hold samples along rays against the silhouettes of all views.

    Args:
        origins, directions: float64 [R, 3]; sample d of ray r is at `origins + (first + d * step) * directions`.
        first, step: float64 [R].
        projections: float64 [V, 3, 4], world to pixels.
        views: int64 [n], the views that judge.
        beyond: uint8 [V, h, w], from `outlines`.
        seen: uint8 [V, R, D], is set to `beyond` where the sample is drawn, `UNSEEN` where it is not in frame.
    """
    h, w = beyond.shape[1:]
    R, D = seen.shape[1:]
    for v in views:
        P = projections[v]
        for r in range(R):
            o, d = origins[r], directions[r]
            x0 = P[0, 0] * o[0] + P[0, 1] * o[1] + P[0, 2] * o[2] + P[0, 3]
            y0 = P[1, 0] * o[0] + P[1, 1] * o[1] + P[1, 2] * o[2] + P[1, 3]
            z0 = P[2, 0] * o[0] + P[2, 1] * o[1] + P[2, 2] * o[2] + P[2, 3]
            dx = P[0, 0] * d[0] + P[0, 1] * d[1] + P[0, 2] * d[2]
            dy = P[1, 0] * d[0] + P[1, 1] * d[1] + P[1, 2] * d[2]
            dz = P[2, 0] * d[0] + P[2, 1] * d[1] + P[2, 2] * d[2]
            for k in range(D):
                t = first[r] + k * step[r]
                z = z0 + t * dz
                seen[v, r, k] = UNSEEN
                if z > 1e-9:
                    x, y = (x0 + t * dx) / z, (y0 + t * dy) / z
                    if x >= 0 and x < w and y >= 0 and y < h:
                        seen[v, r, k] = beyond[v, int(y), int(x)]
