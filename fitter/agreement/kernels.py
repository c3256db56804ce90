"""Numba kernels of the pose gate. They use no fast mathematics: what they find decides which views are fitted."""

from __future__ import annotations

from typing import Any

import numpy as np

from gaussianverse.atlas.compiled import kernel

UNSEEN = np.uint8(255)
"""Stands for a point of which a view says nothing: it is out of frame, and the silhouette does not end within it."""
FAR = np.uint8(64)
"""Squared distance, in pixels, from which a point counts as far outside a silhouette."""
MARGIN = 7
"""Pixels around the frame in which distances are known; also the largest distance that is told apart."""
NOWHERE = np.int16(32_000)
"""Stands for the denials of a ray along which too few views judge."""
_RIM = 2  # pixels
_FAINT, _OPAQUE = 25, 127.5  # alpha above which a pixel may be object, and from which it is


@kernel(nogil=True, error_model="numpy")
def shrink(alpha: Any, rows: Any, columns: Any, mean: Any, faint: Any) -> float:
    """Shrink alpha [V, H, W] to cells between `rows` [h + 1] and `columns` [w + 1].

    Args:
        alpha: uint8 [V, H, W].
        rows, columns: first pixel of each cell, and the end.
        mean: float64 [V, h, w], is set to the mean alpha of each cell.
        faint: bool [V, h, w], is set where a pixel of the cell may be object.

    Returns:
        The share of pixels with object whose alpha is neither 0 nor nearly the view's most: rims that were sampled.
    """
    V, h, w = mean.shape
    partial, any_ = 0, 1
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
                        any_ += alpha[v, y, x] > 0
                        partial += 0 < alpha[v, y, x] < 0.9 * top
                        most = max(most, alpha[v, y, x])
                mean[v, i, j] = total / ((rows[i + 1] - rows[i]) * (columns[j + 1] - columns[j]))
                faint[v, i, j] = most > limit
    return partial / any_


@kernel(nogil=True, error_model="numpy")
def outlines(mean: Any, faint: Any, solid: Any, rim: Any, cropped: Any, beyond: Any) -> None:
    """Find where rays start, and how far outside its silhouette each pixel of a view lies.

    Args:
        mean, faint: from `shrink`.
        solid: bool [V, h, w], is set where alpha is at least half of 255, or half of the view's most (glass).
        rim: bool [V, h, w], is set where `solid` has a pixel that is not within two steps.
        cropped: bool [V], is set where `faint` pixels touch the frame.
        beyond: uint8 [V, h + 2 MARGIN, w + 2 MARGIN], is set to the squared distance to the nearest `faint` pixel, at
            most `FAR`; around the frame of a cropped view to `UNSEEN`.
    """
    V, h, w = mean.shape
    for v in range(V):
        top = 1.0
        cropped[v] = faint[v, 0].any() or faint[v, -1].any() or faint[v, :, 0].any() or faint[v, :, -1].any()
        for y in range(h):
            for x in range(w):
                top = max(top, mean[v, y, x])
        limit = min(_OPAQUE, 0.5 * top)
        beyond[v] = UNSEEN if cropped[v] else FAR
        for y in range(h):
            for x in range(w):
                solid[v, y, x] = mean[v, y, x] >= limit
                beyond[v, y + MARGIN, x + MARGIN] = 0 if faint[v, y, x] else FAR
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
                    if inner and faint[v, y - 1 : y + 2, x].all() and faint[v, y, x - 1 : x + 2].all():
                        continue
                    for j in range(2 * MARGIN + 1):
                        for i in range(2 * MARGIN + 1):
                            squared = (j - MARGIN) ** 2 + (i - MARGIN) ** 2
                            if squared < beyond[v, y + j, x + i] and beyond[v, y + j, x + i] != UNSEEN:
                                beyond[v, y + j, x + i] = squared


@kernel(nogil=True, error_model="numpy")
def follow(
    origins: Any,
    directions: Any,
    first: Any,
    step: Any,
    projections: Any,
    views: Any,
    cropped: Any,
    beyond: Any,
    seen: Any,
) -> None:
    """Hold samples along rays against the silhouettes of all views.

    A view whose silhouette ends within the frame shows all of the object, so that what lies out of its frame, or
    behind it, is not object. One that is cropped says nothing of it.

    Args:
        origins, directions: float64 [R, 3]; sample d of ray r is at `origins + (first + d * step) * directions`.
        first, step: float64 [R].
        projections: float64 [V, 3, 4], world to pixels of `beyond`.
        views: int64 [n], the views that judge.
        cropped: bool [V], from `outlines`.
        beyond: uint8 [V, h, w], from `outlines`.
        seen: uint8 [V, R, D], is set to squared distances from silhouettes, or `UNSEEN`.
    """
    h, w = beyond.shape[1:]
    R, D = seen.shape[1:]
    for v in views:
        P = projections[v]
        out = UNSEEN if cropped[v] else FAR
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
                seen[v, r, k] = out
                if z > 1e-9:
                    x, y = (x0 + t * dx) / z, (y0 + t * dy) / z
                    if x >= 0 and x < w and y >= 0 and y < h:
                        seen[v, r, k] = beyond[v, int(y), int(x)]


@kernel(nogil=True, error_model="numpy")
def count(seen: Any, views: Any, limit: Any, change: Any, denied: Any, judged: Any) -> None:
    """Add `change` for each of `views` [n] that denies, or judges, a sample.

    Args:
        seen: uint8 [V, R, D], from `follow`.
        views: int64 [n].
        limit: squared distance beyond which a view denies a sample.
        change: 1 or -1.
        denied, judged: int16 [R, D], are changed.
    """
    R, D = denied.shape
    for v in views:
        for r in range(R):
            for k in range(D):
                judged[r, k] += change * (seen[v, r, k] != UNSEEN)
                denied[r, k] += change * (limit < seen[v, r, k] < UNSEEN)


@kernel(nogil=True, error_model="numpy")
def least(denied: Any, judged: Any, need: Any, fewest: Any, at: Any, free: Any) -> None:
    """Find the sample of each ray that the fewest views deny.

    Args:
        denied, judged: int16 [R, D], from `count`.
        need: least number of views that must judge a sample.
        fewest: int16 [R], is set to the number of views that deny it there, or `NOWHERE`.
        at: int64 [R], is set to the sample.
        free: bool [R], is set where some sample is denied by no view but judged by too few.
    """
    R, D = denied.shape
    for r in range(R):
        fewest[r], at[r], free[r] = NOWHERE, 0, False
        for k in range(D):
            if judged[r, k] < need:
                free[r] |= denied[r, k] == 0
            elif denied[r, k] < fewest[r]:
                fewest[r], at[r] = denied[r, k], k
