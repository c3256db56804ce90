"""Reads a user's manifest, JSON Lines or Parquet, into the bytes of objects.parquet."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gaussianverse.atlas.store import is_s3, open_storage
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import pieces_of
from gaussianverse.manifests import intake
from gaussianverse.manifests.arguments import rules_of
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.table import NO_RULES, Rules
from gaussianverse.pipeline.config import RunConfig

_SHOWN = 20


@dataclass(frozen=True)
class Manifest:
    """A checked manifest."""

    data: bytes | Path
    """objects.parquet, or the file that it is in."""
    base: str
    """Folder or s3 prefix that relative `views` are relative to."""
    faults: tuple[str, ...] = ()
    """Faults of rows that are quarantined as bad_input, each with its line."""
    folder: tempfile.TemporaryDirectory[str] | None = None
    """Temporary folder of the file, which goes when nobody has this any more."""


def read_manifest(
    address: str, shard_size: int, store: StoreOptions, *, strict: bool = False, rules: Rules = NO_RULES
) -> Manifest:
    """Read a manifest, JSON Lines or Parquet, from a path or s3:// address, and check every row.

    Paths stay as written, so that a manifest gives the same bytes wherever it is stored. A manifest in run form keeps
    its shards. A faulty row is carried as one that is quarantined with its fault.

    Args:
        address: path or s3:// address.
        shard_size: objects per shard.
        store: options of the store.
        strict: whether one faulty row refuses the manifest.
        rules: defaults of columns, and sources that `views` may lie under, without `base`.

    Raises:
        ManifestError: the manifest cannot be read or has no good row; with `strict`, it has any fault.
    """
    with local_file(address, store) as (path, base):
        return _encoded(path, base, shard_size, strict, rules)


@contextmanager
def local_file(address: str, store: StoreOptions) -> Iterator[tuple[Path, str]]:
    """Yield a user's file as a path of this machine, and the folder or s3 prefix that it lies in.

    Args:
        address: path or s3:// address.
        store: options of the store.

    Raises:
        ManifestError: S3 has no such file; whoever reads a local one says that itself.
    """
    if not is_s3(address):
        yield Path(address), str(Path(address).absolute().parent)
        return
    parent, _, name = address.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="gaussianverse-") as folder:
        path = Path(folder) / name
        storage = open_storage(parent, store)
        try:
            size = storage.size(name)
            with path.open("xb") as file:
                for piece in pieces_of(storage, name, size):
                    file.write(piece)
        except NotFound as error:
            raise ManifestError(f"{address}: no such file") from error
        yield path, parent


def manifest_of(args: argparse.Namespace, config: RunConfig, shard_size: int = 0) -> Manifest:
    """Read the manifest that the options name; rows with faults are named on stderr.

    Args:
        args: of a parser with `add_manifest`.
        config: configuration of the run.
        shard_size: objects per shard; 0 = that of the configuration.

    Raises:
        ManifestError: it cannot be read or has no good row; with `--strict`, it has any fault.
    """
    found = read_manifest(
        args.manifest, shard_size or config.run.shard_size, config.store, strict=args.strict, rules=rules_of(args)
    )
    for fault in found.faults[:_SHOWN]:
        print(f"{fault}; this row is quarantined as bad_input", file=sys.stderr)
    if len(found.faults) > _SHOWN:
        print(f"... and {len(found.faults) - _SHOWN} more; `gaussianverse manifest check` lists all", file=sys.stderr)
    return found


def _encoded(path: Path, base: str, shard_size: int, strict: bool, rules: Rules) -> Manifest:
    folder = tempfile.TemporaryDirectory(prefix="gaussianverse-")
    made = Path(folder.name) / "objects.parquet"
    with made.open("xb") as file:
        found = intake.convert(path, file, shard_size=shard_size, strict=strict, rules=replace(rules, base=base))
    return Manifest(made, base, tuple(found.faults), folder)
