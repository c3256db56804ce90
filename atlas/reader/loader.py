"""`AtlasLoader`: batches from worker processes, with a state that is exact to the last batch yielded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, NotRequired, TypedDict, cast
from uuid import uuid4

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader import order
from gaussianverse.atlas.reader.family import collated, values_of
from gaussianverse.atlas.reader.ring import Ring
from gaussianverse.atlas.reader.source import AtlasSample
from gaussianverse.atlas.reader.stream import BatchSource, SampleStream

_LOADER = -1
"""The loader as a member of its passes, beside its workers."""


class AtlasBatch(TypedDict):
    """B samples: the atlas [B, C, size, size], lists of length B, and with `views` tensors of the views.

    Each family stands under its own name, as `{suffix: tensor or list}`, see `AtlasDataset.with_family`.
    """

    atlas: Tensor
    caption: list[str]
    uid: list[str]
    row: list[dict[str, Any]]
    views: NotRequired[Tensor]
    """[B, K, 4, s, s], see `AtlasSample`."""
    viewmats: NotRequired[Tensor]
    """[B, K, 4, 4]"""
    Ks: NotRequired[Tensor]
    """[B, K, 3, 3]"""


def collate(samples: list[AtlasSample]) -> AtlasBatch:
    """Stack samples into a batch; channels stay last in memory, as in the shards, so that nothing is transposed.

    Of what a family or a transform adds tensors are stacked, dicts are batches of their own, anything else is a list.

    Raises:
        DatasetError: a sample is no dict, or has other keys, tensors or dicts than the first one.
    """
    for sample in samples:
        if not isinstance(sample, dict):
            raise DatasetError(f"the transform returns {type(sample).__name__}, no dict: pass a collate_fn for such")
    uids = [str(sample.get("uid", f"sample {number}")) for number, sample in enumerate(samples)]
    batch: dict[str, Any] = {}
    for name, values in values_of("batch", samples, uids).items():
        if isinstance(values[0], Tensor):
            images = name == "atlas" and values[0].dim() == 3
            batch[name] = _stacked_channels_last(values) if images else torch.stack(values)
        elif isinstance(values[0], dict) and name not in AtlasSample.__annotations__:
            batch[name] = collated(name, values, uids)
        else:
            batch[name] = values
    return cast(AtlasBatch, batch)


def _stacked_channels_last(images: list[Tensor]) -> Tensor:
    """Images [C, h, w] as a batch [B, C, h, w]."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


class _Passes(IterableDataset[Any]):
    """The passes of a loader, for its DataLoader: the loader begins each, and here its batches are read.

    Args:
        dataset: dataset to read.
        batch_size: samples per batch.
        drop_last: leave out a last batch that is not full.
        whole: yield batches in memory of `rings`; else lists of samples.

    Attributes:
        count: number of the pass. The loader sets it before the workers start; workers that stay count on.
        rings: memory for the batches of each worker.
    """

    def __init__(self, dataset: SampleStream, batch_size: int, *, drop_last: bool, whole: bool) -> None:
        self.dataset, self.batch_size, self.drop_last, self.whole = dataset, batch_size, drop_last, whole
        self.rings: list[Ring] = []
        self.count, self._name = 0, uuid4().hex

    @property
    def key(self) -> str:
        """The key of the pass."""
        return f"{self._name} {self.count}"

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        route = self.dataset.progress.begin(self.key, number)
        self.count += 1
        pieces = route.pieces(number, workers, self.batch_size)
        if not self.whole:
            return _lists(self.dataset.read(pieces), self.batch_size, self.drop_last)
        groups = order.grouped(pieces, self.batch_size, self.drop_last)
        built = cast(BatchSource, self.dataset.source).batches(groups, self.rings[number])
        sent = (arena.sent(batch) for batch, arena in built)
        return sent if worker is not None else (one.received() for one in sent)


def _lists(samples: Iterator[AtlasSample], size: int, drop_last: bool) -> Iterator[list[AtlasSample]]:
    """Cut samples into lists of this length; the last one may be shorter, or is left out."""
    while batch := list(islice(samples, size)):
        if len(batch) == size or not drop_last:
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


class FirstEpoch:
    """Takes the epoch of a training loop for a dataset that has neither been read nor given a state or an epoch."""

    def __init__(self, dataset: SampleStream) -> None:
        self._progress = dataset.progress

    def set_epoch(self, epoch: int) -> None:
        """Make the first pass read this epoch; a dataset that has a position keeps it."""
        if not self._progress.has_position:
            self._progress.set_epoch(epoch)


class AtlasLoader:
    """A torch DataLoader over an `AtlasDataset`, whose state counts batches yielded rather than batches fetched.

    The order does not depend on the number of workers. One pass is one epoch, and the next pass is the next epoch,
    also after a pass that was broken off. Its state at the last batch of an epoch is the start of the next one.

    Args:
        dataset: dataset to read.
        batch_size: samples per batch; the last batch of an epoch may have fewer.
        num_workers: number of processes; 0 = read in this one.
        drop_last: leave out a last batch that is not full.
        options: other arguments of DataLoader.
    """

    def __init__(
        self, dataset: SampleStream, batch_size: int, *, num_workers: int = 0, drop_last: bool = False,
        **options: Any,
    ) -> None:  # fmt: skip
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        given = options.pop("collate_fn", collate)
        whole = given is collate and isinstance(dataset.source, BatchSource)
        self._passes, self._count = _Passes(dataset, batch_size, drop_last=drop_last, whole=whole), 0
        self._loader: DataLoader[Any] = DataLoader(
            self._passes,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_it_is if whole else given,
            **options,
        )

    def __len__(self) -> int:
        """Number of batches in an epoch. Raises TypeError if it does not end."""
        return self._batches(len(self.dataset))

    def _batches(self, samples: int) -> int:
        """Number of batches that so many samples make."""
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[AtlasBatch]:
        self.dataset.check_placement()
        progress = self.dataset.progress
        size, left = progress.size, progress.left()
        if size is not None and self._batches(size) == 0:
            return
        if left is not None and self._batches(left) == 0:  # the rest of the epoch does not fill a batch
            progress.skip_rest()
        self._passes.count, self._count = self._count, self._count + 1
        route = progress.begin(self._passes.key, _LOADER)
        end, last = route.size, None if route.size is None else self._batches(route.size)
        with self._memory():
            for number, batch in enumerate(self._loader, 1):
                # the epoch ends with the last batch: a consumer that counts to len(loader) never asks for another
                progress.moved(route, end if end is not None and number == last else number * self.batch_size)
                yield batch
                del batch  # which the traceback of an error in the next one would keep

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """The context of a pass, whose workers have memory for their batches: new, or what persistent ones had."""
        rings = self._passes.rings
        if self._passes.whole and (self._iterator is None or not self._loader.persistent_workers):
            nbytes = cast(BatchSource, self.dataset.source).batch_nbytes(self.batch_size)
            # those that are being made or wait, that which the consumer has, and that which it is about to get
            slots = (self._loader.prefetch_factor or 0) + 2
            rings = [Ring(slots, nbytes) for _ in range(max(1, self._loader.num_workers))]
        # another pass may begin meanwhile: it is this variable that keeps the memory as long as batches arrive
        self._passes.rings = rings
        try:
            yield
        finally:
            if not self._loader.persistent_workers and self._passes.rings is rings:
                self._passes.rings = []

    def set_epoch(self, epoch: int) -> None:
        """See `AtlasDataset.set_epoch`."""
        self.dataset.progress.set_epoch(epoch)

    @property
    def sampler(self) -> FirstEpoch:
        """For Lightning, which calls `sampler.set_epoch` before each pass and restores no state at an epoch's end."""
        return FirstEpoch(self.dataset)

    @property
    def _iterator(self) -> Any:
        """The DataLoader's, where persistent workers are: Lightning looks for it after a fit, to end them."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loader._iterator = iterator

    def state_dict(self) -> dict[str, Any]:
        """See `AtlasDataset.state_dict`; exact to the last batch yielded."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `AtlasDataset.load_state_dict`."""
        self.dataset.load_state_dict(state)
