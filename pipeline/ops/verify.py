"""verify: reads a dataset back, all of it or a sample, and lists every fault. It recomputes whatever it can."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import json_object, to_json_file
from gaussianverse.atlas.dataset_format import SUMS
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of
from gaussianverse.pipeline.arguments import add_reading, add_shards, open_dataset
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.finalize import index_of
from gaussianverse.pipeline.dataset.makers import notes_of
from gaussianverse.pipeline.dataset.metadata import tables_of
from gaussianverse.pipeline.dataset.parquet import is_as_written, same_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import quarantine_schema
from gaussianverse.pipeline.dataset.shards import read_commit
from gaussianverse.pipeline.dataset.statistics import live_moments, merged_statistics
from gaussianverse.pipeline.dataset.versions import Version, version_of
from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.pipeline.ops.verify_sample import verify_sample
from gaussianverse.pipeline.ops.verify_shard import ShardCheck, commit_or_fault, named, other_manifests
from gaussianverse.pipeline.ops.verify_version import faults_of_rows, faults_of_sums, found
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.events import summary_sha256


def verify(storage: Storage, run: Run, *, shards: list[int] | None = None) -> Iterator[str]:
    """Yield every fault of a version of a dataset, or of `shards` alone without the files of finalize.

    Args:
        storage: store of the dataset.
        run: the run of the version.
        shards: numbers of shards that count; None = all, and the files of finalize.

    Raises:
        StoreError: the store failed, which is no fault of the dataset.
    """
    try:
        version = version_of(storage, run)
    except (PipelineError, NotFound) as error:
        yield str(error)
        return
    if texts := list(other_manifests(storage, version)):
        yield from texts
        return
    for shard in version.shards if shards is None else shards:
        yield from ShardCheck(storage, version, shard).faults()
    if shards is None:
        yield from named(faults_of_sums(storage, version), version.key(SUMS))
        yield from named(faults_of_rows(storage, version), run.key)
        yield from named(_index(storage, version), version.key(dataset_format.INDEX))
        yield from named(_statistics(storage, version), version.key(dataset_format.MEAN))
        yield from named(_journals(storage, run), layout.JOURNAL)


def notes(storage: Storage, run: Run, *, shards: list[int] | None = None) -> list[str]:
    """Lines on what is no fault: the shards that other code or packages made than those that their run began with."""
    version, lines = version_of(storage, run), list[str]()
    for made in version.runs:
        chosen = [k for k in (version.shards if shards is None else shards) if k in made.shards]
        read = {(family, k): commit_or_fault(storage, family, k) for family in run.families for k in chosen}
        lines += notes_of(made, {key: commit for key, commit in read.items() if not isinstance(commit, str)})
    return lines


def _journals(storage: Storage, run: Run) -> Iterator[str]:
    """Check everything below `runs/`, which is no part of the dataset and which no sum lists."""
    for entry in list(storage.list(layout.JOURNAL)):
        data = found(storage, entry.key)
        text = "altered" if data is None else fault_of_journal(run, entry.key, data)
        if text:
            yield f"{entry.key}: {text}"


def fault_of_journal(run: Run, key: str, data: bytes) -> str:
    """The fault of a journal or summary, "" if its bytes are those that were written, so far as they tell."""
    if not key.endswith(".json"):
        return "" if is_as_written(data) else "not the bytes that its rows give"
    try:
        values = json_object(data, PipelineError)
    except PipelineError as error:
        return str(error)
    # summaries of version 1 carry no hash
    if run.version > 1 and values.get("sha256") != summary_sha256(values):
        return "its values are not those that were written"
    return "" if data == to_json_file(values) else "not in the form that was written"


def _index(storage: Storage, version: Version) -> Iterator[str]:
    """Check the tables and index.json against the shards."""
    key, run = version.key(dataset_format.INDEX), version.run
    try:
        commits = {(stage, k): read_commit(storage, stage, k) for stage in run.families for k in version.shards}
        tables = tables_of(storage, version)
        heads = {n: Head(0, sha256_of(storage.get(version.key(n)))) for n in dataset_format.STATISTICS}
    except (PipelineError, NotFound) as error:
        yield f"{key}: cannot be checked: {error}"
        return
    for name, schema, expected in (
        (dataset_format.METADATA, run.metadata_schema(), tables.metadata),
        (dataset_format.QUARANTINE, quarantine_schema(run.version), tables.quarantine),
    ):
        try:
            if not same_rows(schema, storage.get(version.key(name)), expected):
                yield f"{version.key(name)}: not the rows of the shards"
        except (PipelineError, NotFound) as error:
            yield f"{version.key(name)}: {error}"
    try:
        index = json_object(storage.get(key), PipelineError)
        if index != index_of(version, commits, tables.totals, heads):
            yield f"{key}: does not match the contents of the shards"
    except (PipelineError, NotFound) as error:
        yield f"{key}: {error}"


def _statistics(storage: Storage, version: Version) -> Iterator[str]:
    """Check the mean, the standard deviation and the other statistics against the shards' moments."""
    try:
        expected = merged_statistics(live_moments(storage, version), version.run)
        files = {name: storage.get(version.key(name)) for name in dataset_format.STATISTICS}
    except StoreError:
        raise
    except Exception as error:  # any error in reading the moments is a fault
        yield f"{version.key(dataset_format.MEAN)}: cannot be checked: {type(error).__name__}: {error}"
        return
    for name, data in files.items():
        if data != expected[name]:
            yield f"{version.key(name)}: does not match the shards' moments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse verify`."""
    add_shards(parser)
    parser.add_argument("--sample", type=int, help="read only this many objects, and check every file's size")
    parser.add_argument("--seed", type=int, default=0, help="seed of --sample")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print every fault; returns the exit code, 1 if there is a fault."""
    storage, version = open_dataset(args)
    opened, chosen = version.run, ordered_shards(args.shards, version.shards) if args.shards else None
    if args.sample is not None:
        if args.sample < 1 or args.shards:
            raise UsageError(f"--sample {args.sample}: expected at least 1, without --shards")
        lines = verify_sample(storage, opened, args.sample, seed=args.seed)
    else:
        lines = verify(storage, opened, shards=chosen)
    faults = []
    for line in lines:
        faults.append(line)
        if not args.json:
            print(f"fault: {line}")
    noted = notes(storage, opened, shards=chosen)
    if args.json:
        print(json.dumps({"url": storage.url, "faults": faults, "notes": noted}))
        return 1 if faults else 0
    for line in noted:
        print(f"note: {line}")
    if not faults:
        checked = "every byte, sample and hash" if args.sample is None else "everything that was read"
        of = "" if version.number == 1 else f", version {version.number}"
        print(f"{storage.url}{of}: {checked} is right")
    return 1 if faults else 0
