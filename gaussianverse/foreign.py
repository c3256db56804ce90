"""Opens files that others made: regular files only, and no more of them than a limit.

A name may lead to a pipe, which blocks whoever opens it, or to a device without end, which fills the memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

MAX_SETTINGS = 16 << 20
"""Bytes of a file of settings."""
MAX_BYTES = 4 << 30
"""Bytes of a file that is read whole and has no limit of its own, such as a manifest, a mesh or a .ply file."""
_PIECE = 1 << 20
_KINDS = {
    stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
}  # fmt: skip


class Refused(OSError):
    """The file is not read; `strerror` says why, without the path. It has no number: the system did not fail."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.strerror = text


class NotAFile(Refused):
    """There is something else than a regular file."""


class TooLarge(Refused):
    """The file has more bytes than the limit."""


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a regular file for reading.

    Raises:
        NotAFile: it is a pipe, a device or a socket, also behind links.
        OSError: as `open` raises, IsADirectoryError for a folder.
    """
    try:
        # a pipe is opened without waiting for somebody who writes; for a regular file the flag has no effect
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP):
            raise NotAFile("a socket or a device, expected a regular file") from error
        raise
    try:
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if kind != stat.S_IFREG:
            raise NotAFile(f"{_KINDS.get(kind, 'something else')}, expected a regular file")
        file = os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
    with file:
        yield file


def read_bytes(path: str | os.PathLike[str], limit: int = MAX_BYTES) -> bytes:
    """Bytes of a regular file.

    Raises:
        NotAFile: it is something else.
        TooLarge: it has more than `limit` bytes.
        OSError: it cannot be read.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise TooLarge(f"{size} bytes, more than the limit of {limit}")
        data = file.read(size + 1)
        if len(data) <= size:
            return data
        # it grows, or does not tell its size, as files of /proc do
        pieces = [data]
        while pieces[-1] and sum(map(len, pieces)) <= limit:
            pieces.append(file.read(_PIECE))
        data = b"".join(pieces)
        if len(data) > limit:
            raise TooLarge(f"more than the limit of {limit} bytes")
        return data


def read_text(path: str | os.PathLike[str], limit: int = MAX_SETTINGS) -> str:
    """Text of a regular file in UTF-8; raises as `read_bytes`, and UnicodeDecodeError."""
    return read_bytes(path, limit).decode()
