"""Pseudorandom words: each choice of the reader is a pure function of (seed, epoch, what is chosen, for which)."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class Stream(IntEnum):
    """Choices that are made by words, none by those of another. States mean orders, so the numbers stay."""

    SHARDS = 0
    RUNS = 1
    RUN_BEGINS = 2
    TURNS = 3
    SOME = 4
    ONE = 5
    WEIGHTED = 6
    AGAIN = 7
    PARTS = 8


def mixed(seed: int, epoch: int, stream: Stream, values: npt.ArrayLike) -> Words:
    """A pseudorandom 64-bit word per value: splitmix64 over (seed, epoch, stream, value).

    Not NumPy's generators, whose output for a seed may change between versions: a resumed run must read the same.
    """
    word = np.zeros(np.shape(values), np.uint64)
    for part in (seed, epoch, stream, np.asarray(values)):
        part = np.asarray(part).astype(np.uint64)
        with np.errstate(over="ignore"):
            word = (word ^ part) + np.uint64(0x9E3779B97F4A7C15)
            word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            word ^= word >> np.uint64(31)
    return word


def drawn(seed: int, turns: Indices, places: Indices, among: int, count: int) -> Indices:
    """Draw `count` of `among` things for each sample, none twice, by (seed, turn, place).

    Returns:
        int64 [N, count], each 0 .. among - 1.
    """
    words = mixed(seed, 0, Stream.SOME, _of_turns(seed, turns, places)[:, None] ^ np.arange(among, dtype=np.uint64))
    return np.asarray(np.argsort(words, axis=1, kind="stable")[:, :count])


def drawn_one(seed: int, turns: Indices, places: Indices, among: Indices) -> Indices:
    """Draw one of `among` things, >= 1, for each sample, by (seed, turn, place); [N], each 0 .. among - 1."""
    words = mixed(seed, 0, Stream.ONE, _of_turns(seed, turns, places))
    return np.asarray((words % among.astype(np.uint64)).astype(np.int64))


def _of_turns(seed: int, turns: Indices, places: Indices) -> Words:
    return mixed(seed, 0, Stream.TURNS, mixed(seed, 0, Stream.TURNS, places) ^ turns.astype(np.uint64))
