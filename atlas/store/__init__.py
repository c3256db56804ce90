"""Stores: local folders and S3 prefixes to write datasets to, and others to read them from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaussianverse.atlas.store.errors import StoreRefused
from gaussianverse.atlas.store.options import READ_ONLY, StoreOptions

if TYPE_CHECKING:  # the command line imports the errors of stores, and its help does not wait for NumPy
    from gaussianverse.atlas.store.storage import Storage


def open_storage(url: str, options: StoreOptions | None = None) -> Storage:
    """The store at `url`: s3://bucket/prefix, a local folder, or for reading only an address of `READ_ONLY`.

    Args:
        url: the address.
        options: of an S3 store; other libraries have their own usual configuration.

    Raises:
        StoreRefused: another scheme, no bucket, or a library is needed and not installed.
    """
    if is_s3(url):
        try:  # boto3 takes half a second, and local runs don't need it
            from gaussianverse.atlas.store.s3 import S3Storage
        except ImportError as error:
            raise StoreRefused(f"{url}: needs boto3: pip install 'gaussianverse[read]' ({error})") from error
        return S3Storage(url, options or StoreOptions())
    if is_remote(url):
        if url.partition("://")[0] not in READ_ONLY:
            known = ", ".join(f"{scheme}://" for scheme in READ_ONLY)
            raise StoreRefused(f"{url}: expected a local folder or s3://bucket/prefix; for reading also {known}")
        from gaussianverse.atlas.store.filesystems import FilesystemStorage

        return FilesystemStorage(url)
    from gaussianverse.atlas.store.local import LocalStorage

    return LocalStorage(url)


def is_s3(url: str) -> bool:
    """Whether this is an s3:// address rather than a path."""
    return url.startswith("s3://")


def is_remote(url: str) -> bool:
    """Whether this is an address of a store rather than a path."""
    return "://" in url
