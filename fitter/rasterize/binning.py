"""Depth-ordered lists of the Gaussians that touch each tile, in Numba.

A (Gaussian, tile) pair has two numbers: its place in the tile's list, front to back, and its slot; the slots of a
Gaussian's pairs are adjacent, in the order of the Gaussians. Blending reads pairs by place and writes gradients by
slot, so that one thread sums over a Gaussian's tiles in a fixed order, without atomics, reading memory in sequence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gaussianverse.atlas.compiled import kernel
from gaussianverse.fitter.rasterize.compiled import LOG2_ALPHA_MIN, OPTIONS, TILE, bits_of_float, f4, i4
from gaussianverse.fitter.rasterize.projection import (
    LOG2_OPACITY,
    QA,
    QB,
    QC,
    SPAN_ROWS,
    SPANS,
    X0,
    X1,
    X_REACH,
    Y0,
    Y1,
    X,
    Y,
    row_span,
)

_DIGIT = 11
_BUCKETS = 1 << _DIGIT


@kernel(**OPTIONS)
def depth_order(depths: Any, tiles: Any) -> Any:
    """Indices of the visible Gaussians from near to far, by a stable radix sort of the depths' bits.

    Positive floats are ordered like their bits; equal depths keep the order of their indices.
    """
    n = depths.shape[0]
    key, order = np.empty(n, np.uint32), np.empty(n, np.int32)
    key_to, order_to = np.empty(n, np.uint32), np.empty(n, np.int32)
    counts = np.zeros((3, _BUCKETS), np.int64)
    mask, m = np.uint32(_BUCKETS - 1), 0
    for i in range(n):
        if tiles[i, X1] > tiles[i, X0]:
            bits = np.uint32(bits_of_float(depths[i]))
            key[m], order[m] = bits, i
            m += 1
            counts[0, bits & mask] += 1
            counts[1, (bits >> np.uint32(_DIGIT)) & mask] += 1
            counts[2, bits >> np.uint32(2 * _DIGIT)] += 1
    for digit in range(3):
        total = 0
        for bucket in range(_BUCKETS):
            count = counts[digit, bucket]
            counts[digit, bucket] = total
            total += count
        shift = np.uint32(_DIGIT * digit)
        for i in range(m):
            bucket = (key[i] >> shift) & mask
            place = counts[digit, bucket]
            counts[digit, bucket] = place + 1
            key_to[place], order_to[place] = key[i], order[i]
        key, key_to = key_to, key
        order, order_to = order_to, order
    return order[:m]


@kernel(**OPTIONS)
def bin_pairs(record: Any, tiles: Any, order: Any, tiles_x: Any, tiles_y: Any, offsets: Any, slots: Any) -> Any:
    """List the pairs [P, 2] (Gaussian, slot) by tile, then depth; fill offsets [T + 1] and slots [N, 2] (first, end).

    A tile is listed only if the ellipse alpha >= 1/255 intersects a row of its pixel centres within the tile's
    columns. The ellipse's exact extent in x is computed for each row of tiles; for the first ones, by `project`.
    """
    n = record.shape[0]
    offsets[:] = 0
    capacity = 8 * n + 1024
    found, count = np.empty(capacity, np.int32), 0
    for g in range(n):
        slots[g, 0] = count
        x0, x1, y0, y1 = i4(tiles[g, X0]), i4(tiles[g, X1]), i4(tiles[g, Y0]), i4(tiles[g, Y1])
        need = (x1 - x0) * (y1 - y0)
        if count + need > capacity:
            capacity = 2 * capacity + need
            grown = np.empty(capacity, np.int32)
            grown[:count] = found[:count]
            found = grown
        for row in range(y1 - y0):
            if row < SPAN_ROWS:
                first, end = i4(tiles[g, SPANS + 2 * row]), i4(tiles[g, SPANS + 2 * row + 1])
            else:
                above = f4((y0 + row) * TILE) + f4(0.5) - record[g, Y]
                from_x, end_x = row_span(
                    record[g, X], f4(x0), f4(x1), -record[g, QA], -record[g, QB], -record[g, QC],
                    record[g, LOG2_OPACITY] - LOG2_ALPHA_MIN, record[g, X_REACH], above, above + f4(TILE - 1),
                )  # fmt: skip
                first, end = i4(from_x), i4(end_x)
            for t in range((y0 + row) * tiles_x + first, (y0 + row) * tiles_x + end):
                offsets[t + 1] += 1
                found[count] = t
                count += 1
        slots[g, 1] = count
    tile_count = tiles_x * tiles_y
    for t in range(tile_count):
        offsets[t + 1] += offsets[t]
    place_of = offsets[:tile_count].copy()
    pairs = np.empty((count, 2), np.int32)
    for k in range(order.shape[0]):
        g = order[k]
        for slot in range(slots[g, 0], slots[g, 1]):
            t = found[slot]
            place = place_of[t]
            place_of[t] = place + 1
            pairs[place, 0], pairs[place, 1] = g, slot
    return pairs
