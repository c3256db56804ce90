"""`AtlasDataset`: stream a published dataset for training, shuffled, sharded over ranks, resumable to the sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gaussianverse.atlas.dataset_format import MEAN, POINTS, STD
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader import order, placement
from gaussianverse.atlas.reader.cache import CachedStore
from gaussianverse.atlas.reader.catalogue import Catalogue, Filter
from gaussianverse.atlas.reader.map_style import AtlasMapDataset
from gaussianverse.atlas.reader.order import Selection
from gaussianverse.atlas.reader.progress import Progress
from gaussianverse.atlas.reader.source import AtlasSample, SampleSource
from gaussianverse.atlas.reader.stream import ObjectSource, SampleStream
from gaussianverse.atlas.standard import Standard
from gaussianverse.atlas.store import is_s3, open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Readable

_S3_READAHEAD = 16


class AtlasDataset(SampleStream):
    """The samples of a dataset in a folder or under s3://bucket/prefix.

    One pass is one epoch. The next pass is the next epoch, in another order, whichever processes read it and also
    after a pass that was broken off. A pass begins with its first sample, and two passes side by side are two epochs.
    Every sample is checked as it is read: the shard's length, the members' names, lengths and headers, and the
    caption. A damaged sample raises an error; none is skipped.

    Args:
        url: a local folder or s3://bucket/prefix.
        filters: conditions on columns of metadata.parquet, all of which must hold, such as
            `[("psnr", ">=", 30), ("license", "in", ["CC0-1.0"])]`; other samples are not downloaded.
        split: "all", "train" or "heldout", by a hash of the uid.
        heldout: fraction of objects in "heldout".
        uids: only these objects.
        shuffle: shuffle by (seed, epoch); otherwise samples come in the order of the shards.
        seed: seed of the shuffle.
        window: number of consecutive shards whose samples are mixed.
        uneven: how to treat samples that do not divide by the number of ranks: "drop" leaves them out of this
            epoch, "repeat" reads some twice. All ranks have the same number of samples in either case.
        rank, world: this process's rank and the number of ranks; by default those of torch.distributed if it is
            initialised, else 0 of 1.
        batch_size: batch size of a plain DataLoader, whose workers then give the order of a single process.
        standardise: standardise by the dataset's mean and deviation; cheaper on the device, see `standard()`.
        hashes: verify every byte by the hashes, at 0.7 ms per sample.
        columns: columns of the row to yield; None = all.
        views: yield the reference views as well; None = if the dataset has any.
        s3: options of the store.
        cache: folder that keeps fetched samples, shared by the processes of a machine.
        cache_bytes: maximum size of that folder.
        readahead: samples to fetch ahead, by as many threads; None = 16 from S3, 0 from a folder.

    Raises:
        DatasetError: no finished dataset, an unknown column, too few samples for the ranks, no views in it; as
            samples are read, one is missing or damaged.
        StoreError: the store cannot be reached (reading again may help), or refuses (StoreRefused); says nothing of
            the dataset.
    """

    source: ObjectSource

    def __init__(
        self, url: str | Path, *, filters: Sequence[Filter] = (), split: str = "all", heldout: float = 0.01,
        uids: Iterable[str] | None = None, shuffle: bool = True, seed: int = 0, window: int = 8,
        uneven: str = order.DROP, rank: int | None = None, world: int | None = None, batch_size: int = 1,
        standardise: bool = False, hashes: bool = False, columns: Sequence[str] | None = None,
        views: bool | None = False, s3: StoreOptions | None = None, cache: str | Path | None = None,
        cache_bytes: int = 100 * 2**30, readahead: int | None = None,
    ) -> None:  # fmt: skip
        self._store: Readable = open_storage(str(url), s3)
        self.catalogue = Catalogue(self._store)
        if cache is not None:
            self._store = CachedStore(self._store, Path(cache, self.catalogue.digest[:16]), cache_bytes)
        if columns is not None:
            self.catalogue.check_columns(columns)
        if views and not self.catalogue.n_views:
            raise DatasetError(f"{self._store.url}: has no reference views; build the dataset with --set run.views=K")
        if uneven not in order.UNEVEN:
            raise DatasetError(f"uneven {uneven!r} is none of {', '.join(order.UNEVEN)}")
        if window < 1 or batch_size < 1 or seed < 0:
            raise DatasetError(f"window {window}, batch_size {batch_size}: at least 1; seed {seed}: at least 0")
        self.rank, self.world = placement.place(rank, world)
        self._placed = rank is not None
        self.batch_size = batch_size
        self.source = SampleSource(
            self._store, self.catalogue, hashes=hashes, columns=columns,
            views=self.catalogue.n_views > 0 if views is None else views,
            standard=self.standard() if standardise else None,
            readahead=readahead if readahead is not None else _S3_READAHEAD if is_s3(str(url)) else 0,
        )  # fmt: skip
        selected = self.catalogue.select(filters, split, heldout, uids)
        self.samples = Selection(
            self.catalogue.digest, selected, self.catalogue.shards[selected], seed, window if shuffle else 0
        )
        self.progress = Progress(self.samples, uneven, self.rank, self.world)
        if len(self) == 0:
            raise DatasetError(
                f"only {len(selected)} samples for {self.world} ranks: pass uneven='repeat' or use fewer ranks"
            )

    def map_style(self) -> AtlasMapDataset:
        """The same samples as a map-style dataset, for loops that bring a sampler; not divided over ranks."""
        return AtlasMapDataset(self.source, self.samples.places)

    def get(self, uid: str) -> AtlasSample:
        """One object's sample, whatever the filters, verified by its hashes: one range read, two with views.

        Raises:
            DatasetError: no such object, it was quarantined, or its bytes are damaged.
        """
        return self.source.get(uid)

    def standard(self) -> Standard:
        """The module that standardises batches of this dataset, and back."""
        return Standard(*(self.catalogue.array(self._store, key) for key in (MEAN, STD)))

    def points(self) -> Tensor:
        """The sphere point behind each cell of this dataset's atlases, [size, size, 3], for `unpack_tensor`."""
        return torch.from_numpy(self.catalogue.array(self._store, POINTS))
