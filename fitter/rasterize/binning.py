"""Depth-ordered lists of the Gaussians that touch each tile, in Numba.

A (Gaussian, tile) pair has two numbers: its place in the tile's list, front to back, and its slot, in which
the pairs of one Gaussian are adjacent, in the order of the Gaussians. Blending walks the first; gradients are
written to the second, so that each sum over a Gaussian's tiles is made by one thread in one order, without atomics,
and the sums walk through memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fitter.rasterize.compiled import LOG2_ALPHA_MIN, OPTIONS, TILE, bits_of_float, f4
from fitter.rasterize.projection import DEPTH, LOG2_OPACITY, QA, QB, QC, X, Y

_DIGIT = 11
_BUCKETS = 1 << _DIGIT


@njit(**OPTIONS)
def depth_order(record: Any, tiles: Any) -> Any:
    """Indices of the visible Gaussians from near to far; a stable radix sort of the depths' bits.

    Positive floats order as their bits do; equal depths keep the order of their indices.
    """
    n = record.shape[0]
    key, order = np.empty(n, np.uint32), np.empty(n, np.int32)
    key_to, order_to = np.empty(n, np.uint32), np.empty(n, np.int32)
    counts = np.zeros((3, _BUCKETS), np.int64)
    mask, m = np.uint32(_BUCKETS - 1), 0
    for i in range(n):
        if tiles[i, 1] > tiles[i, 0]:
            bits = np.uint32(bits_of_float(record[i, DEPTH]))
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


@njit(**OPTIONS)
def bin_pairs(
    record: Any, tiles: Any, order: Any, tiles_x: Any, tiles_y: Any, offsets: Any, slots: Any
) -> Any:
    """Pairs [P, 2] (Gaussian, slot) by tile then depth; fills offsets [T + 1] and slots [N, 2] (first, end).

    A tile is listed only if the ellipse alpha >= 1/255 reaches one of its pixel centres' rows within the
    tile's columns: for each row of tiles the ellipse's exact extent in x is solved.
    """
    n = record.shape[0]
    for t in range(offsets.shape[0]):
        offsets[t] = 0
    capacity = 8 * n + 1024
    found, count = np.empty(capacity, np.int32), 0
    for g in range(n):
        slots[g, 0] = count
        x0, x1, y0, y1 = tiles[g, 0], tiles[g, 1], tiles[g, 2], tiles[g, 3]
        need = (x1 - x0) * (y1 - y0)
        if count + need > capacity:
            capacity = 2 * capacity + need
            grown = np.empty(capacity, np.int32)
            grown[:count] = found[:count]
            found = grown
        if need <= 2:
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    t = ty * tiles_x + tx
                    offsets[t + 1] += 1
                    found[count] = t
                    count += 1
        else:
            x, y = record[g, X], record[g, Y]
            # the ellipse a dx^2 + b dx dy + c dy^2 = level
            level = record[g, LOG2_OPACITY] - LOG2_ALPHA_MIN
            a, b, c = -record[g, QA], -record[g, QB], -record[g, QC]
            x_reach = f4(math.sqrt(max(f4(0), level / (a - b * b / (f4(4) * c)))))
            y_at_reach = -b / (f4(2) * c) * x_reach
            half_inverse = f4(0.5) / a
            for ty in range(y0, y1):
                above = f4(ty * TILE) + f4(0.5) - y
                below = f4(ty * TILE + TILE) - f4(0.5) - y
                if above <= y_at_reach and y_at_reach <= below:
                    right = x_reach
                else:
                    d = above if y_at_reach < above else below
                    root = f4(math.sqrt(max(f4(0), b * b * d * d - f4(4) * a * (c * d * d - level))))
                    right = (-b * d + root) * half_inverse
                if above <= -y_at_reach and -y_at_reach <= below:
                    left = -x_reach
                else:
                    d = above if -y_at_reach < above else below
                    root = f4(math.sqrt(max(f4(0), b * b * d * d - f4(4) * a * (c * d * d - level))))
                    left = (-b * d - root) * half_inverse
                # a hair of slack: a tile too many costs time, one too few costs pixels
                from_x = max(f4(x0 * TILE), f4(math.ceil(x + left - f4(0.505))))
                to_x = min(f4(x1 * TILE - 1), f4(math.floor(x + right - f4(0.495))))
                if not to_x >= from_x:
                    continue
                for tx in range(int(from_x) // TILE, int(to_x) // TILE + 1):
                    t = ty * tiles_x + tx
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
