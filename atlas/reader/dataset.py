"""`AtlasDataset`: a published dataset for training: streamed, shuffled, divided, and resumed to the sample."""

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

from gaussianverse.atlas.dataset_format import ATLAS, MEAN, POINTS, STD, VIEWS, address_column
from gaussianverse.atlas.errors import AtlasError, DatasetError
from gaussianverse.atlas.reader import order, sample
from gaussianverse.atlas.reader.cache import CachedStore
from gaussianverse.atlas.reader.catalogue import Catalogue, Filter, read
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
    """What `AtlasDataset` yields.

    `atlas` is float32 [16, size, size]; unless standardised it is a view of the shard's bytes with the channels
    last in memory (`contiguous()` changes that). `row` is the object's row of metadata.parquet.
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
    """In pixels, float32 [K, 3, 3]."""


class AtlasDataset(IterableDataset[AtlasSample]):
    """The samples of a dataset in a folder or under s3://bucket/prefix.

    One pass is one epoch; the next pass is the next epoch, in another order. The epoch advances when its last
    sample is handed out, so a consumer that takes `len(dataset)` samples and no more is at the next one. Every
    sample is checked as it is read: the shard's length, the members' names, lengths and headers, and the caption;
    a damaged one raises, nothing is skipped.

    Args:
        url: a local folder or s3://bucket/prefix.
        filters: conditions on columns of metadata.parquet, all of which must hold, such as
            `[("psnr", ">=", 30), ("license", "in", ["CC0-1.0"])]`; nothing else is downloaded.
        split: "all", "train" or "heldout"; by a hash of the uid.
        heldout: share of objects in "heldout".
        uids: only these objects.
        shuffle: by (seed, epoch); without it the order is that of the shards.
        seed: of the shuffle.
        window: how many shards are mixed with one another.
        uneven: what becomes of samples that do not divide by the ranks: "drop" leaves them out of this epoch,
            "repeat" reads some twice, so that none is left out. All ranks always have equally many.
        rank, world: which part of each epoch to read; by default those of torch.distributed where it is
            initialised, else 0 of 1.
        batch_size: what the DataLoader is given, so that its workers' batches, taken in turn, come in the
            order that one process would give. `AtlasLoader` sets it.
        standardise: by the dataset's mean and standard deviation. Cheaper on the device: see `standard()`.
        hashes: compare every byte with the sums, for 0.7 ms a sample.
        columns: of the row; None = all.
        views: yield the reference views as well, which the dataset must have; None = where it has some.
        s3: how to reach the store.
        cache: a folder for what was fetched once, shared by the processes of a machine.
        cache_bytes: at most so much is kept there.
        readahead: samples that are fetched before they are wanted, by as many threads; None = 16 from S3, 0
            (none) from a folder.

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
            raise DatasetError(
                f"{self._store.url}: has no reference views; make the dataset with --set run.views=K"
            )
        if uneven not in order.UNEVEN:
            raise DatasetError(f"uneven {uneven!r} is none of {', '.join(order.UNEVEN)}")
        if window < 1 or batch_size < 1 or seed < 0:
            raise DatasetError(
                f"window {window}, batch_size {batch_size}: at least 1; seed {seed}: at least 0"
            )
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
                f"{len(self._selected)} samples do not go round {self.world} ranks; uneven='repeat'"
            )

    def __len__(self) -> int:
        """Samples that each rank reads in a whole epoch."""
        return order.share_size(len(self._selected), self.world, self._uneven)

    def __iter__(self) -> Iterator[AtlasSample]:
        if not self._placed and _place(None, None) not in ((0, 1), (self.rank, self.world)):
            raise DatasetError(
                "the dataset was made before torch.distributed was initialised, so every rank would read all of "
                "it; make it afterwards, or give rank and world"
            )
        start = self.cursor
        sequence = self._sequence(start)
        worker = get_worker_info()
        if worker is not None:
            own = order.worker_sequence(sequence, worker.id, worker.num_workers, self.batch_size)
            yield from self._read(own)
            return
        for taken, item in enumerate(self._read(sequence), 1):
            # before the sample is handed out: whoever has it may ask for the state, and need not ask for another
            self._cursor = start.taken(taken) if taken < len(sequence) else start.next_epoch()
            yield item

    def get(self, uid: str) -> AtlasSample:
        """One object's sample, whatever the filters, by one range read of its atlas (and one of its views); their
        hashes are checked.

        Raises:
            DatasetError: no such object, it was quarantined, or its bytes are damaged.
        """
        place = self.catalogue.find(uid)
        extent = self.catalogue.atlas_member(place)
        data = read(self._store, extent)
        row = self.catalogue.row(place)
        if hashlib.sha256(data).hexdigest() != row[address_column(ATLAS, "sha256")]:
            raise DatasetError(f"{self._store.url}/{extent.key}: {uid}: the atlas is damaged; fetch it again")
        return self._item(
            sample.decode(data, self.catalogue.size), row, self._fetch_views(place, row, hashes=True)
        )

    def standard(self) -> Standard:
        """What standardises batches of this dataset, and its inverse."""
        return Standard(*(self.catalogue.array(self._store, key) for key in (MEAN, STD)))

    def points(self) -> Tensor:
        """The sphere point behind each cell of this dataset's atlases, [size, size, 3], for `unpack_tensor`."""
        return torch.from_numpy(self.catalogue.array(self._store, POINTS))

    @property
    def cursor(self) -> Cursor:
        """Where the next pass begins, or where the present one stands; never at the end of an epoch."""
        return self._cursor.at(self.world)

    @cursor.setter
    def cursor(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def samples_left(self) -> int:
        """How many samples this rank still has to read of the epoch, at least 1."""
        return len(self._sequence(self.cursor))

    @property
    def epoch(self) -> int:
        """The epoch that the next pass reads, or that the present one does."""
        return self._cursor.epoch

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass read this epoch from its beginning."""
        self._cursor = Cursor(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where this dataset stands, as plain numbers: the samples that it has yielded, or that `AtlasLoader` has.

        All ranks must have taken equally many (a checkpoint is made at one step); any rank's state will do for
        all, and for any other number of ranks and workers.
        """
        return {"version": STATE_VERSION, **self._identity(), **self._cursor.to_json()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was asked.

        Raises:
            DatasetError: the state is of another dataset, selection, seed or window.
        """
        if state.get("version") != STATE_VERSION:
            raise DatasetError(f"state of version {state.get('version')}, this reader knows {STATE_VERSION}")
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise DatasetError(f"the state has {name} {state.get(name)!r}, this dataset {own!r}")
        cursor = Cursor.from_json(dict(state))
        # of another number of ranks, what is left may be too little to go round
        self._cursor = cursor if len(self._sequence(cursor.at(self.world))) else cursor.next_epoch()

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to mean the same samples."""
        names = {"dataset": self.catalogue.digest, "selection": self._selection}
        return {**names, "seed": self._seed, "window": self._window, "uneven": self._uneven}

    @property
    def _selection(self) -> str:
        return hashlib.sha256(self._selected.astype("<i8").tobytes()).hexdigest()[:16]

    def _sequence(self, cursor: Cursor) -> Indices:
        """The samples that this rank still has to read of the cursor's epoch, in order."""
        shards = self.catalogue.shards[self._selected]
        whole = order.epoch_order(shards, self._seed, cursor.epoch, self._window)
        return self._selected[order.rank_sequence(whole, cursor, self.rank, self._uneven)]

    def _read(self, places: Indices) -> Iterator[AtlasSample]:
        """These samples in this order."""
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
        size, hashes = self.catalogue.size, self._hashes
        found = self._parsed(
            place, ATLAS, row, lambda d: sample.parse(d, row["uid"], size, row, hashes=hashes)
        )
        return self._item(found.array, row, self._fetch_views(place, row, hashes=hashes))

    def _fetch_views(self, place: int, row: dict[str, Any], *, hashes: bool) -> ReferenceViews | None:
        if not self._views:
            return None
        return self._parsed(
            place, VIEWS, row, lambda d: sample.parse_views(d, row["uid"], row, hashes=hashes)
        )

    def _parsed(self, place: int, family: str, row: dict[str, Any], parse: Callable[[memoryview], T]) -> T:
        """What a sample's stretch in the shard of a family holds; faults tell where it is."""
        extent = self.catalogue.stretch(place, family)
        data = read(self._store, extent)
        try:
            return parse(data)
        except AtlasError as error:
            where = f"{self._store.url}/{extent.key}, bytes from {extent.offset}, {row['uid']}"
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
    """Rank and world size: as given, or torch.distributed's, or one process."""
    if (rank is None) != (world is None):
        raise DatasetError(f"give both rank and world, or neither; got {rank} and {world}")
    if rank is None or world is None:
        group = torch.distributed
        if group.is_available() and group.is_initialized():
            return group.get_rank(), group.get_world_size()
        return 0, 1
    if not 0 <= rank < world:
        raise DatasetError(f"rank {rank} of {world}")
    return rank, world
