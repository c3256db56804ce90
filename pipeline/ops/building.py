"""Make a planned version: claim it, build its shards, finalize it, print what came of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import new_version
from gaussianverse.pipeline.dataset.new_version import Given
from gaussianverse.pipeline.node import machine
from gaussianverse.pipeline.ops import report
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run import job
from gaussianverse.pipeline.run.reuse import finished
from gaussianverse.pipeline.store.probes import prove_conditional_puts


def build_version(
    storage: Storage, given: Given, args: argparse.Namespace, *, reuse: Sequence[str] = (), code: str = ""
) -> int:
    """Begin the version or go on with it; returns the exit code.

    Args:
        storage: store of the output.
        given: what the version is made of.
        args: the options of `add_building`, `note`, and perhaps `shards`.
        reuse: addresses of outputs whose fits are taken over.
        code: digest of the code that must have made these; "" = any.

    Raises:
        UsageError: `shards` are none of the version's; nothing was written.
        RunConflict: another plan has its number.
        PipelineError, StoreError: see `job.build`.
    """
    shards = getattr(args, "shards", "")  # `retry-failed` has no --shards
    ordered_shards(shards, new_version.new_shards(given.parent, given.plan))
    for out in reuse:
        finished(out, given.config.store)
    if not given.config.ray.address:
        machine.check_machine(given.config.fit)
    prove_conditional_puts(storage)
    run = new_version.begin(storage, given.parent, given.plan, given.identity, args.note)
    outcome = job.build(
        storage, run, given.config, given.base, shards=shards, events=args.events, reuse=reuse, code_digest=code
    )
    return report.print_outcome(outcome, args)
