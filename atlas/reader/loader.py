"""`AtlasLoader`: batches from worker processes, with a state that is exact to the last batch yielded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gaussianverse.atlas.reader.dataset import AtlasDataset, AtlasSample


class AtlasBatch(TypedDict):
    """B samples: atlas float32 [B, 16, size, size], lists of length B, and with `views=True` tensors of the views."""

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
    """Stack samples into a batch; channels stay last in memory, as in the shards, so that nothing is transposed."""
    stacked = torch.stack([s["atlas"].permute(1, 2, 0) for s in samples])
    batch: AtlasBatch = {
        "atlas": stacked.permute(0, 3, 1, 2),
        "caption": [s["caption"] for s in samples],
        "uid": [s["uid"] for s in samples],
        "row": [s["row"] for s in samples],
    }
    if "views" in samples[0]:
        batch["views"] = torch.stack([s["views"] for s in samples])
        batch["viewmats"] = torch.stack([s["viewmats"] for s in samples])
        batch["Ks"] = torch.stack([s["Ks"] for s in samples])
    return batch


class AtlasLoader:
    """A torch DataLoader over an `AtlasDataset`, whose state counts batches yielded rather than batches fetched.

    The order does not depend on the number of workers. One pass is one epoch, which ends when its last batch is
    yielded; after a pass that was broken off, the next one continues it.

    Args:
        dataset: dataset to read; its `batch_size` is set to the loader's.
        batch_size: samples per batch; the last batch of an epoch may have fewer.
        num_workers: number of processes; 0 = read in this one.
        drop_last: leave out a last batch that is not full.
        options: other arguments of DataLoader, except persistent_workers: those would continue from what they have
            fetched, not from the state.
    """

    def __init__(
        self, dataset: AtlasDataset, batch_size: int, *, num_workers: int = 0, drop_last: bool = False,
        **options: Any,
    ) -> None:  # fmt: skip
        if options.pop("persistent_workers", False):
            raise ValueError("persistent_workers is not supported: workers must start from the state in each epoch")
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        dataset.batch_size = batch_size
        options = {"collate_fn": collate, **options}
        self._loader: DataLoader[AtlasSample] = DataLoader(
            dataset, batch_size=batch_size, num_workers=num_workers, drop_last=drop_last, **options
        )

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._batches(len(self.dataset))

    def _batches(self, samples: int) -> int:
        """Number of batches that so many samples make."""
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[AtlasBatch]:
        if len(self) == 0:
            return
        start = self.dataset.cursor
        batches = self._batches(self.dataset.samples_left())
        if batches == 0:  # the rest of the epoch does not fill a batch
            start = self.dataset.cursor = start.next_epoch().at(self.dataset.world)
            batches = len(self)
        for number, batch in enumerate(self._loader, 1):
            # the epoch ends with the last batch: a consumer that counts to len(loader) never asks for another
            self.dataset.cursor = start.taken(number * self.batch_size) if number < batches else start.next_epoch()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """See `AtlasDataset.state_dict`; exact to the last batch yielded."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `AtlasDataset.load_state_dict`."""
        self.dataset.load_state_dict(state)
