"""Reads a user's manifest, JSON Lines or Parquet, into the bytes of objects.parquet."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from gaussianverse import foreign
from gaussianverse.atlas.store import is_s3, open_storage
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.manifests import jsonl, runform
from gaussianverse.manifests.errors import ManifestError


@dataclass(frozen=True)
class Manifest:
    """A checked manifest."""

    data: bytes
    """objects.parquet."""
    base: str
    """Folder or s3 prefix that relative `views` are relative to."""


def read_manifest(address: str, shard_size: int, store: StoreOptions) -> Manifest:
    """Read JSON Lines, or Parquet in run form, from a path or s3:// address, and check every row.

    Paths stay as written, so that a manifest gives the same bytes wherever it is stored. A manifest in run form keeps
    its shards.

    Raises:
        ManifestError: lists every fault with its line.
    """
    parent, _, name = address.rpartition("/")
    if not is_s3(address):
        return Manifest(_encoded(Path(address), shard_size), str(Path(address).absolute().parent))
    with tempfile.TemporaryDirectory(prefix="gaussianverse-") as folder:
        path = Path(folder) / name
        try:
            path.write_bytes(open_storage(parent, store).get(name))
        except NotFound as error:
            raise ManifestError(f"{address}: no such file") from error
        return Manifest(_encoded(path, shard_size), parent)


def _encoded(path: Path, shard_size: int) -> bytes:
    if path.suffix != ".parquet":
        return runform.encode(jsonl.read(path), shard_size=shard_size)
    try:
        data = foreign.read_bytes(path)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    if not runform.count_shards(path):
        raise ManifestError(f"{path}: the manifest is empty; there is nothing to build")
    return data
