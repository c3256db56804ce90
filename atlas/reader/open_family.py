"""Open a family of a dataset: its own splats, or other people's tars, joined by uid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.atlas.dataset_format import ATLAS, MAIN_SUFFIX, SPLATS, VIEWS, address_column
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.decoders import Decoder, decoders_of
from gaussianverse.atlas.reader.family import Addresses, Family
from gaussianverse.atlas.reader.tar_index import TarIndex, tar_index
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Readable

_INSTEAD = {
    ATLAS: "it is what the dataset reads anyway",
    VIEWS: "pass views=True to the dataset, which decodes them",
    "facts": "every sample has them in its row",
}
"""Parts of a dataset that are no family to join, and what to do in place of it."""


def is_own(family: str) -> bool:
    """Whether this is the name of a part of the dataset and no address."""
    return family == SPLATS or family in _INSTEAD


def own_family(
    catalogue: Catalogue, store: Readable, family: str, name: str, decode: Mapping[str, Decoder], *, hashes: bool
) -> Family:
    """The splats of a dataset, whose addresses stand in its table.

    Raises:
        DatasetError: another family, whose members are read otherwise, or a part without it.
    """
    if family != SPLATS:
        raise DatasetError(f"with_family({family!r}): {_INSTEAD[family]}")
    if any(family not in shard for shard in catalogue.index["shards"]):
        raise DatasetError(f"{catalogue.url}: with_family({family!r}): a part that was taken without them")
    tars, of_sample = catalogue.tars(family)
    offset, nbytes = (catalogue.column(address_column(family, name)) for name in ("offset", "nbytes"))
    sums = catalogue.column(address_column(family, "sha256")) if hashes else None
    suffix = MAIN_SUFFIX[family]
    addresses = {suffix: Addresses(of_sample, offset, nbytes)}
    return Family(name, store, tars, addresses, decoders_of([suffix], decode), sums)


def family_at(
    catalogue: Catalogue, address: str, name: str, members: Sequence[str] | None, decode: Mapping[str, Decoder],
    index: str | Path | None, options: StoreOptions | None,
) -> Family:  # fmt: skip
    """The family in a tar, or in a folder of tars; see `AtlasDataset.with_family` for the arguments."""
    folder, slash, only = address.rpartition("/") if address.endswith(".tar") else (address, "", "")
    store = open_storage(folder or slash or ".", options)
    return joined(catalogue, store, tar_index(store, only, index), name, members, decode)


def joined(
    catalogue: Catalogue, store: Readable, index: TarIndex, name: str, members: Sequence[str] | None,
    decode: Mapping[str, Decoder],
) -> Family:  # fmt: skip
    """The members of other people's tars, joined with a dataset by uid.

    Args:
        catalogue: of the dataset.
        store, index: the tars.
        name: of the family.
        members: suffixes to read; None = all that objects of the dataset have.
        decode: decoders by suffix, beside the known ones.

    Raises:
        DatasetError: an unknown suffix, one that has no decoder, or two members of one name.
    """
    uids = pa.array(catalogue.uids(range(len(catalogue))), pa.string())
    table = index.members.append_column("place", pc.index_in(index.members["uid"], value_set=uids))
    table = table.filter(pc.is_valid(table["place"]))
    there = sorted(pc.unique(table["suffix"]).to_pylist())
    if not there:
        raise DatasetError(
            f"{store.url}: none of the {len(index.members)} members is of an object of {catalogue.url}: their names "
            "must begin with the uid and a dot"
        )
    chosen = list(dict.fromkeys(members)) if members is not None else there
    if not chosen or set(chosen) - set(there):
        raise DatasetError(f"{store.url}: members {chosen}: the objects have {', '.join(there)}")
    addresses = {
        suffix: _addresses(table.filter(pc.equal(table["suffix"], suffix)), uids, index) for suffix in chosen
    }
    return Family(name, store, index.tars, addresses, decoders_of(chosen, decode))


def _addresses(table: pa.Table, uids: pa.Array, index: TarIndex) -> Addresses:
    """The addresses of one suffix's members."""
    place, tar, offset, nbytes = (np.asarray(table[name], np.int64) for name in ("place", "tar", "offset", "nbytes"))
    if len(twice := np.flatnonzero(np.bincount(place) > 1)):
        tars = [index.tars[number].key for number in tar[place == twice[0]]]
        name = f"{uids[int(twice[0])]}.{table['suffix'][0]}"
        raise DatasetError(
            f"{len(twice)} uids have more than one sample, the first is {name}, which is in {' and in '.join(tars)}"
        )
    found = Addresses(*(np.full(len(uids), value, np.int64) for value in (0, 0, -1)))
    for column, values in zip(found, (tar, offset, nbytes), strict=True):
        column[place] = values
    return found
