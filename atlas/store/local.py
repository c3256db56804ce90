"""Where a dataset lies: a local folder, or a prefix of a bucket. Read-only, by key and by range."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gaussianverse.atlas.errors import DatasetError


class Store(Protocol):
    """What the reader needs of a place."""

    url: str

    def get(self, key: str) -> bytes:
        """All bytes under a key.

        Raises:
            DatasetError: there is no such key, or it cannot be read.
        """

    def read(self, key: str, offset: int, nbytes: int, total: int) -> memoryview:
        """`nbytes` bytes from `offset` of a key that must be `total` bytes long.

        Raises:
            DatasetError: it has another length, is missing, or cannot be read.
        """


@dataclass(frozen=True)
class S3Options:
    """How to reach an S3 store.

    Attributes:
        endpoint_url: "" = AWS, or what the usual configuration files say.
        region: "" = what the usual configuration files say.
        anonymous: without credentials, for public buckets; else they come from the usual chain.
        max_attempts: tries in a row without a single new byte before a read fails.
        connect_timeout_s, read_timeout_s: seconds without an answer that count as a failed try.
        connections: how many requests at a time.
    """

    endpoint_url: str = ""
    region: str = ""
    anonymous: bool = False
    max_attempts: int = 8
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    connections: int = 32


def open_store(url: str | Path, s3: S3Options | None = None) -> Store:
    """The store at a local path or at s3://bucket/prefix.

    Raises:
        DatasetError: another scheme, no such folder, or boto3 is needed and not installed.
    """
    address = str(url)
    if address.startswith("s3://"):
        try:
            from gaussianverse.atlas.store.s3 import S3Store
        except ImportError as fault:
            raise DatasetError(
                f"{address}: needs boto3: pip install 'gaussianverse[read]' ({fault})"
            ) from fault
        return S3Store(address, s3 or S3Options())
    if "://" in address:
        raise DatasetError(f"{address}: expected a local folder or s3://bucket/prefix")
    return LocalStore(address)


def wrong_size(where: str, found: int, expected: int) -> DatasetError:
    """The error for a file that is not as long as the index says."""
    what = f"truncated, {expected - found} bytes are missing" if found < expected else "longer than it was"
    return DatasetError(f"{where}: {found} bytes, index.json says {expected}: {what}; fetch it again")


def fresh(nbytes: int) -> memoryview:
    """Writable memory that is not set to 0 first, as a bytearray's would be."""
    return np.empty(nbytes, np.uint8).data


class LocalStore:
    """A folder."""

    def __init__(self, root: str | Path) -> None:
        self.url = str(Path(root).absolute())
        if not Path(self.url).is_dir():
            raise DatasetError(f"{self.url}: no such folder")

    def get(self, key: str) -> bytes:
        """See `Store`."""
        try:
            return Path(self.url, key).read_bytes()
        except OSError as fault:
            raise DatasetError(f"{self.url}/{key}: {fault.strerror or fault}") from fault

    def read(self, key: str, offset: int, nbytes: int, total: int) -> memoryview:
        """See `Store`."""
        where = f"{self.url}/{key}"
        data = fresh(nbytes)
        try:
            file = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = os.fstat(file).st_size
                if found != total:
                    raise wrong_size(where, found, total)
                done = 0
                while done < nbytes:
                    done += (count := os.preadv(file, [data[done:]], offset + done))
                    if not count:
                        raise wrong_size(where, offset + done, total)
            finally:
                os.close(file)
        except OSError as fault:
            raise DatasetError(f"{where}: {fault.strerror or fault}") from fault
        return data
