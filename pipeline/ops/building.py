"""Make a planned version: claim it, build its shards, finalize it, print what came of it."""

from __future__ import annotations

import argparse

from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import new_version
from gaussianverse.pipeline.dataset.new_version import Given
from gaussianverse.pipeline.node import machine
from gaussianverse.pipeline.ops import report
from gaussianverse.pipeline.run import job
from gaussianverse.pipeline.store.probes import prove_conditional_puts


def build_version(storage: Storage, given: Given, args: argparse.Namespace) -> int:
    """Begin the version or go on with it; returns the exit code.

    Raises:
        RunConflict: another plan has its number.
        PipelineError, StoreError: see `job.build`.
    """
    if not given.config.ray.address:
        machine.check_machine(given.config.fit)
    prove_conditional_puts(storage)
    run = new_version.begin(storage, given.parent, given.plan, given.identity, getattr(args, "note", ""))
    outcome = job.build(
        storage, run, given.config, given.base, shards=getattr(args, "shards", ""), events=args.events
    )
    return report.print_outcome(outcome, args)
