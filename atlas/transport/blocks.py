"""A priced point set in kd order, searched for the points of highest value by branch and bound.

The value of point s with price p to a bidder x is `x . s - p`. Leaves hold 16 points, groups hold 16 leaves.
With c and r the centre and radius of a block, g any fixed pivot and `m = min(p - g . s)` over the block,

    max (x . s - p) = max ((x - g) . s + (g . s - p)) <= (x - g) . c + |x - g| r - m,

which is tight if g is close to the bidders that want the block, as the mean of its current holders is. Prices
only rise while a structure is searched, so an outdated floor m still gives a valid, less tight bound.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gaussianverse.atlas.compiled import kernel

Floats = npt.NDArray[np.float64]
Bounds = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Infinities keep their meaning; the solver refuses NaN.
OPTIONS: dict[str, Any] = {"fastmath": {"nsz", "contract", "arcp", "reassoc"}, "nogil": True, "error_model": "numpy"}

LEAF = 16
GROUP = 16
BLOCK = LEAF * GROUP
# Price of the filler points in the last leaves, which are never a bidder's best or second best.
UNAFFORDABLE = 1e30
# Bounds are computed in float32, which is twice as fast; values stay float64. Radii are enlarged and floors lowered
# by more than the rounding (all terms of a bound except the floor are below 15), so that bounds remain valid.
_RADIUS_ROUNDING = 1e-6
_ROUNDING = 1e-5
_RELATIVE_ROUNDING = 1e-6


class Blocks(NamedTuple):
    """Points, prices and bounds: G groups of 16 leaves of 16 points, T = 256 G points with the filler.

    Attributes:
        x, y, z, prices: [16 G, 16], one row per leaf.
        leaf_centers, leaf_pivots: [3, G, 16], float32 as all below.
        leaf_radii, leaf_floors: [G, 16].
        group_centers, group_pivots: [3, G].
        group_radii, group_floors: [G].
    """

    x: Floats
    y: Floats
    z: Floats
    prices: Floats
    leaf_centers: Bounds
    leaf_pivots: Bounds
    leaf_radii: Bounds
    leaf_floors: Bounds
    group_centers: Bounds
    group_pivots: Bounds
    group_radii: Bounds
    group_floors: Bounds


# The fields that change while blocks are in use.
MUTABLE = ("prices", "leaf_pivots", "leaf_floors", "group_pivots", "group_floors")


def kd_order(points: Floats) -> Ints:
    """Order of points [T, 3], T a multiple of 256, whose runs of 16 and of 256 points are compact.

    Median splits along the widest axis, with a stable sort, so that ties give the same order on every machine.
    """

    def split(rows: Ints) -> list[Ints]:
        if len(rows) == LEAF:
            return [rows]
        unit = BLOCK if len(rows) > BLOCK else LEAF
        half = len(rows) // unit // 2 * unit
        axis = int(np.ptp(points[rows], axis=0).argmax())
        rows = rows[np.argsort(points[rows, axis], kind="stable")]
        return split(rows[:half]) + split(rows[half:])

    return np.concatenate(split(np.arange(len(points))))


def build_blocks(points: Floats) -> tuple[Blocks, Ints]:
    """Build blocks over points [n, 3] with |coordinate| <= 1; prices start at 0, pivots at the origin.

    Returns:
        The blocks, and the row of points in each place [T]; >= n for filler, whose price is `UNAFFORDABLE`.
    """
    n = len(points)
    total = -(-n // BLOCK) * BLOCK
    groups = total // BLOCK
    filled = np.concatenate([points, np.repeat(points[-1:], total - n, axis=0)])
    order = kd_order(filled)
    placed = filled[order]

    def balls(members: Floats) -> tuple[Bounds, Bounds]:
        center = members.mean(axis=-2).astype(np.float32)
        radius = np.linalg.norm(members - center[..., None, :], axis=-1).max(axis=-1) + _RADIUS_ROUNDING
        return np.ascontiguousarray(np.moveaxis(center, -1, 0)), radius.astype(np.float32)

    leaf_centers, leaf_radii = balls(placed.reshape(groups, GROUP, LEAF, 3))
    group_centers, group_radii = balls(placed.reshape(groups, BLOCK, 3))
    x, y, z = (np.ascontiguousarray(placed[:, k]).reshape(-1, LEAF) for k in range(3))
    prices = np.where(order < n, 0.0, UNAFFORDABLE).reshape(-1, LEAF)
    blocks = Blocks(
        x=x, y=y, z=z, prices=prices,
        leaf_centers=leaf_centers, leaf_pivots=np.zeros_like(leaf_centers),
        leaf_radii=leaf_radii, leaf_floors=np.zeros_like(leaf_radii),
        group_centers=group_centers, group_pivots=np.zeros_like(group_centers),
        group_radii=group_radii, group_floors=np.zeros_like(group_radii),
    )  # fmt: skip
    return blocks, order


@njit(inline="always", **OPTIONS)
def _rounding(price: Any) -> Any:
    return _ROUNDING + _RELATIVE_ROUNDING * abs(price)


@njit(inline="always", **OPTIONS)
def _renew_leaf(b: Any, leaf: Any) -> None:
    """Recompute a leaf's floor from its prices."""
    g = leaf // GROUP
    e = leaf - g * GROUP
    p0, p1, p2 = b.leaf_pivots[0, g, e], b.leaf_pivots[1, g, e], b.leaf_pivots[2, g, e]
    low = np.inf
    for k in range(LEAF):
        t = b.prices[leaf, k] - p0 * b.x[leaf, k] - p1 * b.y[leaf, k] - p2 * b.z[leaf, k]
        low = t if t < low else low
    b.leaf_floors[g, e] = low - _rounding(low)


@njit(inline="always", **OPTIONS)
def _renew_group(b: Any, g: Any) -> None:
    """Recompute a group's floor from its prices."""
    p0, p1, p2 = b.group_pivots[0, g], b.group_pivots[1, g], b.group_pivots[2, g]
    low = np.inf
    for leaf in range(g * GROUP, g * GROUP + GROUP):
        for k in range(LEAF):
            t = b.prices[leaf, k] - p0 * b.x[leaf, k] - p1 * b.y[leaf, k] - p2 * b.z[leaf, k]
            low = t if t < low else low
    b.group_floors[g] = low - _rounding(low)


@njit(inline="always", **OPTIONS)
def raise_price(b: Any, place: Any, rise: Any) -> None:
    """Raise the price of a place, and recompute the floors of its leaf and group if that can raise them.

    A floor is a minimum, so only the price that attains it can raise it.
    """
    leaf = place // LEAF
    k = place - leaf * LEAF
    g = leaf // GROUP
    e = leaf - g * GROUP
    price, x0, x1, x2 = b.prices[leaf, k], b.x[leaf, k], b.y[leaf, k], b.z[leaf, k]
    b.prices[leaf, k] = price + rise
    # below the floor's own rounding, with a margin as large
    least = price - 2.0 * _rounding(price)
    along = b.leaf_pivots[0, g, e] * x0 + b.leaf_pivots[1, g, e] * x1 + b.leaf_pivots[2, g, e] * x2
    if least - along <= b.leaf_floors[g, e]:
        _renew_leaf(b, leaf)
    along = b.group_pivots[0, g] * x0 + b.group_pivots[1, g] * x1 + b.group_pivots[2, g] * x2
    if least - along <= b.group_floors[g]:
        _renew_group(b, g)


@kernel(**OPTIONS)
def settle(b: Any, bidders: Any, owner: Any) -> None:
    """Move pivots to the mean of the bidders that hold each block, and recompute every floor.

    Args:
        b: the blocks.
        bidders: positions [n, 3].
        owner: [T], the bidder of each place, negative for none.
    """
    for g in range(b.group_floors.shape[0]):
        group_held = 0
        s0, s1, s2 = 0.0, 0.0, 0.0
        for e in range(GROUP):
            leaf = g * GROUP + e
            held = 0
            t0, t1, t2 = 0.0, 0.0, 0.0
            for k in range(LEAF):
                i = owner[leaf * LEAF + k]
                if i >= 0:
                    t0 += bidders[i, 0]
                    t1 += bidders[i, 1]
                    t2 += bidders[i, 2]
                    held += 1
            if held > 0:
                b.leaf_pivots[0, g, e] = t0 / held
                b.leaf_pivots[1, g, e] = t1 / held
                b.leaf_pivots[2, g, e] = t2 / held
            group_held += held
            s0 += t0
            s1 += t1
            s2 += t2
            _renew_leaf(b, leaf)
        if group_held > 0:
            b.group_pivots[0, g] = s0 / group_held
            b.group_pivots[1, g] = s1 / group_held
            b.group_pivots[2, g] = s2 / group_held
        _renew_group(b, g)


@njit(inline="always", **OPTIONS)
def bound_groups(b: Any, x0: Any, x1: Any, x2: Any, bounds: Any) -> None:
    """Fill bounds [G] with an upper bound on the values of each group to bidder x."""
    x0, x1, x2 = np.float32(x0), np.float32(x1), np.float32(x2)
    for g in range(bounds.shape[0]):
        d0 = x0 - b.group_pivots[0, g]
        d1 = x1 - b.group_pivots[1, g]
        d2 = x2 - b.group_pivots[2, g]
        along = d0 * b.group_centers[0, g] + d1 * b.group_centers[1, g] + d2 * b.group_centers[2, g]
        bounds[g] = along + np.sqrt(d0 * d0 + d1 * d1 + d2 * d2) * b.group_radii[g] - b.group_floors[g]


@njit(inline="always", **OPTIONS)
def bound_leaves(b: Any, g: Any, x0: Any, x1: Any, x2: Any, bounds: Any) -> None:
    """Fill bounds [16] with an upper bound on the values of each leaf of a group to bidder x."""
    x0, x1, x2 = np.float32(x0), np.float32(x1), np.float32(x2)
    for e in range(GROUP):
        d0 = x0 - b.leaf_pivots[0, g, e]
        d1 = x1 - b.leaf_pivots[1, g, e]
        d2 = x2 - b.leaf_pivots[2, g, e]
        along = d0 * b.leaf_centers[0, g, e] + d1 * b.leaf_centers[1, g, e] + d2 * b.leaf_centers[2, g, e]
        bounds[e] = along + np.sqrt(d0 * d0 + d1 * d1 + d2 * d2) * b.leaf_radii[g, e] - b.leaf_floors[g, e]


@njit(inline="always", **OPTIONS)
def value(b: Any, place: Any, x0: Any, x1: Any, x2: Any) -> Any:
    """Value of a place to bidder x."""
    leaf = place // LEAF
    k = place - leaf * LEAF
    return x0 * b.x[leaf, k] + x1 * b.y[leaf, k] + x2 * b.z[leaf, k] - b.prices[leaf, k]


@njit(inline="always", **OPTIONS)
def leaf_values(b: Any, leaf: Any, x0: Any, x1: Any, x2: Any, values: Any) -> Any:
    """Fill values [16] with a leaf's values to bidder x; return the highest."""
    high = -np.inf
    for k in range(LEAF):
        t = x0 * b.x[leaf, k] + x1 * b.y[leaf, k] + x2 * b.z[leaf, k] - b.prices[leaf, k]
        values[k] = t
        high = t if t > high else high
    return high


@njit(inline="always", **OPTIONS)
def _insert(t: Any, place: Any, best: Any, places: Any) -> None:
    """Insert a value and its place into a descending list, dropping the last."""
    k = best.shape[0] - 1
    while k > 0 and best[k - 1] < t:
        best[k] = best[k - 1]
        places[k] = places[k - 1]
        k -= 1
    best[k] = t
    places[k] = place


@njit(inline="always", **OPTIONS)
def best_few(
    b: Any, x0: Any, x1: Any, x2: Any, hint: Any, best: Any, places: Any, group_bounds: Any, leaf_bounds: Any,
    values: Any,
) -> None:  # fmt: skip
    """Fill best [k] with the k highest values to bidder x, descending, and places [k] with their places.

    The leaf `hint`, where this bidder last found its best, is read first, so that the bounds prune more.
    `group_bounds` [G] and `leaf_bounds` [16], float32, and `values` [16] are scratch arrays.
    """
    last = best.shape[0] - 1
    best[:] = -np.inf
    leaf_values(b, hint, x0, x1, x2, values)
    for k in range(LEAF):
        if values[k] > best[last]:
            _insert(values[k], hint * LEAF + k, best, places)
    bound_groups(b, x0, x1, x2, group_bounds)
    for g in range(group_bounds.shape[0]):
        if group_bounds[g] > best[last]:
            bound_leaves(b, g, x0, x1, x2, leaf_bounds)
            for e in range(GROUP):
                leaf = g * GROUP + e
                if leaf == hint or leaf_bounds[e] <= best[last]:
                    continue
                if leaf_values(b, leaf, x0, x1, x2, values) > best[last]:
                    for k in range(LEAF):
                        if values[k] > best[last]:
                            _insert(values[k], leaf * LEAF + k, best, places)


@kernel(**OPTIONS)
def price_out(b: Any, bidders: Any, hints: Any, profits: Any) -> None:
    """Fill profits [n] with the highest value of any place to each bidder [n, 3], its dual price."""
    group_bounds = np.empty(b.group_floors.shape[0], np.float32)
    leaf_bounds = np.empty(GROUP, np.float32)
    values = np.empty(LEAF)
    place = np.empty(1, np.int64)
    for i in range(bidders.shape[0]):
        x0, x1, x2 = bidders[i, 0], bidders[i, 1], bidders[i, 2]
        hint = max(hints[i], 0)
        best_few(b, x0, x1, x2, hint, profits[i : i + 1], place, group_bounds, leaf_bounds, values)
