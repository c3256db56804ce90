"""Pairs of 64-bit hashes within a Hamming distance, all of them: a multi-index by three bands of the bits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gaussianverse.pipeline.errors import PipelineError

MOST = 8
"""Largest distance, from which on the number of keys to look up grows beyond reason."""
MOST_PAIRS = 20_000_000
_BANDS = 3
_CHUNK = 1 << 22  # pairs that are compared at a time

Words = NDArray[np.uint64]
Pairs = NDArray[np.int64]


def pairs_within(words: Words, distance: int) -> Pairs:
    """All pairs of different words that differ in at most `distance` bits, [P, 2], the lower index first, sorted.

    Of three bands of the bits one differs in at most a third of the distance: every band is looked up by all keys
    that differ from its own by so many bits, and what is found there is compared.

    Args:
        words: uint64 [N], each once.
        distance: 0 to `MOST`.

    Raises:
        PipelineError: there are more than `MOST_PAIRS`.
    """
    found, total = [np.empty((0, 2), np.int64)], 0
    for band in range(_BANDS):
        bits = [bit for bit in range(64) if bit % _BANDS == band]
        keys = _extracted(words, bits)
        order = np.argsort(keys, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=2 ** len(bits)))])
        for flips in _flips(len(bits), distance // _BANDS):
            other = keys ^ np.uint32(flips)
            first = starts[other]
            for pairs in _chunks(first, starts[other + 1] - first, order):
                pairs = pairs[pairs[:, 0] < pairs[:, 1]]
                near = np.bitwise_count(words[pairs[:, 0]] ^ words[pairs[:, 1]]) <= distance
                found.append(pairs[near])
                total += int(near.sum())
                if total > _BANDS * MOST_PAIRS:
                    raise PipelineError(
                        f"more than {MOST_PAIRS:,} pairs of objects within {distance} bits; give a lower --distance"
                    )
    return np.unique(np.concatenate(found), axis=0)


def _extracted(words: Words, bits: list[int]) -> NDArray[np.uint32]:
    """These bits of each word, as one number."""
    keys = np.zeros(len(words), np.uint32)
    for place, bit in enumerate(bits):
        keys |= ((words >> np.uint64(bit)) & np.uint64(1)).astype(np.uint32) << np.uint32(place)
    return keys


def _flips(width: int, most: int) -> Iterator[int]:
    """Numbers of `width` bits of which at most `most` are 1."""
    for count in range(most + 1):
        for places in combinations(range(width), count):
            yield sum(1 << place for place in places)


def _chunks(first: Pairs, counts: Pairs, order: Pairs) -> Iterator[Pairs]:
    """Each word i with each of order[first[i] : first[i] + counts[i]], [P, 2], about `_CHUNK` at a time."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, side="right")))
        some = counts[start:stop]
        if ends[stop - 1] > before:
            left = np.repeat(np.arange(start, stop), some)
            within = np.arange(len(left)) - np.repeat(np.cumsum(some) - some, some)
            yield np.stack([left, order[np.repeat(first[start:stop], some) + within]], 1)
        start = stop
