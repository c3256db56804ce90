"""verify --sample: checks the arrays of objects drawn at random, and the size of every file."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.members import check_main
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import read_commit, stats_from
from gaussianverse.pipeline.ops.verify_shard import commit_or_fault, other_manifest


def verify_sample(storage: Storage, run: Run, count: int, *, seed: int = 0) -> Iterator[str]:
    """Yield the faults of a random sample of objects as lines of text.

    Every commit record is read, and the sizes of its files are checked. The arrays of `count` objects, drawn with
    `seed`, are read by one range read each, hashed and unpacked. Other objects may still be damaged.
    """
    if text := other_manifest(storage, run):
        yield text
        return
    readable: set[tuple[str, int]] = set()
    for stage in run.families:
        for shard in run.shards:
            faults = list(_sizes(storage, stage, shard))
            yield from faults
            if not faults:
                readable.add((stage, shard))
    drawn: dict[int, list[int]] = defaultdict(list)
    size = run.settings.shard_size
    for index in sorted(random.Random(seed).sample(range(run.n_objects), min(count, run.n_objects))):
        drawn[index // size].append(index)
    for shard, indices in drawn.items():
        for stage in run.families:
            if (stage, shard) in readable:
                yield from _objects(storage, run, stage, shard, indices)


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


def _objects(storage: Storage, run: Run, stage: str, shard: int, indices: list[int]) -> Iterator[str]:
    key = layout.stats(stage, shard)
    data = storage.get(key)
    if sha256_of(data) != read_commit(storage, stage, shard)["files"][key]["sha256"]:
        yield f"{key}: its sha256 is not that of the commit record"
        return
    rows: dict[int, Facts] = {r["index"]: r for r in stats_from(stage, data).to_pylist()}
    manifest = {r["index"]: r["uid"] for r in shard_rows(storage, run, shard)}
    shard_key = dataset_format.shard_tar(stage, shard)
    for index in indices:
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
