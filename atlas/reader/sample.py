"""One sample's stretch of a tar, read and checked in place: `UID.json`, `UID.txt`, and the atlas or the views."""

from __future__ import annotations

import ast
import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.canonical_json import json_object, to_json
from gaussianverse.atlas.dataset_format import (
    ATLAS,
    CHANNELS,
    METADATA,
    VIEWS,
    address_column,
    caption_member,
    facts_member,
    main_member,
    member_names,
    view_suffixes,
)  # fmt: skip
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.views import ReferenceViews, images_sha256

BLOCK = 512
_MAGIC = b"\x93NUMPY\x01\x00"
_DTYPES = {"<f4", "<f2"}
# fields of a tar header
_NAME_FIELD, _SIZE, _CHECKSUM = 100, (124, 136), (148, 156)


@dataclass(frozen=True)
class Sample:
    """What a stretch of a tar holds.

    Attributes:
        array: float32 [size, size, 16]; shares its memory with the bytes that it was read from where they are
            float32.
        caption: the object's; "" only when the manifest has none.
    """

    array: npt.NDArray[np.float32]
    caption: str


def parse(data: memoryview, uid: str, size: int, row: Mapping[str, Any], *, hashes: bool) -> Sample:
    """Read a sample from its bytes in the tar.

    Args:
        data: from the first header of the object to the first of the next.
        uid: of the object that should lie there.
        size: side of the atlas.
        row: of metadata.parquet, all columns.
        hashes: find any byte that is not as it was written: the atlas by its sha256, the JSON member by the
            row's values, headers by what they must be.

    Raises:
        DatasetError: something else lies there, or a byte is not as it was written.
    """
    members = _checked(data, ATLAS, uid, row, hashes=hashes)
    return Sample(decode(members[main_member(ATLAS, uid)], size), row["caption"])


def parse_views(data: memoryview, uid: str, row: Mapping[str, Any], *, hashes: bool) -> ReferenceViews:
    """Read an object's reference views from their bytes in the tar.

    Args:
        data, uid, row, hashes: as for `parse`.

    Raises:
        DatasetError: something else lies there, or a byte is not as it was written.
    """
    members = _checked(data, VIEWS, uid, row, hashes=hashes)
    if hashes and images_sha256(members) != row["images_sha256"]:
        raise DatasetError("its views are damaged: their sha256 is not the one in metadata.parquet")
    images = [members[f"{uid}.{suffix}"] for suffix in view_suffixes(row["n_reference_views"])]
    views = ReferenceViews.from_members(members[main_member(VIEWS, uid)], images)
    if views.images.shape[1] != row["reference_size"]:
        raise DatasetError(f"views of {views.images.shape[1]} pixels, expected {row['reference_size']}")
    return views


def _checked(
    data: memoryview, family: str, uid: str, row: Mapping[str, Any], *, hashes: bool
) -> dict[str, memoryview]:
    """The members of a sample of a family, once all but the arrays are what they must be.

    Args:
        data, uid, row, hashes: as for `parse`.
        family: of the shard.
    """
    members = dict(_members(data, exact=hashes))
    expected = member_names(family, uid, row.get("n_reference_views", 0))
    if list(members) != expected:
        raise DatasetError(f"holds {', '.join(members) or 'nothing'}, expected {', '.join(expected)}")
    if hashes:
        main = main_member(family, uid)
        if hashlib.sha256(members[main]).hexdigest() != row[address_column(family, "sha256")]:
            raise DatasetError(f"{main} is damaged: its sha256 is not the one in {METADATA}")
        _compare(bytes(members[facts_member(uid)]), row)
    name = caption_member(uid)
    try:
        caption = str(members[name], "utf-8")
    except UnicodeDecodeError as fault:
        raise DatasetError(f"{name} is damaged: {fault}") from fault
    if caption != row["caption"]:
        raise DatasetError(f"{name} is {caption!r}, {METADATA} says {row['caption']!r}")
    return members


def decode(npy: memoryview, size: int) -> npt.NDArray[np.float32]:
    """The array of an atlas member, float32 [size, size, 16], without a copy where it is float32 on disk.

    Raises:
        DatasetError: it is no .npy file of such an array.
    """
    start, kind, shape = _npy_header(bytes(npy[: len(_MAGIC) + 2 + _header_length(npy)]))
    if shape != (size, size, CHANNELS):
        raise DatasetError(f"an array of shape {shape}, expected {(size, size, CHANNELS)}")
    if len(npy) - start != size * size * CHANNELS * np.dtype(kind).itemsize:
        raise DatasetError(f"{len(npy) - start} bytes of array, which is not {shape} of {kind}")
    array = np.frombuffer(npy[start:], kind).reshape(shape)
    return array if kind == "<f4" else array.astype(np.float32)


def header_nbytes(name_length: int) -> int:
    """Bytes before a member's data: longer names have a PAX header, of two blocks, before their own."""
    return BLOCK if name_length <= _NAME_FIELD else 3 * BLOCK


def _members(data: memoryview, *, exact: bool) -> list[tuple[str, memoryview]]:
    """Names and contents of the members that these bytes hold, whole.

    Args:
        data: of a tar, from a header on.
        exact: also refuse headers that are not byte for byte as shards have them.
    """
    found: list[tuple[str, memoryview]] = []
    place, begin, long_name = 0, 0, ""
    while place < len(data):
        name, kind, nbytes = _block(bytes(data[place : place + BLOCK]), place)
        start, end = place + BLOCK, place + BLOCK + nbytes
        if end > len(data):
            raise DatasetError(f"member {name!r} goes beyond the sample's end")
        place = start + -(-nbytes // BLOCK) * BLOCK
        if data[end:place] != bytes(place - end):
            raise DatasetError(f"bytes other than 0 after member {name!r}")
        if kind == tarfile.XHDTYPE:
            long_name = _path_of(bytes(data[start:end]))
            continue
        if kind != tarfile.REGTYPE or not long_name.startswith(name if long_name else ""):
            raise DatasetError(f"member {name!r} is not the plain file {long_name!r}")
        name = long_name or name
        if exact and data[begin:start] != _header(name, nbytes):
            raise DatasetError(f"the tar header of {name} is damaged")
        found.append((name, data[start:end]))
        begin, long_name = place, ""
    return found


def _block(block: bytes, place: int) -> tuple[str, bytes, int]:
    """Name, type and length of the member that a header is of. `tarfile` does the same in three times the time,
    and there are three to a sample."""
    try:
        name = block[:_NAME_FIELD].rstrip(b"\0").decode("ascii")
        nbytes, checksum = (int(block[a:b].rstrip(b" \0"), 8) for a, b in (_SIZE, _CHECKSUM))
    except ValueError as fault:
        raise DatasetError(f"no tar header at byte {place} of the sample") from fault
    # the checksum is over the header with spaces in its own place
    if sum(block) - sum(block[slice(*_CHECKSUM)]) + 8 * ord(" ") != checksum or nbytes < 0:
        raise DatasetError(f"damaged tar header at byte {place} of the sample")
    return name, block[156:157], nbytes


def _header(name: str, nbytes: int) -> bytes:
    """A member's header as the pipeline writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = nbytes, 0o644, "root", "root"
    return info.tobuf(tarfile.PAX_FORMAT)


def _path_of(records: bytes) -> str:
    """The path in a PAX header: records of "LENGTH KEY=VALUE\\n"."""
    for record in records.decode("utf-8", "replace").splitlines():
        key, _, value = record.partition(" ")[2].partition("=")
        if key == "path":
            return value
    raise DatasetError("a PAX header without a path")


def _header_length(view: memoryview) -> int:
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise DatasetError("not a .npy file of version 1")
    return int.from_bytes(view[len(_MAGIC) : len(_MAGIC) + 2], "little")


@lru_cache(maxsize=16)
def _npy_header(header: bytes) -> tuple[int, str, tuple[int, ...]]:
    """Length, dtype and shape. All atlases of a dataset have the same header, so it is read once."""
    try:
        values = ast.literal_eval(header[len(_MAGIC) + 2 :].decode("latin-1"))
        kind, fortran, shape = values["descr"], values["fortran_order"], tuple(values["shape"])
    except (ValueError, SyntaxError, KeyError, TypeError) as fault:
        raise DatasetError(f"damaged .npy header: {fault}") from fault
    if kind not in _DTYPES or fortran is not False:
        raise DatasetError(f".npy of dtype {kind!r}, Fortran order {fortran}: expected <f4 or <f2 in C order")
    return len(header), kind, shape


def _compare(facts: bytes, row: Mapping[str, Any]) -> None:
    """Refuse a JSON member that does not say what the row says."""
    name = facts_member(row["uid"])
    values = json_object(facts, DatasetError, f"{name} is damaged")
    # the row's count is the splat's; the atlas may hold fewer, and its cells are either Gaussians or padding
    said = {**row, "n_gaussians": row["size"] ** 2 - row["n_padded"]}
    wrong = sorted(k for k in values if k not in said or values[k] != said[k])
    if wrong or to_json(values) != facts:
        raise DatasetError(f"{name} is damaged: {', '.join(wrong) or 'spaces'} differ from {METADATA}")
