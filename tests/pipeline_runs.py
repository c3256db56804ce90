"""Small planned runs and made-up fragments, for tests that need no fits."""

from __future__ import annotations

from typing import Any

from manifests import runform
from manifests.schema import Row
from pipeline import identity, records
from pipeline.config import RunConfig
from pipeline.identity import Run, shard_rows
from pipeline.schemas import OK
from pipeline.storage import Storage


def manifest_row(index: int, uid: str, shard: int = 0) -> dict[str, Any]:
    return {
        "index": index, "uid": uid, "shard": shard, "views": f"views/{uid}", "format": "auto", "category": "",
        "license": "CC0-1.0", "caption": f"caption of {uid}: é", "caption_source": "hand", "source_id": "",
    }  # fmt: skip


def planned(storage: Storage, uids: list[str], shard_size: int = 256) -> Run:
    """A run whose objects do not exist."""
    rows = [Row(uid, f"views/{uid}", license="CC0-1.0", caption=f"caption of {uid}") for uid in uids]
    manifest = runform.encode(rows, shard_size=shard_size)
    config = RunConfig.from_tables({"run": {"shard_size": shard_size}, "atlas": {"size": 8}})
    representation = {"channels": ["x"], "dtype": "float32", "sphere_sha256": "", "plane_sha256": ""}
    return identity.establish(storage, manifest, identity.identity_of(manifest, config, representation))


def publish_one(
    storage: Storage, run: Run, stage: str, row: dict[str, Any], *, data: bytes | None, attempts: int = 1
) -> None:
    """A sample with these bytes, or a quarantine if there are none."""
    watch = records.Stopwatch(attempts)
    if data is None:
        why = {"reason": "bad_input", "error_class": "BadInput", "error_message": "it is bad"}
        records.publish_quarantine(storage, stage, row, run, why, watch)
    else:
        facts = records.facts_of(stage, row, run, status=OK)
        records.publish_sample(storage, stage, facts, data, watch, {"peak_mb": 1.0})


def publish_all(
    storage: Storage, run: Run, stage: str, *, quarantined: set[str] | None = None, attempts: int = 1
) -> None:
    """Fragments of every object of every shard."""
    for shard in range(run.n_shards):
        for row in shard_rows(storage, shard):
            data = None if row["uid"] in (quarantined or set()) else f"data of {row['uid']}".encode()
            publish_one(storage, run, stage, {**row, "shard": shard}, data=data, attempts=attempts)
