"""`Family`: members of another family of shards, or of other people's tars, that belong to a dataset's objects."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from gaussianverse.atlas.dataset_format import METADATA
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.catalogue import ByteRange, Catalogue, read
from gaussianverse.atlas.reader.decoders import Decoder
from gaussianverse.atlas.reader.table import Rows
from gaussianverse.atlas.store.storage import Entry, Readable
from gaussianverse.atlas.tar import BLOCK

ERROR, DROP = "error", "drop"
MISSING = (ERROR, DROP)
"""Treatments of selected objects that a family lacks: raise DatasetError, or leave them out of the selection."""
_NAMED = 5
"""Objects that an error names."""
_NEAR = 4 * BLOCK
"""Members that lie so near to each other, as those of one sample do, are read as one range."""


class Addresses(NamedTuple):
    """Places of the members of one suffix, for each sample of the dataset, [N]: tar, first byte and length.

    A sample without such a member has the length -1.
    """

    tar: Rows
    offset: Rows
    nbytes: Rows


@dataclass(frozen=True)
class Family:
    """Members that belong to the samples of a dataset, read and decoded by their places in its catalogue.

    Attributes:
        name: the key of the members in samples and batches.
        store: where the tars lie.
        tars: key and length of each tar.
        addresses: of the members of each suffix.
        decoders: the function that decodes each suffix.
        sums: hex sha256 of each sample's member, [N], if there is one suffix and they are to be verified.
    """

    name: str
    store: Readable
    tars: Sequence[Entry]
    addresses: Mapping[str, Addresses]
    decoders: Mapping[str, Decoder]
    sums: Any = None

    def complete(self, places: Rows, catalogue: Catalogue, missing: str) -> Rows:
        """These samples, less those that lack a member.

        Raises:
            DatasetError: some do, and `missing` is "error", or all do.
        """
        absent = np.stack([a.nbytes[places] < 0 for a in self.addresses.values()])
        kept, lost = places[~absent.any(0)], np.flatnonzero(absent.any(0))
        if not len(lost) or (missing == DROP and len(kept)):
            return kept
        some = lost[:_NAMED]
        suffixes = [[f".{s}" for s, gone in zip(self.addresses, absent[:, i], strict=True) if gone] for i in some]
        named = [f"{uid} ({', '.join(s)})" for uid, s in zip(catalogue.uids(places[some]), suffixes, strict=True)]
        more = f" and {len(lost) - len(some)} more" if len(lost) > len(some) else ""
        remedy = "pass missing='drop' to leave these objects out" if len(kept) else "none would be left"
        raise DatasetError(
            f"{self.store.url}: {self.name} lacks {', '.join(named)}{more}, {len(lost)} of the {len(places)} "
            f"selected objects: {remedy}"
        )

    def read(self, place: int, uid: str) -> dict[str, Any]:
        """A sample's members by their suffixes, decoded. Members beside each other are one range read.

        Raises:
            DatasetError: a tar is missing, of another length, or damaged, or a member does not decode.
            StoreError: the store failed.
        """
        where = {s: tuple(int(column[place]) for column in a) for s, a in self.addresses.items()}
        found: dict[str, Any] = {}
        for group in _neighbours(where):
            number, begin, _ = where[group[0]]
            _, last, nbytes = where[group[-1]]
            begin -= BLOCK  # the header of the first one tells whether it is the right one
            key, total = self.tars[number].key, self.tars[number].nbytes
            data = read(self.store, ByteRange(key, begin, last + nbytes - begin, total))
            for suffix in group:
                _, offset, nbytes = where[suffix]
                start = offset - begin
                header, member = data[start - BLOCK : start], data[start : start + nbytes]
                name = f"{self.store.url}/{key}, bytes from {offset}, {uid}.{suffix}"
                _check_header(header, f"{uid}.{suffix}", nbytes, name)
                found[suffix] = self._decoded(suffix, member, place, name)
        return {suffix: found[suffix] for suffix in self.addresses}

    def _decoded(self, suffix: str, member: memoryview, place: int, name: str) -> Any:
        if self.sums is not None and hashlib.sha256(member).hexdigest() != self.sums[place].as_py():
            raise DatasetError(f"{name} is damaged: its sha256 is not the one in {METADATA}; fetch the shard again")
        try:
            return self.decoders[suffix](bytes(member))
        except MemoryError:
            raise  # the machine is short of it, whatever the member holds
        except Exception as error:  # decoders may be anybody's
            raise DatasetError(f"{name} does not decode: {type(error).__name__}: {error}") from error


def values_of(name: str, samples: Sequence[Mapping[str, Any]], uids: Sequence[str]) -> dict[str, list[Any]]:
    """The values of a batch by key, each a list of length B.

    Args:
        name: of the batch, for errors.
        samples: the B samples.
        uids: of each.

    Raises:
        DatasetError: a sample has other keys than the first one, or tensors or dicts where that has none.
    """
    first = samples[0]
    for sample, uid in zip(samples, uids, strict=True):
        for one, other, has, lacks in ((first, sample, uids[0], uid), (sample, first, uid, uids[0])):
            if more := [str(key) for key in one if key not in other]:
                raise DatasetError(
                    f"{name}: {has} has {', '.join(more)}, which {lacks} lacks: give all samples the same keys, or "
                    "pass a collate_fn"
                )
        for key in first:
            if _kind(sample[key]) is not _kind(first[key]):
                kinds = f"{type(first[key]).__name__} of {uids[0]} and {type(sample[key]).__name__} of {uid}"
                raise DatasetError(f"{name}: {key} is {kinds}: give all samples the same type, or pass a collate_fn")
    return {key: [sample[key] for sample in samples] for key in first}


def _kind(value: Any) -> type:
    """Tensor, dict, or object for all that becomes a list."""
    return next((kind for kind in (torch.Tensor, dict) if isinstance(value, kind)), object)


def collated(family: str, samples: Sequence[Mapping[str, Any]], uids: Sequence[str]) -> dict[str, Any]:
    """The members of a batch by suffix: tensors are stacked, [B, ...], anything else is a list of length B.

    Raises:
        DatasetError: tensors of different shapes or types; see also `values_of`.
    """
    batch: dict[str, Any] = {}
    for suffix, values in values_of(family, samples, uids).items():
        if not isinstance(values[0], torch.Tensor):
            batch[suffix] = values
            continue
        kinds = {(tuple(value.shape), value.dtype) for value in values}
        if len(kinds) != 1:
            shapes = " and ".join(f"{dtype} {list(shape)}" for shape, dtype in sorted(kinds, key=str)[:2])
            raise DatasetError(
                f"{family}: .{suffix} of {shapes} are no batch; for a list pass a decoder "
                f"that gives no tensors, such as decode={{{suffix!r}: gaussianverse.atlas.arrays.read_npy}}"
            )
        batch[suffix] = torch.stack(values)
    return batch


def _neighbours(where: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Suffixes whose members lie side by side, in their order there."""
    group: list[str] = []
    for suffix in sorted(where, key=where.__getitem__):
        if group:
            number, offset, nbytes = where[group[-1]]
            if where[suffix][0] != number or where[suffix][1] > offset + nbytes + _NEAR:
                yield group
                group = []
        group.append(suffix)
    yield group


def _check_header(header: memoryview, name: str, nbytes: int, where: str) -> None:
    """Raise DatasetError unless a tar's header is that of a member of this name and length."""
    try:
        info = tarfile.TarInfo.frombuf(bytes(header), "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise DatasetError(f"{where}: damaged tar header: {error}; fetch the tar again") from error
    nbytes_of_name = len(info.name.encode("utf-8", "surrogateescape"))
    # a name of more than 100 bytes stands before its header, which has the beginning of it
    named = info.name.rpartition("/")[2] == name or nbytes_of_name >= tarfile.LENGTH_NAME - 1
    if info.size != nbytes or not named:
        raise DatasetError(
            f"{where}: there is {info.name} of {info.size} bytes: the tar was replaced; index it again"
        )
