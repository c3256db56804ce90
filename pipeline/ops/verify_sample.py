"""verify --sample: checks the arrays of objects drawn at random, and the size of every file."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.members import check_main
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import read_commit, stats_from
from gaussianverse.pipeline.dataset.versions import Version, version_of
from gaussianverse.pipeline.ops.verify_shard import commit_or_fault, other_manifests


def verify_sample(storage: Storage, run: Run, count: int, *, seed: int = 0) -> Iterator[str]:
    """Yield the faults of a random sample of the objects of a run's version as lines of text.

    Every commit record is read, and the sizes of its files are checked. The arrays of `count` objects, drawn with
    `seed`, are read by one range read each, hashed and unpacked. Other objects may still be damaged.
    """
    version = version_of(storage, run)
    if texts := list(other_manifests(storage, version)):
        yield from texts
        return
    readable: set[tuple[str, int]] = set()
    for stage in run.families:
        for shard in version.shards:
            faults = list(_sizes(storage, stage, shard))
            yield from faults
            if not faults:
                readable.add((stage, shard))
    counts = [_counting(version, shard) for shard in version.shards]
    ends = list(accumulate(counts))
    drawn: dict[int, list[int]] = defaultdict(list)
    for number in sorted(random.Random(seed).sample(range(ends[-1]), min(count, ends[-1]))):
        place = bisect_right(ends, number)
        drawn[version.shards[place]].append(number - (ends[place] - counts[place]))
    for shard, numbers in drawn.items():
        for stage in run.families:
            if (stage, shard) in readable:
                yield from _objects(storage, version, stage, shard, numbers)


def _counting(version: Version, shard: int) -> int:
    """Number of rows of a shard that count."""
    return version.run_of(shard).objects_in(shard) - len(version.superseded.in_shard(shard))


def _sizes(storage: Storage, stage: str, shard: int) -> Iterator[str]:
    commit = commit_or_fault(storage, stage, shard)
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
            yield f"{key}: {nbytes} bytes, {stored['nbytes']} in the commit record"


def _objects(storage: Storage, version: Version, stage: str, shard: int, numbers: list[int]) -> Iterator[str]:
    """Check objects by their numbers among those of a shard that count."""
    key = layout.stats(stage, shard)
    data = storage.get(key)
    if sha256_of(data) != read_commit(storage, stage, shard)["files"][key]["sha256"]:
        yield f"{key}: its sha256 is not that of the commit record"
        return
    rows: dict[int, Facts] = {r["index"]: r for r in stats_from(stage, data).to_pylist()}
    run, lost = version.run_of(shard), set(version.superseded.in_shard(shard).tolist())
    manifest = {r["index"]: r["uid"] for r in shard_rows(storage, run, shard) if r["index"] not in lost}
    counting = sorted(manifest)
    shard_key = dataset_format.shard_tar(stage, shard)
    for index in (counting[number] for number in numbers):
        facts = rows.get(index)
        if facts is None or facts["uid"] != manifest[index]:
            yield f"{key}: no row for object {index}, {manifest[index]}"
        elif facts["sample"] != -1:
            content = bytes(storage.read(shard_key, int(facts["offset"]), int(facts["nbytes"])))
            if sha256_of(content) != facts["sha256"]:
                yield f"{shard_key}: {facts['uid']}: its sha256 differs from its row of the table"
                continue
            try:
                check_main(stage, content, run)
            except Exception as error:  # any error in reading a sample is a fault
                yield f"{shard_key}: {facts['uid']}: {type(error).__name__}: {error}"
