"""verify: reads a dataset back, all of it or a sample, and lists every fault. It recomputes whatever it can."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import json_object, to_json_file
from gaussianverse.atlas.dataset_format import SUCCESS, SUMS
from gaussianverse.atlas.store.errors import NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of
from gaussianverse.pipeline.arguments import add_reading, add_shards, open_output
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.finalize import index_of
from gaussianverse.pipeline.dataset.makers import notes_of
from gaussianverse.pipeline.dataset.metadata import tables_of
from gaussianverse.pipeline.dataset.parquet import is_as_written, same_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import quarantine_schema
from gaussianverse.pipeline.dataset.shards import read_commit
from gaussianverse.pipeline.dataset.statistics import merged_statistics
from gaussianverse.pipeline.dataset.versions import open_version
from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.pipeline.ops.verify_sample import verify_sample
from gaussianverse.pipeline.ops.verify_shard import ShardCheck, commit_or_fault, named, other_manifest
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.events import summary_sha256


def verify(storage: Storage, run: Run, *, shards: list[int] | None = None) -> Iterator[str]:
    """Yield every fault of a dataset, or of `shards` alone without the files of finalize, as a line of text.

    Raises:
        StoreError: the store failed, which is no fault of the dataset.
    """
    if text := other_manifest(storage, run):
        yield text
        return
    for shard in run.shards if shards is None else shards:
        yield from ShardCheck(storage, run, shard).faults()
    if shards is None:
        yield from named(_sums(storage), SUMS)
        yield from named(_index(storage, run), dataset_format.INDEX)
        yield from named(_statistics(storage, run), dataset_format.MEAN)
        yield from named(_journals(storage, run), layout.JOURNAL)


def notes(storage: Storage, run: Run, *, shards: list[int] | None = None) -> list[str]:
    """Lines on what is no fault: the shards that other code or packages made than those that the run began with."""
    chosen = run.shards if shards is None else shards
    read = {(family, k): commit_or_fault(storage, family, k) for family in run.families for k in chosen}
    return list(notes_of(run, {key: commit for key, commit in read.items() if not isinstance(commit, str)}))


def _journals(storage: Storage, run: Run) -> Iterator[str]:
    """Check everything below `runs/`, which is no part of the dataset and which no sum lists."""
    for entry in list(storage.list(layout.JOURNAL)):
        data = _get(storage, entry.key)
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


def _get(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.get(key)
    except NotFound:
        return None


def _sums(storage: Storage) -> Iterator[str]:
    """Check that SHA256SUMS lists every file of the dataset with its hash."""
    data, success = _get(storage, SUMS), _get(storage, SUCCESS)
    if data is None or success is None:
        yield f"{SUMS if data is None else SUCCESS}: missing; the dataset is not finalized"
        return
    if success != dataset_format.sums_file({SUMS: sha256_of(data)}):
        yield f"{SUCCESS}: does not hold the sha256 of {SUMS}"
    sums = dataset_format.read_sums(data)
    present = {entry.key for entry in storage.list("") if layout.in_dataset(entry.key)}
    yield from (f"{key}: in {SUMS} but missing" for key in sorted(set(sums) - present))
    yield from (f"{key}: not in {SUMS}" for key in sorted(present - set(sums)))
    for key in sorted(present & set(sums)):
        try:
            if sha256_of(storage.get(key)) != sums[key]:
                yield f"{key}: its sha256 is not that of {SUMS}"
        except (NotFound, StoreRefused) as error:
            yield f"{key}: cannot be read: {error}"


def _index(storage: Storage, run: Run) -> Iterator[str]:
    """Check the tables and index.json against the shards."""
    try:
        version = open_version(storage, run.number)
        commits = {(stage, k): read_commit(storage, stage, k) for stage in run.families for k in version.shards}
        tables = tables_of(storage, version)
        heads = {key: Head(0, sha256_of(storage.get(key))) for key in dataset_format.STATISTICS}
    except (PipelineError, NotFound) as error:
        yield f"{dataset_format.INDEX}: cannot be checked: {error}"
        return
    for key, schema, expected in (
        (dataset_format.METADATA, run.metadata_schema(), tables.metadata),
        (dataset_format.QUARANTINE, quarantine_schema(run.version), tables.quarantine),
    ):
        try:
            if not same_rows(schema, storage.get(key), expected):
                yield f"{key}: not the rows of the shards"
        except (PipelineError, NotFound) as error:
            yield f"{key}: {error}"
    try:
        index = json_object(storage.get(dataset_format.INDEX), PipelineError)
        if index != index_of(version, commits, tables.totals, heads):
            yield f"{dataset_format.INDEX}: does not match the contents of the shards"
    except (PipelineError, NotFound) as error:
        yield f"{dataset_format.INDEX}: {error}"


def _statistics(storage: Storage, run: Run) -> Iterator[str]:
    """Check the mean, the standard deviation and the other statistics against the shards' moments."""
    try:
        expected = merged_statistics((storage.get(layout.moments(k)) for k in run.shards), run)
        found = {key: storage.get(key) for key in dataset_format.STATISTICS}
    except StoreError:
        raise
    except Exception as error:  # any error in reading the moments is a fault
        yield f"{dataset_format.MEAN}: cannot be checked: {type(error).__name__}: {error}"
        return
    for key, data in found.items():
        if data != expected[key]:
            yield f"{key}: does not match the shards' moments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse verify`."""
    add_shards(parser)
    parser.add_argument("--sample", type=int, help="read only this many objects, and check every file's size")
    parser.add_argument("--seed", type=int, default=0, help="seed of --sample")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print every fault; returns the exit code, 1 if there is a fault."""
    storage, opened = open_output(args)
    chosen = ordered_shards(args.shards, opened.shards) if args.shards else None
    if args.sample is not None:
        if args.sample < 1 or args.shards:
            raise UsageError(f"--sample {args.sample}: expected at least 1, without --shards")
        found = verify_sample(storage, opened, args.sample, seed=args.seed)
    else:
        found = verify(storage, opened, shards=chosen)
    faults = []
    for line in found:
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
        print(f"{storage.url}: {checked} is right")
    return 1 if faults else 0
