"""inspect: prints everything that the store holds about one object."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.arguments import add_reading, open_output
from gaussianverse.pipeline.dataset import records
from gaussianverse.pipeline.dataset.manifest_rows import find_row
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import journal_rows, read_commit, stats_rows

_LEADS = "atlas_heldout_psnr"


def inspect(storage: Storage, run: Run, uid: str) -> dict[str, Any]:
    """Look up an object's row of the manifest, its atlas's PSNR, and each stage's facts, tar and journal entry.

    Raises:
        PipelineError: the manifest has no such object.
    """
    manifest_row, shard = find_row(storage, run, uid)
    found: dict[str, Any] = {"manifest": manifest_row, "shard": shard}
    stages = {stage: _stage(storage, stage, shard, uid) for stage in run.families}
    if _LEADS in stages[SPLATS]:
        found[_LEADS] = stages[SPLATS][_LEADS]
    return found | stages


def _stage(storage: Storage, stage: str, shard: int, uid: str) -> dict[str, Any]:
    try:
        read_commit(storage, stage, shard)
        facts = next(r for r in stats_rows(storage, stage, shard) if r["uid"] == uid)
        entry = next(r for r in journal_rows(storage, stage, shard) if r["uid"] == uid)
        return {"committed": True, "tar": dataset_format.shard_tar(stage, shard), **facts, "journal": entry}
    except NotFound:
        pass
    try:
        return {"committed": False, **records.read(storage, stage, shard, uid).facts}
    except NotFound:
        return {"committed": False, "status": "not done"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse inspect`."""
    parser.add_argument("uid")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print everything known about the object as JSON; returns the exit code."""
    found = inspect(*open_output(args), args.uid)
    print(json.dumps(found, indent=None if args.json else 1))
    return 0
