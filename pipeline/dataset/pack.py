"""A shard from its fragments: concatenation in the manifest's order, then the tables, then the commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SCHEMA_VERSION, VIEWS
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of
from gaussianverse.atlas.tar import END, index
from gaussianverse.pipeline.dataset import layout, records
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.parquet import to_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import JOURNAL, STATS, Facts, row
from gaussianverse.pipeline.dataset.shards import read_commit, stats_rows
from gaussianverse.pipeline.dataset.statistics import moments_of
from gaussianverse.pipeline.errors import FragmentError
from gaussianverse.pipeline.store.publish import publish, publish_exact

Fetch = Callable[[str], bytes]
"""An object's uid to its fragment; NotFound where there is none."""


@dataclass(frozen=True)
class Assembled:
    """A shard in memory: the tar, its table, where each main member lies in the tar, and where it came from.

    Attributes:
        tar: the whole archive.
        rows: of the shard's table, in the manifest's order.
        digests: hex sha256 of each object's fragment, the quarantined included.
    """

    tar: bytearray
    rows: list[Facts]
    digests: list[str]

    def mains(self) -> Iterator[bytes]:
        """The main members, in the tar's order."""
        for facts in self.rows:
            if facts["sample"] != -1:
                yield bytes(self.tar[int(facts["offset"]) : int(facts["offset"]) + int(facts["nbytes"])])


def assemble(stage: str, shard: int, uids: Sequence[str], fetch: Fetch) -> Assembled:
    """Join fragments in the order of `uids`, leaving out the quarantined.

    One fragment is in memory at a time, beside the tar that they become.

    Args:
        stage: of the fragments.
        shard: its number.
        uids: the shard's objects in the manifest's order.
        fetch: an object's fragment, or NotFound.

    Raises:
        FragmentError: some are missing, damaged, or somebody else's.
    """
    tar, rows, digests, missing, sample = bytearray(), list[Facts](), list[str](), list[str](), 0
    for uid in uids:
        try:
            data = fetch(uid)
        except NotFound:
            missing.append(uid)
            continue
        if missing:  # nothing comes of this shard: only look who else is missing
            continue
        record = records.parse(stage, shard, uid, data)
        address: dict[str, Any] = {"sample": -1, "offset": -1, "nbytes": 0, "sha256": ""}
        if record.ok:
            name = dataset_format.main_member(stage, uid)
            member = next(m for m in index(data) if m.name == name)
            address = {
                "sample": sample,
                "offset": len(tar) + member.offset,
                "nbytes": member.nbytes,
                "sha256": sha256_of(record.members[name]),
            }
            tar += data
            sample += 1
        rows.append(row(STATS[stage], {**record.facts, **address}))
        digests.append(sha256_of(data))
    if missing:
        raise FragmentError(
            f"shard {shard}, {stage}: no fragment of {', '.join(missing[:5])} ({len(missing)})"
        )
    tar += END
    return Assembled(tar, rows, digests)


def pack(storage: Storage, run: Run, stage: str, shard: int) -> dict[str, Any]:
    """Publish a shard of one stage; the commit record comes last. Returns that record.

    Doing it twice, or in two places at once, gives the same bytes under the same keys. A shard that exists is
    left alone: its fragments may be gone.

    Args:
        storage: of the run.
        run: the run.
        stage: of the run's families; "views" only once the shard of the atlases exists.
        shard: its number; every object of it has its fragment.

    Raises:
        FragmentError: a fragment is missing or damaged.
        ShardConflict: a key holds other bytes.
    """
    with suppress(NotFound):
        return read_commit(storage, stage, shard)
    try:
        return _pack(storage, run, stage, shard)
    except FragmentError:
        with suppress(NotFound):  # somebody else has packed it meanwhile, and cleaned up
            return read_commit(storage, stage, shard)
        raise


def _pack(storage: Storage, run: Run, stage: str, shard: int) -> dict[str, Any]:
    uids = [str(r["uid"]) for r in shard_rows(storage, shard)]
    assembled = assemble(stage, shard, uids, _fetch(storage, stage, shard))
    files: dict[str, Head] = {}

    def put(key: str, data: bytes | bytearray) -> None:
        files[key] = publish_exact(storage, key, data)

    put(dataset_format.shard_tar(stage, shard), assembled.tar)
    put(layout.stats(stage, shard), to_parquet(STATS[stage], assembled.rows))
    if stage == ATLAS:
        put(layout.moments(shard), moments_of(assembled.mains(), run))
    entries = [
        records.read_entry(storage, stage, facts, digest)
        for facts, digest in zip(assembled.rows, assembled.digests, strict=True)
    ]
    publish(storage, layout.journal(stage, shard), to_parquet(JOURNAL[stage], entries, checksums=True))
    commit = commit_record(run, stage, shard, assembled.rows, files)
    publish_exact(storage, layout.commit(stage, shard), (json.dumps(commit, indent=1) + "\n").encode())
    return commit


def _fetch(storage: Storage, stage: str, shard: int) -> Fetch:
    """Where the fragments of a shard come from.

    Views were published before the fit that they go with, and nobody gives them up for themselves: which
    objects have a sample is what the committed atlases say, so that both families hold the same ones.
    """
    if stage != VIEWS:
        return lambda uid: storage.get(layout.fragment(stage, shard, uid))
    read_commit(storage, ATLAS, shard)  # its table counts only once the shard exists
    lost = {r["uid"]: r for r in stats_rows(storage, ATLAS, shard) if r["sample"] == -1}

    def fetch(uid: str) -> bytes:
        if uid in lost:
            return records.given_up(stage, lost[uid])
        return storage.get(layout.fragment(stage, shard, uid))

    return fetch


def commit_record(
    run: Run, stage: str, shard: int, rows: Sequence[Facts], files: Mapping[str, Head]
) -> dict[str, Any]:
    """What `_commits/` holds: the shard's files with their hashes, and how many objects came through."""
    ok = sum(facts["sample"] != -1 for facts in rows)
    reasons: dict[str, int] = {}
    for facts in rows:
        if facts["sample"] == -1:
            reasons[str(facts["reason"])] = reasons.get(str(facts["reason"]), 0) + 1
    return {
        "schema_version": SCHEMA_VERSION,
        "config_digest": run.digest,
        "stage": stage,
        "shard": shard,
        "objects": len(rows),
        "samples": ok,
        "quarantined": dict(sorted(reasons.items())),
        "files": {k: {"nbytes": h.nbytes, "sha256": h.sha256} for k, h in sorted(files.items())},
    }
