"""Exact optimal transport between points: who goes where, and the proof that nothing is cheaper.

The cost is the sum of squared Euclidean distances and every point is used once, so only `sum x . s - |s|^2 / 2`
is to be maximised: an assignment whose value matrix has rank four, which is never formed. An epsilon-scaling
auction comes near, shortest augmenting paths finish, and a last pass over all points prices the duals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import TransportFailed
from gaussianverse.atlas.transport.auction import auction
from gaussianverse.atlas.transport.augment import DUMMY, FREE, augment
from gaussianverse.atlas.transport.blocks import (
    LEAF,
    MUTABLE,
    Blocks,
    Floats,
    Ints,
    build_blocks,
    price_out,
    settle,
)

MAX_REL_GAP = 1e-12

# Epsilon falls from a sixteenth of the spread, sevenfold per phase. Below the last one the augmenting paths are
# faster than bids; with no empty places they are faster sooner.
_FIRST_EPSILON = 0.06
_FALL = 7.0
_LAST_EPSILON = 1e-6
_LAST_EPSILON_SQUARE = 3e-5
# From this epsilon on, bids keep a few points more than the best two.
_FINE_EPSILON = 5e-4
_FEW = 4
# In units of the largest value: slack that is rounding and not worth a path, and an epsilon that rounding does
# not swallow.
_TIGHT = 4e-15
_FINEST = 1e-13
_NEAREST = 1e-20
_FILLING = -3
# Paths are first sought within this many epsilons. When they have searched from this many rows per row, epsilon
# is far above what separates the points (a tiny cluster, say), and more phases are cheaper.
_REACH = 20.0
_PATIENCE = 10


@dataclass(frozen=True)
class Assignment:
    """An optimal one-to-one assignment and its certificate.

    Attributes:
        indices: site of each point, [M] int64, no two alike.
        primal: sum of squared distances of the assignment.
        dual: lower bound on that sum over all assignments, from dual prices checked against every pair.
        rel_gap: (primal - dual) / max(primal, E), E the squared spread of the points and of the sites they
            take; without E an assignment of cost 0 would have no relative gap.
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
        raise TransportFailed(f"{name} is empty: there is nothing to assign")
    bad = ~(np.abs(array) < 1e100).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise TransportFailed(f"{name} row {row} is not finite, or beyond 1e100: {array[row]}")
    return array


def _unit(points: Floats) -> tuple[Floats, Floats, float]:
    """Points about their mean and scaled into [-1, 1]; the mean; the scale."""
    center = points.mean(axis=0)
    centered = points - center
    scale = float(np.abs(centered).max()) or 1.0
    return centered / scale, center, scale


def assign(points: npt.ArrayLike, sites: npt.ArrayLike) -> Assignment:
    """Assign each point to a site of its own so that the sum of squared distances is least.

    Exact for any input, deterministic, one thread, float64 throughout. With M < N sites it is the rectangular
    problem: the best M sites are part of the answer, and the position of the points relative to the sites
    matters. Points that coincide, or sites that do, are interchangeable: any optimal choice may come back.

    Args:
        points: [M, 3], finite.
        sites: [N, 3], finite, N >= M; need not lie on a sphere.

    Returns:
        The assignment with a relative duality gap of at most `MAX_REL_GAP`.

    Raises:
        TransportFailed: a bad shape, NaN or infinity (with the row), M = 0, M > N, or a certificate that does
            not hold.
    """
    x = _checked("points", points)
    s = _checked("sites", sites)
    if len(x) > len(s):
        raise TransportFailed(
            f"{len(x)} points do not fit on {len(s)} sites one-to-one; drop points or add sites"
        )
    # Moving the points by a changes `x . s` by the constant-per-site `a . s`; moving the sites, nothing.
    unit_x, center_x, scale_x = _unit(x)
    unit_s, center_s, scale_s = _unit(s)
    # Points this near to each other cost the same anywhere, to float64; blown up farther, prices would overflow.
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
            f"allowed {MAX_REL_GAP:g}"
        )
    return Assignment(indices, primal, primal - gap, rel_gap)


@dataclass
class _Side:
    """The points of one side of the assignment as blocks, and what the solver knows of each place."""

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


# Every object of a dataset goes to the same sphere; a second transport has sites of its own.
@lru_cache(maxsize=4)
def _blocks_of(sites: bytes) -> tuple[Blocks, Ints]:
    return build_blocks(np.frombuffer(sites).reshape(-1, 3))


def _site_blocks(sites: Floats) -> tuple[Blocks, Ints]:
    """Blocks as built anew, but the geometry is shared between calls with equal sites: it is never written."""
    blocks, order = _blocks_of(sites.tobytes())
    fresh = {name: getattr(blocks, name).copy() for name in MUTABLE}
    return blocks._replace(**fresh), order


def _solve(x: Floats, s: Floats, reserves: Floats) -> tuple[Ints, float]:
    """Maximise sum x . s - reserve; coordinates within [-1, 1], reserves >= 0.

    Returns:
        The site of each point, and the certificate's slack: how far the duals are above the primal.
    """
    rows, sites = _Side.of(x, build_blocks(x)), _Side.of(s, _site_blocks(s))
    empty = len(s) - len(x)
    reserve = np.zeros(len(sites.order))
    reserve[sites.real] = reserves[sites.order[sites.real]]
    # Were all points one, the nearest M sites would win and cost the same: the prices to start from.
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
    """Assign every row anew at the prices of the phase before, to within epsilon; then empty places bid."""
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
    """Make an assignment that is optimal to within epsilon exactly so; False: patience ran out."""
    real = np.flatnonzero(rows.real)
    held = rows.partner
    profits = np.zeros(len(rows.order))
    settle(sites.blocks, rows.points, sites.partner)
    price_out(sites.blocks, rows.points, rows.hints, profits)
    # A price above what any bidder would pay can fall to that; then of bidders that coincide all are tight.
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
    """The site of each point, and how far the duals are above the primal.

    Any prices of at least the reserve give a bound, whatever the solver did to find them.
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
    """What each row gets from the place that it holds, at its price."""
    taken = rows.partner[real]
    values: Floats = (rows.points[real] * sites.points[taken]).sum(axis=1) - sites.prices[taken]
    return values
