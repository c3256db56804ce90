"""`SampleSource`: the samples of a dataset, read and checked by their place in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate, chain, tee
from typing import Any, NotRequired, TypedDict, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from gaussianverse.atlas.dataset_format import ATLAS, VIEWS
from gaussianverse.atlas.errors import AtlasError, DatasetError
from gaussianverse.atlas.reader import sample, words
from gaussianverse.atlas.reader.building import BatchBuilder, Built, entries_of, view_nbytes
from gaussianverse.atlas.reader.cache import CachedStore
from gaussianverse.atlas.reader.catalogue import ByteRange, Catalogue, read
from gaussianverse.atlas.reader.conversion import Conversion, write_images
from gaussianverse.atlas.reader.order import Draws, adjacent
from gaussianverse.atlas.reader.read_ahead import read_ahead
from gaussianverse.atlas.reader.ring import Ring
from gaussianverse.atlas.reader.sample import Fetched
from gaussianverse.atlas.reader.views import ReferenceViews
from gaussianverse.atlas.reader.words import Indices
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Readable

T = TypeVar("T")


class AtlasSample(TypedDict):
    """One object, as `AtlasDataset` yields it.

    `atlas` is [C, size, size], float32 with all 16 channels unless others are asked for, with the channels last in
    memory. `row` is the object's row of metadata.parquet.
    """

    atlas: Tensor
    caption: str
    uid: str
    row: dict[str, Any]
    views: NotRequired[Tensor]
    """With `views`: RGBA, straight alpha, [K, 4, s, s]: float32 in [0, 1], or uint8 if asked for."""
    viewmats: NotRequired[Tensor]
    """World-to-camera, OpenCV, in the world of the Gaussians; float32 [K, 4, 4]."""
    Ks: NotRequired[Tensor]
    """Intrinsics in pixels, float32 [K, 3, 3]."""


@dataclass(frozen=True)
class SampleSource:
    """Reads samples from a store and checks each: length of the shard; names, lengths and headers of its members;
    the caption against the table. See `AtlasDataset` for the options.
    """

    store: Readable
    catalogue: Catalogue
    conversion: Conversion
    hashes: bool
    columns: Sequence[str] | None
    views: bool | int
    """True = all views of a sample in their order, a number = as many, drawn by (seed, turn, sample)."""
    views_dtype: torch.dtype
    random_caption: bool
    """Draw one of a sample's captions by (seed, turn, sample); else the first."""
    seed: int
    readahead: int
    neighbours: int

    def read(self, draws: Draws) -> Iterator[AtlasSample]:
        """Yield these samples in this order. Those that lie side by side are read as one range of up to
        `neighbours`; `readahead` counts samples.

        Raises:
            DatasetError: a sample is missing or damaged.
            StoreError: the store failed.
        """
        for fetched in self._fetched(self._ranges(draws)):
            for one in fetched:
                # kept for long, it must not keep its neighbours too
                yield self._item(one if len(fetched) == 1 else replace(one, array=one.array.copy()))

    def batches(self, groups: Iterable[Draws], ring: Ring) -> Iterator[Built]:
        """Yield a batch of each group of samples, written into memory of the ring.

        Raises:
            DatasetError: a sample is missing or damaged.
            StoreError: the store failed.
        """
        groups, ahead = tee(groups)
        fetched = self._fetched(chain.from_iterable(map(self._ranges, ahead)))
        for draws in groups:
            with ring.taken() as arena:
                builder = BatchBuilder(len(draws), arena, self.conversion, self.views_dtype, self.columns)
                while not builder.full:
                    for one in next(fetched):
                        builder.add(one)
                yield builder.built()

    @cached_property
    def columns_read(self) -> list[str] | None:
        """Columns of the table that samples take: those to yield and those to check by; None = all."""
        if self.columns is None or self.hashes:
            return None
        drawn = ["captions"] if self.random_caption else []
        of_views = ["n_reference_views", "reference_size"] if self.views else []
        return list(dict.fromkeys(["uid", "caption", *drawn, *of_views, *self.columns]))

    @property
    def n_views(self) -> int:
        """Number of views of each sample."""
        return self.catalogue.n_views if self.views is True else int(self.views)

    def batch_nbytes(self, batch_size: int) -> int:
        """Bytes of a batch's tensors."""
        return batch_size * (
            self.catalogue.size**2 * len(self.conversion.channels) * self.conversion.dtype.itemsize
            + self.n_views * view_nbytes(int(self.catalogue.index.get("views_size", 0)), self.views_dtype)
        )

    def _ranges(self, draws: Draws) -> list[Draws]:
        """Cut a sequence of samples into those that are read as one range."""
        places = draws[:, 0]
        ranges = adjacent(places, self.catalogue.stretches[places], self.neighbours)
        return np.split(draws, np.cumsum([len(part) for part in ranges])[:-1]) if ranges else []

    def _fetched(self, ranges: Iterable[Draws]) -> Iterator[list[Fetched]]:
        """Samples range by range, read and checked ahead of their use."""
        return read_ahead(self._fetch, ranges, self.readahead, len)

    def get(self, uid: str) -> AtlasSample:
        """One object's sample with all its views, verified by its hashes: one range read, two with views.

        Raises:
            DatasetError: no such object, it was quarantined, or its bytes are damaged.
        """
        place = self.catalogue.find(uid)
        row, size = self.catalogue.row(place), self.catalogue.size
        member = self.catalogue.atlas_member(place)
        decode = partial(sample.decode_verified, row=row, size=size)
        array = self._parsed(read(self.store, member), member, uid, decode)
        views = self._fetch_views(np.array([place]), [row], [None], hashes=True) if self.views else [None]
        return self._item(Fetched(row, array, views[0], row["caption"]))

    def _fetch(self, draws: Draws) -> list[Fetched]:
        """Read samples that lie side by side, and check each."""
        places, turns = draws.T
        rows = [self.catalogue.row(place, self.columns_read) for place in places.tolist()]
        parse = partial(sample.parse, size=self.catalogue.size, hashes=self.hashes)
        arrays = [
            self._parsed(data, part, row["uid"], partial(parse, row=row))
            for row, part, data in self._members(places, rows, ATLAS)
        ]
        views: list[Any] = [None] * len(rows)
        if self.views:
            chosen: list[Any] = views
            if self.views is not True:
                chosen = words.drawn(self.seed, turns, places, self.catalogue.n_views, self.views).tolist()
            views = self._fetch_views(places, rows, chosen, hashes=self.hashes)
        return list(map(Fetched, rows, arrays, views, self._captions(rows, places, turns)))

    def _captions(self, rows: list[dict[str, Any]], places: Indices, turns: Indices) -> list[str]:
        """A caption of each sample."""
        if not self.random_caption:
            return [row["caption"] for row in rows]
        # an object without a caption has an empty list of them
        all_of = [row["captions"] or [row["caption"]] for row in rows]
        chosen = words.drawn_one(self.seed, turns, places, np.array([len(captions) for captions in all_of]))
        return [captions[number] for captions, number in zip(all_of, chosen.tolist(), strict=True)]

    def _fetch_views(
        self, places: Indices, rows: list[dict[str, Any]], chosen: list[Any], *, hashes: bool
    ) -> list[ReferenceViews]:
        """These views of samples that lie side by side."""
        parse = partial(sample.parse_views, hashes=hashes)
        return [
            self._parsed(data, part, row["uid"], partial(parse, row=row, chosen=numbers))
            for (row, part, data), numbers in zip(self._members(places, rows, VIEWS), chosen, strict=True)
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
        views = fetched.views
        entries = entries_of(fetched, self.columns)
        item = cast(AtlasSample, {"atlas": self.conversion(fetched.array), **entries})
        if views is not None:
            images = torch.empty(views.images.shape, dtype=self.views_dtype)
            write_images(views.images, images)
            item["views"] = images.permute(0, 3, 1, 2)
            item["viewmats"], item["Ks"] = torch.from_numpy(views.viewmats), torch.from_numpy(views.Ks)
        return item


def _read_adjacent(store: Readable, parts: Sequence[ByteRange]) -> list[memoryview]:
    """The bytes of parts that lie side by side in a shard, read as one range."""
    sizes = [part.nbytes for part in parts]
    whole = replace(parts[0], nbytes=sum(sizes))
    if isinstance(store, CachedStore):
        try:
            return store.read_adjacent(whole.key, whole.offset, sizes, whole.total)
        except NotFound as error:
            raise DatasetError(f"{error}; fetch it again") from error
    data = read(store, whole)
    return [data[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
