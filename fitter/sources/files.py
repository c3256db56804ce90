"""Bounded reading of untrusted folders and archives: nothing outside them, nothing too large.

Archives are read in memory and never extracted, so a member's name can't become a path.
"""

import gzip
import json
import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fitter.errors import BadInput, DecodeError, MissingViews

MAX_JSON_BYTES = 32 << 20  # a transforms.json of 10,000 frames is about 6 MB
MAX_IMAGE_BYTES = 256 << 20
MAX_ARCHIVE_BYTES = 4 << 30  # decompressed; a GObjaverse object with all its maps is about 0.2 GB


class Folder:
    """Files below one folder; a name or link that leads out of it is refused."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._resolved = root.resolve()

    def find(self, name: str) -> Path | None:
        """Path of the file called `name` ('/'-separated, relative), or None when there is none.

        Raises:
            BadInput: `name`, links followed, lies outside the folder.
        """
        try:
            path = (self._resolved / name).resolve()
            inside, there = path.is_relative_to(self._resolved), path.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # too long, NUL byte, circular link
            raise BadInput(f"{self.root}: {name[:200]!r} is not a usable file name: {error}") from error
        if not inside:
            raise BadInput(f"{self.root}: {name!r} leads outside the folder; move the file into it")
        return path if there else None

    def read(self, name: str, limit: int) -> bytes:
        """Bytes of the file called `name`.

        Raises:
            MissingViews: there is no such file.
            BadInput: it lies outside the folder or has more than `limit` bytes.
            DecodeError: it cannot be read.
        """
        path = self.find(name)
        if path is None:
            raise MissingViews(f"{self.root / name}: no such file")
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise DecodeError(f"{path}: cannot be read: {error}") from error
        if len(data) > limit:
            raise BadInput(f"{path}: larger than the limit of {limit} bytes")
        return data


class _Bounded:
    """A binary stream that stops a decompression bomb at `limit` bytes."""

    def __init__(self, stream: IO[bytes], limit: int, where: Path) -> None:
        self._stream, self._left, self._limit, self._where = stream, limit, limit, where

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size if 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise BadInput(f"{self._where}: more than the limit of {self._limit} bytes when unpacked")
        return data


def read_tar(path: Path, wanted: re.Pattern[str], limit: int = MAX_ARCHIVE_BYTES) -> dict[str, bytes]:
    """Members of a .tar or .tar.gz whose names match `wanted` in full: {name: bytes}.

    Raises:
        MissingViews: the archive isn't there.
        DecodeError: it is truncated or not an archive.
        BadInput: a wanted member is a link or has a name that leaves the archive, or the whole is
            larger than `limit` bytes unpacked.
    """
    members: dict[str, bytes] = {}
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
            with tarfile.open(fileobj=_Bounded(stream, limit, path), mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    if not wanted.fullmatch(member.name):
                        continue
                    parts = PurePosixPath(member.name)
                    if parts.is_absolute() or ".." in parts.parts:
                        raise BadInput(f"{path}: member {member.name!r} leaves the archive; pack it again")
                    file = archive.extractfile(member) if member.isreg() else None
                    if file is None:
                        raise BadInput(f"{path}: member {member.name!r} is not a regular file")
                    members[member.name] = file.read()
    except FileNotFoundError as error:
        raise MissingViews(f"{path}: no such archive") from error
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DecodeError(f"{path}: truncated or not a tar archive ({error}); fetch it again") from error
    return members


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data`; `where` names it in errors.

    Raises:
        BadInput: not JSON, or not an object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadInput(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value
