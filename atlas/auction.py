"""One phase of Bertsekas' auction, with bids that read a few blocks instead of a row of a cost matrix.

D. P. Bertsekas, "The auction algorithm", Annals of Operations Research 14 (1988); the reverse phase for more
points than bidders: D. P. Bertsekas and D. A. Castanon, "A forward/reverse auction algorithm for asymmetric
assignment problems", Computational Optimization and Applications 1 (1992).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from atlas.blocks import GROUP, LEAF, OPTIONS, best_two, raise_price


@njit(**OPTIONS)
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
) -> Any:
    """Let the queued bidders bid until each holds a point or is content with its reserve; count the bids.

    Afterwards epsilon-complementary slackness holds: nobody could gain more than epsilon elsewhere. The same
    loop is the forward auction (rows bid for points, no reserve) and the reverse one (points that are not
    held bid for rows, and stop at the price at which they may stay empty).

    Args:
        b: blocks over what is bid for; its prices rise.
        bidders: positions [n, 3].
        profits: [n], what each bidder is left with; written when it bids.
        reserves: [n], profits that bidders have without holding anything; -inf: they must hold something.
        queue: bidders that bid, in this order; room for every bidder that can be outbid is made here.
        held: [n], place held by each bidder, -1: none.
        owner: [T], bidder that holds each place, -1: none.
        hints: [n], leaf of each bidder's last bid.
        epsilon: least rise of a price by a bid, > 0.

    Returns:
        Number of bids.
    """
    group_bounds = np.empty(b.group_floors.shape[0])
    leaf_bounds = np.empty(GROUP)
    values = np.empty(LEAF)
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
        place, best, second = best_two(
            b, bidders[i, 0], bidders[i, 1], bidders[i, 2], hints[i], group_bounds, leaf_bounds, values
        )
        if best <= reserves[i] + epsilon:
            profits[i] = reserves[i]
            continue
        left = max(second - epsilon, reserves[i])
        profits[i] = left
        leaf = place // LEAF
        hints[i] = leaf
        raise_price(b, place, best - left)
        outbid = owner[place]
        owner[place] = i
        held[i] = place
        if outbid >= 0:
            held[outbid] = -1
            stack[top] = outbid
            top += 1
    return bids
