"""Solver of exact optimal transport between points, with a proof of optimality.

The cost is the sum of squared Euclidean distances and every point is used once, so it suffices to maximise
`sum x . s - |s|^2 / 2`: an assignment whose value matrix, of rank four, is never formed. An epsilon-scaling
auction gives an almost optimal assignment, shortest augmenting paths make it exact, and a last pass over all
points computes the dual prices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import TransportFailed
from gaussianverse.atlas.transport.auction import auction
from gaussianverse.atlas.transport.augment import DUMMY, FREE, augment
from gaussianverse.atlas.transport.blocks import LEAF, MUTABLE, Blocks, Floats, Ints, build_blocks, price_out, settle

MAX_REL_GAP = 1e-12

# Epsilon starts at 0.06 of the spread and falls sevenfold per phase. Below the last one, augmenting paths are
# faster than bids; without empty places they are faster sooner.
_FIRST_EPSILON = 0.06
_FALL = 7.0
_LAST_EPSILON = 1e-6
_LAST_EPSILON_SQUARE = 3e-5
# From this epsilon on, searches keep a few places more than the best two.
_FINE_EPSILON = 5e-4
_FEW = 4
# In units of the largest value: slack that is only rounding and needs no path, and the smallest epsilon above
# rounding.
_TIGHT = 4e-15
_FINEST = 1e-13
_NEAREST = 1e-20
_FILLING = -3
# Paths are first searched up to this many epsilons. When they have searched from this many rows per row, epsilon
# is far above the distances of the points (in a tiny cluster, for instance), and more phases are cheaper.
_REACH = 20.0
_PATIENCE = 10


@dataclass(frozen=True)
class Assignment:
    """An optimal one-to-one assignment and its certificate.

    Attributes:
        indices: site of each point, [M] int64, all different.
        primal: sum of squared distances of the assignment.
        dual: lower bound on that sum over all assignments, from dual prices checked against every pair.
        rel_gap: (primal - dual) / max(primal, E), where E is the squared spread of the points and of their
            sites; without E an assignment of cost 0 would have no relative gap.
    """

    indices: Ints
    primal: float
    dual: float
    rel_gap: float


def _checked(name: str, values: npt.ArrayLike) -> Floats:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise TransportFailed(f"{name} must be [n, 3], got shape {array.shape}")
    if len(array) == 0:
        raise TransportFailed(f"{name} is empty; expected at least one row")
    bad = ~(np.abs(array) < 1e100).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise TransportFailed(f"{name} row {row} is not finite or beyond 1e100: {array[row]}")
    return array


def _unit(points: Floats) -> tuple[Floats, Floats, float]:
    """Centre points on their mean and scale them into [-1, 1]; returns points, mean and scale."""
    center = points.mean(axis=0)
    centered = points - center
    scale = float(np.abs(centered).max()) or 1.0
    return centered / scale, center, scale


def assign(points: npt.ArrayLike, sites: npt.ArrayLike) -> Assignment:
    """Assign each point to a different site so that the sum of squared distances is least.

    Exact for any input, deterministic, single-threaded, in float64. With M < N it is the rectangular problem: the
    best M sites are part of the answer, which depends on the position of the points relative to the sites.
    Coinciding points or sites are interchangeable, so any optimal choice among them may be returned.

    Args:
        points: [M, 3], finite.
        sites: [N, 3], finite, N >= M; need not lie on a sphere.

    Returns:
        The assignment with a relative duality gap of at most `MAX_REL_GAP`.

    Raises:
        TransportFailed: a wrong shape, NaN or infinity (the message names the row), M = 0, M > N, or the
            certificate does not hold.
    """
    x = _checked("points", points)
    s = _checked("sites", sites)
    if len(x) > len(s):
        raise TransportFailed(f"{len(x)} points do not fit on {len(s)} sites one-to-one; drop points or add sites")
    # Moving the points by a changes `x . s` by `a . s`, constant per site; moving the sites changes nothing.
    unit_x, center_x, scale_x = _unit(x)
    unit_s, center_s, scale_s = _unit(s)
    # Points this close have equal costs in float64; scaled up further, prices would overflow.
    least = _NEAREST * max(scale_s, float(np.abs(center_x - center_s).max()))
    if scale_x < least:
        unit_x, scale_x = unit_x * (scale_x / least), least
    reserves = 0.5 * (scale_s / scale_x) * (unit_s**2).sum(axis=1)
    reserves -= unit_s @ ((center_x - center_s) / scale_x)
    reserves -= reserves.min()

    indices, slack = _solve(unit_x, unit_s, reserves)
    taken = unit_s[indices]
    gap = 2.0 * scale_x * scale_s * slack
    primal = float(((x - s[indices]) ** 2).sum())
    energy = float((unit_x**2).sum() * scale_x**2 + (taken**2).sum() * scale_s**2)
    rel_gap = gap / max(primal, energy) if gap > 0.0 else 0.0
    if not rel_gap <= MAX_REL_GAP or len(np.unique(indices)) != len(x):
        raise TransportFailed(
            f"the certificate of {len(x)} points on {len(s)} sites does not hold: relative gap {rel_gap:.3g}, "
            f"expected at most {MAX_REL_GAP:g}"
        )
    return Assignment(indices, primal, primal - gap, rel_gap)


@dataclass
class _Side:
    """Points of one side of the assignment as blocks, with the solver's state of each place."""

    blocks: Blocks
    order: Ints
    points: Floats
    real: npt.NDArray[np.bool_]
    partner: Ints
    hints: Ints

    @classmethod
    def of(cls, points: Floats, built: tuple[Blocks, Ints]) -> _Side:
        blocks, order = built
        placed = np.stack([blocks.x.ravel(), blocks.y.ravel(), blocks.z.ravel()], axis=1)
        total = len(order)
        return cls(
            blocks=blocks,
            order=order,
            points=placed,
            real=order < len(points),
            partner=np.full(total, FREE),
            hints=np.full(total, -1),
        )

    @property
    def prices(self) -> Floats:
        return self.blocks.prices.reshape(-1)


# All objects of a dataset have the same sphere; only the padding's transport has its own sites.
@lru_cache(maxsize=4)
def _blocks_of(sites: bytes) -> tuple[Blocks, Ints]:
    return build_blocks(np.frombuffer(sites).reshape(-1, 3))


def _site_blocks(sites: Floats) -> tuple[Blocks, Ints]:
    """Blocks in their initial state, sharing the geometry, which is never written, between calls with equal sites."""
    blocks, order = _blocks_of(sites.tobytes())
    fresh = {name: getattr(blocks, name).copy() for name in MUTABLE}
    return blocks._replace(**fresh), order


def _solve(x: Floats, s: Floats, reserves: Floats) -> tuple[Ints, float]:
    """Maximise sum x . s - reserve; coordinates within [-1, 1], reserves >= 0.

    Returns:
        The site of each point, and the certificate's slack: the dual less the primal value.
    """
    rows, sites = _Side.of(x, build_blocks(x)), _Side.of(s, _site_blocks(s))
    empty = len(s) - len(x)
    reserve = np.zeros(len(sites.order))
    reserve[sites.real] = reserves[sites.order[sites.real]]
    # Initial prices: if all points coincided, the nearest M sites would win at this price.
    level = np.partition(reserves, len(x) - 1)[len(x) - 1]
    sites.prices[sites.real] = np.maximum(reserve[sites.real], level)

    spread = float(np.sqrt((x**2).sum(axis=1).mean() * (s**2).sum(axis=1).mean())) or 1.0
    largest = max(1.0, float(reserves.max()))
    finest = _FINEST * largest
    last = max((_LAST_EPSILON if empty else _LAST_EPSILON_SQUARE) * spread, finest)
    epsilon = max(_FIRST_EPSILON * spread, finest)
    while True:
        _phase(rows, sites, reserve, epsilon, _FEW if epsilon <= _FINE_EPSILON * spread else 2)
        patience = _PATIENCE * len(x) if epsilon > finest else np.iinfo(np.int64).max
        if epsilon <= last and _finish(rows, sites, reserve, _REACH * epsilon, _TIGHT * largest, patience):
            return _certify(rows, sites, reserve)
        epsilon = max(epsilon / _FALL, last if epsilon > last else finest)


def _phase(rows: _Side, sites: _Side, reserve: Floats, epsilon: float, kept: int) -> None:
    """Assign every row anew at the prices of the last phase, to within epsilon; then empty places bid."""
    settle(sites.blocks, rows.points, sites.partner)
    sites.partner[:] = FREE
    rows.partner[:] = FREE
    rows.prices[rows.real] = 0.0
    queue = np.flatnonzero(rows.real)
    no_reserve = np.full(len(rows.order), -np.inf)
    auction(
        sites.blocks, rows.points, rows.prices, no_reserve, queue,
        rows.partner, sites.partner, rows.hints, epsilon, kept,
    )  # fmt: skip
    unheld = np.flatnonzero((sites.partner == FREE) & sites.real)
    if len(unheld):
        settle(rows.blocks, sites.points, rows.partner)
        auction(
            rows.blocks, sites.points, sites.prices, reserve, unheld,
            sites.partner, rows.partner, sites.hints, epsilon, kept,
        )  # fmt: skip


def _finish(rows: _Side, sites: _Side, reserve: Floats, reach: float, tight: float, patience: int) -> bool:
    """Make an assignment that is optimal to within epsilon exact; returns False if patience ran out."""
    real = np.flatnonzero(rows.real)
    held = rows.partner
    profits = np.zeros(len(rows.order))
    settle(sites.blocks, rows.points, sites.partner)
    price_out(sites.blocks, rows.points, rows.hints, profits)
    # Lower each price to the highest that a bidder would pay, so that all coinciding bidders are tight.
    rows.prices[real] = profits[real]
    settle(rows.blocks, sites.points, held)
    wanted = np.empty(len(sites.order))
    price_out(rows.blocks, sites.points, sites.hints, wanted)
    taken = held[real]
    sites.prices[taken] = np.minimum(sites.prices[taken], np.maximum(wanted[taken], reserve[taken]))
    settle(sites.blocks, rows.points, sites.partner)
    released = real[profits[real] - _values(rows, sites, real) > tight]

    owner = np.where(sites.real, DUMMY, _FILLING)
    owner[held[real]] = real
    owner[held[released]] = FREE
    done, level = augment(sites.blocks, rows.points, profits, released, reserve, held, owner, reach, patience)
    sites.prices[sites.real] = np.maximum(sites.prices[sites.real] - level, reserve[sites.real])
    sites.partner[:] = np.maximum(owner, FREE)
    return bool(done == len(released))


def _certify(rows: _Side, sites: _Side, reserve: Floats) -> tuple[Ints, float]:
    """Compute the site of each point, and the dual less the primal value.

    Any prices of at least the reserve give a valid bound, so this does not depend on the solver's correctness.
    """
    real = np.flatnonzero(rows.real)
    taken = rows.partner[real]
    empty = sites.real.copy()
    empty[taken] = False
    sites.prices[empty] = reserve[empty]
    profits = np.zeros(len(rows.order))
    settle(sites.blocks, rows.points, sites.partner)
    price_out(sites.blocks, rows.points, rows.partner // LEAF, profits)
    indices = np.empty(len(real), np.int64)
    indices[rows.order[real]] = sites.order[taken]
    return indices, float((profits[real] - _values(rows, sites, real)).sum())


def _values(rows: _Side, sites: _Side, real: Ints) -> Floats:
    """Value of each row's place to it, at its price."""
    taken = rows.partner[real]
    values: Floats = (rows.points[real] * sites.points[taken]).sum(axis=1) - sites.prices[taken]
    return values
