"""The order of an epoch, its division over ranks and workers, and the position in it, as pure functions.

Resuming is exact by construction:

- a round's **order** is a permutation of the selected samples that depends on (seed, round) and on how finely it
  mixes (window, neighbours) only; an epoch is one round, or some samples of several;
- each of `world` ranks takes a contiguous **share** of an epoch, so that it reads few shards; shares have equal size;
- the workers of a rank take the batches of its share in turn, so that their number does not change the order;
- a `Cursor` is the position: the epoch, and for each world size that worked on it the number of samples that each
  rank took. The remainder is the order without those samples, and another world size divides the remainder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.words import Indices, Stream, mixed

Draws = npt.NDArray[np.int64]
"""Samples in the order in which they are read, [n, 2]: the place of each, and its turn, a number that another reading
of the same sample does not have, except one that `REPEAT` fills up an epoch with. What is drawn for a sample depends
on (seed, turn, place)."""

DROP, REPEAT = "drop", "repeat"
UNEVEN = (DROP, REPEAT)
"""Treatments of samples that do not divide by the number of ranks: leave the last ones of the order out of this
epoch, or read the first ones again."""


@dataclass(frozen=True)
class Segment:
    """Each of `world` ranks took `taken` samples of its share."""

    world: int
    taken: int


@dataclass(frozen=True)
class Cursor:
    """Position in the epochs: the epoch, and the samples taken of it by one world size after another.

    An infinite epoch consists of rounds; the segments are then those of one round.
    """

    epoch: int = 0
    segments: tuple[Segment, ...] = ()
    round: int = 0

    def at(self, world: int) -> Cursor:
        """The same position, with a last segment of this world size."""
        if self.segments and self.segments[-1].world == world:
            return self
        done = tuple(s for s in self.segments if s.taken)
        return replace(self, segments=(*done, Segment(world, 0)))

    def taken(self, samples: int) -> Cursor:
        """The position after each rank of the last segment took this many more samples."""
        *done, last = self.segments
        return replace(self, segments=(*done, Segment(last.world, last.taken + samples)))

    def next_epoch(self) -> Cursor:
        """The start of the next epoch."""
        return Cursor(self.epoch + 1)

    def next_round(self) -> Cursor:
        """The start of the next round of this epoch."""
        return Cursor(self.epoch, round=self.round + 1)

    def to_json(self) -> dict[str, Any]:
        """The cursor as plain numbers and lists."""
        return {"epoch": self.epoch, "round": self.round, "segments": [[s.world, s.taken] for s in self.segments]}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Cursor:
        """Read the output of `to_json`.

        Raises:
            DatasetError: `state` is something else.
        """
        try:
            segments = tuple(Segment(int(world), int(taken)) for world, taken in state["segments"])
            # states of version 0.3 know no rounds
            cursor = cls(int(state["epoch"]), segments, int(state.get("round", 0)))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"not the state of a dataset: {error!r}; expected epoch and segments") from error
        if min(cursor.epoch, cursor.round) < 0 or any(s.world < 1 or s.taken < 0 for s in segments):
            raise DatasetError(f"not the state of a dataset: {state}")
        return cursor


def epoch_order(
    shards: npt.ArrayLike, seed: int, epoch: int, window: int, neighbours: int = 1, places: Indices | None = None
) -> Indices:
    """The order in which an epoch reads the samples: shards are shuffled, then runs within `window` shards.

    Args:
        shards: the shard of each sample, [N]; those of a run side by side.
        seed, epoch: integers >= 0.
        window: number of consecutive shards whose samples are mixed; 0 = no shuffle at all.
        neighbours: length of the runs, which stay together. Where they begin in a shard differs from epoch to epoch,
            and the first and the last run of a shard may be shorter.
        places: numbers of the samples, [N], by which their runs are counted; None = 0 .. N - 1.

    Returns:
        int64 [N], a permutation of 0 .. N - 1.
    """
    shard = np.asarray(shards, np.int64)
    if window == 0 or len(shard) == 0:
        return np.arange(len(shard))
    numbers, of = np.unique(shard, return_inverse=True)
    place = np.empty(len(numbers), np.int64)
    place[np.argsort(mixed(seed, epoch, Stream.SHARDS, numbers), kind="stable")] = np.arange(len(numbers))
    numbered = np.arange(len(shard)) if places is None else places
    moved = mixed(seed, epoch, Stream.RUN_BEGINS, shard) % np.uint64(neighbours)
    run = (numbered + moved.astype(np.int64)) // neighbours
    begins = np.append(True, (run[1:] != run[:-1]) | (of[1:] != of[:-1]))
    first = np.maximum.accumulate(np.where(begins, np.arange(len(shard)), 0))
    return np.asarray(np.lexsort((mixed(seed, epoch, Stream.RUNS, first), place[of] // window)))


def adjacent(places: Indices, stretches: Indices, most: int) -> list[Indices]:
    """Cut a sequence of samples into ranges of up to `most` samples that lie side by side in one shard.

    Args:
        places: the samples, int64 [N], in the order in which they are read.
        stretches: the stretch of each, [N]: samples of one, with nothing between them, have consecutive places.
        most: longest range, >= 1.

    Returns:
        The ranges, which joined are `places`.
    """
    if len(places) == 0:
        return []
    breaks = np.append(True, (np.diff(places) != 1) | (np.diff(stretches) != 0))
    counted = np.arange(len(places))
    counted -= np.maximum.accumulate(np.where(breaks, counted, 0))
    return np.split(places, np.flatnonzero(breaks | (counted % most == 0))[1:])


def grouped(pieces: Iterable[Draws], size: int, drop_last: bool) -> Iterator[Draws]:
    """Cut the samples of all pieces into groups of this size; the last one may be smaller, or is left out."""
    rest = np.empty((0, 2), np.int64)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        whole = len(rest) // size * size
        yield from np.split(rest[:whole], range(size, whole, size)) if whole else ()
        rest = rest[whole:]
    if len(rest) and not drop_last:
        yield rest


def share_size(samples: int, world: int, uneven: str) -> int:
    """Number of samples that each rank takes."""
    return samples // world if uneven == DROP else -(-samples // world)


def share(order: Indices, rank: int, world: int, uneven: str) -> Indices:
    """The part of an order that one rank reads; all parts have equal size and together they are the order, except
    for the remainder, see `UNEVEN`."""
    size = share_size(len(order), world, uneven)
    if size == 0:
        return order[:0]
    return np.take(order, np.arange(rank * size, (rank + 1) * size), axis=0, mode="wrap")


def remaining(order: Indices, segments: tuple[Segment, ...], uneven: str) -> Indices:
    """The part of an order that these segments left, in its order.

    Raises:
        DatasetError: a segment took more than its share.
    """
    for segment in segments:
        size = share_size(len(order), segment.world, uneven)
        if segment.taken > size:
            raise DatasetError(
                f"by the state, each of {segment.world} ranks took {segment.taken} samples of its {size}: "
                "it is the state of another dataset"
            )
        if size:
            rank, place = np.divmod(np.arange(len(order)), size)
            order = order[(rank >= segment.world) | (place >= segment.taken)]
    return order


def rank_sequence(order: Indices, cursor: Cursor, rank: int, uneven: str) -> Indices:
    """The samples of an epoch that a rank of the cursor's last world size has yet to read, in order."""
    *done, last = cursor.segments
    own = share(remaining(order, tuple(done), uneven), rank, last.world, uneven)
    if last.taken > len(own):
        raise DatasetError(
            f"by the state, each of {last.world} ranks took {last.taken} samples of its {len(own)}: "
            "it is the state of another dataset"
        )
    return own[last.taken :]


def worker_sequence(sequence: Indices, worker: int, workers: int, batch_size: int, first: int = 0) -> Indices:
    """The batches of a rank's sequence that one of its workers reads: every `workers`-th.

    A `DataLoader` yields its workers' batches in turn, which restores the sequence.

    Args:
        sequence: the rank's samples from number `first` on, in order.
        worker, workers: number of the worker, and how many there are.
        batch_size: samples in a batch.
        first: number of samples of the pass before these.
    """
    mine: npt.NDArray[np.bool_] = (np.arange(first, first + len(sequence)) // batch_size) % workers == worker
    return sequence[mine]


def worker_place(taken: int, worker: int, workers: int, batch_size: int) -> int:
    """The number, in a rank's sequence, of the sample that a worker reads after it took so many."""
    batches, within = divmod(taken, batch_size)
    return (batches * workers + worker) * batch_size + within
