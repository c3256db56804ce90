"""`Progress`: the samples that a rank reads, pass after pass, and how far it is, as a state that can be saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader import order
from gaussianverse.atlas.reader.order import Cursor, Draws
from gaussianverse.atlas.reader.passes import Pass, Passes
from gaussianverse.atlas.reader.route import Route
from gaussianverse.atlas.reader.selection import Samples

STATE_VERSION = 1
_ADDED = {"neighbours": 1, "epoch_samples": None, "infinite": False, "weights": None}
"""Properties of states that those of version 0.3 lack."""
_ROUNDS = 2**32
"""Bound on the rounds of an infinite epoch, so that no other epoch has them."""


class Part(NamedTuple):
    """A worker's part of a pass: where the pass started, and the samples that the worker has taken since."""

    start: Cursor
    taken: int


class Worker(NamedTuple):
    """The worker of a plain `DataLoader` that this process is, and the key of the passes of its iterator."""

    id: int
    workers: int
    key: str


def this_worker() -> Worker | None:
    """The worker that this process is; None in the process that made the dataset."""
    info = get_worker_info()
    # the workers of one iterator have consecutive seeds, from a base that is drawn for the iterator
    return None if info is None else Worker(info.id, info.num_workers, f"workers {info.seed - info.id}")


@dataclass
class Progress:
    """Progress of one rank.

    Args:
        samples: the samples of each epoch, for all ranks.
        uneven: see `order.UNEVEN`.
        rank, world: this rank and the number of ranks.
        infinite: an epoch goes from round to round and does not end; each of its rounds is what is an epoch
            otherwise. Those of epoch 0 are the epochs 0, 1, 2, and so on; no other epoch has these.
    """

    samples: Samples
    uneven: str
    rank: int
    world: int
    infinite: bool = False
    _passes: Passes = field(default_factory=Passes)
    _position: Pass = field(default=Pass(0, Cursor()))
    """The newest pass that this process follows, and how far it is."""
    _part: Part | None = None
    _loaded: Part | None = None

    @property
    def size(self) -> int | None:
        """Number of samples that each rank reads in an epoch; None if an epoch does not end."""
        return None if self.infinite else self.round_size

    @property
    def round_size(self) -> int:
        """Number of samples that each rank reads in an epoch, or in a round of an infinite one."""
        return order.share_size(len(self.samples), self.world, self.uneven)

    def begin(self, key: str, member: int = 0) -> Route:
        """Begin the pass with this key, or join it, see `Passes.begin`."""
        begun = self._passes.begin(key, member)
        start = begun.start.at(self.world)
        self._follow(Pass(begun.number, start))
        return Route(begun.number, start, self._sequence, self.round_size if self.infinite else None)

    def moved(self, route: Route, taken: int) -> None:
        """Note that each rank took so many samples of a pass.

        Only the newest pass counts, and its end is the start of the next epoch.
        """
        self._follow(Pass(route.number, route.after(taken)))

    def _follow(self, position: Pass) -> None:
        if position.number >= self._position.number:
            self._position = position

    def begin_part(self, batch_size: int) -> Iterator[Draws]:
        """The samples that this worker of a plain `DataLoader` has yet to read of its next pass, in order."""
        worker = this_worker()
        assert worker is not None
        route = self.begin(worker.key, worker.id)
        taken = self._part.taken if self._part is not None else 0
        self._part = Part(route.start, taken)
        return route.pieces(worker.id, worker.workers, batch_size, taken)

    def reset_part(self) -> None:
        """Let this worker's next pass begin at the state that was loaded last, else with the next epoch."""
        self._part, self._loaded = self._loaded, None

    def took_one(self) -> None:
        """Note that this worker took another sample."""
        assert self._part is not None
        self._part = self._part._replace(taken=self._part.taken + 1)

    def left(self) -> int | None:
        """Number of samples that the next pass has for this rank; None if it does not end."""
        return None if self.infinite else len(self._sequence(self._passes.next.at(self.world)))

    @property
    def cursor(self) -> Cursor:
        """Start of the next pass, or position in the newest one; never at the end of an epoch.

        Raises:
            DatasetError: the newest pass is read by workers that this process does not hear from.
        """
        newest = self._passes.newest()
        if newest is None:
            return self._passes.next.at(self.world)
        if newest.number != self._position.number:
            raise DatasetError(
                "a DataLoader's workers read this dataset, and only they know how far they are: for a state, use "
                "AtlasLoader or torchdata's StatefulDataLoader"
            )
        return self._position.start.at(self.world)

    @property
    def epoch(self) -> int:
        """The epoch of the newest pass, and of the next one as soon as the last sample is known to be taken."""
        newest = self._passes.newest()
        if newest is None:
            return self._passes.next.epoch
        return (self._position if newest.number == self._position.number else newest).start.epoch

    @property
    def has_position(self) -> bool:
        """Whether a pass was begun, or a state or an epoch was given."""
        return self._passes.used

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass read this epoch: all of it, or what a state that was just loaded left of it."""
        if self._passes.newest() is not None or self._passes.next.epoch != epoch:
            self._passes.restart(Cursor(epoch))

    def skip_rest(self) -> None:
        """Let the next pass read the epoch after the one that it would have read."""
        self._passes.restart(self._passes.next.next_epoch())

    def state_dict(self, batch_size: int) -> dict[str, Any]:
        """See `AtlasDataset.state_dict`; in a worker, the state of its part."""
        state = {"version": STATE_VERSION, **self._identity()}
        worker = this_worker()
        if worker is None:
            return {**state, **self.cursor.to_json()}
        start, taken = self._part or self._loaded or (self._passes.peek(worker.key, worker.id), 0)
        place = {"worker": worker.id, "workers": worker.workers, "batch_size": batch_size}
        return {**state, **start.to_json(), **place, "taken": taken}

    def load_state_dict(self, state: Mapping[str, Any], batch_size: int) -> None:
        """See `AtlasDataset.load_state_dict`."""
        if state.get("version") != STATE_VERSION:
            raise DatasetError(f"state of version {state.get('version')}, this gaussianverse reads {STATE_VERSION}")
        worker = this_worker()
        place = (
            {name: None for name in ("worker", "workers", "batch_size")}
            if worker is None
            else {"worker": worker.id, "workers": worker.workers, "batch_size": batch_size}
        )
        state = {**_ADDED, **state}
        for name, own in {**self._identity(), **place}.items():
            if state.get(name) != own:
                mend = "; if it is of another version of it, pass that as version=" if name == "dataset" else ""
                raise DatasetError(f"the state has {name} {state.get(name)!r}, this dataset {own!r}{mend}")
        cursor = Cursor.from_json(dict(state))
        left = len(self._sequence(cursor.at(self.world)))
        if worker is None:
            # what another number of ranks left may be fewer samples than there are ranks now
            after = cursor.next_round() if self.infinite else cursor.next_epoch()
            self._passes.restart(cursor if left else after)
            return
        self._passes.resume(worker.key, worker.id, cursor)
        self._loaded = Part(cursor, int(state["taken"]))

    def _identity(self) -> dict[str, Any]:
        """Properties that a state and a dataset must share for the state to mean the same samples."""
        return {**self.samples.identity(), "uneven": self.uneven, "infinite": self.infinite}

    def _sequence(self, cursor: Cursor) -> Draws:
        """The samples of the cursor's epoch or round that this rank has yet to read, in order."""
        number = cursor.epoch * _ROUNDS + cursor.round if self.infinite else cursor.epoch
        return order.rank_sequence(self.samples.epoch(number), cursor, self.rank, self.uneven)
