"""`SampleSource`: the samples of a dataset, read and checked by their place in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, TypeVar

import torch
from torch import Tensor

from gaussianverse.atlas.dataset_format import VIEWS
from gaussianverse.atlas.errors import AtlasError, DatasetError
from gaussianverse.atlas.reader import sample
from gaussianverse.atlas.reader.catalogue import ByteRange, Catalogue, read
from gaussianverse.atlas.reader.order import Indices
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

    def read(self, places: Indices) -> Iterator[AtlasSample]:
        """These samples, in this order.

        Raises:
            DatasetError: a sample is missing or damaged.
            StoreError: the store failed.
        """
        return read_ahead(self._fetch, places.tolist(), self.readahead)

    def get(self, uid: str) -> AtlasSample:
        """One object's sample, verified by its hashes: one range read, two with views.

        Raises:
            DatasetError: no such object, it was quarantined, or its bytes are damaged.
        """
        place = self.catalogue.find(uid)
        row, size = self.catalogue.row(place), self.catalogue.size
        member = self.catalogue.atlas_member(place)
        array = self._parsed(member, uid, lambda data: sample.decode_verified(data, row, size))
        return self._item(array, row, self._fetch_views(place, row, hashes=True))

    def _fetch(self, place: int) -> AtlasSample:
        row = self.catalogue.row(place)
        size, hashes, part = self.catalogue.size, self.hashes, self.catalogue.byte_range(place)
        array = self._parsed(part, row["uid"], lambda data: sample.parse(data, row, size, hashes=hashes))
        return self._item(array, row, self._fetch_views(place, row, hashes=hashes))

    def _fetch_views(self, place: int, row: dict[str, Any], *, hashes: bool) -> ReferenceViews | None:
        if not self.views:
            return None
        part = self.catalogue.byte_range(place, VIEWS)
        return self._parsed(part, row["uid"], lambda data: sample.parse_views(data, row, hashes=hashes))

    def _parsed(self, part: ByteRange, uid: str, parse: Callable[[memoryview], T]) -> T:
        """Read and parse some of an object's bytes; errors name the place."""
        data = read(self.store, part)
        try:
            return parse(data)
        except AtlasError as error:
            where = f"{self.store.url}/{part.key}, bytes from {part.offset}, {uid}"
            raise DatasetError(f"{where}: {error}; fetch the shard again") from error

    def _item(self, array: Any, row: dict[str, Any], views: ReferenceViews | None) -> AtlasSample:
        atlas = torch.from_numpy(array).permute(2, 0, 1)
        if self.standard is not None:
            atlas = self.standard(atlas)
        chosen = row if self.columns is None else {name: row[name] for name in self.columns}
        item: AtlasSample = {"atlas": atlas, "caption": row["caption"], "uid": row["uid"], "row": chosen}
        if views is not None:
            item["views"] = torch.from_numpy(views.images).permute(0, 3, 1, 2).float().div_(255)
            item["viewmats"], item["Ks"] = torch.from_numpy(views.viewmats), torch.from_numpy(views.Ks)
        return item
