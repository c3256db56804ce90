"""Judgement of the evidence: do all views agree, which do not, and is the set worth a fit?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement import kernels
from gaussianverse.fitter.agreement.rays import Array, Evidence, look
from gaussianverse.fitter.agreement.silhouettes import silhouettes

Outcome = Literal["agrees", "doubtful", "refused", "cannot tell"]

AGREES = 0.97
"""Agreement from which nothing is said."""
_GROSS = 0.8  # agreement below which a set is refused, however many views are taken out
_OUT = 0.5  # share of the views that may be taken out in search of those that agree
_FEW = 8  # of so few views two may deny a ray before it counts for a refusal
_JUDGES = 0.25  # share of the views that must have a point in frame, or it explains nothing
_OWN = 0.95  # a view is not wrong if this share of its own rays is explained by the others
_SLACKS = (1, 2, 3)
"""Pixels that a point may lie outside a silhouette; the later ones are for views that are not exact."""
_NOWHERE = 32_000


@dataclass(frozen=True)
class Verdict:
    """What cameras and silhouettes of V views say about each other.

    Attributes:
        outcome: "agrees"; "doubtful": some views are contradicted, or silhouettes or cameras are not exact;
            "refused": no shape fits even most of the views; "cannot tell": silhouettes fill the frame.
        agreement: share of rays that some point explains which no view contradicts; -1 where it cannot tell.
        wrong: views that contradict the others and are contradicted by them: their camera or picture is wrong.
        less: views that lack what the others show, but show nothing that the others deny: a sheet seen edge-on, or
            a small error.
    """

    outcome: Outcome
    agreement: float
    wrong: tuple[int, ...] = ()
    less: tuple[int, ...] = ()


@dataclass(frozen=True)
class Search:
    """Views taken out, the most blamed first, until the others agree.

    Attributes:
        first: agreement of all views.
        rest: agreement of those that are left.
        own: float64 [V], share of each view's rays that those left explain; NaN where it has none.
        removed: views taken out, in that order.
    """

    first: float
    rest: float
    own: Array
    removed: tuple[int, ...]

    @property
    def wrong(self) -> tuple[int, ...]:
        """Removed views that the others contradict."""
        return tuple(sorted(v for v in self.removed if self.own[v] < _OWN))

    @property
    def less(self) -> tuple[int, ...]:
        """Removed views that the others explain."""
        return tuple(sorted(v for v in self.removed if not self.own[v] < _OWN))


def check(alpha: NDArray[np.uint8], c2w: Array, K: Array, *, max_bad_views: float = 0.25) -> Verdict:
    """Ask whether one shape can have all silhouettes.

    Args:
        alpha: uint8 [V, H, W].
        c2w: OpenCV camera-to-world, float64 [V, 4, 4], in any unit and about any origin.
        K: intrinsics in pixels, float64 [V, 3, 3].
        max_bad_views: largest share of the views that may be wrong; more are refused.
    """
    views = silhouettes(alpha)
    if not views.tell:
        return Verdict("cannot tell", -1.0)
    evidence = look(views, c2w, K)
    if len(np.unique(evidence.source)) < 2:
        return Verdict("cannot tell", -1.0)
    return judge(evidence, max_bad_views)


def judge(evidence: Evidence, max_bad_views: float) -> Verdict:
    """Judge strictly, and call a set refused or a view wrong only if a generous look says the same."""
    strict = search(evidence, _SLACKS[0])
    if strict.first >= AGREES:
        return Verdict("agrees", strict.first)
    most = int(max_bad_views * len(evidence.seen))
    found = strict
    for slack in _SLACKS:
        found = strict if slack == _SLACKS[0] else search(evidence, slack)
        # views that are wrong are few: whoever has to take out many has found noise, or has turned the truth round
        if found.rest >= AGREES and len(found.removed) <= most:
            return Verdict("doubtful", strict.first, found.wrong, found.less)
    gross = found.rest < _GROSS or len(found.wrong) > most
    if gross and len(np.unique(evidence.source)) <= _FEW:
        # of four views, the two that see a sheet edge-on can deny all that the others show
        gross = agreement(evidence, _SLACKS[-1], deniers=2) < _GROSS
    return Verdict("refused" if gross else "doubtful", strict.first, (), tuple(sorted(found.removed)))


def agreement(evidence: Evidence, slack: int = _SLACKS[0], deniers: int = 0) -> float:
    """Share of rays that some point explains which no view, or at most `deniers`, contradict."""
    sources = len(np.unique(evidence.source))
    if sources < 2:
        return 0.0
    outside, seen = _contradictions(evidence, slack)
    fewest, _ = _least(outside.sum(0, np.int16), seen.sum(0, np.int16), sources)
    return float((fewest <= deniers).mean())


def search(evidence: Evidence, slack: int) -> Search:
    """Take out the view that unexplained rays blame most, until the others agree or half are out."""
    outside, seen = _contradictions(evidence, slack)
    V, source = len(outside), evidence.source
    rays = np.bincount(source, minlength=V)
    left, removed, first = rays > 0, list[int](), -1.0
    shown = int(left.sum())
    contradicted, judged = outside.sum(0, dtype=np.int16), seen.sum(0, dtype=np.int16)
    while True:
        count = int(left.sum())
        fewest, at = _least(contradicted, judged, count)
        explained, mine = fewest == 0, left[source]
        rest = float(explained[mine].mean())
        first = rest if not removed else first
        blaming = np.flatnonzero(mine & ~explained & (fewest < _NOWHERE))
        if rest >= AGREES or len(removed) + 1 > _OUT * shown or count <= 2 or not len(blaming):
            break
        # a ray blames the views that contradict it, and its own view in so far as many do
        blame = (outside[:, blaming, at[blaming]] / fewest[blaming]).sum(1) * left
        blame += np.bincount(source[blaming], fewest[blaming] / count, minlength=V)
        worst = int(blame.argmax())
        removed.append(worst)
        left[worst] = False
        contradicted, judged = contradicted - outside[worst], judged - seen[worst]
    own = np.where(rays > 0, np.bincount(source, explained, minlength=V) / np.maximum(rays, 1), np.nan)
    return Search(first, rest, own, tuple(removed))


def _contradictions(evidence: Evidence, slack: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    seen = evidence.seen != kernels.UNSEEN
    return (evidence.seen > slack**2) & seen, seen


def _least(
    contradicted: NDArray[np.int16], judged: NDArray[np.int16], views: int
) -> tuple[NDArray[np.int16], NDArray[np.intp]]:
    """How many views contradict each ray [R] where the fewest do, and at which sample that is."""
    need = max(2, _JUDGES * views)
    counts = np.where(judged >= need, contradicted, np.int16(_NOWHERE))
    return counts.min(1), counts.argmin(1)
