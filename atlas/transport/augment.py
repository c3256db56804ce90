"""Shortest augmenting paths, which make an almost optimal assignment exact.

The Dijkstra search of Jonker and Volgenant (Computing 38, 1987), with two changes. The edges of a row come from
a pruned range search, which returns the places cheap enough to matter, instead of a row of a matrix. And all
places that stay empty belong to a dummy row of value 0, a single node of the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gaussianverse.atlas.compiled import kernel
from gaussianverse.atlas.transport.blocks import GROUP, LEAF, OPTIONS, bound_groups, bound_leaves, leaf_values

FREE = -1
DUMMY = -2
_NOWHERE = -1


@njit(inline="always", **OPTIONS)
def _within(
    b: Any, x0: Any, x1: Any, x2: Any, threshold: Any, group_bounds: Any, leaf_bounds: Any, values: Any, places: Any,
    found: Any,
) -> Any:  # fmt: skip
    """Write every place whose value to bidder x exceeds the threshold, and the value; return their number."""
    count = 0
    bound_groups(b, x0, x1, x2, group_bounds)
    for g in range(group_bounds.shape[0]):
        if group_bounds[g] > threshold:
            bound_leaves(b, g, x0, x1, x2, leaf_bounds)
            for e in range(GROUP):
                leaf = g * GROUP + e
                if leaf_bounds[e] > threshold and leaf_values(b, leaf, x0, x1, x2, values) > threshold:
                    for k in range(LEAF):
                        if values[k] > threshold:
                            places[count] = leaf * LEAF + k
                            found[count] = values[k]
                            count += 1
    return count


@njit(inline="always", **OPTIONS)
def _push(heap: Any, slot: Any, size: Any, key: Any, place: Any) -> Any:
    """Insert a place into the binary heap, or move it up after its key fell; return the size."""
    at = slot[place]
    if at < 0:
        at = size
        size += 1
    while at > 0:
        parent = (at - 1) >> 1
        above = heap[parent]
        if key[above] <= key[place]:
            break
        heap[at] = above
        slot[above] = at
        at = parent
    heap[at] = place
    slot[place] = at
    return size


@njit(inline="always", **OPTIONS)
def _pop(heap: Any, slot: Any, size: Any, key: Any) -> Any:
    """Remove the place with the least key from the heap, whose size becomes `size - 1`, and return it."""
    taken = heap[0]
    slot[taken] = -1
    size -= 1
    if size > 0:
        last = heap[size]
        at = 0
        while True:
            child = 2 * at + 1
            if child >= size:
                break
            if child + 1 < size and key[heap[child + 1]] < key[heap[child]]:
                child += 1
            if key[heap[child]] >= key[last]:
                break
            heap[at] = heap[child]
            slot[heap[at]] = at
            at = child
        heap[at] = last
        slot[last] = at
    return taken


@kernel(**OPTIONS)
def augment(
    b: Any, bidders: Any, profits: Any, released: Any, reserves: Any, held: Any, owner: Any, reach: Any, patience: Any
) -> Any:
    """Give each released bidder a place along a shortest path, keeping every dual feasible and tight.

    On entry every pair satisfies `profit + price >= value`, with equality for matched pairs, and
    `price >= reserve`, with equality for the dummy's places. The same holds on return, up to the dummy's level.

    Args:
        b: blocks over the places; prices rise.
        bidders: positions [n, 3].
        profits: [n], dual prices of the bidders; they fall.
        released: bidders without a place.
        reserves: [T], price of each place at which it may stay empty.
        held: [n], place of each bidder; on entry, a released bidder's last place.
        owner: [T], bidder, `FREE` (as many as released) or `DUMMY`.
        reach: first guess of the longest shortest path; raised eightfold if it was too short.
        patience: number of rows to search from before no new path is started.

    Returns:
        The number of released bidders that now hold a place, and the dummy's level: the price of each empty
        place above its reserve.
    """
    total = owner.shape[0]
    prices = b.prices.reshape(-1)
    group_bounds = np.empty(b.group_floors.shape[0], np.float32)
    leaf_bounds = np.empty(GROUP, np.float32)
    values = np.empty(LEAF)
    places = np.empty(total, np.int64)
    found = np.empty(total)
    distance = np.full(total, np.inf)
    parent = np.full(total, _NOWHERE)
    done = np.zeros(total, np.bool_)
    heap = np.empty(total, np.int64)
    slot = np.full(total, -1)
    touched = np.empty(total, np.int64)
    scanned = np.empty(total, np.int64)
    level = 0.0
    searched = 0

    for f in range(released.shape[0]):
        if searched > patience:
            return f, level
        start = released[f]
        limit = reach
        end, n_touched, n_scanned = _NOWHERE, 0, 0
        dummy_at, dummy_place = np.inf, _NOWHERE
        while True:
            # `shortest` is an upper bound on the path's length: farther places are neither searched nor queued
            shortest = limit
            size, n_touched, n_scanned = 0, 0, 0
            dummy_at, dummy_place = np.inf, _NOWHERE
            row, d = start, 0.0
            last = held[start]
            if owner[last] == FREE:
                leaf = last // LEAF
                k = last - leaf * LEAF
                own = bidders[start, 0] * b.x[leaf, k] + bidders[start, 1] * b.y[leaf, k]
                own += bidders[start, 2] * b.z[leaf, k] - b.prices[leaf, k]
                t = max(profits[start] - own, 0.0)
                if t < shortest:
                    shortest, end = t, last
                    distance[last] = t
                    parent[last] = start
                    touched[0] = last
                    n_touched = 1
            while row >= 0:
                searched += 1
                x0, x1, x2 = bidders[row, 0], bidders[row, 1], bidders[row, 2]
                threshold = profits[row] + d - shortest
                count = _within(b, x0, x1, x2, threshold, group_bounds, leaf_bounds, values, places, found)
                for c in range(count):
                    j = places[c]
                    t = max(d, d + profits[row] - found[c])
                    if t < distance[j] and t < shortest and not done[j]:
                        if distance[j] == np.inf:
                            touched[n_touched] = j
                            n_touched += 1
                        distance[j] = t
                        parent[j] = row
                        if owner[j] == FREE:
                            shortest, end = t, j
                        else:
                            size = _push(heap, slot, size, distance, j)
                row = _NOWHERE
                while size > 0 and row == _NOWHERE:
                    j = _pop(heap, slot, size, distance)
                    size -= 1
                    d = distance[j]
                    if d >= shortest:
                        break
                    done[j] = True
                    if owner[j] != DUMMY:
                        scanned[n_scanned] = j
                        n_scanned += 1
                        row = owner[j]
                    elif dummy_place == _NOWHERE:
                        dummy_at, dummy_place = d, j
                        for k in range(total):
                            t = max(d, d + prices[k] - reserves[k] - level)
                            if t < shortest and t < distance[k] and owner[k] != DUMMY and not done[k]:
                                if distance[k] == np.inf:
                                    touched[n_touched] = k
                                    n_touched += 1
                                distance[k] = t
                                parent[k] = DUMMY
                                if owner[k] == FREE:
                                    shortest, end = t, k
                                else:
                                    size = _push(heap, slot, size, distance, k)
            for k in range(size):
                slot[heap[k]] = -1
            if end != _NOWHERE:
                break
            for k in range(n_touched):
                distance[touched[k]] = np.inf
                done[touched[k]] = False
            limit *= 8.0

        profits[start] -= shortest
        for k in range(n_scanned):
            j = scanned[k]
            rise = shortest - distance[j]
            prices[j] += rise
            profits[owner[j]] -= rise
        if dummy_place != _NOWHERE:
            rise = shortest - dummy_at
            level += rise
            for k in range(total):
                if owner[k] == DUMMY:
                    prices[k] += rise

        j = end
        while True:
            row = parent[j]
            if row == DUMMY:
                owner[j] = DUMMY
                j = dummy_place
                row = parent[j]
            before = held[row]
            owner[j] = row
            held[row] = j
            if row == start:
                break
            j = before
        for k in range(n_touched):
            distance[touched[k]] = np.inf
            done[touched[k]] = False
    return released.shape[0], level
