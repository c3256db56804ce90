"""Fragments: canonical mini-tars whose plain concatenation is a shard.

Canonical means that the same members give the same bytes: sorted by name, time 0, one owner, PAX headers
only where a name needs them, and no end-of-archive blocks, so that fragments can be joined as they are.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from gaussianverse.pipeline.errors import FragmentError

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends a tar archive; `pack` adds it once per shard."""


@dataclass(frozen=True)
class Member:
    """One file of a tar: its data are `nbytes` bytes at `offset`."""

    name: str
    offset: int
    nbytes: int


def build(members: Mapping[str, bytes]) -> bytes:
    """The fragment of these members ({name: data}), in canonical form.

    Raises:
        FragmentError: no members, or a name with a folder in it.
    """
    if not members:
        raise FragmentError("a fragment needs at least one member")
    parts: list[bytes] = []
    for name in sorted(members):
        if not name or "/" in name or "\0" in name:
            raise FragmentError(f"member name {name!r}: expected a plain file name")
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(members[name]), 0, 0o644
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        parts += [info.tobuf(tarfile.PAX_FORMAT), members[name], bytes(-len(members[name]) % BLOCK)]
    return b"".join(parts)


def index(data: bytes) -> list[Member]:
    """The members of a fragment or of a whole tar, in order, by position.

    Raises:
        FragmentError: not a tar, truncated, or something in it is not a plain file with a plain name.
    """
    found: list[Member] = []
    names: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(data + END), mode="r:") as archive:
            for info in archive:
                if not info.isreg() or "/" in info.name or info.name in names:
                    raise FragmentError(f"member {info.name!r}: expected one plain file of each name")
                names.add(info.name)
                found.append(Member(info.name, info.offset_data, info.size))
    except (tarfile.TarError, ValueError, OverflowError) as fault:
        raise FragmentError(f"not a tar: {fault}") from fault
    if found and found[-1].offset + found[-1].nbytes > len(data):
        raise FragmentError(f"truncated: member {found[-1].name!r} goes beyond the end")
    return found


def parse(data: bytes) -> dict[str, bytes]:
    """The members of a fragment, which must be exactly what `build` makes of them.

    Raises:
        FragmentError: it is not: truncated, damaged, or written by something else.
    """
    members = {m.name: data[m.offset : m.offset + m.nbytes] for m in index(data)}
    if not members or build(members) != data:
        raise FragmentError("not a canonical fragment: truncated, damaged, or written by something else")
    return members
