"""`SampleSource`: the samples of a dataset, read and checked by their place in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, NotRequired, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gaussianverse.atlas.dataset_format import ATLAS, VIEWS
from gaussianverse.atlas.errors import AtlasError, DatasetError
from gaussianverse.atlas.reader import sample
from gaussianverse.atlas.reader.cache import CachedStore
from gaussianverse.atlas.reader.catalogue import ByteRange, Catalogue, read
from gaussianverse.atlas.reader.order import Draws, Indices, adjacent
from gaussianverse.atlas.reader.read_ahead import read_ahead
from gaussianverse.atlas.reader.views import ReferenceViews
from gaussianverse.atlas.standard import Standard
from gaussianverse.atlas.store.storage import Readable

T = TypeVar("T")


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


@dataclass(frozen=True)
class Fetched:
    """A sample as it was read and checked.

    Attributes:
        row: all columns of its row of metadata.parquet.
        array: its atlas, float32 [size, size, 16].
        views: its reference views, if they are wanted.
    """

    row: dict[str, Any]
    array: npt.NDArray[np.float32]
    views: ReferenceViews | None


@dataclass(frozen=True)
class SampleSource:
    """Reads samples from a store and checks each: length of the shard; names, lengths and headers of its members;
    the caption against the table. See `AtlasDataset` for the options.
    """

    store: Readable
    catalogue: Catalogue
    hashes: bool
    columns: Sequence[str] | None
    views: bool
    standard: Standard | None
    readahead: int
    neighbours: int

    def read(self, draws: Draws) -> Iterator[AtlasSample]:
        """Yield these samples in this order. Those that lie side by side are read as one range of up to
        `neighbours`; `readahead` counts samples.

        Raises:
            DatasetError: a sample is missing or damaged.
            StoreError: the store failed.
        """
        places = draws[:, 0]
        for fetched in self.fetch(adjacent(places, self.catalogue.shards[places], self.neighbours)):
            for one in fetched:
                # kept for long, it must not keep its neighbours too
                yield self._item(one if len(fetched) == 1 else replace(one, array=one.array.copy()))

    def fetch(self, ranges: Iterable[Indices]) -> Iterator[list[Fetched]]:
        """Read and check samples, range by range, ahead of their use.

        Raises:
            DatasetError: a sample is missing or damaged.
            StoreError: the store failed.
        """
        return read_ahead(self._fetch, ranges, self.readahead, len)

    def get(self, uid: str) -> AtlasSample:
        """One object's sample, verified by its hashes: one range read, two with views.

        Raises:
            DatasetError: no such object, it was quarantined, or its bytes are damaged.
        """
        place = self.catalogue.find(uid)
        row, size = self.catalogue.row(place), self.catalogue.size
        member = self.catalogue.atlas_member(place)
        decode = partial(sample.decode_verified, row=row, size=size)
        array = self._parsed(read(self.store, member), member, uid, decode)
        (views,) = self._fetch_views(np.array([place]), [row], hashes=True)
        return self._item(Fetched(row, array, views))

    def _fetch(self, places: Indices) -> list[Fetched]:
        """Read samples that lie side by side, and check each."""
        rows = [self.catalogue.row(place) for place in places.tolist()]
        parse = partial(sample.parse, size=self.catalogue.size, hashes=self.hashes)
        arrays = [
            self._parsed(data, part, row["uid"], partial(parse, row=row))
            for row, part, data in self._members(places, rows, ATLAS)
        ]
        return list(map(Fetched, rows, arrays, self._fetch_views(places, rows, hashes=self.hashes)))

    def _fetch_views(
        self, places: Indices, rows: list[dict[str, Any]], *, hashes: bool
    ) -> Sequence[ReferenceViews | None]:
        if not self.views:
            return [None] * len(rows)
        parse = partial(sample.parse_views, hashes=hashes)
        return [
            self._parsed(data, part, row["uid"], partial(parse, row=row))
            for row, part, data in self._members(places, rows, VIEWS)
        ]

    def _members(
        self, places: Indices, rows: list[dict[str, Any]], family: str
    ) -> Iterator[tuple[dict[str, Any], ByteRange, memoryview]]:
        """Row, place and bytes of samples that lie side by side in a shard, read as one range."""
        parts = [self.catalogue.byte_range(place, family) for place in places.tolist()]
        try:
            data = _read_adjacent(self.store, parts)
        except DatasetError as error:
            uids = " to ".join(dict.fromkeys((rows[0]["uid"], rows[-1]["uid"])))
            raise DatasetError(f"{error}; {uids} was to be read") from error
        return zip(rows, parts, data, strict=True)

    def _parsed(self, data: memoryview, part: ByteRange, uid: str, parse: Callable[[memoryview], T]) -> T:
        """Parse some of an object's bytes; errors name the place."""
        try:
            return parse(data)
        except AtlasError as error:
            where = f"{self.store.url}/{part.key}, bytes from {part.offset}, {uid}"
            raise DatasetError(f"{where}: {error}; fetch the shard again") from error

    def _item(self, fetched: Fetched) -> AtlasSample:
        row, views = fetched.row, fetched.views
        atlas = torch.from_numpy(fetched.array).permute(2, 0, 1)
        if self.standard is not None:
            atlas = self.standard(atlas)
        chosen = row if self.columns is None else {name: row[name] for name in self.columns}
        item: AtlasSample = {"atlas": atlas, "caption": row["caption"], "uid": row["uid"], "row": chosen}
        if views is not None:
            item["views"] = torch.from_numpy(views.images).permute(0, 3, 1, 2).float().div_(255)
            item["viewmats"], item["Ks"] = torch.from_numpy(views.viewmats), torch.from_numpy(views.Ks)
        return item


def _read_adjacent(store: Readable, parts: Sequence[ByteRange]) -> list[memoryview]:
    """The bytes of parts that lie side by side in a shard, read as one range."""
    sizes = [part.nbytes for part in parts]
    whole = replace(parts[0], nbytes=sum(sizes))
    if isinstance(store, CachedStore):
        return store.read_adjacent(whole.key, whole.offset, sizes, whole.total)
    data = read(store, whole)
    return [data[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
