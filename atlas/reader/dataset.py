"""`AtlasDataset`: stream a published dataset for training, shuffled, sharded over ranks, resumable to the sample."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from gaussianverse.atlas.dataset_format import MEAN, POINTS, STD, VIEWS
from gaussianverse.atlas.errors import AtlasError, DatasetError
from gaussianverse.atlas.reader import order, sample
from gaussianverse.atlas.reader.cache import CachedStore
from gaussianverse.atlas.reader.catalogue import ByteRange, Catalogue, Filter, read
from gaussianverse.atlas.reader.order import Cursor, Indices
from gaussianverse.atlas.reader.views import ReferenceViews
from gaussianverse.atlas.standard import Standard
from gaussianverse.atlas.store import is_s3, open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Readable

T = TypeVar("T")

STATE_VERSION = 1
_S3_READAHEAD = 16


class AtlasSample(TypedDict):
    """One object, as `AtlasDataset` yields it.

    `atlas` is float32 [16, size, size]; unless standardised it is a view of the shard's bytes, with the channels
    last in memory. `row` is the object's row of metadata.parquet.
    """

    atlas: Tensor
    caption: str
    uid: str
    row: dict[str, Any]
    views: NotRequired[Tensor]
    """With `views=True`: RGBA, straight alpha in [0, 1], float32 [K, 4, s, s]."""
    viewmats: NotRequired[Tensor]
    """World-to-camera, OpenCV, in the world of the Gaussians; float32 [K, 4, 4]."""
    Ks: NotRequired[Tensor]
    """Intrinsics in pixels, float32 [K, 3, 3]."""


class AtlasDataset(IterableDataset[AtlasSample]):
    """The samples of a dataset in a folder or under s3://bucket/prefix.

    One pass is one epoch; the next pass is the next epoch, in another order. The epoch advances when its last
    sample is yielded, so a consumer that takes exactly `len(dataset)` samples is then at the next one. Every sample
    is checked as it is read: the shard's length, the members' names, lengths and headers, and the caption. A damaged
    sample raises an error; none is skipped.

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
        batch_size: batch size of the DataLoader, whose workers then give the order of a single process.
            `AtlasLoader` sets it.
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

    def __init__(
        self, url: str | Path, *, filters: Sequence[Filter] = (), split: str = "all", heldout: float = 0.01,
        uids: Iterable[str] | None = None, shuffle: bool = True, seed: int = 0, window: int = 8,
        uneven: str = order.DROP, rank: int | None = None, world: int | None = None, batch_size: int = 1,
        standardise: bool = False, hashes: bool = False, columns: Sequence[str] | None = None,
        views: bool | None = False, s3: StoreOptions | None = None, cache: str | Path | None = None,
        cache_bytes: int = 100 * 2**30, readahead: int | None = None,
    ) -> None:  # fmt: skip
        self._store: Readable = open_storage(str(url), s3)
        self._readahead = readahead if readahead is not None else _S3_READAHEAD if is_s3(str(url)) else 0
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
        self.rank, self.world = _place(rank, world)
        self._placed = rank is not None
        self.batch_size = batch_size
        self._selected = self.catalogue.select(filters, split, heldout, uids)
        self._uneven, self._seed, self._window = uneven, seed, window if shuffle else 0
        self._hashes, self._columns = hashes, columns
        self._views = self.catalogue.n_views > 0 if views is None else views
        self._standard = self.standard() if standardise else None
        self._cursor = Cursor()
        if len(self) == 0:
            raise DatasetError(
                f"only {len(self._selected)} samples for {self.world} ranks: pass uneven='repeat' or use fewer ranks"
            )

    def __len__(self) -> int:
        """Number of samples that each rank reads in an epoch."""
        return order.share_size(len(self._selected), self.world, self._uneven)

    def __iter__(self) -> Iterator[AtlasSample]:
        if not self._placed and _place(None, None) not in ((0, 1), (self.rank, self.world)):
            raise DatasetError(
                "the dataset was created before torch.distributed was initialised, so every rank would read all of "
                "it; create it afterwards, or pass rank and world"
            )
        start = self.cursor
        sequence = self._sequence(start)
        worker = get_worker_info()
        if worker is not None:
            own = order.worker_sequence(sequence, worker.id, worker.num_workers, self.batch_size)
            yield from self._read(own)
            return
        for taken, item in enumerate(self._read(sequence), 1):
            # before the yield: the consumer may ask for the state now, and may never ask for another sample
            self._cursor = start.taken(taken) if taken < len(sequence) else start.next_epoch()
            yield item

    def get(self, uid: str) -> AtlasSample:
        """One object's sample, whatever the filters, verified by its hashes: one range read, two with views.

        Raises:
            DatasetError: no such object, it was quarantined, or its bytes are damaged.
        """
        place = self.catalogue.find(uid)
        row, size = self.catalogue.row(place), self.catalogue.size
        member = self.catalogue.atlas_member(place)
        array = self._parsed(member, uid, lambda data: sample.decode_verified(data, row, size))
        return self._item(array, row, self._fetch_views(place, row, hashes=True))

    def standard(self) -> Standard:
        """The module that standardises batches of this dataset, and back."""
        return Standard(*(self.catalogue.array(self._store, key) for key in (MEAN, STD)))

    def points(self) -> Tensor:
        """The sphere point behind each cell of this dataset's atlases, [size, size, 3], for `unpack_tensor`."""
        return torch.from_numpy(self.catalogue.array(self._store, POINTS))

    @property
    def cursor(self) -> Cursor:
        """Start of the next pass, or position of the current one; never at the end of an epoch."""
        return self._cursor.at(self.world)

    @cursor.setter
    def cursor(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def samples_left(self) -> int:
        """Number of samples of the epoch that this rank has yet to read, at least 1."""
        return len(self._sequence(self.cursor))

    @property
    def epoch(self) -> int:
        """The epoch of the current pass, or of the next one."""
        return self._cursor.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass read this epoch from its beginning."""
        self._cursor = Cursor(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The position in the dataset as plain numbers, exact to the last sample yielded by it or its `AtlasLoader`.

        All ranks must have taken equally many samples, as at a common training step. Any rank's state then serves
        all ranks, and any other number of ranks and workers.
        """
        return {"version": STATE_VERSION, **self._identity(), **self._cursor.to_json()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of `state_dict`.

        Raises:
            DatasetError: the state belongs to another dataset, selection, seed, window or `uneven`.
        """
        if state.get("version") != STATE_VERSION:
            raise DatasetError(f"state of version {state.get('version')}, this gaussianverse reads {STATE_VERSION}")
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise DatasetError(f"the state has {name} {state.get(name)!r}, this dataset {own!r}")
        cursor = Cursor.from_json(dict(state))
        # what another number of ranks left may be fewer samples than there are ranks now
        self._cursor = cursor if len(self._sequence(cursor.at(self.world))) else cursor.next_epoch()

    def _identity(self) -> dict[str, Any]:
        """Properties that a state and a dataset must share for the state to mean the same samples."""
        names = {"dataset": self.catalogue.digest, "selection": self._selection}
        return {**names, "seed": self._seed, "window": self._window, "uneven": self._uneven}

    @property
    def _selection(self) -> str:
        return hashlib.sha256(self._selected.astype("<i8").tobytes()).hexdigest()[:16]

    def _sequence(self, cursor: Cursor) -> Indices:
        """The samples of the cursor's epoch that this rank has yet to read, in order."""
        shards = self.catalogue.shards[self._selected]
        whole = order.epoch_order(shards, self._seed, cursor.epoch, self._window)
        return self._selected[order.rank_sequence(whole, cursor, self.rank, self._uneven)]

    def _read(self, places: Indices) -> Iterator[AtlasSample]:
        """Yield these samples in this order."""
        if self._readahead == 0:
            yield from map(self._fetch, places.tolist())
            return
        waiting: deque[Future[AtlasSample]] = deque()
        pool = ThreadPoolExecutor(self._readahead, "atlas-read")
        try:
            for place in places.tolist():
                waiting.append(pool.submit(self._fetch, place))
                if len(waiting) > self._readahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, place: int) -> AtlasSample:
        row = self.catalogue.row(place)
        size, hashes, part = self.catalogue.size, self._hashes, self.catalogue.byte_range(place)
        array = self._parsed(part, row["uid"], lambda data: sample.parse(data, row, size, hashes=hashes))
        return self._item(array, row, self._fetch_views(place, row, hashes=hashes))

    def _fetch_views(self, place: int, row: dict[str, Any], *, hashes: bool) -> ReferenceViews | None:
        if not self._views:
            return None
        part = self.catalogue.byte_range(place, VIEWS)
        return self._parsed(part, row["uid"], lambda data: sample.parse_views(data, row, hashes=hashes))

    def _parsed(self, part: ByteRange, uid: str, parse: Callable[[memoryview], T]) -> T:
        """Read and parse some of an object's bytes; errors name the place."""
        data = read(self._store, part)
        try:
            return parse(data)
        except AtlasError as error:
            where = f"{self._store.url}/{part.key}, bytes from {part.offset}, {uid}"
            raise DatasetError(f"{where}: {error}; fetch the shard again") from error

    def _item(self, array: Any, row: dict[str, Any], views: ReferenceViews | None) -> AtlasSample:
        atlas = torch.from_numpy(array).permute(2, 0, 1)
        if self._standard is not None:
            atlas = self._standard(atlas)
        chosen = row if self._columns is None else {name: row[name] for name in self._columns}
        item: AtlasSample = {"atlas": atlas, "caption": row["caption"], "uid": row["uid"], "row": chosen}
        if views is not None:
            item["views"] = torch.from_numpy(views.images).permute(0, 3, 1, 2).float().div_(255)
            item["viewmats"], item["Ks"] = torch.from_numpy(views.viewmats), torch.from_numpy(views.Ks)
        return item


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    """Rank and number of ranks: as given, else those of torch.distributed, else 0 of 1."""
    if (rank is None) != (world is None):
        raise DatasetError(f"pass both rank and world, or neither; got {rank} and {world}")
    if rank is None or world is None:
        group = torch.distributed
        if group.is_available() and group.is_initialized():
            return group.get_rank(), group.get_world_size()
        return 0, 1
    if not 0 <= rank < world:
        raise DatasetError(f"rank {rank} of {world}")
    return rank, world
