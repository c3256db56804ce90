"""retry-failed: builds quarantined objects again, as a run of their own below the first run's output.

    <out>/revisions/001/    a complete run, with its own run.json, shards and `_SUCCESS`

No byte of the first run changes: a trainer that has read it reads the same again, and reads the rescued objects from
the revision. Revisions follow each other, each with the objects that are still quarantined after those before it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from gaussianverse.atlas.dataset_format import ATLAS, OK
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.manifests import runform
from gaussianverse.pipeline.arguments import add_building, add_manifest, add_output, building_config_of, open_output
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import layout, members, run_file, shards
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import committed_shards
from gaussianverse.pipeline.errors import PipelineError, RunConflict, UsageError
from gaussianverse.pipeline.node import machine
from gaussianverse.pipeline.ops import report
from gaussianverse.pipeline.policy import REASONS
from gaussianverse.pipeline.run import job
from gaussianverse.pipeline.run.manifest import Manifest, manifest_of
from gaussianverse.pipeline.store.probes import prove_conditional_puts


@dataclass(frozen=True)
class Revision:
    """A revision to work on."""

    number: int
    storage: Storage
    run: Run


def open_revision(
    storage: Storage, run: Run, manifest: Manifest, config: RunConfig, reasons: frozenset[str] = frozenset()
) -> Revision | None:
    """Open the last revision if it is incomplete, else a new one of the objects that are still quarantined.

    Args:
        storage: store of the run that is revised.
        run: that run, all of whose shards are committed.
        manifest: the manifest that it was made from.
        config: configuration of the revision; may differ from the run's.
        reasons: only objects quarantined for one of these; empty = all.

    Returns:
        The revision; None if there is no object to try again.

    Raises:
        RunConflict: another manifest, or an incomplete revision of other objects or another configuration.
        PipelineError: shards are missing.
        StoreError: the store cannot be used.
    """
    if sha256_of(manifest.data) != run.identity["manifest_sha256"]:
        raise RunConflict(f"{storage.url}: made from another manifest than the given one")
    if not _complete(storage, run):
        raise PipelineError(f"{storage.url}: not all shards are committed; finish the run first, then retry")
    failed = _states(storage, run)
    for number in range(1, layout.MAX_REVISIONS + 1):
        below = open_storage(f"{storage.url}/{layout.revision(number)}", config.store)
        try:
            revision = run_file.load(below)
        except NotFound:
            break
        if not _complete(below, revision):
            break
        failed |= _states(below, revision)
    else:
        raise PipelineError(f"{storage.url}: already has {layout.MAX_REVISIONS} revisions; start a new output")
    again = {uid for uid, reason in failed.items() if reason and (not reasons or reason in reasons)}
    if not again:
        return None
    prove_conditional_puts(below)
    rows = [runform.row_of(r) for k in run.shards for r in shard_rows(storage, run, k) if r["uid"] in again]
    data = runform.encode(rows, shard_size=run.settings.shard_size)
    identity = run_file.identity_of(data, config, members.representation(config.atlas))
    identity["revision_of"] = {"manifest_sha256": run.identity["manifest_sha256"], "revision": number}
    return Revision(number, below, run_file.establish(below, data, identity))


def _complete(storage: Storage, run: Run) -> bool:
    committed = committed_shards(storage)
    return all((stage, k) in committed for stage in run.families for k in run.shards)


def _states(storage: Storage, run: Run) -> dict[str, str]:
    """{uid: its reason of quarantine, "" if it was finished}."""
    found: dict[str, str] = {}
    for k in run.shards:
        table = shards.stats_table(storage, ATLAS, k).select(["uid", "status", "reason"])
        found |= {r["uid"]: "" if r["status"] == OK else r["reason"] for r in table.to_pylist()}
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse retry-failed`."""
    add_manifest(parser)
    add_output(parser)
    parser.add_argument("--reasons", default="", help="such as timeout,nan_loss; default: all")
    add_building(parser)


def run(args: argparse.Namespace) -> int:
    """Work on the next revision and print its table; returns the exit code."""
    config = building_config_of(args)
    reasons = frozenset(filter(None, args.reasons.split(",")))
    if unknown := sorted(reasons - set(REASONS)):
        raise UsageError(f"--reasons {', '.join(unknown)}: expected some of {', '.join(REASONS)}")
    storage, opened = open_output(args)
    manifest = manifest_of(args, config, opened.settings.shard_size)
    if not config.ray.address:
        machine.check_machine(config.fit)
    revision = open_revision(storage, opened, manifest, config, reasons)
    if revision is None:
        print(f"Nothing to do: no object of this run is quarantined{' for these reasons' if reasons else ''}.")
        return 0
    if not args.json:
        print(f"Revision {revision.number}: {revision.run.n_objects} objects")
    outcome = job.build(revision.storage, revision.run, config, manifest.base, events=args.events)
    return report.print_outcome(outcome, args)
