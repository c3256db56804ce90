"""verify --sample: a few objects read back, and everything that can be told without reading the rest."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.pack import read_commit
from gaussianverse.pipeline.dataset.run_file import Run, shard_rows
from gaussianverse.pipeline.dataset.schemas import STATS, Facts, from_parquet
from gaussianverse.pipeline.errors import NotFound
from gaussianverse.pipeline.ops.verify import Checks, committed
from gaussianverse.pipeline.store.storage import Storage, sha256_of


def spot_check(storage: Storage, run: Run, checks: Checks, count: int, *, seed: int = 0) -> Iterator[str]:
    """Faults found by drawing `count` objects: as lines of text, as `pipeline.ops.verify.verify` gives them.

    Every shard's commit record is read, and its files are there with their sizes; of the drawn objects the
    arrays are read by one range read each, hashed and unpacked. What nobody drew may still be damaged.

    Args:
        storage: of the dataset.
        run: as run.json tells it.
        checks: of the arrays.
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
                yield from _objects(storage, stage, shard, indices, checks)


def _files(storage: Storage, stage: str, shard: int) -> Iterator[str]:
    commit = committed(storage, stage, shard)
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


def _objects(storage: Storage, stage: str, shard: int, indices: list[int], checks: Checks) -> Iterator[str]:
    key = layout.stats(stage, shard)
    data = storage.get(key)
    if sha256_of(data) != read_commit(storage, stage, shard)["files"][key]["sha256"]:
        yield f"{key}: its sha256 is not that of the commit record"
        return
    rows: dict[int, Facts] = {r["index"]: r for r in from_parquet(STATS[stage], data).to_pylist()}
    manifest = {r["index"]: r["uid"] for r in shard_rows(storage, shard)}
    tar = layout.shard_tar(stage, shard)
    for index in indices:
        facts = rows.get(index)
        if facts is None or facts["uid"] != manifest[index]:
            yield f"{key}: no row of object {index}, {manifest[index]}"
        elif facts["sample"] != -1:
            content = storage.get_range(tar, int(facts["offset"]), int(facts["nbytes"]))
            if sha256_of(content) != facts["sha256"]:
                yield f"{tar}: {facts['uid']}: its sha256 is not what the table says"
                continue
            try:
                checks.main[stage](content)
            except Exception as fault:  # every way in which a sample can't be read is the finding
                yield f"{tar}: {facts['uid']}: {type(fault).__name__}: {fault}"
