"""Canonical tar archives: the same members always give the same bytes, so that every byte can be checked.

Members have time 0, one owner and mode 644, a PAX header only where a name needs one, and zeros up to the next block.
Without the blocks that end an archive they are a fragment; fragments joined, with `END` behind them, are a shard.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from gaussianverse.atlas.errors import AtlasError

BLOCK = 512
END = bytes(2 * BLOCK)
"""The end of an archive."""
# fields of a header
_NAME, _SIZE, _CHECKSUM, _TYPE = slice(0, 100), slice(124, 136), slice(148, 156), slice(156, 157)


class Member(NamedTuple):
    """One file in a tar: `nbytes` bytes of data at `offset`."""

    name: str
    offset: int
    nbytes: int


def build(members: Mapping[str, bytes]) -> bytes:
    """The fragment of these members ({name: data}), sorted by name.

    Raises:
        AtlasError: no members, or a name that is none of a plain file.
    """
    if not members:
        raise AtlasError("a fragment needs at least one member")
    parts: list[bytes] = []
    for name, data in sorted(members.items()):
        if not name or "/" in name or "\0" in name:
            raise AtlasError(f"member name {name!r}: expected a plain file name")
        parts += [header(name, len(data)), data, bytes(-len(data) % BLOCK)]
    return b"".join(parts)


def parse(data: bytes) -> dict[str, bytes]:
    """The members of a fragment, which must be exactly what `build` makes of them.

    Raises:
        AtlasError: it is not: cut short, damaged, or written by something else.
    """
    members = {m.name: data[m.offset : m.offset + m.nbytes] for m in index(data)}
    if build(members) != data:
        raise AtlasError("not a canonical fragment: damaged, or written by something else")
    return members


def header(name: str, nbytes: int) -> bytes:
    """A member's header, with the PAX header before it where the name needs one."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = nbytes, 0o644, "root", "root"
    return info.tobuf(tarfile.PAX_FORMAT)


def header_nbytes(name_length: int) -> int:
    """Length of a member's header: that of a longer name has a PAX header, of two blocks, before it."""
    return BLOCK if name_length <= _NAME.stop else 3 * BLOCK


def index(data: bytes | memoryview, *, exact: bool = False) -> list[Member]:
    """The members in `data`, in order.

    Args:
        data: from a header on to the end of a member or of the archive.
        exact: refuse headers that are not byte for byte canonical; else their checksum is enough.

    Raises:
        AtlasError: not a tar, cut short, or something in it is not one plain file of its name.
    """
    found: list[Member] = []
    names: set[str] = set()
    view = memoryview(data)
    place, begin, long_name = 0, 0, ""
    while place < len(view):
        if not view[place] and view[place:] == END:
            break
        name, kind, nbytes = _header_fields(bytes(view[place : place + BLOCK]), place)
        start, end = place + BLOCK, place + BLOCK + nbytes
        if end > len(view):
            raise AtlasError(f"cut short: member {name!r} goes beyond the end")
        place = start + -(-nbytes // BLOCK) * BLOCK
        if view[end:place] != bytes(place - end):
            raise AtlasError(f"bytes other than 0 after member {name!r}")
        if kind == tarfile.XHDTYPE and not long_name:
            long_name = _pax_path(bytes(view[start:end]))
            continue
        if kind != tarfile.REGTYPE or not long_name.startswith(name if long_name else ""):
            raise AtlasError(f"member {name!r} is not the plain file {long_name!r}")
        name = long_name or name
        if "/" in name or name in names:
            raise AtlasError(f"member {name!r}: expected one plain file of each name")
        if exact and view[begin:start] != header(name, nbytes):
            raise AtlasError(f"the tar header of {name} is damaged")
        names.add(name)
        found.append(Member(name, start, nbytes))
        begin, long_name = place, ""
    if long_name:
        raise AtlasError(f"cut short: no member {long_name!r} after its PAX header")
    return found


def _header_fields(block: bytes, place: int) -> tuple[str, bytes, int]:
    """Name, type and length of the member that a header describes. `tarfile` takes three times as long for it,
    and a sample has three."""
    try:
        name = block[_NAME].rstrip(b"\0").decode("ascii")
        nbytes, checksum = (int(block[field].rstrip(b" \0"), 8) for field in (_SIZE, _CHECKSUM))
    except ValueError as error:
        raise AtlasError(f"no tar header at byte {place}") from error
    # the checksum is the sum of all bytes, with spaces in its own place; adler32 has sums in its low half, modulo
    # 65521, and takes a tenth of the time of `sum`
    total = (zlib.adler32(block, 0) & 0xFFFF) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    if (total - checksum) % 65521 or nbytes < 0:
        raise AtlasError(f"damaged tar header at byte {place}")
    return name, block[_TYPE], nbytes


def _pax_path(records: bytes) -> str:
    """The path in a PAX header, which has records of "LENGTH KEY=VALUE\\n"."""
    for record in records.decode("utf-8", "replace").splitlines():
        key, _, value = record.partition(" ")[2].partition("=")
        if key == "path":
            return value
    raise AtlasError("a PAX header without a path")
