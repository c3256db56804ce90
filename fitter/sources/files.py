"""Readers of untrusted folders and archives that refuse files outside them and files that are too large.

Archives are read into memory and not extracted, so a member's name cannot become a path.

Errors of the machine (a lost share, a bad sector, too many open files) pass through as the OSError that they are:
they say nothing about the object.
"""

import hashlib
import re
import stat
from pathlib import Path, PurePosixPath

from gaussianverse import foreign
from gaussianverse.atlas.os_errors import describe, is_machines
from gaussianverse.fitter.errors import BadInput, DecodeError, MissingViews
from gaussianverse.fitter.sources import tar_stream
from gaussianverse.fitter.sources.tar_stream import MAX_ARCHIVE_BYTES

MAX_JSON_BYTES = 32 << 20  # a transforms.json of 10,000 frames is about 6 MB
MAX_IMAGE_BYTES = 256 << 20


class InputDigest:
    """Sha256 over the bytes of an object's files as they are read, each after its length."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, data: bytes) -> bytes:
        """Add a file's bytes; returns them."""
        self._sha256.update(len(data).to_bytes(8, "little"))
        self._sha256.update(data)
        return data

    def hexdigest(self) -> str:
        """The digest so far, in lower-case hexadecimal digits."""
        return self._sha256.hexdigest()


class Folder:
    """Files below one folder, by names from untrusted files; names that lead outside are refused.

    Symbolic links in the folder are followed anywhere: its owner made them, and some caches (Hugging Face's)
    consist of links.

    Args:
        root: the folder.
        digest: takes the bytes of the files that are read and count.
    """

    def __init__(self, root: Path, digest: InputDigest) -> None:
        self.root = root
        self.digest = digest

    def find(self, name: str) -> Path | None:
        """Path of the file `name` ('/'-separated, relative), or None if it does not exist.

        Raises:
            BadInput: `name` is absolute, has a "..", or is not a valid file name.
            OSError: the machine's, see `is_machines`.
        """
        path = self.root / below(name, self.root)
        try:
            return path if stat.S_ISREG(path.stat().st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:  # too long, NUL byte, circular link
            if is_machines(error):
                raise
            cause = describe(error) if isinstance(error, OSError) else error
            raise BadInput(f"{self.root}: {name[:200]!r} is not a usable file name: {cause}") from error

    def read(self, name: str, limit: int, *, counted: bool = True) -> bytes:
        """Read the file `name`; if `counted`, the digest takes its bytes.

        Raises:
            MissingViews: the file does not exist.
            BadInput: as `find` raises, or it has more than `limit` bytes.
            DecodeError: it became something else meanwhile.
            OSError: the machine's.
        """
        path = self.find(name)
        if path is None:
            raise MissingViews(f"{self.root / name}: no such file")
        try:
            data = foreign.read_bytes(path, limit)
            return self.digest.add(data) if counted else data
        except foreign.TooLarge as error:
            raise BadInput(f"{path}: larger than the limit of {limit} bytes") from error
        except foreign.Refused as error:
            raise BadInput(f"{path}: {error}") from error
        except FileNotFoundError as error:
            raise MissingViews(f"{path}: no such file") from error
        except OSError as error:
            if is_machines(error):
                raise
            raise DecodeError(f"{path}: cannot be read: {describe(error)}") from error


def below(name: str, root: Path | str) -> PurePosixPath:
    """The name of a file, checked: BadInput if it is absolute or has a "..", as a fault of `root`."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise BadInput(f"{root}: {name!r} leads outside; move the file into it")
    return parts


class Archive:
    """Members of a .tar or .tar.gz in memory, by normalised names: "./a" is "a".

    Args:
        path: the archive.
        wanted: pattern of the normalised names of the members to keep.
        digest: takes the bytes of the members that `read` returns and that count.
        limit: limit of the unpacked archive in bytes.

    Raises:
        MissingViews: the archive does not exist.
        DecodeError: it is truncated or not an archive.
        BadInput: it is another kind of file; a wanted member is not a regular file or its name leads outside; or more
            would be read than `limit` or the budget of `tar_stream`.
        OSError: the machine's, also in the middle of the archive.
    """

    def __init__(
        self, path: Path, wanted: re.Pattern[str], digest: InputDigest, limit: int = MAX_ARCHIVE_BYTES
    ) -> None:
        self.root = path
        self.digest = digest
        self.members: dict[str, bytes] = {}
        with tar_stream.opened(path, limit) as members:
            for member in members:
                parts = PurePosixPath(member.name)
                if not wanted.fullmatch(str(parts)):
                    continue
                if parts.is_absolute() or ".." in parts.parts:
                    raise BadInput(f"{path}: member {member.name!r} leads outside; pack the archive again")
                if member.unusual:
                    raise BadInput(f"{path}: member {member.name!r} is not a regular file but {member.unusual}")
                # the last of equal names wins, as when tar unpacks
                self.members[str(parts)] = member.read(MAX_IMAGE_BYTES)

    def find(self, name: str) -> str | None:
        """Normalised name of the member `name`, or None if there is none; raises as `Folder.find`."""
        normalised = str(below(name, self.root))
        return normalised if normalised in self.members else None

    def read(self, name: str, limit: int, *, counted: bool = True) -> bytes:
        """Bytes of the member `name`; if `counted`, the digest takes them.

        Raises:
            MissingViews: there is no such member.
            BadInput: it has more than `limit` bytes.
        """
        found = self.find(name)
        if found is None:
            raise MissingViews(f"{self.root}: no member {name}")
        if len(self.members[found]) > limit:
            raise BadInput(f"{self.root}: member {name} is larger than the limit of {limit} bytes")
        data = self.members[found]
        return self.digest.add(data) if counted else data


def list_tar(path: Path, limit: int = MAX_ARCHIVE_BYTES) -> list[str]:
    """Normalised names of the members of a .tar or .tar.gz; raises as `Archive`."""
    with tar_stream.opened(path, limit) as members:
        return [str(PurePosixPath(member.name)) for member in members]
