"""`Route`: the samples of one pass for one rank, from a position on, and the positions behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gaussianverse.atlas.reader import order
from gaussianverse.atlas.reader.order import Cursor, Draws, Segment


class Route:
    """The samples of one pass for one rank, and the position after any number of them.

    Args:
        number: of the pass.
        start: position where it starts, with a last segment of the number of ranks.
        left: the samples of a cursor's epoch or round that this rank has yet to read, in order.
        round_size: number of samples that this rank reads in each round of an infinite pass; None = the pass ends.
    """

    def __init__(
        self, number: int, start: Cursor, left: Callable[[Cursor], Draws], round_size: int | None
    ) -> None:  # fmt: skip
        self.number, self.start = number, start
        self._left, self._round_size = left, round_size
        self._first = left(start)

    @property
    def size(self) -> int | None:
        """Number of samples; None if the pass does not end."""
        return len(self._first) if self._round_size is None else None

    def pieces(self, worker: int = 0, workers: int = 1, batch_size: int = 1, taken: int = 0) -> Iterator[Draws]:
        """The samples that one of some workers reads, round by round, after it took so many."""
        place = order.worker_place(taken, worker, workers, batch_size)
        cursor, draws = self.start, self._first[place:]
        if self._round_size is not None and place >= len(self._first):
            cursor = self.after(place)
            draws = self._left(cursor)
        while True:
            yield order.worker_sequence(draws, worker, workers, batch_size, place)
            if self._round_size is None:
                return
            place += len(draws)
            cursor = cursor.next_round().at(self._world)
            draws = self._left(cursor)

    def after(self, taken: int) -> Cursor:
        """The position once each rank took so many samples; after the last one, the start of the next epoch."""
        if taken < len(self._first):
            return self.start.taken(taken)
        if self._round_size is None:
            return self.start.next_epoch()
        rounds, rest = divmod(taken - len(self._first), self._round_size)
        return Cursor(self.start.epoch, (Segment(self._world, rest),), self.start.round + 1 + rounds)

    @property
    def _world(self) -> int:
        return self.start.segments[-1].world
