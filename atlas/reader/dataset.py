"""`AtlasDataset`: stream a published dataset for training, shuffled, sharded over ranks, resumable to the sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaussianverse.atlas.dataset_format import MEAN, POINTS, STD
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader import order, placement
from gaussianverse.atlas.reader.cache import CachedStore
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.conversion import VIEWS_DTYPES, Conversion, channels_of
from gaussianverse.atlas.reader.decoders import Decoder
from gaussianverse.atlas.reader.family import ERROR, MISSING, Family
from gaussianverse.atlas.reader.joined import JoinedSource
from gaussianverse.atlas.reader.map_style import AtlasMapDataset
from gaussianverse.atlas.reader.open_family import family_at, is_own, own_family
from gaussianverse.atlas.reader.progress import Progress
from gaussianverse.atlas.reader.selecting import Filters
from gaussianverse.atlas.reader.selection import Selection
from gaussianverse.atlas.reader.source import AtlasSample, SampleSource
from gaussianverse.atlas.reader.stream import ObjectSource, SampleStream
from gaussianverse.atlas.reader.transformed import Transform, TransformedSource
from gaussianverse.atlas.reader.weighted import weighted
from gaussianverse.atlas.standard import Standard
from gaussianverse.atlas.store import is_remote, open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Readable

FIRST, RANDOM = "first", "random"
"""The caption that a sample comes with."""
_REMOTE_READAHEAD, _REMOTE_NEIGHBOURS = 32, 16


class AtlasDataset(SampleStream):
    """The samples of a dataset in a folder or under s3://bucket/prefix.

    One pass is one epoch. The next pass is the next epoch, in another order, whichever processes read it and also
    after a pass that was broken off. A pass begins with its first sample, and two passes side by side are two epochs.
    Every sample is checked as it is read: the shard's length, the members' names, lengths and headers, and the
    caption. A damaged sample raises an error; none is skipped.

    Args:
        url: a local folder, s3://bucket/prefix, or an address under az://, gs:// or hf://.
        version: number of the dataset's version to read; None = the newest.
        filters: conditions on columns of metadata.parquet, all of which must hold, such as
            `[("psnr", ">=", 30), ("license", "in", ["CC0-1.0"])]`; other samples are not downloaded. Lists of
            conditions are alternatives, one of which must hold, as in pyarrow.
        split: "all"; a split of the manifest, such as "train", "val" or "test"; where it has none, "train" or
            "heldout", by a hash of the uid.
        heldout: fraction of objects in "heldout", where the manifest has no splits; None = 0.01.
        uids: only these objects.
        shuffle: shuffle by (seed, epoch); otherwise samples come in the order of the shards.
        seed: seed of the shuffle.
        window: number of consecutive shards whose samples are mixed.
        neighbours: samples that lie side by side in a shard and stay together in the shuffle, to be read as one
            range; where such runs begin differs from epoch to epoch. None = 16 from a remote store, 1 from a folder.
        uneven: how to treat samples that do not divide by the number of ranks: "drop" leaves them out of this
            epoch, "repeat" reads some twice. All ranks have the same number of samples in either case.
        epoch_samples: number of samples of an epoch, of all ranks together; None = each selected sample once. An
            epoch begins where the one before ended: all samples are read before any is read again.
        infinite: an epoch does not end, and reads all samples again and again, each time in another order.
        weights: column of numbers of at least 0, in proportion to which samples are drawn, with replacement; an epoch
            has as many draws as samples are selected, or `epoch_samples`.
        rank, world: this process's rank and the number of ranks; by default those of torch.distributed if it is
            initialised, else 0 of 1.
        batch_size: batch size of a plain DataLoader, whose workers then give the order of a single process.
        standardise: standardise by the dataset's mean and deviation; cheaper on the device, see `standard()`.
        channels: numbers or names of the channels to read, in the order in which they are wanted; None = all 16.
        dtype: type of the atlases, torch.float32 or torch.bfloat16.
        hashes: verify every byte by the hashes, for about 0.6 ms of CPU time a sample.
        columns: columns of the row to yield; None = all. Others are not read, which saves time and memory where the
            dataset is large.
        caption: "first" yields an object's first caption, "random" one of all of its captions, drawn by (seed, epoch,
            sample); with `epoch_samples` or `infinite` by the round in place of the epoch.
        transform: function of each sample (see `AtlasSample`), the last thing done to it, that returns what to yield;
            called where the sample is read, in the worker, so that spawned workers need it to be picklable.
        views: yield the reference views as well, all (True) or so many of them, drawn as captions are and in
            the order of the draw; None = all if the dataset has any.
        views_dtype: type of the views, torch.float32 in [0, 1] or torch.uint8 as stored, a quarter of the memory.
        s3: options of the store.
        cache: folder that keeps fetched samples, shared by the processes of a machine.
        cache_bytes: maximum size of that folder.
        readahead: samples to fetch ahead, by a thread per range and at most 16; None = 32 from a remote store, 0
            from a folder.

    Raises:
        DatasetError: no finished dataset, an unknown column, channel or type, too few samples for the ranks, not so
            many views in it; as samples are read, one is missing or damaged.
        StoreError: the store cannot be reached (reading again may help), or refuses (StoreRefused); says nothing of
            the dataset.
    """

    source: ObjectSource
    _families: tuple[Family, ...]

    def __init__(
        self, url: str | Path, *, version: int | None = None, filters: Filters = (), split: str = "all",
        heldout: float | None = None, uids: Iterable[str] | None = None, shuffle: bool = True, seed: int = 0,
        window: int = 8, neighbours: int | None = None, uneven: str = order.DROP, epoch_samples: int | None = None,
        infinite: bool = False, weights: str | None = None, rank: int | None = None, world: int | None = None,
        batch_size: int = 1, standardise: bool = False, hashes: bool = False, columns: Sequence[str] | None = None,
        channels: Sequence[int | str] | None = None, dtype: torch.dtype = torch.float32,
        caption: str = FIRST, transform: Transform | None = None, views: bool | int | None = False,
        views_dtype: torch.dtype = torch.float32,
        s3: StoreOptions | None = None, cache: str | Path | None = None,
        cache_bytes: int = 100 * 2**30, readahead: int | None = None,
    ) -> None:  # fmt: skip
        store = open_storage(str(url), s3)
        self.catalogue = Catalogue(store, version)
        self._store: Readable = store
        if cache is not None:
            self._store = CachedStore(self._store, Path(cache, self.catalogue.digest[:16]), cache_bytes)
        if columns is not None:
            self.catalogue.check_columns(columns)
        self.channels = channels_of(channels)
        if views_dtype not in VIEWS_DTYPES:
            raise DatasetError(f"views_dtype {views_dtype!r} is none of {', '.join(map(str, VIEWS_DTYPES))}")
        if uneven not in order.UNEVEN:
            raise DatasetError(f"uneven {uneven!r} is none of {', '.join(order.UNEVEN)}")
        neighbours = neighbours if neighbours is not None else _REMOTE_NEIGHBOURS if is_remote(str(url)) else 1
        if min(window, neighbours, batch_size) < 1 or seed < 0:
            sizes = f"window {window}, neighbours {neighbours}, batch_size {batch_size}"
            raise DatasetError(f"{sizes}: at least 1; seed {seed}: at least 0")
        if epoch_samples is not None and (type(epoch_samples) is not int or epoch_samples < 1):
            raise DatasetError(f"epoch_samples {epoch_samples!r}: expected an integer of at least 1")
        if epoch_samples is not None and infinite:
            raise DatasetError("epoch_samples ends an epoch and infinite=True never does: leave one of them out")
        self.rank, self.world = placement.place(rank, world)
        self._placed = rank is not None
        self.batch_size = batch_size
        self._options, self._hashes, self._readahead = s3, hashes, readahead
        self._uneven, self._infinite = uneven, infinite
        self._samples_alone = SampleSource(
            self._store, self.catalogue, Conversion(self._standard() if standardise else None, self.channels, dtype),
            hashes=hashes, columns=columns, views=self._views(views), views_dtype=views_dtype,
            random_caption=self._is_random(caption), seed=seed, readahead=self._ahead(str(url)),
            neighbours=neighbours,
        )  # fmt: skip
        self.catalogue.expect(self._samples_alone.columns_read)
        if transform is not None and not callable(transform):
            raise DatasetError(f"transform {transform!r}: expected a function of a sample")
        self._transform = transform
        self.source, self._families = self._transformed(self._samples_alone), ()
        selected = self.catalogue.select(filters, split, heldout, uids)
        samples = Selection(
            self.catalogue.digest, selected, self.catalogue.shards[selected], seed, window if shuffle else 0,
            neighbours if shuffle else 1, epoch_samples,
        )  # fmt: skip
        self._begin(samples if weights is None else weighted(samples, self.catalogue, weights))

    def _begin(self, samples: Selection) -> None:
        """Read these samples from the first epoch on."""
        self.samples = samples
        self.progress = Progress(samples, self._uneven, self.rank, self.world, self._infinite)
        if self.progress.round_size == 0:
            raise DatasetError(
                f"only {len(samples)} samples for {self.world} ranks: pass uneven='repeat' or use fewer ranks"
            )

    def _is_random(self, caption: str) -> bool:
        """Whether captions are drawn; DatasetError if there is no such choice, or nothing to draw from."""
        if caption not in (FIRST, RANDOM):
            raise DatasetError(f"caption {caption!r} is none of {FIRST}, {RANDOM}")
        if caption == RANDOM and not self.catalogue.has_column("captions"):
            version = self.catalogue.index["schema_version"]
            raise DatasetError(
                f"{self._store.url}: schema version {version} has one caption an object: leave caption='random' out, "
                "or build the dataset anew"
            )
        return caption == RANDOM

    def _transformed(self, source: ObjectSource) -> ObjectSource:
        return source if self._transform is None else TransformedSource(source, self._transform)

    def _ahead(self, url: str) -> int:
        """Number of samples to fetch ahead from there."""
        return self._readahead if self._readahead is not None else _REMOTE_READAHEAD if is_remote(url) else 0

    def with_family(
        self, family: str | Path, *, name: str = "", members: Sequence[str] | None = None, missing: str = ERROR,
        decode: Mapping[str, Decoder] | None = None, index: str | Path | None = None, s3: StoreOptions | None = None,
    ) -> AtlasDataset:  # fmt: skip
        """The same samples with members of another family beside each, joined by uid.

        `sample[name]` holds the members by their suffixes. A member belongs to the uid that its name begins with, up
        to the first dot; folders in names do not count. A sample's members are one range read if they lie side by
        side. In batches tensors are stacked, and anything else is a list.

        Args:
            family: "splats", the fits of this dataset; or the address of a tar or of a folder of tars, such as
                s3://bucket/latents or ./latents. Their headers are read once, by ranges of 256 KiB.
            name: key of the members; "" = the last part of the address.
            members: suffixes to read, such as ["latent.npy"]; None = all that objects of this dataset have.
            missing: how to treat selected objects that lack a member: "error", or "drop" to leave them out.
            decode: functions of bytes for further suffixes, or in place of the usual ones: tensors of .npy, dicts of
                tensors of .npz, .json, text of .txt. Nothing is unpickled.
            index: Parquet file of the places of all members: read if it is there, else written.
            s3: options of the tars' store; None = those of the dataset.

        Returns:
            A dataset of its own, whose first pass is the first epoch.

        Raises:
            DatasetError: no such family, an unreadable tar, two samples of one uid, an unknown suffix, objects that
                lack a member; as samples are read, a damaged member.
            StoreError: the store failed or refuses.
        """
        if missing not in MISSING:
            raise DatasetError(f"missing {missing!r} is none of {', '.join(MISSING)}")
        address, decode = str(family), decode or {}
        key = name or Path(address).name.removesuffix(".tar")
        if key in {*AtlasSample.__annotations__, *(f.name for f in self._families)} or not key:
            raise DatasetError(f"{address}: samples have {key!r} already: pass another name")
        if isinstance(family, str) and is_own(family):
            if index is not None or members is not None:
                raise DatasetError(f"{address}: its table has the places: leave out index and members")
            joined = own_family(self.catalogue, self._store, address, key, decode, hashes=self._hashes)
        else:
            joined = family_at(self.catalogue, address, key, members, decode, index, s3 or self._options)
        dataset = copy(self)
        dataset._families = (*self._families, joined)
        ahead = max(self._ahead(family.store.url) for family in dataset._families)
        dataset.source = self._transformed(
            JoinedSource(self._samples_alone, self.catalogue, dataset._families, ahead)
        )
        places = joined.complete(self.samples.places, self.catalogue, missing)
        dataset._begin(replace(self.samples, places=places, shards=self.catalogue.shards[places]))
        return dataset

    @property
    def form(self) -> dict[str, Any]:
        """Properties of its samples that all samples of a batch must share."""
        alone = self._samples_alone
        pixels = self.catalogue.row(0, ["reference_size"])["reference_size"] if alone.views else 0
        return {
            "atlas size": self.catalogue.size,
            "standardise": alone.conversion.standardises,
            "channels": self.channels,
            "dtype": alone.conversion.dtype,
            "views": [alone.n_views, pixels, str(alone.views_dtype)],
            "families": {family.name: list(family.addresses) for family in self._families},
        }

    def map_style(self) -> AtlasMapDataset:
        """The same samples as a map-style dataset, for loops that bring a sampler; not divided over ranks.

        Raises:
            DatasetError: views or captions are to be drawn anew in each epoch, which only the sampler knows.
        """
        if self._samples_alone.random_caption:
            raise DatasetError(
                "caption='random' is drawn by epoch, which map_style() does not know: choose of row['captions']"
            )
        if not isinstance(views := self._samples_alone.views, bool):
            raise DatasetError(f"views={views} are drawn by epoch, which map_style() does not know: pass views=True")
        return AtlasMapDataset(self.source, self.samples.places)

    def get(self, uid: str) -> AtlasSample:
        """One object's sample, whatever the filters, verified by its hashes: one range read, two with views.

        Raises:
            DatasetError: no such object, it was quarantined, or its bytes are damaged.
        """
        return self.source.get(uid)

    def standard(self) -> Standard:
        """The module that standardises batches of this dataset, of its `channels`, and back."""
        return self._standard().select(self.channels)

    def _standard(self) -> Standard:
        return Standard(*(self.catalogue.array(self._store, key) for key in (MEAN, STD)))

    def _views(self, asked: bool | int | None) -> bool | int:
        """The views to read, all or a number, once they are known to be there."""
        there = self.catalogue.n_views
        if asked is None:
            return there > 0
        if asked is not False and not there:
            raise DatasetError(f"{self._store.url}: has no reference views; build the dataset with --set run.views=K")
        if not isinstance(asked, bool) and not 1 <= asked <= there:
            raise DatasetError(f"views {asked}: objects have {there}; expected 1 to {there}, True for all, or False")
        return asked

    def points(self) -> Tensor:
        """The sphere point behind each cell of this dataset's atlases, [size, size, 3], for `unpack_tensor`."""
        return torch.from_numpy(self.catalogue.array(self._store, POINTS))
