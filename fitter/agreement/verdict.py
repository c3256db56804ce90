"""Judgement of the evidence: do all views agree, which do not, and is the set worth a fit?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.agreement import kernels
from gaussianverse.fitter.agreement.rays import Array, Evidence

Outcome = Literal["agrees", "doubtful", "refused", "cannot tell"]

AGREES = 0.97
"""Agreement from which nothing is said."""
FEW = 8
"""Of so few views two may deny a ray before it counts for a refusal."""
_GROSS = 0.8  # agreement below which a set is refused, however many views are taken out
_OUT = 0.5  # share of the views that may be taken out in search of those that agree
_JUDGES = 0.25  # share of the views that must have a point in frame, or it explains nothing
_POOR = 0.5  # agreement below which a set is refused if more than a few views must be taken out
_BLAME = 0.42  # of the rays of a view: one that so many speak against is taken out, however many others agree
_OWN = 0.9  # a view is not wrong if this share of its own rays is explained by nearly all others
_NEARLY = 0.1  # share of the others that may deny them nevertheless
_TOLD, _ENOUGH = 0.1, 24  # share of the rays that must say something, and how many are enough to refuse
_SMALL = 0.6  # area of silhouettes of a sheet that is seen edge-on, as a share of the others'
_SLACKS = (1, 2, 3)
"""Pixels that a point may lie outside a silhouette; the later ones are for views that are not exact."""


class Suggestion(NamedTuple):
    """A mistake that may have been made: `agreement` once it is corrected; `text` completes "they agree if ..."."""

    agreement: float
    text: str


@dataclass(frozen=True)
class Verdict:
    """What cameras and silhouettes of V views say about each other.

    Attributes:
        outcome: "agrees"; "doubtful": some views are contradicted, or silhouettes or cameras are not exact;
            "refused": no shape fits even most of the views, or one fits all once a usual mistake is corrected;
            "cannot tell": silhouettes fill the frame.
        agreement: share of rays that some point explains which no view contradicts; -1 where it cannot tell.
        wrong: views that contradict the others and are contradicted by them: their camera or picture is wrong.
        less: views that lack what the others show, but show nothing that the others deny: a sheet seen edge-on, or
            a small error.
        likely: the mistake in all views for which they are refused, where one is clear.
    """

    outcome: Outcome
    agreement: float
    wrong: tuple[int, ...] = ()
    less: tuple[int, ...] = ()
    likely: Suggestion | None = None


@dataclass(frozen=True)
class Search:
    """Views taken out, the most blamed first, until the others agree.

    Attributes:
        told: share of the rays that say something: they do not leave the frames of cropped views.
        first: agreement of all views.
        rest: agreement of those that are left.
        own: float64 [V], share of each view's rays that nearly all of those left explain; 1 where it has none.
        removed: views taken out, in that order.
    """

    told: float
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
        return tuple(sorted(v for v in self.removed if self.own[v] >= _OWN))


def judge(evidence: Evidence, max_bad_views: float) -> Verdict:
    """Judge strictly, and call a set refused or a view wrong only if a generous look says the same."""
    strict = search(evidence, _SLACKS[0])
    if _untold(evidence, strict):
        return Verdict("cannot tell", -1.0)
    if not strict.removed and strict.rest >= AGREES:
        return Verdict("agrees", strict.first)
    most = int(max_bad_views * len(evidence.seen))
    found = strict
    for slack in _SLACKS:
        found = strict if slack == _SLACKS[0] else search(evidence, slack)
        # views that are wrong are few: whoever has to take out many has found noise, or has turned the truth round
        if found.rest >= AGREES and len(found.removed) <= most:
            return Verdict("doubtful", strict.first, found.wrong, found.less)
    poor = found.first < _POOR and not evidence.cut and not _vanish(evidence, found)
    gross = found.rest < _GROSS or len(found.wrong) > most or poor
    if gross and evidence.cut and evidence.thin:
        gross = agreement(evidence, _SLACKS[-1], deniers=len(evidence.seen) // 2) < _GROSS
    if gross and len(np.unique(evidence.source)) <= FEW:
        # of four views, the two that see a sheet edge-on can deny all that the others show
        gross = agreement(evidence, _SLACKS[-1], deniers=2) < _GROSS
    return Verdict("refused" if gross else "doubtful", strict.first, (), tuple(sorted(found.removed)))


def _untold(evidence: Evidence, found: Search) -> bool:
    """Whether nearly all rays leave the frames of cropped views, and nothing speaks against the cameras.

    Of many views of one object some overlap, however close they are; those that look away from it do not.
    """
    if found.told >= _TOLD or (found.told * len(evidence.source) >= _ENOUGH and found.first < _POOR):
        return False
    few = len(np.unique(evidence.source)) <= FEW
    return few or agreement(evidence, _SLACKS[-1], judges=0.0) >= _GROSS


def _vanish(evidence: Evidence, found: Search) -> bool:
    """Whether all views taken out show much less than the others, as those do that see a sheet edge-on."""
    out = np.isin(np.arange(len(evidence.area)), found.removed)
    others = evidence.area[~out & (evidence.area > 0)]
    return bool(out.any() and others.size and evidence.area[out].max() < _SMALL * np.median(others))


def agreement(evidence: Evidence, slack: int = _SLACKS[0], *, deniers: int = 0, judges: float = _JUDGES) -> float:
    """Share of rays that some point explains which no view denies; 0 if there are none.

    Args:
        evidence: from `look`.
        slack: pixels that a point may lie outside a silhouette.
        deniers: number of views that may deny it nevertheless.
        judges: share of the views, and at least two, that must judge it.
    """
    explained, told = Rays(evidence, slack, judges).judged(deniers)
    return float(explained[told].mean()) if told.any() else 0.0


class Rays:
    """Rays held against the views that are left.

    Attributes:
        left: bool [V], the views that are left.
        fewest: int16 [R], how many of them deny each ray where the fewest do.
        at: int64 [R], the sample where that is.
        free: bool [R], rays on which some sample is denied by none but judged by too few.
    """

    def __init__(self, evidence: Evidence, slack: int, judges: float = _JUDGES) -> None:
        self._seen, self._source = evidence.seen, evidence.source
        self._limit, self._judges = slack**2, judges
        V, R, D = evidence.seen.shape
        self.left = np.bincount(evidence.source, minlength=V) > 0
        self._denied, self._told = np.zeros((2, R, D), np.int16)
        self.fewest, self.at, self.free = np.empty(R, np.int16), np.empty(R, np.int64), np.empty(R, np.bool_)
        self._count(np.flatnonzero(self.left), 1)

    def take_out(self, view: int) -> None:
        """Let a view neither judge nor speak."""
        self.left[view] = False
        self._count(np.array([view]), -1)

    def _count(self, views: NDArray[np.intp], change: int) -> None:
        kernels.count(self._seen, views, self._limit, change, self._denied, self._told)
        need = max(2.0, self._judges * float(self.left.sum()))
        kernels.least(self._denied, self._told, need, self.fewest, self.at, self.free)

    def judged(self, deniers: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether each ray [R] is explained, and whether it counts: its view is left, and it is not out of frame."""
        explained = self.fewest <= deniers
        return explained, (explained | ~self.free) & self.left[self._source]

    def blame(self, rays: NDArray[np.intp]) -> Array:
        """How much the unexplained `rays` speak against each view [V].

        A ray blames the views that deny it, and its own view in so far as many do.
        """
        V, fewest = len(self.left), self.fewest[rays]
        seen = self._seen[:, rays, self.at[rays]]
        denies = (seen > self._limit) & (seen != kernels.UNSEEN) & self.left[:, None]
        blamed = (denies / fewest).sum(1) + np.bincount(self._source[rays], fewest / self.left.sum(), minlength=V)
        return np.where(self.left, blamed, 0.0)


def search(evidence: Evidence, slack: int) -> Search:
    """Take out the view that unexplained rays blame most, until the others agree or half are out."""
    rays, source, V = Rays(evidence, slack), evidence.source, len(evidence.seen)
    spoken = np.bincount(source, minlength=V)
    removed, first, all_told, shown = list[int](), -1.0, 0.0, int(rays.left.sum())
    while True:
        explained, told = rays.judged()
        rest = float(explained[told].mean()) if told.any() else 0.0
        if not removed:
            first, all_told = rest, float(told.mean())
        blame = rays.blame(np.flatnonzero(told & ~explained & (rays.fewest < kernels.NOWHERE)))
        agree = rest >= AGREES and blame.max() < _BLAME * spoken.max()
        if agree or not blame.any() or len(removed) + 1 > _OUT * shown or rays.left.sum() <= 2:
            break
        removed.append(int(blame.argmax()))
        rays.take_out(removed[-1])
    kept = (rays.fewest <= _NEARLY * rays.left.sum()) | rays.free
    own = np.where(spoken > 0, np.bincount(source, kept, minlength=V) / np.maximum(spoken, 1), 1.0)
    return Search(all_told, first, rest, own, tuple(removed))
