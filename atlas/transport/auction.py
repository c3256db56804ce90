"""One phase of Bertsekas' auction, whose bids read a few blocks instead of a row of a cost matrix.

D. P. Bertsekas, "The auction algorithm", Annals of Operations Research 14 (1988); the reverse phase for more
points than bidders: D. P. Bertsekas and D. A. Castanon, "A forward/reverse auction algorithm for asymmetric
assignment problems", Computational Optimization and Applications 1 (1992).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gaussianverse.atlas.compiled import kernel
from gaussianverse.atlas.transport.blocks import GROUP, LEAF, OPTIONS, best_few, raise_price, value


@kernel(**OPTIONS)
def auction(
    b: Any,
    bidders: Any,
    profits: Any,
    reserves: Any,
    queue: Any,
    held: Any,
    owner: Any,
    hints: Any,
    epsilon: Any,
    kept: Any,
) -> Any:
    """Let the queued bidders bid until each holds a place or accepts its reserve.

    Afterwards epsilon-complementary slackness holds: no bidder gains more than epsilon by another place. The same
    loop is the forward auction (rows bid for sites, without a reserve) and the reverse auction (sites without a
    row bid for rows, and stop at the price at which they may stay empty).

    A search keeps a few places more than the two that a bid needs. Prices only rise, so the worst of the few
    bounds all other places for the rest of the phase, and while two of the few are worth that much, an outbid
    bidder need not search again: Bertsekas' "third best", extended to more. It pays once epsilon is below the
    differences of values.

    Args:
        b: blocks over the places; their prices rise.
        bidders: positions [n, 3].
        profits: [n], profit of each bidder; written when it bids.
        reserves: [n], profit of each bidder without a place; -inf if it must hold one.
        queue: bidders to begin with, in this order.
        held: [n], place of each bidder, -1 for none.
        owner: [T], bidder of each place, -1 for none.
        hints: [n], leaf of each bidder's last bid, where its search starts; -1 to start at the leaf of the
            last bid of any bidder.
        epsilon: least rise of a price by a bid, > 0.
        kept: places that a search keeps, >= 2.

    Returns:
        Number of bids.
    """
    group_bounds = np.empty(b.group_floors.shape[0], np.float32)
    leaf_bounds = np.empty(GROUP, np.float32)
    values = np.empty(LEAF)
    found = np.empty(kept)
    places = np.empty((bidders.shape[0], kept), np.int64)
    # upper bound on a bidder's value of all places that it did not keep; inf before its first search
    others = np.full(bidders.shape[0], np.inf)
    leaf = 0
    # last in, first out: an outbid bidder bids again at once, while its blocks are in the CPU cache
    stack = np.empty(bidders.shape[0], np.int64)
    top = queue.shape[0]
    for k in range(top):
        stack[k] = queue[top - 1 - k]
    bids = 0
    while top > 0:
        top -= 1
        i = stack[top]
        if profits[i] <= reserves[i]:
            continue
        bids += 1
        x0, x1, x2 = bidders[i, 0], bidders[i, 1], bidders[i, 2]
        best, second, place = -np.inf, -np.inf, -1
        if others[i] < np.inf:
            for k in range(kept):
                t = value(b, places[i, k], x0, x1, x2)
                if t > best:
                    second, best, place = best, t, places[i, k]
                elif t > second:
                    second = t
        if second < others[i]:
            hint = hints[i] if hints[i] >= 0 else leaf
            best_few(b, x0, x1, x2, hint, found, places[i], group_bounds, leaf_bounds, values)
            best, second, place = found[0], found[1], places[i, 0]
            others[i] = found[kept - 1]
        leaf = place // LEAF
        hints[i] = leaf
        if best <= reserves[i] + epsilon:
            profits[i] = reserves[i]
            continue
        left = max(second - epsilon, reserves[i])
        profits[i] = left
        raise_price(b, place, best - left)
        outbid = owner[place]
        owner[place] = i
        held[i] = place
        if outbid >= 0:
            held[outbid] = -1
            stack[top] = outbid
            top += 1
    return bids
