"""Stores: local folders and S3 prefixes, for those who write datasets and for those who read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaussianverse.atlas.store.errors import StoreRefused
from gaussianverse.atlas.store.options import StoreOptions

if TYPE_CHECKING:  # the command line imports the errors of stores, and its help does not wait for NumPy
    from gaussianverse.atlas.store.storage import Storage


def open_storage(url: str, options: StoreOptions | None = None) -> Storage:
    """The store at `url`: s3://bucket/prefix, or a local folder.

    Raises:
        StoreRefused: another scheme, no bucket, or boto3 is needed and not installed.
    """
    if is_s3(url):
        try:  # boto3 takes half a second, and local runs don't need it
            from gaussianverse.atlas.store.s3 import S3Storage
        except ImportError as error:
            raise StoreRefused(f"{url}: needs boto3: pip install 'gaussianverse[read]' ({error})") from error
        return S3Storage(url, options or StoreOptions())
    if "://" in url:
        raise StoreRefused(f"{url}: expected a local folder or s3://bucket/prefix")
    from gaussianverse.atlas.store.local import LocalStorage

    return LocalStorage(url)


def is_s3(url: str) -> bool:
    """Whether this is an s3:// address rather than a path."""
    return url.startswith("s3://")
