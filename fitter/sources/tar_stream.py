"""Reads tars and gzipped tars that others made, one member after the other and within a budget.

Python's tarfile believes sizes and reads extended headers before anybody can refuse them, and takes quadratic time
for some; here only `TarInfo.frombuf`, its parser of single blocks, is used.
"""

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from gaussianverse import foreign
from gaussianverse.atlas.os_errors import is_machines
from gaussianverse.fitter.errors import BadInput, DecodeError, MissingViews

MAX_ARCHIVE_BYTES = 4 << 30  # unpacked; a GObjaverse object with all its maps is about 0.2 GB
MAX_MEMBERS = 100_000
MAX_HEADER_BYTES = 64 << 10  # of one extended header: long names, attributes
MAX_HEADERS_BYTES = 16 << 20  # of all of them
MAX_RATIO = 50  # of unpacked to packed bytes, once more than _FREE_BYTES are unpacked
_FREE_BYTES = 256 << 20

_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_WITHOUT_DATA = {
    tarfile.LNKTYPE: "a hard link (pack it with --hard-dereference)",
    tarfile.SYMTYPE: "a symbolic link (pack it with --dereference)",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a named pipe",
}
_SPARSE = "a sparse file (pack it without --sparse)"
_OTHERS = {
    b"PK\3\4": "a zip archive",
    b"PK\5\6": "an empty zip archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"BZh": "a bzip2 archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x1f\x9d": "a file of `compress`",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"glTF": "a mesh",
    b"ply": "a .ply file",
    b"<": "a web page",
}
"""What else a file may be that was meant to be a tar, by its first bytes."""


class _Cut(Exception):
    """The archive ends in the middle of something, or one of its headers is damaged."""


class Member(NamedTuple):
    """One member."""

    name: str
    unusual: str
    """What it is if it is no regular file, else ""."""
    read: Callable[[int], bytes]
    """Its bytes; raises BadInput if there are more than the argument. Only until the next member is asked for."""


class _Source:
    """The unpacked bytes of an archive, counted."""

    def __init__(self, raw: IO[bytes], path: Path, limit: int) -> None:
        self._raw, self._path, self._limit, self._count = raw, path, limit, 0
        self.packed = raw.read(2) == b"\x1f\x8b"
        self._size = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        self._stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if self.packed else raw  # type: ignore[assignment]

    def block(self) -> bytes:
        """The next block; b"" at the end."""
        return self._counted(self._stream.read(_BLOCK))

    def take(self, size: int) -> bytes:
        """The next `size` bytes, and the rest of their last block."""
        padded = -(-size // _BLOCK) * _BLOCK
        pieces, left = [], padded
        while left:
            piece = self._counted(self._stream.read(min(left, _PIECE)))
            if not piece:
                raise _Cut("it ends in the middle of a member")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)[:size]

    def skip(self, size: int) -> None:
        """Go past `size` bytes, and the rest of their last block."""
        left = -(-size // _BLOCK) * _BLOCK
        if not self.packed:
            # of a shard of gigabytes, one object is read
            if self._raw.tell() + left > self._size:
                raise _Cut("it ends in the middle of a member")
            self._raw.seek(left, os.SEEK_CUR)
            self._count += left
            return
        while left:
            piece = self._counted(self._stream.read(min(left, _PIECE)))
            if not piece:
                raise _Cut("it ends in the middle of a member")
            left -= len(piece)

    def room(self, size: int, name: str) -> None:
        """Refuse a member that is larger than what is left of the limit."""
        if size > self._limit - self._count:
            raise BadInput(f"{self._path}: member {name!r} is larger than the limit of {self._limit} bytes in all")

    def _counted(self, piece: bytes) -> bytes:
        self._count += len(piece)
        if self._count > self._limit:
            raise BadInput(f"{self._path}: more than the limit of {self._limit} bytes when unpacked")
        if self.packed and self._count > max(_FREE_BYTES, MAX_RATIO * self._raw.tell()):
            raise BadInput(
                f"{self._path}: unpacks to more than {MAX_RATIO} times its size; pack it again without filling"
            )
        return piece


@contextmanager
def opened(path: Path, limit: int = MAX_ARCHIVE_BYTES) -> Iterator[Iterator[Member]]:
    """Open a .tar or .tar.gz, whatever its name, and yield its members.

    Raises:
        MissingViews: it does not exist.
        DecodeError: it is truncated or not an archive.
        BadInput: it is something else, or more than the budget would be read.
        OSError: the machine's, also in the middle of the archive.
    """
    try:
        with foreign.opened(path) as raw:
            yield _members(_Source(raw, path, limit), path)
    except FileNotFoundError as error:
        raise MissingViews(f"{path}: no such archive") from error
    except foreign.NotAFile as error:
        raise BadInput(f"{path}: {error}") from error
    except (_Cut, tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        if is_machines(error):
            raise
        raise DecodeError(f"{path}: truncated or not a tar archive ({error}); fetch it again") from error


def _members(source: _Source, path: Path) -> Iterator[Member]:
    shared: dict[str, str] = {}  # attributes for all members that follow
    own: dict[str, str] = {}  # attributes of the next member
    count = extended = 0
    for number in range(4 * MAX_MEMBERS):  # a member has up to three extended headers
        block = source.block()
        if number == 0 and not block.startswith(bytes(1)):
            _refuse_others(block, source.packed, path)
        if not block.strip(b"\0") and (number or block):
            return  # end blocks, or an archive without them
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size < 0:
            raise _Cut("a member has a negative size")
        if info.type in _PAX or info.type in _LONG:
            extended += info.size
            if info.size > MAX_HEADER_BYTES or extended > MAX_HEADERS_BYTES:
                raise BadInput(f"{path}: its headers are larger than the limit of {MAX_HEADER_BYTES} bytes each")
            body = source.take(info.size)
            if info.type in _LONG:
                if name := body.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"):
                    own[_LONG[info.type]] = name
            else:
                (shared if info.type == tarfile.XGLTYPE else own).update(_attributes(body))
            continue
        count += 1
        if count > MAX_MEMBERS:
            break
        attributes = {**shared, **own}
        own = {}
        size = int(attributes.get("size", info.size))
        name = attributes.get("path", info.name)
        has_data = info.type not in _WITHOUT_DATA
        unusual = _WITHOUT_DATA.get(info.type, "" if info.type in tarfile.REGULAR_TYPES else "of an unknown kind")
        if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in attributes):
            # what follows is not as long as its header says
            raise BadInput(f"{path}: member {name[:200]!r} is not a regular file but {_SPARSE}")
        if size < 0:
            raise _Cut("a member has a negative size")
        left = [size if has_data else 0]
        source.room(left[0], name[:200])

        def read(limit: int, left: list[int] = left, name: str = name[:200]) -> bytes:
            if left[0] > limit:
                raise BadInput(f"{path}: member {name!r} is larger than the limit of {limit} bytes")
            size, left[0] = left[0], 0
            return source.take(size)

        yield Member(name, unusual, read)
        source.skip(left[0])
    raise BadInput(f"{path}: more than the limit of {MAX_MEMBERS} members")


def _attributes(body: bytes) -> dict[str, str]:
    """The records "LENGTH KEY=VALUE\\n" of an extended header."""
    found = {}
    while body.strip(b"\0"):
        length, _, _ = body[:8].partition(b" ")
        if not length.isdigit() or not len(length) + 3 <= int(length) <= len(body):
            raise _Cut("an extended header is damaged")
        key, equals, value = body[len(length) + 1 : int(length)].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise _Cut("an extended header is damaged")
        found[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        body = body[int(length) :]
    return found


def _refuse_others(block: bytes, packed: bool, path: Path) -> None:
    """Name what a file is that is no tar."""
    for magic, what in _OTHERS.items():
        if block.startswith(magic) and block[257:262] != b"ustar":
            where = "holds" if packed else "is"
            raise BadInput(f"{path}: {where} {what}, expected a .tar or .tar.gz; pack it again")
