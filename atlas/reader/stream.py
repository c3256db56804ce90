"""`SampleStream`: samples in passes, for the datasets that training loops iterate over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import IterableDataset

from gaussianverse.atlas.reader import placement
from gaussianverse.atlas.reader.building import Built
from gaussianverse.atlas.reader.order import Draws
from gaussianverse.atlas.reader.progress import Progress, this_worker
from gaussianverse.atlas.reader.ring import Ring
from gaussianverse.atlas.reader.source import AtlasSample

_HERE = "here"
"""Key of the passes that are read in the dataset's own process."""


class Source(Protocol):
    """Reads samples by their places and turns."""

    def read(self, draws: Draws) -> Iterator[AtlasSample]:
        """Yield these samples in this order; see `SampleSource`."""


@runtime_checkable
class BatchSource(Source, Protocol):
    """Reads whole batches, too, into memory that is used again."""

    def batches(self, groups: Iterable[Draws], ring: Ring) -> Iterator[Built]:
        """Yield a batch of each group of samples; see `SampleSource`."""

    def batch_nbytes(self, batch_size: int) -> int:
        """Bytes of the tensors that go into the ring."""


class ObjectSource(Source, Protocol):
    """Reads the samples of one dataset, also by the uids of their objects."""

    def get(self, uid: str) -> AtlasSample:
        """One object's sample; see `SampleSource`."""


class SampleStream(IterableDataset[AtlasSample]):
    """Samples in passes; one pass is one epoch. See `AtlasDataset`.

    Attributes:
        source: reads samples.
        progress: says which, and counts them.
        batch_size: batch size of a plain DataLoader.
        rank, world: this process's rank and the number of ranks.
    """

    source: Source
    progress: Progress
    batch_size: int
    rank: int
    world: int
    _placed: bool
    """Whether rank and world were given, and not taken from torch.distributed."""

    def __len__(self) -> int:
        """Number of samples that each rank reads in an epoch.

        Raises:
            TypeError: an epoch does not end.
        """
        if self.progress.size is None:
            raise TypeError(
                "an infinite dataset has no length: bound the loop by steps, or pass epoch_samples=N in place of "
                "infinite=True"
            )
        return self.progress.size

    def __iter__(self) -> Iterator[AtlasSample]:
        placement.check_not_divided_again(self.world, placed=self._placed)
        self.check_placement()
        if this_worker() is None:
            return self._pass()
        self.progress.reset_part()
        return self._part_of_pass()

    def _pass(self) -> Iterator[AtlasSample]:
        route = self.progress.begin(_HERE)
        for taken, item in enumerate(self.read(route.pieces()), 1):
            # before the yield: the consumer may ask for the state now, and may never ask for another sample
            self.progress.moved(route, taken)
            yield item

    def _part_of_pass(self) -> Iterator[AtlasSample]:
        for item in self.read(self.progress.begin_part(self.batch_size)):
            self.progress.took_one()
            yield item

    def read(self, pieces: Iterable[Draws]) -> Iterator[AtlasSample]:
        """Read the samples of a route, round by round."""
        return chain.from_iterable(map(self.source.read, pieces))

    def check_placement(self) -> None:
        """Raise DatasetError if torch.distributed was initialised after the dataset was made."""
        if not self._placed:
            placement.check_still_placed(self.rank, self.world)

    @property
    def epoch(self) -> int:
        """The epoch of the newest pass, or of the next one if that has ended or none has begun."""
        return self.progress.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass read this epoch from its beginning, or from a state in it that was just loaded."""
        placement.check_not_divided_again(self.world, placed=self._placed)
        self.progress.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The position in the newest pass as plain numbers, exact to the last sample yielded by the dataset or its
        `AtlasLoader`; after the last sample of an epoch, the start of the next one.

        All ranks must have taken equally many samples, as at a common training step. Any rank's state then serves
        all ranks, and any other number of ranks and workers. In a DataLoader's worker it is the position of that
        worker, as torchdata's `StatefulDataLoader` saves it.

        Raises:
            DatasetError: a plain DataLoader's workers read the newest pass, and only they know how far they are.
        """
        return self.progress.state_dict(self.batch_size)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass continue from a state of `state_dict`.

        Raises:
            DatasetError: the state belongs to another dataset, selection, seed, window, neighbours, `uneven`,
                `epoch_samples`, `infinite` or weights.
        """
        self.progress.load_state_dict(state, self.batch_size)
