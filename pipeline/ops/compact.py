"""compact: writes the objects that count in a version as a dataset of their own, without what no longer counts."""

from __future__ import annotations

import argparse
import json

from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.arguments import add_json, add_overrides, add_shards, add_version, config_of
from gaussianverse.pipeline.dataset.compaction import Compaction, compaction_of
from gaussianverse.pipeline.dataset.finalize import finalize, is_finalized
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import committed_shards
from gaussianverse.pipeline.dataset.versions import open_version
from gaussianverse.pipeline.errors import PipelineError, RunConflict
from gaussianverse.pipeline.ops.part import check_apart, check_empty
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.store.probes import prove_conditional_puts


def compact(source: Storage, dest: Storage, number: int | None = None, shards: str = "") -> bool:
    """Write a dataset of the rows that count; the same call goes on where it was left.

    Args:
        source: store of the dataset.
        dest: an empty place, or one where the same was begun.
        number: version that is taken; None = the newest.
        shards: shards to write; "" = all. Several calls may share them; that which finds all of them finalizes.

    Returns:
        Whether the dataset is complete.

    Raises:
        UsageError: one place lies in the other, or the new one holds other things.
        RunConflict: the new place holds another run, or shards of another version.
        PipelineError: the version is not finished, or damaged; see also `Compaction.put`.
        StoreError: a store failed.
    """
    check_apart(source, dest)
    version = open_version(source, number)
    if not is_finalized(source, version.number):
        raise PipelineError(f"{source.url}: version {version.number} is not finished; finish it, then compact it")
    check_empty(dest)
    prove_conditional_puts(dest)
    compaction = compaction_of(source, version)
    try:
        run = compaction.begin(dest)
    except RunConflict as error:
        raise RunConflict(f"{error}. If it was begun with another version, name that one with --version") from error
    chosen, checked = ordered_shards(shards, run.shards), _checked(compaction, dest, run, set())
    for shard in chosen:
        for family in run.families:
            if (family, shard) not in checked:
                compaction.put(dest, run, family, shard)
                checked.add((family, shard))
    if not _checked(compaction, dest, run, checked).issuperset((f, k) for f in run.families for k in run.shards):
        return False
    finalize(dest, run)
    return True


def _checked(compaction: Compaction, dest: Storage, run: Run, before: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """The shards of the new dataset that are there; each that is not among those `before` is compared with the
    version."""
    there = {pair for pair in committed_shards(dest) if pair[1] in run.shards}
    for family, shard in sorted(there - before):
        compaction.check(dest, run, family, shard)
    return there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse compact`."""
    parser.add_argument("out", metavar="OUT", help="folder or s3://bucket/prefix of the dataset")
    parser.add_argument("dest", metavar="DEST", help="empty folder or s3://bucket/prefix for the new one")
    add_version(parser)
    add_shards(parser)
    add_overrides(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the dataset and print what it holds; returns the exit code."""
    store = config_of(args).store
    source, dest = open_storage(args.out, store), open_storage(args.dest, store)
    done = compact(source, dest, args.version, args.shards)
    made = open_version(dest, 1).run
    if args.json:
        print(json.dumps({"url": dest.url, "objects": made.n_objects, "shards": made.n_shards, "finalized": done}))
    elif done:
        print(f"The dataset is complete: {dest.url} ({made.n_objects} objects in {made.n_shards} shards)")
    else:
        print(f"Shards are committed: {dest.url} (the dataset is finalized once all {made.n_shards} are)")
    return 0
