"""One phase of Bertsekas' auction, with bids that read a few blocks instead of a row of a cost matrix.

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
    """Let the queued bidders bid until each holds a point or is content with its reserve; count the bids.

    Afterwards epsilon-complementary slackness holds: nobody could gain more than epsilon elsewhere. The same
    loop is the forward auction (rows bid for points, no reserve) and the reverse one (points that are not
    held bid for rows, and stop at the price at which they may stay empty).

    A search finds a few points more than the two that a bid needs. Prices only rise, so the last of them bounds
    all others for the rest of the phase, and while two of the few are worth as much, the outbid need not search
    again: Bertsekas' "third best", for more than three. Worth it once epsilon is below the differences of values.

    Args:
        b: blocks over what is bid for; its prices rise.
        bidders: positions [n, 3].
        profits: [n], what each bidder is left with; written when it bids.
        reserves: [n], profits that bidders have without holding anything; -inf: they must hold something.
        queue: bidders that bid, in this order; room for every bidder that can be outbid is made here.
        held: [n], place held by each bidder, -1: none.
        owner: [T], bidder that holds each place, -1: none.
        hints: [n], leaf of each bidder's last bid; -1, none: its search begins where the last one ended.
        epsilon: least rise of a price by a bid, > 0.
        kept: points found by a search, >= 2.

    Returns:
        Number of bids.
    """
    group_bounds = np.empty(b.group_floors.shape[0], np.float32)
    leaf_bounds = np.empty(GROUP, np.float32)
    values = np.empty(LEAF)
    found = np.empty(kept)
    places = np.empty((bidders.shape[0], kept), np.int64)
    # what points not among a bidder's few are worth to it at most; inf: it has not searched yet
    others = np.full(bidders.shape[0], np.inf)
    leaf = 0
    # last in, first out: the outbid bids again at once, while its blocks are warm in the cache
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
