"""Parse and check one sample: the bytes of its members in a shard's tar."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas import dataset_format, tar
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.canonical_json import json_object, to_json
from gaussianverse.atlas.dataset_format import ATLAS, CHANNELS, METADATA, VIEWS
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.views import ReferenceViews, images_sha256


@dataclass(frozen=True)
class Fetched:
    """A sample as it was read and checked.

    Attributes:
        row: all columns of its row of metadata.parquet.
        array: its atlas as it is stored, float32 or float16 [size, size, 16].
        views: its reference views, if they are wanted.
        caption: its caption, or the one that was drawn.
    """

    row: dict[str, Any]
    array: npt.NDArray[Any]
    views: ReferenceViews | None
    caption: str


_DTYPES = [np.dtype(name).newbyteorder("<") for name in dataset_format.DTYPES]


def parse(data: memoryview, row: Mapping[str, Any], size: int, *, hashes: bool) -> npt.NDArray[Any]:
    """Parse an atlas sample.

    Args:
        data: from the first tar header of the object to that of the next.
        row: the object's row of metadata.parquet, all columns.
        size: side of the atlas.
        hashes: detect any changed byte: the atlas by its sha256, the JSON member by the row's values, tar headers
            by their canonical form.

    Returns:
        [size, size, 16], see `decode`.

    Raises:
        AtlasError: another object or damaged bytes.
    """
    members = _checked(data, ATLAS, row, hashes=hashes)
    return decode(members[dataset_format.main_member(ATLAS, row["uid"])], size)


def parse_views(
    data: memoryview, row: Mapping[str, Any], *, hashes: bool, chosen: Sequence[int] | None = None
) -> ReferenceViews:
    """Parse an object's reference views.

    Args:
        data, row, hashes: as for `parse`.
        chosen: the views to decode, in this order; None = all.

    Raises:
        AtlasError: another object or damaged bytes.
    """
    members, uid = _checked(data, VIEWS, row, hashes=hashes), row["uid"]
    if hashes and images_sha256(members) != row["images_sha256"]:
        raise DatasetError(f"its views are damaged: their sha256 is not the one in {METADATA}")
    suffixes = dataset_format.view_suffixes(row["n_reference_views"])
    images = [members[f"{uid}.{suffix}"] for suffix in suffixes]
    views = ReferenceViews.from_members(members[dataset_format.main_member(VIEWS, uid)], images, chosen)
    if views.images.shape[1] != row["reference_size"]:
        raise DatasetError(f"views of {views.images.shape[1]} pixels, expected {row['reference_size']}")
    return views


def decode_verified(data: memoryview, row: Mapping[str, Any], size: int) -> npt.NDArray[Any]:
    """`decode`, once the member's sha256 is that of the row."""
    _check_sha256(data, ATLAS, row)
    return decode(data, size)


def decode(data: memoryview, size: int) -> npt.NDArray[Any]:
    """The array of an atlas member, float32 or float16 [size, size, 16], in the memory of `data`.

    Raises:
        AtlasError: it is no .npy file of such an array.
    """
    array, shape = read_npy(data, copy=False), (size, size, CHANNELS)
    if array.shape != shape or array.dtype not in _DTYPES or not array.flags.c_contiguous:
        order = "C" if array.flags.c_contiguous else "Fortran"
        kinds = " or ".join(map(str, _DTYPES))
        raise DatasetError(f"{array.dtype} {array.shape} in {order} order, expected {kinds} {shape} in C order")
    return array


def _checked(data: memoryview, family: str, row: Mapping[str, Any], *, hashes: bool) -> dict[str, memoryview]:
    """The members of a sample, of which all but the arrays are checked.

    Args:
        data, row, hashes: as for `parse`.
        family: of the shard.
    """
    uid = row["uid"]
    members = {m.name: data[m.offset : m.offset + m.nbytes] for m in tar.index(data, exact=hashes)}
    expected = dataset_format.member_names(family, uid, row.get("n_reference_views", 0))
    if list(members) != expected:
        raise DatasetError(f"holds {', '.join(members) or 'nothing'}, expected {', '.join(expected)}")
    if hashes:
        _check_sha256(members[dataset_format.main_member(family, uid)], family, row)
        _check_facts(bytes(members[dataset_format.facts_member(uid)]), row)
    name = dataset_format.caption_member(uid)
    try:
        caption = str(members[name], "utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name} is damaged: {error}") from error
    if caption != row["caption"]:
        raise DatasetError(f"{name} is {caption!r}, {METADATA} says {row['caption']!r}")
    return members


def _check_sha256(data: memoryview, family: str, row: Mapping[str, Any]) -> None:
    """Raise DatasetError unless a main member has the sha256 of the row."""
    if hashlib.sha256(data).hexdigest() != row[dataset_format.address_column(family, "sha256")]:
        main = dataset_format.main_member(family, row["uid"])
        raise DatasetError(f"{main} is damaged: its sha256 is not the one in {METADATA}")


def _check_facts(data: bytes, row: Mapping[str, Any]) -> None:
    """Raise DatasetError unless a JSON member holds the values of the row, in canonical form."""
    name = dataset_format.facts_member(row["uid"])
    values = json_object(data, DatasetError, f"{name} is damaged")
    # the row counts the splat's Gaussians; an atlas may hold fewer, and its other cells are padding
    expected = {**row, "n_gaussians": row["size"] ** 2 - row["n_padded"]}
    wrong = sorted(k for k in values if k not in expected or values[k] != expected[k])
    if wrong or to_json(values) != data:
        raise DatasetError(f"{name} is damaged: {', '.join(wrong) or 'spaces'} differ from {METADATA}")
