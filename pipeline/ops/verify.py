"""verify: read a dataset back, all of it or a sample, and name every fault. It trusts nothing it can compute."""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from gaussianverse.atlas import dataset_format, tar
from gaussianverse.atlas.canonical_json import json_object
from gaussianverse.atlas.dataset_format import ATLAS, SUCCESS, SUMS, VIEWS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.reader.views import images_sha256
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of
from gaussianverse.pipeline.arguments import add_json, add_output, add_overrides, add_shards, open_output
from gaussianverse.pipeline.dataset import contents, layout
from gaussianverse.pipeline.dataset.finalize import index_of
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.metadata import tables_of
from gaussianverse.pipeline.dataset.pack import commit_record
from gaussianverse.pipeline.dataset.parquet import from_parquet, same_rows
from gaussianverse.pipeline.dataset.records import sample_members
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import (
    FACTS,
    QUARANTINE,
    STATS,
    Facts,
    from_json,
    known,
    metadata_schema,
)
from gaussianverse.pipeline.dataset.shards import journal_rows, read_commit, stats_rows
from gaussianverse.pipeline.dataset.statistics import merged_statistics, moments_of
from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.pipeline.policy import ordered_shards


def verify(storage: Storage, run: Run, *, shards: list[int] | None = None) -> Iterator[str]:
    """Every fault of a dataset, as lines of text; none if it is whole.

    Args:
        storage: of the dataset.
        run: as run.json tells it.
        shards: only these, and not the files that finalize writes; None = everything.

    Raises:
        StoreError: the store failed, which says nothing of the dataset.
    """
    manifest = _get(storage, layout.MANIFEST)
    if manifest is None or sha256_of(manifest) != run.identity["manifest_sha256"]:
        yield f"{layout.MANIFEST}: not the manifest of {layout.RUN}, so that no shard can be judged"
        return
    for shard in range(run.n_shards) if shards is None else shards:
        atlases: list[bytes] = []
        for stage in run.families:
            yield from _shard(storage, run, stage, shard, atlases)
        if (data := _get(storage, layout.moments(shard))) is not None and data != moments_of(atlases, run):
            yield f"{layout.moments(shard)}: not the moments of the shard's atlases"
    if shards is None:
        yield from _sums(storage)
        yield from _index(storage, run)
        yield from _statistics(storage, run)


def _committed(storage: Storage, stage: str, shard: int) -> dict[str, Any] | str:
    """A shard's commit record, or what is wrong with it."""
    try:
        return read_commit(storage, stage, shard)
    except NotFound:
        return f"{layout.commit(stage, shard)}: missing, so the shard does not exist"
    except PipelineError as fault:
        return str(fault)


def _get(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.get(key)
    except NotFound:
        return None


def _shard(storage: Storage, run: Run, stage: str, shard: int, atlases: list[bytes]) -> Iterator[str]:
    commit = _committed(storage, stage, shard)
    if isinstance(commit, str):
        yield commit
        return
    heads: dict[str, Head] = {}
    for key, stored in commit["files"].items():
        data = _get(storage, key)
        if data is None:
            yield f"{key}: missing"
        elif (len(data), sha256_of(data)) != (stored["nbytes"], stored["sha256"]):
            yield f"{key}: {len(data)} bytes whose sha256 is not that of the commit record"
        else:
            heads[key] = Head(len(data), stored["sha256"])
    if {dataset_format.shard_tar(stage, shard), layout.stats(stage, shard)} - set(heads):
        return
    try:
        rows = stats_rows(storage, stage, shard)
    except PipelineError as fault:
        yield f"{layout.stats(stage, shard)}: {fault}"
        return
    if commit != commit_record(run, stage, shard, rows, heads):
        yield f"{layout.commit(stage, shard)}: does not say what the shard holds"
    yield from _rows(storage, stage, shard, rows)
    if stage == VIEWS:
        yield from _aligned(storage, shard, rows)
    key = dataset_format.shard_tar(stage, shard)
    yield from _samples(run, stage, key, storage.get(key), rows, atlases)


def _rows(storage: Storage, stage: str, shard: int, rows: list[Facts]) -> Iterator[str]:
    manifest = [(r["index"], r["uid"]) for r in shard_rows(storage, shard)]
    if [(r["index"], r["uid"]) for r in rows] != manifest:
        yield f"{layout.stats(stage, shard)}: its rows are not the manifest's"
    key = layout.journal(stage, shard)
    try:
        entries = journal_rows(storage, stage, shard)
    except (PipelineError, NotFound) as fault:
        yield f"{key}: {fault}"
        return
    if [(r["index"], r["uid"]) for r in entries] != manifest:
        yield f"{key}: its rows are not the manifest's"


def _aligned(storage: Storage, shard: int, rows: list[Facts]) -> Iterator[str]:
    """Views are of the objects that have an atlas, and of no others."""
    try:
        atlases = stats_rows(storage, ATLAS, shard)
    except (PipelineError, NotFound) as fault:
        yield f"{layout.stats(VIEWS, shard)}: cannot be compared with the atlases: {fault}"
        return
    places = [[(r["uid"], r["sample"], r["reason"]) for r in table] for table in (rows, atlases)]
    if places[0] != places[1]:
        yield f"{layout.stats(VIEWS, shard)}: its samples are not those of the atlases"


def _samples(
    run: Run, stage: str, key: str, archive: bytes, rows: list[Facts], atlases: list[bytes]
) -> Iterator[str]:
    try:
        members = {m.name: m for m in tar.index(archive, exact=True)}
    except AtlasError as fault:
        yield f"{key}: {fault}"
        return
    samples = [facts for facts in rows if facts["sample"] != -1]
    expected = [n for f in samples for n in sample_members(stage, f)]
    if list(members) != expected or not archive.endswith(tar.END):
        yield f"{key}: its members are not those of its table, in the manifest's order"
        return
    for facts in samples:
        uid = str(facts["uid"])
        own = [members[n] for n in sample_members(stage, facts)]
        data = {m.name: archive[m.offset : m.offset + m.nbytes] for m in own}
        main = members[dataset_format.main_member(stage, uid)]
        content = data[main.name]
        if (main.offset, main.nbytes, sha256_of(content)) != (
            facts["offset"],
            facts["nbytes"],
            facts["sha256"],
        ):
            yield f"{key}: {uid}: offset, size or sha256 is not what the table says"
        try:
            if from_json(FACTS[stage], data[dataset_format.facts_member(uid)]) != known(FACTS[stage], facts):
                yield f"{key}: {dataset_format.facts_member(uid)} is not its row of the table"
            contents.check_main(stage, content, run)
            if stage == VIEWS:
                contents.check_views({name.removeprefix(f"{uid}."): m for name, m in data.items()}, run)
                if images_sha256(data) != facts["images_sha256"]:
                    yield f"{key}: {uid}: its images are not those that the table tells"
        except Exception as fault:  # every way in which a sample can't be read is the finding
            yield f"{key}: {uid}: {type(fault).__name__}: {fault}"
            continue
        if data[dataset_format.caption_member(uid)] != str(facts["caption"]).encode():
            yield f"{key}: {dataset_format.caption_member(uid)} is not the object's caption"
        if stage == ATLAS:
            atlases.append(content)


def _sums(storage: Storage) -> Iterator[str]:
    """SHA256SUMS names every file of the dataset, and each is what it says."""
    data, success = _get(storage, SUMS), _get(storage, SUCCESS)
    if data is None or success is None:
        yield f"{SUMS if data is None else SUCCESS}: missing; the dataset is not finalized"
        return
    if success != dataset_format.sums_file({SUMS: sha256_of(data)}):
        yield f"{SUCCESS}: does not hold the sha256 of {SUMS}"
    sums = dataset_format.read_sums(data)
    there = {entry.key for entry in storage.list("") if layout.in_dataset(entry.key)}
    yield from (f"{key}: in {SUMS} and missing" for key in sorted(set(sums) - there))
    yield from (f"{key}: not in {SUMS}" for key in sorted(there - set(sums)))
    for key in sorted(there & set(sums)):
        if sha256_of(storage.get(key)) != sums[key]:
            yield f"{key}: its sha256 is not that of {SUMS}"


def _index(storage: Storage, run: Run) -> Iterator[str]:
    """The tables and index.json are what the shards give."""
    try:
        shards = range(run.n_shards)
        commits = {(stage, k): read_commit(storage, stage, k) for stage in run.families for k in shards}
        tables = tables_of(storage, run.n_shards, run.families)
        heads = {key: Head(0, sha256_of(storage.get(key))) for key in dataset_format.STATISTICS}
    except (PipelineError, NotFound) as fault:
        yield f"{dataset_format.INDEX}: cannot be judged: {fault}"
        return
    for key, schema, expected in (
        (dataset_format.METADATA, metadata_schema(run.families), tables.metadata),
        (dataset_format.QUARANTINE, QUARANTINE, tables.quarantine),
    ):
        try:
            if not same_rows(schema, storage.get(key), expected):
                yield f"{key}: not the rows of the shards"
        except (PipelineError, NotFound) as fault:
            yield f"{key}: {fault}"
    try:
        index = json_object(storage.get(dataset_format.INDEX), PipelineError)
        if index != index_of(run, commits, tables.totals, heads):
            yield f"{dataset_format.INDEX}: does not say what the shards hold"
    except (PipelineError, NotFound) as fault:
        yield f"{dataset_format.INDEX}: {fault}"


def _statistics(storage: Storage, run: Run) -> Iterator[str]:
    """Mean, standard deviation and what else is told of the arrays are those of the moments."""
    try:
        expected = merged_statistics((storage.get(layout.moments(k)) for k in range(run.n_shards)), run)
        there = {key: storage.get(key) for key in dataset_format.STATISTICS}
    except StoreError:
        raise
    except Exception as fault:  # every way in which moments can't be read is the finding
        yield f"{dataset_format.MEAN}: cannot be judged: {type(fault).__name__}: {fault}"
        return
    for key, data in there.items():
        if data != expected[key]:
            yield f"{key}: not that of the shards' moments"


def verify_sample(storage: Storage, run: Run, count: int, *, seed: int = 0) -> Iterator[str]:
    """Every fault that reading `count` objects back finds, as lines of text.

    Every shard's commit record is read, and its files are there with their sizes; of the drawn objects the
    arrays are read by one range read each, hashed and unpacked. What nobody drew may still be damaged.

    Args:
        storage: of the dataset.
        run: as run.json tells it.
        count: objects to draw, all if there are no more.
        seed: draws the same objects again.
    """
    if sha256_of(storage.get(layout.MANIFEST)) != run.identity["manifest_sha256"]:
        yield f"{layout.MANIFEST}: not the manifest of {layout.RUN}, so that no shard can be judged"
        return
    whole: set[tuple[str, int]] = set()
    for stage in run.families:
        for shard in range(run.n_shards):
            faults = list(_files(storage, stage, shard))
            yield from faults
            if not faults:
                whole.add((stage, shard))
    drawn: dict[int, list[int]] = defaultdict(list)
    size = run.settings.shard_size
    for index in sorted(random.Random(seed).sample(range(run.n_objects), min(count, run.n_objects))):
        drawn[index // size].append(index)
    for shard, indices in drawn.items():
        for stage in run.families:
            if (stage, shard) in whole:
                yield from _objects(storage, run, stage, shard, indices)


def _files(storage: Storage, stage: str, shard: int) -> Iterator[str]:
    commit = _committed(storage, stage, shard)
    if isinstance(commit, str):
        yield commit
        return
    for key, stored in commit["files"].items():
        try:
            nbytes = storage.size(key)
        except NotFound:
            yield f"{key}: missing"
            continue
        if nbytes != stored["nbytes"]:
            yield f"{key}: {nbytes} bytes, {stored['nbytes']} by the commit record"


def _objects(storage: Storage, run: Run, stage: str, shard: int, indices: list[int]) -> Iterator[str]:
    key = layout.stats(stage, shard)
    data = storage.get(key)
    if sha256_of(data) != read_commit(storage, stage, shard)["files"][key]["sha256"]:
        yield f"{key}: its sha256 is not that of the commit record"
        return
    rows: dict[int, Facts] = {r["index"]: r for r in from_parquet(STATS[stage], data).to_pylist()}
    manifest = {r["index"]: r["uid"] for r in shard_rows(storage, shard)}
    shard_key = dataset_format.shard_tar(stage, shard)
    for index in indices:
        facts = rows.get(index)
        if facts is None or facts["uid"] != manifest[index]:
            yield f"{key}: no row of object {index}, {manifest[index]}"
        elif facts["sample"] != -1:
            content = bytes(storage.read(shard_key, int(facts["offset"]), int(facts["nbytes"])))
            if sha256_of(content) != facts["sha256"]:
                yield f"{shard_key}: {facts['uid']}: its sha256 is not what the table says"
                continue
            try:
                contents.check_main(stage, content, run)
            except Exception as fault:  # every way in which a sample can't be read is the finding
                yield f"{shard_key}: {facts['uid']}: {type(fault).__name__}: {fault}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse verify`."""
    add_output(parser)
    add_shards(parser)
    parser.add_argument("--sample", type=int, help="read this many objects only, and check every file's size")
    parser.add_argument("--seed", type=int, default=0, help="seed that --sample draws objects with")
    add_overrides(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print every fault; returns the exit code, 1 if there is any."""
    storage, opened = open_output(args)
    if args.sample is not None:
        if args.sample < 1 or args.shards:
            raise UsageError("--sample: expected at least 1, and no --shards beside it")
        found = verify_sample(storage, opened, args.sample, seed=args.seed)
    else:
        chosen = ordered_shards(args.shards, opened.n_shards) if args.shards else None
        found = verify(storage, opened, shards=chosen)
    faults = []
    for line in found:
        faults.append(line)
        if not args.json:
            print(f"fault: {line}")
    if args.json:
        print(json.dumps({"url": storage.url, "faults": faults}))
    elif not faults:
        what = "every byte, sample and hash" if args.sample is None else "everything that was read"
        print(f"{storage.url}: {what} is right")
    return 1 if faults else 0
