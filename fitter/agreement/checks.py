"""The question of the pose gate: can one shape have all of these silhouettes?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement.contrast import mistaken, sides_swapped
from gaussianverse.fitter.agreement.rays import Array, look
from gaussianverse.fitter.agreement.silhouettes import Silhouettes, silhouettes
from gaussianverse.fitter.agreement.verdict import Verdict, judge

_EXACT = 0.99  # agreement of round objects, which look the same from around


def check(alpha: NDArray[np.uint8], c2w: Array, K: Array, *, max_bad_views: float = 0.25) -> Verdict:
    """Ask whether one shape can have all silhouettes.

    Args:
        alpha: uint8 [V, H, W].
        c2w: OpenCV camera-to-world, float64 [V, 4, 4], in any unit and about any origin.
        K: intrinsics in pixels, float64 [V, 3, 3].
        max_bad_views: largest share of the views that may be wrong; more are refused.
    """
    views = silhouettes(alpha)
    found = _judged(views, c2w, K, max_bad_views)
    if found.outcome == "refused":
        return found
    likely = sides_swapped(alpha, c2w, K)
    if likely is None and found.outcome != "agrees":
        likely = mistaken(alpha, c2w, K)
    if likely is not None:
        return Verdict("refused", max(0.0, found.agreement), (), tuple(range(len(c2w))), likely)
    if found.outcome == "cannot tell" or (found.outcome == "agrees" and found.agreement < _EXACT):
        same = _one_picture(alpha, c2w, views.shown)
        if same:
            return replace(found, outcome="doubtful", less=same)
    return found


def _judged(views: Silhouettes, c2w: Array, K: Array, max_bad_views: float) -> Verdict:
    if not views.tell:
        return Verdict("cannot tell", -1.0)
    evidence = look(views, c2w, K)
    if len(np.unique(evidence.source)) < 2:
        return Verdict("cannot tell", -1.0)
    return judge(evidence, max_bad_views)


def _one_picture(alpha: NDArray[np.uint8], c2w: Array, shown: NDArray[np.bool_]) -> tuple[int, ...]:
    """Views of one and the same alpha, where more than half of those that are neither blank nor full have it."""
    groups = defaultdict[bytes, list[int]](list)
    for v in np.flatnonzero(shown):
        groups[alpha[v].tobytes()].append(int(v))
    same = max(groups.values(), key=len, default=[])
    poses = {c2w[v].tobytes() for v in same}
    return tuple(same) if len(poses) > max(2, 0.5 * shown.sum()) else ()
