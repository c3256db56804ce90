"""inspect: prints everything that the store holds about one object."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pyarrow.compute as pc

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.arguments import add_reading, open_dataset
from gaussianverse.pipeline.dataset import records
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import journal_rows, read_commit, stats_rows
from gaussianverse.pipeline.dataset.versions import Version, version_of
from gaussianverse.pipeline.errors import NoObject, PipelineError

_LEADS = "atlas_heldout_psnr"


def inspect(storage: Storage, run: Run, uid: str) -> dict[str, Any]:
    """Look up an object's row of the manifest, its atlas's PSNR, and each stage's facts, tar and journal entry.

    Args:
        storage: store of the output.
        run: the run of the version.
        uid: of the object.

    Raises:
        PipelineError: the version has no such object.
    """
    version = version_of(storage, run)
    before = _before(version, uid)
    try:
        manifest_row, shard = version.find(storage, uid)
    except NoObject as error:
        if not before:
            raise
        last = before[-1]
        raise NoObject(f"{error}: {last['change']} in version {last['since']}") from error
    found: dict[str, Any] = {"manifest": manifest_row, "shard": shard}
    found |= {"superseded": before} if before else {}
    stages = {stage: _stage(storage, stage, shard, uid) for stage in run.families}
    if _LEADS in stages[SPLATS]:
        found[_LEADS] = stages[SPLATS][_LEADS]
    return found | stages


def _before(version: Version, uid: str) -> list[dict[str, Any]]:
    """The rows of an object that no longer count, and why."""
    if version.superseded.table is None:
        return []
    table = version.superseded.table.select(["uid", "shard", "index", "since", "change"])
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["uid"], uid)).to_pylist()
    return [{name: value for name, value in row.items() if name != "uid"} for row in rows]


def _stage(storage: Storage, stage: str, shard: int, uid: str) -> dict[str, Any]:
    try:
        read_commit(storage, stage, shard)
        facts = next(r for r in stats_rows(storage, stage, shard) if r["uid"] == uid)
        there = {"committed": True, "tar": dataset_format.shard_tar(stage, shard), **facts}
    except NotFound:
        pass
    else:
        try:
            entries = [r for r in journal_rows(storage, stage, shard) if r["uid"] == uid]
        except (NotFound, PipelineError):
            entries = []  # a journal is not part of the dataset
        return {**there, "journal": entries[0]} if entries else there
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
    storage, version = open_dataset(args, begun=True)
    found = inspect(storage, version.run, args.uid)
    print(json.dumps(found, indent=None if args.json else 1))
    return 0
