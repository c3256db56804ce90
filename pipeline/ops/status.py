"""status: shows the progress of a run, from the store alone, with or without a running driver."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from gaussianverse.atlas.dataset_format import ATLAS
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.arguments import add_reading, open_output
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.finalize import is_finalized
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import committed_shards, read_commit


def status_of(storage: Storage, run: Run) -> dict[str, Any]:
    """Progress of a run: objects and shards by stage, reasons of quarantine, whether it is finalized.

    Reasons come from committed shards; the objects of other shards are counted by their fragments.
    """
    committed = committed_shards(storage)
    stages: dict[str, Any] = {}
    reasons: Counter[str] = Counter()
    for stage in run.families:
        shards = sorted(k for family, k in committed if family == stage)
        done = samples = 0
        for shard in shards:
            commit = read_commit(storage, stage, shard)
            done, samples = done + commit["objects"], samples + commit["samples"]
            if stage == ATLAS:
                reasons.update(commit["quarantined"])
        work = (layout.parse_fragment(entry.key) for entry in storage.list(f"{layout.WORK}{stage}/"))
        uncommitted = sum(found is not None and found[:2] not in committed for found in work)
        stages[stage] = {
            "shards": len(shards),
            "objects": done + uncommitted,
            "samples": samples,
            "uncommitted_fragments": uncommitted,
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
    """Format the result of `status_of` for people."""
    lines = [f"{status['url']}: {status['objects']} objects in {status['shards']} shards"]
    for stage, counts in status["stages"].items():
        shards = f"{counts['shards']} of {status['shards']} shards committed"
        lines.append(f"  {stage:7} {counts['objects']:>8} objects done, {shards}")
    lines += [f"  quarantined: {count} {reason}" for reason, count in status["quarantined"].items()]
    lines.append("  finalized" if status["finalized"] else "  not finalized")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse status`."""
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status; returns the exit code."""
    found = status_of(*open_output(args))
    print(json.dumps(found) if args.json else status_text(found))
    return 0
