"""clean-work: deletes scratch, such as the fragments of committed shards."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from gaussianverse.atlas.store.storage import Entry, Storage
from gaussianverse.pipeline.arguments import add_reading, open_output
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.shards import committed_shards, read_commit
from gaussianverse.pipeline.dataset.versions import begun_version
from gaussianverse.pipeline.store import probes

_BATCH = 1000
_ABANDONED_S = 86400.0


@dataclass
class Cleaned:
    """Number and size of the deleted files, or of those that would be deleted."""

    objects: int = 0
    nbytes: int = 0


def clean_work(storage: Storage, *, dry_run: bool = False) -> Cleaned:
    """Delete fragments of committed shards; all scratch once no version is unfinished. Safe at any time.

    Scratch is everything below `_work/`, probes, and temporary files that killed writers left at least a day ago.
    With `dry_run` it is counted and not deleted.

    Raises:
        PipelineError: a commit record is damaged; its shard's fragments are kept.
    """
    done, batch = Cleaned(), list[str]()
    for entry in _scratch(storage):
        done.objects += 1
        done.nbytes += entry.nbytes
        batch.append(entry.key)
        if len(batch) == _BATCH and not dry_run:
            storage.delete_many(batch)
            batch.clear()
    if not dry_run:
        storage.delete_many(batch)
        storage.remove_abandoned(_ABANDONED_S)
    return done


def _scratch(storage: Storage) -> Iterator[Entry]:
    if begun_version(storage) is None:
        yield from list(storage.list(layout.WORK))
        yield from list(storage.list(probes.PREFIX))
        return
    for stage, shard in sorted(committed_shards(storage)):
        read_commit(storage, stage, shard)  # raises if it is damaged
        for prefix in (layout.fragments(stage, shard), layout.run_records(stage, shard)):
            yield from list(storage.list(prefix))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse clean-work`."""
    parser.add_argument("--dry-run", action="store_true", help="count without deleting")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Delete scratch and print how much; returns the exit code."""
    storage, _ = open_output(args)
    done = clean_work(storage, dry_run=args.dry_run)
    if args.json:
        print(json.dumps(asdict(done)))
    else:
        print(f"{'would delete' if args.dry_run else 'deleted'} {done.objects} files, {done.nbytes} bytes")
    return 0
