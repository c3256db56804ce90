"""Who reads what and when: the order of an epoch, its division over ranks and workers, and where a run stands.

All are pure functions, so that resuming is exact by construction:

- an epoch's **order** is a permutation of the selected samples, a function of (seed, epoch) and nothing else;
- each of `world` ranks takes a contiguous **share** of it, so a rank stays with few shards; shares are equal;
- a rank's share is read in order whatever the number of workers: they take its batches in turn;
- where a run stands is a `Cursor`: the epoch, and for each world size that worked on it how many samples each
  rank took. What is left is the order without those, and another world size divides what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import DatasetError

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

DROP, REPEAT = "drop", "repeat"
UNEVEN = (DROP, REPEAT)
"""What becomes of the samples that do not divide by the ranks: the order's last are left out of this epoch, or
its first are read again."""


@dataclass(frozen=True)
class Segment:
    """Each of `world` ranks took `taken` samples of its share."""

    world: int
    taken: int


@dataclass(frozen=True)
class Cursor:
    """Where a run stands: the epoch, and what was taken of it, by one world size after the other."""

    epoch: int = 0
    segments: tuple[Segment, ...] = ()

    def at(self, world: int) -> Cursor:
        """The same place, with a last segment of this world size to go on with."""
        if self.segments and self.segments[-1].world == world:
            return self
        done = tuple(s for s in self.segments if s.taken)
        return Cursor(self.epoch, (*done, Segment(world, 0)))

    def taken(self, samples: int) -> Cursor:
        """After each rank of the last segment took so many more."""
        *done, last = self.segments
        return Cursor(self.epoch, (*done, Segment(last.world, last.taken + samples)))

    def next_epoch(self) -> Cursor:
        """The beginning of the epoch after this."""
        return Cursor(self.epoch + 1)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {"epoch": self.epoch, "segments": [[s.world, s.taken] for s in self.segments]}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Cursor:
        """Read what `to_json` gave.

        Raises:
            DatasetError: it is something else.
        """
        try:
            segments = tuple(Segment(int(world), int(taken)) for world, taken in state["segments"])
            cursor = cls(int(state["epoch"]), segments)
        except (KeyError, TypeError, ValueError) as fault:
            raise DatasetError(
                f"not the state of a dataset: {fault!r}; expected epoch and segments"
            ) from fault
        if cursor.epoch < 0 or any(s.world < 1 or s.taken < 0 for s in segments):
            raise DatasetError(f"not the state of a dataset: {state}")
        return cursor


def mixed(seed: int, epoch: int, stream: int, values: npt.ArrayLike) -> Words:
    """A 64-bit word per value, which looks random: splitmix64 over (seed, epoch, stream, value).

    NumPy may change what its generators give for a seed; a run that is resumed years later must not notice.
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


def epoch_order(shards: npt.ArrayLike, seed: int, epoch: int, window: int) -> Indices:
    """The order in which an epoch reads the samples.

    Shards are shuffled; samples are shuffled within each `window` shards that follow one another.

    Args:
        shards: the shard of each sample, [N], ascending.
        seed, epoch: any whole numbers that are not negative.
        window: shards whose samples are mixed with one another; 0 leaves everything as it lies.

    Returns:
        int64 [N], a permutation of 0 .. N - 1.
    """
    shard = np.asarray(shards, np.int64)
    if window == 0 or len(shard) == 0:
        return np.arange(len(shard))
    numbers, of = np.unique(shard, return_inverse=True)
    place = np.empty(len(numbers), np.int64)
    place[np.argsort(mixed(seed, epoch, 0, numbers), kind="stable")] = np.arange(len(numbers))
    return np.asarray(np.lexsort((mixed(seed, epoch, 1, np.arange(len(shard))), place[of] // window)))


def share_size(samples: int, world: int, uneven: str) -> int:
    """How many samples each rank takes of so many."""
    return samples // world if uneven == DROP else -(-samples // world)


def share(order: Indices, rank: int, world: int, uneven: str) -> Indices:
    """The part of an order that one rank reads; parts are equally long and together are the whole order, but
    for what `uneven` says of the remainder."""
    size = share_size(len(order), world, uneven)
    if size == 0:
        return order[:0]
    return np.take(order, np.arange(rank * size, (rank + 1) * size), mode="wrap")


def remaining(order: Indices, segments: tuple[Segment, ...], uneven: str) -> Indices:
    """What is left of an order after these segments, in its order.

    Raises:
        DatasetError: a segment took more than its share.
    """
    for segment in segments:
        size = share_size(len(order), segment.world, uneven)
        if segment.taken > size:
            raise DatasetError(
                f"the state says that each of {segment.world} ranks took {segment.taken} samples, but a share "
                f"is {size}: it is the state of another dataset"
            )
        if size:
            rank, place = np.divmod(np.arange(len(order)), size)
            order = order[(rank >= segment.world) | (place >= segment.taken)]
    return order


def rank_sequence(order: Indices, cursor: Cursor, rank: int, uneven: str) -> Indices:
    """What a rank of the cursor's last world size still has to read of an epoch, in order."""
    *done, last = cursor.segments
    own = share(remaining(order, tuple(done), uneven), rank, last.world, uneven)
    if last.taken > len(own):
        raise DatasetError(
            f"the state says that each of {last.world} ranks took {last.taken} samples, but a share is "
            f"{len(own)}: it is the state of another dataset"
        )
    return own[last.taken :]


def worker_sequence(sequence: Indices, worker: int, workers: int, batch_size: int) -> Indices:
    """The batches of a rank's sequence that one of its workers reads: every `workers`-th.

    A `DataLoader` hands out its workers' batches in turn, so together they give the sequence again.
    """
    mine: npt.NDArray[np.bool_] = (np.arange(len(sequence)) // batch_size) % workers == worker
    return sequence[mine]
