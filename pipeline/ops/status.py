"""status and inspect: what the store says of a run, with or without a driver alive."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gaussianverse.pipeline.dataset import layout, records
from gaussianverse.pipeline.dataset.finalize import is_finalized
from gaussianverse.pipeline.dataset.pack import read_commit
from gaussianverse.pipeline.dataset.run_file import Run, find_row
from gaussianverse.pipeline.dataset.schemas import JOURNAL, from_parquet
from gaussianverse.pipeline.dataset.shards import stats_rows
from gaussianverse.pipeline.errors import NotFound
from gaussianverse.pipeline.store.storage import Storage


def status_of(storage: Storage, run: Run) -> dict[str, Any]:
    """How far a run is: objects and shards by stage, reasons of quarantine, whether it is finalized.

    Reasons are those of committed shards; what is not committed is counted by its fragments.
    """
    committed: dict[str, set[int]] = {stage: set() for stage in run.families}
    for entry in storage.list(layout.COMMITS):
        if found := layout.parse_commit(entry.key):
            committed[found[0]].add(found[1])
    stages: dict[str, Any] = {}
    reasons: Counter[str] = Counter()
    for stage in run.families:
        done = samples = 0
        for shard in sorted(committed[stage]):
            commit = read_commit(storage, stage, shard)
            done, samples = done + commit["objects"], samples + commit["samples"]
            if stage == layout.ATLAS:
                reasons.update(commit["quarantined"])
        work = (layout.parse_fragment(entry.key) for entry in storage.list(f"{layout.WORK}{stage}/"))
        waiting = sum(found is not None and found[1] not in committed[stage] for found in work)
        stages[stage] = {
            "shards": len(committed[stage]),
            "objects": done + waiting,
            "samples": samples,
            "uncommitted_fragments": waiting,
        }
    return {
        "url": storage.url,
        "objects": run.n_objects,
        "shards": run.n_shards,
        "config_digest": run.digest,
        "stages": stages,
        "quarantined": dict(reasons.most_common()),
        "finalized": is_finalized(storage),
    }


def status_text(status: dict[str, Any]) -> str:
    """`status_of` for people."""
    lines = [f"{status['url']}: {status['objects']} objects in {status['shards']} shards"]
    for stage, counts in status["stages"].items():
        shards = f"{counts['shards']} of {status['shards']} shards committed"
        lines.append(f"  {stage:7} {counts['objects']:>8} objects done, {shards}")
    lines += [f"  quarantined: {count} {reason}" for reason, count in status["quarantined"].items()]
    lines.append("  finalized" if status["finalized"] else "  not finalized")
    return "\n".join(lines)


def inspect(storage: Storage, run: Run, uid: str) -> dict[str, Any]:
    """All that the store knows of one object: its row, each stage's facts, where its bytes lie.

    Raises:
        PipelineError: the manifest has no such object.
    """
    manifest_row, shard = find_row(storage, run, uid)
    found: dict[str, Any] = {"manifest": manifest_row, "shard": shard}
    for stage in run.families:
        found[stage] = _stage(storage, stage, shard, uid)
    return found


def _stage(storage: Storage, stage: str, shard: int, uid: str) -> dict[str, Any]:
    try:
        read_commit(storage, stage, shard)
        facts = next(r for r in stats_rows(storage, stage, shard) if r["uid"] == uid)
        entries = from_parquet(JOURNAL[stage], storage.get(layout.journal(stage, shard))).to_pylist()
        entry = next(r for r in entries if r["uid"] == uid)
        return {"committed": True, "tar": layout.shard_tar(stage, shard), **facts, "journal": entry}
    except NotFound:
        pass
    try:
        return {"committed": False, **records.read(storage, stage, shard, uid).facts}
    except NotFound:
        return {"committed": False, "status": "not done"}
